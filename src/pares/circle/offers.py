"""This node's own offers, one in each circle: what they say, and when they are said anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from pares.circle.book import Circle
from pares.circle.records import RENEWAL_S, RENEWALS
from pares.circle.statements import signed
from pares.transport.bucket import Bucket
from pares.wire.messages import HELD, TOLD, Held, Offer, Record
from pares.wire.signing import Identity

LIFE_S = 1_800
PAUSE_S = 2.0
"""Between two offers in one circle, at least."""
SPARE = 2
"""Of the renewals that other members allow, left for the contact."""


class Profile(Protocol):
    """What this node says of itself."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def relay_url(self) -> str:
        """Where this node relays for members; empty if it does not."""
        ...

    @property
    def bulk_port(self) -> int:
        """TCP port of its BitTorrent session; 0 if there is none."""
        ...

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]:
        """What it gives away in a circle, and the other statements that it tells there; what comes first counts most.

        Asked every second: it must be cheap, and the order must stay while nothing changes.
        """
        ...


class Offers:
    """Makes them. The first change is told at once; many are told as often as other members take renewals."""

    def __init__(self, identity: Identity, profile: Profile) -> None:
        self._identity = identity
        self._profile = profile
        self._made: dict[bytes, float] = {}
        self._paces: dict[bytes, Bucket] = {}

    def make(self, circle: Circle, now: float) -> Record | None:
        """The next offer for a circle; None while the last one stands, or it is too soon. `now` is Unix time."""
        mine, profile = circle.store.offer(self._identity.id, now), self._profile
        holds, tells = profile.holdings(circle.id)
        fresh = Offer(
            circle=circle.id,
            sequence=0,
            expires=0,
            relay=profile.relay_url,
            memory_bytes=profile.memory_bytes,
            version=profile.version,
            bulk_port=profile.bulk_port,
            holds=list(holds[:HELD]),
            tells=list(tells[:TOLD]),
        )
        if mine and replace(mine, sequence=0, expires=0) == fresh and mine.expires - now > LIFE_S / 2:
            return None
        if not self._may(circle.id, now):
            return None
        fresh = replace(fresh, sequence=circle.store.next_sequence(now), expires=int(now) + LIFE_S)
        return signed(self._identity, "offer/1", fresh)

    def _may(self, circle: bytes, now: float) -> bool:
        if 0 <= now - self._made.get(circle, -PAUSE_S) < PAUSE_S:
            return False
        pace = self._paces.setdefault(circle, Bucket(1 / RENEWAL_S, RENEWALS - SPARE, now))
        if not pace.try_take(1, now):
            return False
        self._made[circle] = now
        return True
