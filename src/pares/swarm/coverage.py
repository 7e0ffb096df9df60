"""Runs: which pieces of a file, or which of its bytes, are meant. Pure.

A set of numbers as ranges `[first, after last)` that are in order, not empty, and neither overlap nor touch, so that
equal sets are equal values. What a torrent of 100,000 pieces has is mostly a handful of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from pares.swarm.merkle import piece_length, pieces

Runs = tuple[tuple[int, int], ...]


def runs(ranges: Iterable[tuple[int, int]]) -> Runs:
    """Any ranges as runs: empty ones are left out, those that overlap or touch become one."""
    joined: list[tuple[int, int]] = []
    for first, after in sorted(each for each in ranges if each[0] < each[1]):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(after, joined[-1][1]))
        else:
            joined.append((first, after))
    return tuple(joined)


def runs_of(numbers: Iterable[int]) -> Runs:
    """The numbers one by one, in any order."""
    return runs((number, number + 1) for number in numbers)


def everything(size: int) -> Runs:
    """All pieces of a file of so many bytes."""
    return ((0, pieces(size)),) if size else ()


def union(*several: Runs) -> Runs:
    """What is in any of them."""
    return runs(chain.from_iterable(several))


def intersection(left: Runs, right: Runs) -> Runs:
    """What is in both."""
    both: list[tuple[int, int]] = []
    mine, theirs = iter(left), iter(right)
    a, b = next(mine, None), next(theirs, None)
    while a and b:
        both.append((max(a[0], b[0]), min(a[1], b[1])))
        if a[1] < b[1]:
            a = next(mine, None)
        else:
            b = next(theirs, None)
    return runs(both)


def difference(left: Runs, right: Runs) -> Runs:
    """What is in `left` and not in `right`."""
    if not left:
        return ()
    edges = chain([left[0][0]], chain.from_iterable(right), [left[-1][1]])
    gaps = zip(edges, edges, strict=True)  # from the end of one run of `right` to the start of the next
    return intersection(left, runs(gaps))


def count(these: Runs) -> int:
    """How many numbers are in them."""
    return sum(after - first for first, after in these)


def covers(have: Runs, wanted: Runs) -> bool:
    """Whether all that is wanted is there."""
    return not difference(wanted, have)


def bytes_in(these: Runs, size: int) -> int:
    """Bytes of these pieces of a file of `size` bytes; its last piece may be short."""
    length = piece_length(size)
    return sum(min(after * length, size) - first * length for first, after in these)


def pieces_over(ranges: Iterable[tuple[int, int]], size: int) -> Runs:
    """The pieces in which these byte ranges of a file of `size` bytes lie."""
    length = piece_length(size)
    return runs((first // length, -(-after // length)) for first, after in ranges if first < after)


def piece_map(have: Runs, wanted: Runs, total: int) -> str:
    """All pieces in order, for the API: `12+ 3- 40~` is twelve here, three wanted and missing, forty not wanted."""
    missing = difference(wanted, have)
    unwanted = difference(((0, total),), union(have, missing))
    marked = chain(*([(*run, mark) for run in these] for these, mark in ((have, "+"), (missing, "-"), (unwanted, "~"))))
    return " ".join(f"{after - first}{mark}" for first, after, mark in sorted(marked))
