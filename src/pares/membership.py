"""Circles as the swarm room sees them: joins `swarm.members.Members` to the network of the circles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from pares.network import Network
from pares.swarm.members import CircleFacts
from pares.transport.link import Connection, Unreachable
from pares.wire.framing import ProtocolError
from pares.wire.messages import SWARM
from pares.wire.signing import PeerId

Reply = TypeVar("Reply", bound=msgspec.Struct)


class CircleMembers:
    """See `swarm.members.Members`. Offline, or in no circle, there is nobody."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def me(self) -> PeerId:
        return self._network.identity.id

    def circles(self) -> Sequence[CircleFacts]:
        return [
            CircleFacts(each.id, each.name, each.open, each.internet, each.copies, each.members, each.offers)
            for each in self._network.circles_here.book.facts(time.time())
        ]

    def online(self) -> frozenset[PeerId]:
        return self._network.online()

    def hosts(self, peer: PeerId) -> Sequence[str]:
        gathering = self._network.circles_here.gathering
        return gathering.links.hosts(peer) if gathering else ()

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        gathering = self._network.circles_here.gathering
        if gathering is None:
            raise Unreachable("This node is offline.")
        return await gathering.links.ask(peer, SWARM, request, kind, timeout_s=timeout_s)

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        gathering = self._network.circles_here.gathering
        if gathering is None:
            raise Unreachable("This node is offline.")
        return await gathering.links.link(peer, protocol, timeout_s=timeout_s)

    def tell_offers(self) -> None:
        if (gathering := self._network.circles_here.gathering) is not None:
            gathering.touch()

    def punish(self, peer: PeerId, why: str) -> None:
        if (gathering := self._network.circles_here.gathering) is not None:
            gathering.switchboard.punish(peer, ProtocolError(why))
