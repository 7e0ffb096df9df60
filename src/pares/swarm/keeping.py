"""Keeping rare versions alive: which ones a node with room fetches for its circles, and which it may drop again. Pure.

Nobody coordinates this. All members rank themselves per version by a hash, each in its turn waits a while longer than
the one before, and acts if the version is still rare (or still held by enough others) by then: so that normally one
node acts, and the next one if that has no room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pares.wire.signing import PeerId

TURN_S = 120.0
"""Between one member's turn and the next one's; an offer of the one before is known everywhere by then."""
PATIENCE_S = 600.0
"""How long a version has to be rare before anybody acts: members that restart come back sooner."""
DROP_AFTER_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a version stands in one circle."""

    version: bytes
    size: int
    holders: frozenset[PeerId]
    """Members that hold all of it, this node included if it does."""
    members: frozenset[PeerId]
    copies: int
    """That there should be."""

    @property
    def missing(self) -> int:
        return max(self.copies - len(self.holders), 0)


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that this node keeps of its own accord."""

    version: bytes
    size: int


def turn(version: bytes, me: PeerId, among: Iterable[PeerId]) -> int:
    """This node's place in the order of those who may act on a version; everybody computes the same order."""

    def rank(peer: PeerId) -> bytes:
        return hashlib.sha256(b"pares keep\0" + version + peer).digest()

    mine = rank(me)
    return sum(rank(peer) < mine for peer in among if peer != me)


def to_fetch(
    standings: Iterable[Standing], me: PeerId, rare_since: Mapping[bytes, float], *, room: int, now: float
) -> tuple[bytes, ...]:
    """Versions to fetch now, the rarest first, as many as `room` bytes take.

    `rare_since`: since when this node has seen a version rare, in seconds of the clock of `now`. A version that nobody
    holds cannot be fetched; one that nobody else keeps in another circle is wanted all the same.
    """
    due: dict[bytes, Standing] = {}
    for each in standings:
        if not each.missing or not each.holders or me in each.holders or each.version not in rare_since:
            continue
        place = turn(each.version, me, each.members - each.holders) // each.missing
        if now >= rare_since[each.version] + PATIENCE_S + place * TURN_S:
            due.setdefault(each.version, each)
    chosen: list[bytes] = []
    for each in sorted(due.values(), key=lambda s: (len(s.holders), s.size, s.version)):
        if each.size <= room:
            room -= each.size
            chosen.append(each.version)
    return tuple(chosen)


def to_drop(
    kept: Iterable[Kept],
    standings: Iterable[Standing],
    me: PeerId,
    enough_since: Mapping[bytes, float],
    *,
    most_bytes: int,
    now: float,
) -> tuple[bytes, ...]:
    """Kept versions to let go: not needed any more, or, above the quota, those that most others hold.

    Never one of which this node has the last known whole copy in any circle, whatever the quota says.
    `enough_since`: since when a version has had enough other holders.
    """
    of: dict[bytes, list[Standing]] = {}
    for each in standings:
        of.setdefault(each.version, []).append(each)
    gone: list[bytes] = []
    staying: list[tuple[int, Kept]] = []
    for one in kept:
        stands = of.get(one.version, [])
        others = min((len(s.holders - {me}) for s in stands), default=-1)
        needed = others == 0 or any(len(s.holders - {me}) < s.copies for s in stands)
        untold = not stands
        surplus = not needed and one.version in enough_since and _turn_came(one, stands, me, enough_since, now)
        if untold or surplus:
            gone.append(one.version)
        else:
            staying.append((others, one))
    used = sum(one.size for _, one in staying)
    for others, one in sorted(staying, key=lambda pair: (-pair[0], -pair[1].size, pair[1].version)):
        if used > most_bytes and others > 0:
            used -= one.size
            gone.append(one.version)
    return tuple(gone)


def _turn_came(
    one: Kept, standings: Iterable[Standing], me: PeerId, enough_since: Mapping[bytes, float], now: float
) -> bool:
    """Of several keepers one after the other lets go, each seeing whether there are enough still."""
    place = max((turn(one.version, me, standing.holders) for standing in standings), default=0)
    return now >= enough_since[one.version] + DROP_AFTER_S + place * TURN_S
