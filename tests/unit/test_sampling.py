"""The draw: a true sample of the softmax, the same everywhere, and the fast way equal to the plain one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pares.inference.sampling import FullDraw, draw, gumbel, log_probabilities, most_likely, noise_bits, noise_key, top

VOCABULARY = 500
EVERYTHING = np.arange(VOCABULARY, dtype=np.int32)
logits_of = arrays.arrays(np.float32, VOCABULARY, elements=st.floats(-40, 40, width=32))
FULL = FullDraw(VOCABULARY)


@settings(max_examples=300, deadline=None)
@given(logits=logits_of, seed=st.integers(0, 2**63 - 1), position=st.integers(0, 2**20))
def test_drawing_from_all_equals_drawing_among_all_candidates(
    logits: np.ndarray[tuple[int], np.dtype[np.float32]], seed: int, position: int
) -> None:
    assert FULL(logits, seed=seed, position=position) == draw(EVERYTHING, logits, seed=seed, position=position)


@settings(max_examples=100, deadline=None)
@given(logits=logits_of, seed=st.integers(0, 2**63 - 1), data=st.data())
def test_the_order_of_candidates_and_hopeless_ones_do_not_change_the_draw(
    logits: np.ndarray[tuple[int], np.dtype[np.float32]], seed: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(VOCABULARY))), np.int32)
    drawn = draw(EVERYTHING, logits, seed=seed, position=7)
    assert draw(order, logits[order], seed=seed, position=7) == drawn
    kept = order[(logits[order] > logits.min()) | (order == drawn)]
    assert draw(kept, logits[kept], seed=seed, position=7) == drawn


def test_the_noise_of_a_place_is_fixed_for_all_time() -> None:
    assert noise_key(0, 0) == 0x48218226FF3CD4BF
    bits = noise_bits(noise_key(42, 1000), np.array([0, 1, 49151], np.int32)).tolist()
    assert bits == [1968739543002730, 4486636289638184, 513853522798120]


def test_draws_follow_the_softmax() -> None:
    logits = np.full(VOCABULARY, -30, np.float32)
    logits[:4] = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    drawn = [FULL(logits, seed=1, position=p) for p in range(20_000)]
    shares = np.bincount(drawn, minlength=VOCABULARY)[:4] / len(drawn)
    assert np.abs(shares - [0.5, 0.25, 0.15, 0.1]).max() < 0.012, "4 standard errors of 20,000 draws"


def test_positions_and_seeds_have_noise_of_their_own() -> None:
    flat = np.zeros(VOCABULARY, np.float32)
    by_position = {FULL(flat, seed=1, position=p) for p in range(200)}
    by_seed = {FULL(flat, seed=s, position=1) for s in range(200)}
    assert min(len(by_position), len(by_seed)) > 120, "about 165 of 500 are expected"


def test_gumbel_noise_is_finite_at_both_ends() -> None:
    assert np.isfinite(gumbel(np.array([0, 2**52 - 1], np.uint64))).all()


@given(logits=logits_of)
def test_greedy_is_the_first_largest(logits: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    assert most_likely(logits) == int(np.flatnonzero(logits == logits.max())[0])


@given(logits=logits_of, count=st.integers(0, VOCABULARY + 5))
def test_top_is_sorted_and_log_probabilities_sum_to_one(
    logits: np.ndarray[tuple[int], np.dtype[np.float32]], count: int
) -> None:
    best = top(logits, count)
    assert logits[best].tolist() == sorted(logits.tolist(), reverse=True)[:count]
    assert len(set(best.tolist())) == min(count, VOCABULARY)
    assert abs(np.exp(log_probabilities(logits, EVERYTHING)).sum() - 1) < 1e-4
