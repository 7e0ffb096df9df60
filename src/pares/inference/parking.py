"""Rows of conversations at rest, kept outside the KV cache. Pure: what lies where, not the bytes themselves.

In a KV cache that all sequences share, attention walks over the cells of those at rest too. So they are copied out when
somebody else begins, and copied back when their conversation goes on, which takes far less than computing them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

LEAST = 32
"""Fewer rows are computed again as fast as they are copied."""


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """The rows of `tokens`, computed with `adapter`."""

    key: int
    tokens: Tokens
    adapter: str

    @property
    def length(self) -> int:
        return len(self.tokens)


class Parking:
    """What was parked last, up to a size of `rows`. An entry counts as its rows and `each`, for a recurrent state."""

    def __init__(self, rows: int, each: int = 0) -> None:
        self._limit, self._each = rows, each
        self._keys = count()
        self._entries: dict[int, Parked] = {}

    def takes(self, length: int) -> bool:
        """Whether so many rows of one sequence are worth parking, and fit."""
        return LEAST <= length <= self._limit - self._each

    def park(self, tokens: Tokens, adapter: str) -> tuple[Parked, list[Parked]]:
        """A place for these rows (which it `takes`), and the entries that have to go for it: the oldest, and those
        that it goes on from."""
        shorter = [p for p in self._entries.values() if p.adapter == adapter and _common(p.tokens, tokens) == p.length]
        for parked in shorter:
            del self._entries[parked.key]
        entry = Parked(next(self._keys), tokens.copy(), adapter)
        return entry, shorter + self.put_back(entry)

    def best(self, tokens: Tokens, adapter: str, *, whole: bool) -> tuple[Parked | None, int]:
        """The entry with the most first rows in common with `tokens`, and how many. `whole`: all of them or nothing."""
        best: tuple[Parked | None, int] = (None, 0)
        for parked in self._entries.values():
            if parked.adapter != adapter:
                continue
            rows = _common(parked.tokens, tokens)
            if rows > best[1] and (rows == parked.length or not whole):
                best = (parked, rows)
        return best

    def take(self, parked: Parked) -> None:
        """Out of the list, so that nothing displaces it: it is about to be copied into the KV cache."""
        del self._entries[parked.key]

    def put_back(self, parked: Parked) -> list[Parked]:
        """Into the list, as the one used last; what has to go for it."""
        gone = []
        self._entries[parked.key] = parked
        while sum(entry.length + self._each for entry in self._entries.values()) > self._limit:
            gone.append(self._entries.pop(next(iter(self._entries))))
        return gone


def _common(held: Tokens, tokens: Tokens) -> int:
    """How many first tokens are the same."""
    span = min(len(held), len(tokens))
    differing = np.flatnonzero(held[:span] != tokens[:span])
    return int(differing[0]) if differing.size else span
