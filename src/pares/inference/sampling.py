"""The draw: the same token for the same logits, seed and position, on every machine. Pure.

A sample of softmax(logits) is `argmax(logits + Gumbel noise)` (Gumbel-max, e.g. Maddison et al. 2014). The noise comes
from a counter, not from a stream: `PRF(seed, position, token)`, so a draw can be repeated, checked or replayed alone,
and a drafted token is accepted exactly when it is the one drawn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Tokens = NDArray[np.int32]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

NEAR = 6.0
"""Logits this far below the largest are looked at only if their noise is exceptional: P(Gumbel > 6) is 0.25 %."""


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def noise_key(seed: int, position: int) -> int:
    """64 bits that select the noise of one position of one generation."""
    return _mix((_mix((seed + _GOLDEN) & _MASK) + position * _GOLDEN) & _MASK)


def noise_bits(key: int, tokens: NDArray[np.integer]) -> NDArray[np.uint64]:
    """52 uniform bits per token: output number `token` of SplitMix64 (Steele, Lea and Flood 2014) from state `key`."""
    x = tokens.astype(np.uint64)
    x += np.uint64(1)
    x *= np.uint64(_GOLDEN)
    x += np.uint64(key)
    x ^= x >> np.uint64(30)
    x *= np.uint64(_MIX_1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_MIX_2)
    x ^= x >> np.uint64(31)
    x >>= np.uint64(12)
    return x


def gumbel(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Standard Gumbel noise from 52 uniform bits: with the half added, still exact in float64 and never 0 or 1."""
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-52
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _least_winner(tokens: NDArray[np.integer], scores: NDArray[np.float64]) -> int:
    best = scores.max()
    return int(tokens[scores == best].min())


def draw(tokens: Tokens, logits: Logits, *, seed: int, position: int) -> int:
    """Draw among candidates with `logits` (float32, any scale a softmax takes). Ties go to the lower token."""
    noise = gumbel(noise_bits(noise_key(seed, position), tokens))
    return _least_winner(tokens, logits.astype(np.float64) + noise)


class FullDraw:
    """Gives what `draw` gives for a whole vocabulary, without the logarithms of hopeless tokens. Keeps its buffers."""

    def __init__(self, vocabulary_size: int) -> None:
        self._steps = np.arange(1, vocabulary_size + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        self._bits = np.empty(vocabulary_size, np.uint64)
        self._shifted = np.empty(vocabulary_size, np.uint64)

    def __call__(self, logits: Logits, *, seed: int, position: int) -> int:
        """The drawn token for logits of the whole vocabulary."""
        bits = self._noise_bits(noise_key(seed, position))
        near_limit = logits.max() - np.float32(NEAR)
        near = np.flatnonzero(logits >= near_limit)
        scores = logits[near].astype(np.float64) + gumbel(bits[near])
        # A far token needs more noise than this to beat the best near one. exp(-exp(-g)) inverts the noise; one part in
        # 1e9 of slack keeps its rounding from losing a winner.
        needed = math.exp(-math.exp(-(float(scores.max()) - float(near_limit)))) * (1 - 1e-9)
        lucky = np.flatnonzero(bits > np.uint64(int(needed * 2.0**52)))
        if lucky.size:
            scores = np.concatenate([scores, logits[lucky].astype(np.float64) + gumbel(bits[lucky])])
            near = np.concatenate([near, lucky])
        return _least_winner(near, scores)

    def _noise_bits(self, key: int) -> NDArray[np.uint64]:
        bits, shifted = self._bits, self._shifted
        np.add(self._steps, np.uint64(key), out=bits)
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            np.right_shift(bits, np.uint64(shift), out=shifted)
            np.bitwise_xor(bits, shifted, out=bits)
            np.multiply(bits, np.uint64(factor), out=bits)
        np.right_shift(bits, np.uint64(31), out=shifted)
        np.bitwise_xor(bits, shifted, out=bits)
        return np.right_shift(bits, np.uint64(12), out=bits)


def most_likely(logits: Logits) -> int:
    """The largest logit; ties go to the lower token."""
    return int(logits.argmax())


def log_probabilities(logits: Logits, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Natural log-probabilities of `tokens` under softmax(logits)."""
    peak = float(logits.max())
    total = float(np.exp(logits - np.float32(peak), dtype=np.float32).sum(dtype=np.float64))
    chosen: NDArray[np.float64] = logits[tokens].astype(np.float64) - peak - math.log(total)
    return chosen


def top(logits: Logits, count: int) -> Tokens:
    """The `count` most likely tokens, most likely first; ties: lower token first."""
    count = min(count, logits.size)
    if count == 0:
        return np.empty(0, np.int32)
    chosen = np.argpartition(logits, logits.size - count)[logits.size - count :]
    return chosen[np.lexsort((chosen, -logits[chosen]))].astype(np.int32)
