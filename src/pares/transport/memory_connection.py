"""Connections of the simulated network, and the way between their two sides."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pares.transport.link import Disconnected, Path, PathKind, is_lan
from pares.transport.memory_streams import Inbox, Lane, MemoryStream
from pares.wire.signing import PeerId

if TYPE_CHECKING:
    from pares.transport.memory import MemoryTransport, Network

IDLE_S = 30.0
"""After so long without a packet both sides know that a connection is lost, as with the real transport."""
UPGRADE_S = 1.0
"""A relayed connection goes direct after so long, where that is possible."""
PACKET_BYTES, OVERHEAD_BYTES = 1200, 60
"""Content of a packet; IP, UDP and QUIC around it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who is dialled, and over which way."""

    host: MemoryTransport
    address: str
    relay: str = ""


class MemoryConnection:
    """One side of a connection. See `link.Connection`."""

    __slots__ = ("_end", "_inbox", "node", "observed", "other", "outgoing", "peer", "protocol", "streams", "wire")

    other: MemoryConnection

    def __init__(self, wire: Wire, node: MemoryTransport, peer: PeerId, *, outgoing: bool, observed: str) -> None:
        self.node, self.peer, self.protocol = node, peer, wire.protocol
        self.outgoing, self.observed = outgoing, observed
        self.streams: dict[MemoryStream, None] = {}
        self.wire = wire
        self._inbox: Inbox[MemoryStream] = Inbox()
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def path(self) -> Path:
        return self.wire.path(self)

    async def open(self) -> MemoryStream:
        self._check()
        ours, theirs = MemoryStream(self), MemoryStream(self.other)
        ours.other, theirs.other = theirs, ours
        ours.announced = True
        self.streams[ours] = self.other.streams[theirs] = None
        return ours

    async def accept(self) -> MemoryStream:
        return await self._inbox.get()

    async def closed(self) -> str:
        return await asyncio.shield(self._end)

    def close(self, reason: str) -> None:
        if not self._end.done():
            self.settle(reason)
            self.carry(len(reason), lambda: self.other.settle(reason or "closed by the peer"), Lane())

    def announce(self, stream: MemoryStream) -> None:
        """The peer's first bytes on a stream have come."""
        self._inbox.put(stream)

    def carry(self, size: int, deliver: Callable[[], None], lane: Lane) -> None:
        """Bring something to the other side."""
        self.wire.carry(self, size, deliver, lane)

    def settle(self, reason: str) -> None:
        """This side's end of it all."""
        if not self._end.done():
            self._end.set_result(reason)
            self._inbox.close(f"The connection ended: {reason}.")
            for stream in tuple(self.streams):
                stream.fail(f"The connection ended: {reason}.")
            self.wire.forget(self)

    def _check(self) -> None:
        if self._end.done():
            raise Disconnected(f"The connection ended: {self._end.result()}.")


class Wire:
    """What two connection ends share: the way between them."""

    __slots__ = ("_ends", "_network", "_parked", "address", "broken", "protocol", "relay")

    def __init__(
        self, network: Network, dialler: MemoryTransport, host: MemoryTransport, route: Route, protocol: str
    ) -> None:
        self._network, self.protocol, self.relay = network, protocol, route.relay
        self.address = route.address
        self.broken = False
        self._parked: list[tuple[MemoryConnection, int, Callable[[], None], Lane]] = []
        seen = "" if route.relay else network.seen_as(dialler, host, lan=is_lan(route.address))
        near = MemoryConnection(self, dialler, host.id, outgoing=True, observed=route.address)
        far = MemoryConnection(self, host, dialler.id, outgoing=False, observed=seen)
        near.other, far.other = far, near
        self._ends = (near, far)
        for end in self._ends:
            end.node.connections[end] = None
        if self.relay:
            asyncio.get_running_loop().call_later(UPGRADE_S, self._upgrade)

    @property
    def ends(self) -> tuple[MemoryConnection, MemoryConnection]:
        return self._ends

    def path(self, end: MemoryConnection) -> Path:
        near, far = end.node, end.other.node
        address = self.relay or (self.address if end.outgoing else end.observed or far.external)
        kind: PathKind = "relayed" if self.relay else "lan" if is_lan(address) else "direct"
        return Path(kind, address, 2000 * self._network.distance(near, far, self.relay))

    def carry(self, end: MemoryConnection, size: int, deliver: Callable[[], None], lane: Lane) -> None:
        if self.broken:
            return
        if self._network.apart(end.node, end.other.node):
            self._parked.append((end, size, deliver, lane))
            return
        at = self._network.arrival(end.node, end.other.node, size, self.relay)
        lane.last = max(at, lane.last)
        asyncio.get_running_loop().call_at(lane.last, self._arrive, end, size, deliver, lane)

    def _arrive(self, end: MemoryConnection, size: int, deliver: Callable[[], None], lane: Lane) -> None:
        if self.broken:
            return
        if self._network.apart(end.node, end.other.node):
            self._parked.append((end, size, deliver, lane))
            return
        end.other.node.traffic.received += on_wire(size)
        self._network.note("arrive", end.node, end.other.node, size)
        deliver()

    def reconsider(self) -> None:
        """A partition began or ended."""
        near, far = self._ends
        if self._network.apart(near.node, far.node):
            asyncio.get_running_loop().call_later(IDLE_S, self._expire, self._network.epoch)
        else:
            parked, self._parked = self._parked, []
            for item in parked:
                self.carry(*item)

    def cut(self) -> None:
        """Nothing passes any more; nobody is told, and after a while both sides notice."""
        if not self.broken:
            self.broken = True
            self._parked.clear()
            asyncio.get_running_loop().call_later(IDLE_S, self._expire, None)

    def forget(self, end: MemoryConnection) -> None:
        end.node.connections.pop(end, None)
        if not any(side in side.node.connections for side in self._ends):
            self._network.wires.pop(self, None)

    def _expire(self, epoch: int | None) -> None:
        if self.broken or epoch == self._network.epoch:
            self.broken = True
            for end in self._ends:
                end.settle("timed out")

    def _upgrade(self) -> None:
        near, far = (end.node for end in self._ends)
        if address := self._network.direct(near, far):
            self.relay, self.address = "", address


def on_wire(size: int) -> int:
    """Bytes on the line for so many bytes of content."""
    return size + OVERHEAD_BYTES * max(1, math.ceil(size / PACKET_BYTES))
