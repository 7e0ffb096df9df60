"""With whom of a circle a node keeps a link open. Pure.

Up to `MESH` members everybody keeps one with everybody. Above that each node chooses `OUTGOING` members by a secret
ranking and accepts up to `INCOMING` others: a random graph, connected even when half of its nodes leave at once, in
which nobody can choose to surround a node: its outgoing links are its own choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass

from pares.wire.signing import PeerId

MESH = 9
OUTGOING = 4
FAR = 1
"""Of the outgoing links, in a circle that is kept in parts, to another part."""
INCOMING = 12
RETRY_S = 5.0
RETRY_MOST_S = 3_600.0


@dataclass(slots=True)
class _Failure:
    count: int
    until: float


class Overlay:
    """The choice of links of one node in one circle."""

    def __init__(self, me: PeerId, secret: bytes) -> None:
        """`secret`: up to 64 bytes that nobody else knows."""
        self._me = me
        self._secret = secret
        self._failures: dict[PeerId, _Failure] = {}

    def choose(
        self,
        members: Iterable[PeerId],
        linked: Container[PeerId],
        present: Container[PeerId],
        now: float,
        near: Container[PeerId] = (),
    ) -> list[PeerId]:
        """With whom this node should have a link by its own dialling. `linked`: with whom it has one that it dialled.

        Links that live are kept; then come those who were `present` lately; who failed waits for its next try. Of
        those who are `near` (`Store.near`) come all but `FAR`, if there are so many.
        """
        others = [peer for peer in members if peer != self._me]
        self._failures = {peer: self._failures[peer] for peer in others if peer in self._failures}
        able = [peer for peer in others if peer in linked or not self._waits(peer, now)]
        if len(others) < MESH:
            return able
        able.sort(key=lambda peer: (peer not in linked, peer not in present, self._rank(peer)))
        close = [peer for peer in able if peer in near][: OUTGOING - FAR]
        far = [peer for peer in able if peer not in near][: OUTGOING - len(close)]
        return close + far

    def admits(self, members: int, incoming: int) -> bool:
        """Whether another incoming link is welcome, in a circle of so many, having so many."""
        return members <= MESH or incoming < INCOMING

    def failed(self, peer: PeerId, now: float) -> None:
        """It did not answer, had no room, or went away."""
        count = self._failures[peer].count + 1 if peer in self._failures else 1
        wait = min(RETRY_MOST_S, RETRY_S * 2.0 ** min(count - 1, 16))
        self._failures[peer] = _Failure(count, now + wait)

    def worked(self, peer: PeerId) -> None:
        """A real exchange has succeeded."""
        self._failures.pop(peer, None)

    def try_all_again(self) -> None:
        """Nobody has to wait any more."""
        self._failures.clear()

    def next_try(self, peer: PeerId) -> float | None:
        """When a peer that failed is tried again; None: now."""
        failure = self._failures.get(peer)
        return failure.until if failure else None

    def _waits(self, peer: PeerId, now: float) -> bool:
        failure = self._failures.get(peer)
        return failure is not None and 0 < failure.until - now <= RETRY_MOST_S

    def _rank(self, peer: PeerId) -> bytes:
        return hashlib.blake2b(peer, key=self._secret, digest_size=8).digest()
