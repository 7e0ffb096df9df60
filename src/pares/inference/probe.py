"""The load-time probe: what on this machine does a row's bits depend on, and which machines compute the same bits.

llama.cpp picks its kernels by the number of rows in a batch, and a difference in the last bit of one kernel is a few
per cent of a logit some layers later: results are bit equal or clearly different. So a prompt of 64 tokens and 8 more
rows tell: computed in other shapes, are the logits that come after them the same?
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from pares.inference.generation import Profile
from pares.inference.llama import Context, Floats, NoRoom
from pares.inference.pipe import Probe

PROMPT = 64
ROWS = 8
BLOCKS = (8, 16, 32)


def probe(context: Context, profile: Profile, *, threads: int) -> Probe:
    """Measure a context that holds nothing; it holds nothing afterwards. `threads` is what it runs with."""
    tokens = _tokens(context.weights.vocabulary_size)
    try:
        reference = _logits(context, tokens, [PROMPT], [1] * ROWS)
        fingerprint = hashlib.sha256(profile.encode() + reference.tobytes()).hexdigest()
        if profile == "fast":
            return Probe(fingerprint)
        return _measure(context, tokens, reference, fingerprint, threads)
    except NoRoom:
        return Probe("", f"the context is too small for the probe ({PROMPT + ROWS} tokens)")
    finally:
        context.clear()


def _measure(context: Context, tokens: NDArray[np.int32], reference: Floats, fingerprint: str, threads: int) -> Probe:
    def same(chunks: list[int]) -> bool:
        return bool((_logits(context, tokens, chunks, [1] * ROWS) == reference).all())

    if not np.isfinite(reference).all():
        return Probe(fingerprint, "its logits are not finite numbers")
    context.set_threads(1)
    repeated = same([PROMPT])
    context.set_threads(threads)
    if not repeated:
        why = "the number of threads changes the bits" if threads > 1 else "repeating a computation changes its bits"
        return Probe(fingerprint, why)
    block = next((b for b in BLOCKS if all(same(chunks) for chunks in _cuts(b))), 0)
    if not block:
        return Probe(fingerprint, "the size of the batch that a prompt is read in changes the bits")
    if context.slots < 2:
        return Probe(fingerprint, "", block, 1)
    context.clear()
    _run(context, tokens, 0, PROMPT, wanted=0)
    small = 1
    while small < ROWS and _same_in_windows(context, tokens, reference, small + 1):
        small += 1
    if not _same_beside_others(context, tokens, reference, small):
        small = 1
    return Probe(fingerprint, "", block, small)


def _cuts(block: int) -> list[list[int]]:
    return [[block] * (PROMPT // block), [PROMPT - block, block], [block, PROMPT - block]]


def _tokens(vocabulary_size: int) -> NDArray[np.int32]:
    """Tokens from all over the vocabulary, the same for everyone."""
    steps = np.arange(1, PROMPT + ROWS + 1, dtype=np.int64) * 7919
    return (steps % max(vocabulary_size - 1, 1)).astype(np.int32)


def _logits(context: Context, tokens: NDArray[np.int32], chunks: list[int], rows: list[int]) -> Floats:
    """Logits (ROWS x vocabulary) of the last rows after the prompt went in such chunks."""
    context.clear()
    start = 0
    for size in chunks:
        _run(context, tokens, start, size, wanted=0)
        start += size
    parts = []
    for size in rows:
        _run(context, tokens, start, size, wanted=1)
        parts.append(context.logits(size).copy())
        start += size
    return np.concatenate(parts)


def _run(context: Context, tokens: NDArray[np.int32], start: int, size: int, *, wanted: int, slot: int = 0) -> None:
    positions = np.arange(start, start + size, dtype=np.int32)
    rows = tokens[start : start + size]
    context.compute(rows, positions, np.full(size, slot, np.int32), np.full(size, wanted, np.int8))


def _same_in_windows(context: Context, tokens: NDArray[np.int32], reference: Floats, window: int) -> bool:
    """Are the last rows the same if they are computed `window` at a time? Slot 0 holds the prompt, and keeps it."""
    context.copy(0, 1, PROMPT)
    alike = True
    for start in range(0, ROWS, window):
        size = min(window, ROWS - start)
        _run(context, tokens, PROMPT + start, size, wanted=1, slot=1)
        alike = alike and bool((context.logits(size) == reference[start : start + size]).all())
    context.truncate(1, 0)
    return alike


def _same_beside_others(context: Context, tokens: NDArray[np.int32], reference: Floats, small: int) -> bool:
    """Is a row the same in a batch of `small` that it shares with rows of another slot? Slot 0 holds the prompt."""
    context.copy(0, 1, PROMPT)
    slots = np.minimum(np.arange(small, dtype=np.int32), 1)
    for step in range(ROWS):
        rows = np.repeat(tokens[PROMPT + step], small)
        rows[1:] += 1
        beside = PROMPT + step * (small - 1)
        positions = np.concatenate([[PROMPT + step], np.arange(beside, beside + small - 1)]).astype(np.int32)
        context.compute(rows, positions, slots, np.ones(small, np.int8))
        if not (context.logits(small)[0] == reference[step]).all():
            return False
    return True
