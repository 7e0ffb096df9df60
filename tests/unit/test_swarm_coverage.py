from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pares.swarm.coverage import (
    bytes_in,
    count,
    covers,
    difference,
    everything,
    intersection,
    piece_map,
    pieces_over,
    runs,
    runs_of,
    union,
)
from pares.swarm.merkle import piece_length

numbers = st.frozensets(st.integers(0, 60))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20))
def test_any_ranges_become_runs_in_order_that_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    found = runs(ranges)
    assert all(first < after for first, after in found)
    assert all(left[1] < right[0] for left, right in pairwise(found))
    assert runs(found) == found
    assert found == runs_of(number for each in ranges for number in range(*each))


@given(left=numbers, right=numbers)
def test_runs_are_sets(left: frozenset[int], right: frozenset[int]) -> None:
    a, b = runs_of(left), runs_of(right)
    assert union(a, b) == runs_of(left | right)
    assert intersection(a, b) == runs_of(left & right)
    assert difference(a, b) == runs_of(left - right)
    assert covers(a, b) == (left >= right)
    assert count(a) == len(left)


@given(size=st.integers(1, 40 << 20), first=st.integers(0, 40 << 20), length=st.integers(0, 40 << 20))
def test_pieces_over_bytes_hold_them_with_less_than_a_piece_at_each_edge(size: int, first: int, length: int) -> None:
    wanted = (min(first, size), min(first + length, size))
    found = pieces_over([wanted], size)
    asked = wanted[1] - wanted[0]
    assert bytes_in(everything(size), size) == size
    if not asked:
        assert found == ()
        return
    piece = piece_length(size)
    ((start, after),) = found
    assert start * piece <= wanted[0]
    assert wanted[1] <= after * piece
    assert asked <= bytes_in(found, size) < asked + 2 * piece


@given(have=numbers, wanted=numbers)
def test_the_text_says_of_each_piece_what_it_is(have: frozenset[int], wanted: frozenset[int]) -> None:
    said = "".join(mark[-1] * int(mark[:-1]) for mark in piece_map(runs_of(have), runs_of(wanted), 61).split())
    assert said == "".join("+" if n in have else "-" if n in wanted else "~" for n in range(61))


def test_the_text_is_short() -> None:
    assert piece_map(((0, 12), (15, 55)), ((0, 60),), 100) == "12+ 3- 40+ 5- 40~"
    assert piece_map((), (), 0) == ""
