"""What the swarm room has to know of circles; the node joins it to the room that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from pares.transport.link import Connection
from pares.wire.messages import Offer
from pares.wire.signing import PeerId

Reply = TypeVar("Reply", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class CircleFacts:
    """A circle that this node belongs to, at one moment."""

    id: bytes
    name: str
    open: bool
    internet: bool
    copies: int
    """Members with room keep a version that fewer than so many hold."""
    members: frozenset[PeerId]
    """This node included."""
    offers: Mapping[PeerId, Offer]
    """In force now, this node's own included."""


class Members(Protocol):
    """Circles, their members, and the way to them."""

    @property
    def me(self) -> PeerId: ...

    def circles(self) -> Sequence[CircleFacts]: ...

    def online(self) -> frozenset[PeerId]: ...

    def hosts(self, peer: PeerId) -> Sequence[str]:
        """IP addresses where a peer's machine may be, the likeliest first: of its connection, then of its contact."""
        ...

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        """One request of `pares/swarm/1`. Raises RemoteError: unreachable, refused, no answer; a liar is punished."""
        ...

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        """A connection for a protocol. Raises Unreachable."""
        ...

    def tell_offers(self) -> None:
        """What this node holds has changed: its offers are made anew soon."""
        ...

    def punish(self, peer: PeerId, why: str) -> None:
        """A peer broke the protocol."""
        ...
