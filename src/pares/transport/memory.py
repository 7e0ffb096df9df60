"""A simulated internet: the same Transport, Connection and Stream, for a thousand nodes in one process.

Deterministic for a seed when it runs on `virtual_clock`. Streams are reliable, so loss shows as delay. What is modelled
per node is a `Line`; between nodes: partitions, death (peers notice nothing), change of address, NAT, relays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from pares.transport.link import Disconnected, Unreachable, Where, is_lan
from pares.transport.memory_connection import PACKET_BYTES, MemoryConnection, Route, Wire, on_wire
from pares.transport.memory_streams import Inbox, Lane
from pares.wire.signing import Identity, PeerId

HOLE_S = 30.0
"""A NAT lets answers in for so long."""
RESEND_S = 0.2
"""The least delay that a lost packet means."""
PORT = 4433

Nat = Literal["open", "cone", "symmetric"]
OnEvent = Callable[[float, str, PeerId, PeerId, int], None]


@dataclass(frozen=True, slots=True)
class Line:
    """How a node hangs on the network. Delays are one way, to the middle of the network."""

    latency_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0
    """Share of sends that take a repetition."""
    bytes_per_s: float = 12.5e6
    """Up, and the same down."""
    nat: Nat = "open"
    """`cone`: let in who was dialled; `symmetric`: another port for everybody, so nobody can be told where to dial."""
    lan: str = ""
    """Nodes on a LAN of the same name reach each other's inside addresses."""


@dataclass(slots=True)
class Traffic:
    """Bytes on a node's line, headers included."""

    sent: int = 0
    received: int = 0


class MemoryTransport:
    """A node's end of the simulated network. See `link.Transport`."""

    def __init__(self, network: Network, seed: bytes, protocols: Sequence[str], line: Line) -> None:
        self.id = Identity(seed).id
        self.network, self.protocols, self.line = network, tuple(protocols), line
        self.traffic = Traffic()
        self.connections: dict[MemoryConnection, None] = {}
        self.inside = self.external = ""
        self.advertised: tuple[str, ...] = ()
        self.relays: tuple[str, ...] = ()
        self.holes: dict[str, float] = {}
        self.up_free = self.down_free = 0.0
        self._arrived: Inbox[MemoryConnection] = Inbox()
        self.up = False

    async def __aenter__(self) -> Self:
        self.up = True
        self.network.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in tuple(self.connections):
            connection.close("the node is stopping")
        self.die("the node is stopping")

    def die(self, reason: str) -> None:
        """End without telling anybody."""
        self.up = False
        self.network.leave(self)
        self._arrived.close("This node is stopping.")
        for connection in tuple(self.connections):
            connection.settle(reason)

    def addresses(self) -> Sequence[str]:
        return (self.inside,)

    async def connect(self, where: Where, protocol: str, *, timeout_s: float) -> MemoryConnection:
        if not self.up:
            raise Disconnected("This node is stopping.")
        name = where.peer.hex()[:8]
        if where.peer == self.id:
            raise Unreachable(f"{name} cannot be reached: this is its own key.")
        if not where.addresses and not where.relay:
            raise Unreachable(f"{name} cannot be reached: no address of it is known.")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dial(where, protocol, name)
        except TimeoutError:
            raise Unreachable(f"{name} did not answer within {timeout_s:g} s.") from None

    async def _dial(self, where: Where, protocol: str, name: str) -> MemoryConnection:
        pause = RESEND_S
        while True:
            route = self.network.route(self, where)
            if route is not None:
                await asyncio.sleep(2 * self.network.distance(self, route.host, route.relay))
                if route.host.up and not self.network.apart(self, route.host):
                    break
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)
        if route.host.id != where.peer:
            raise Unreachable(f"{name} cannot be reached: somebody else answers there.")
        if protocol not in route.host.protocols:
            raise Unreachable(f"{name} cannot be reached: it does not speak this protocol.")
        return self.network.link(self, route, protocol)

    async def accept(self) -> MemoryConnection:
        return await self._arrived.get()

    def arrive(self, connection: MemoryConnection) -> None:
        self._arrived.put(connection)

    def advertise(self, external: Sequence[str]) -> None:
        self.advertised = tuple(external)

    def use_relays(self, urls: Sequence[str]) -> None:
        self.relays = tuple(urls)


class Network:
    """The whole internet. Make its nodes with `node`."""

    def __init__(self, seed: int, *, on_event: OnEvent | None = None) -> None:
        self.epoch = 0
        self.wires: dict[Wire, None] = {}
        self._chance = random.Random(seed)
        self._on_event = on_event
        self._hosts: dict[str, MemoryTransport] = {}
        self._nodes: dict[PeerId, MemoryTransport] = {}
        self._sides: dict[PeerId, int] = {}
        self._relays: dict[str, float] = {}
        self._made = 0

    def node(self, seed: bytes, protocols: Sequence[str], line: Line | None = None) -> MemoryTransport:
        """One node, by its key's seed; it is there while it is entered. One that died may come back as a new one."""
        return MemoryTransport(self, seed, protocols, line or Line())

    # What happens to nodes

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """From now on only nodes of the same group reach each other; who is in none is in the first."""
        self._sides = {peer: side for side, group in enumerate(groups) for peer in group}
        self.epoch += 1
        for wire in tuple(self.wires):
            wire.reconsider()

    def heal(self) -> None:
        """Undo all partitions; what was on its way arrives."""
        self.partition()

    def kill(self, peer: PeerId) -> None:
        """The node is gone from one moment to the next; its peers hear nothing."""
        node = self._nodes[peer]
        for connection in tuple(node.connections):
            connection.wire.cut()
        node.die("killed")

    def move(self, peer: PeerId) -> None:
        """The node has another address; connections over the old one are lost, and nobody is told."""
        node = self._nodes[peer]
        for connection in tuple(node.connections):
            if not connection.wire.relay:
                connection.wire.cut()
        self.leave(node)
        node.holes.clear()
        self.join(node)

    def open_relay(self, url: str, *, latency_s: float = 0.01) -> None:
        """Someone relays here."""
        self._relays[url] = latency_s

    def close_relay(self, url: str) -> None:
        """It is gone, and what went over it is cut."""
        del self._relays[url]
        for wire in tuple(self.wires):
            if wire.relay == url:
                wire.cut()

    # What the nodes' ends ask

    def join(self, node: MemoryTransport) -> None:
        """Give the node addresses."""
        self._made += 1
        node.external = f"{ipaddress.IPv4Address(0x0B000000 + self._made)}:{PORT}"
        private = node.line.lan or node.line.nat != "open"
        node.inside = f"{ipaddress.IPv4Address(0x0A000000 + self._made)}:{PORT}" if private else node.external
        self._hosts[node.external] = self._hosts[node.inside] = self._nodes[node.id] = node

    def leave(self, node: MemoryTransport) -> None:
        """Take the addresses back."""
        for address in (node.inside, node.external):
            if self._hosts.get(address) is node:
                del self._hosts[address]

    def apart(self, one: MemoryTransport, other: MemoryTransport) -> bool:
        """Whether a partition is between two nodes."""
        return self._sides.get(one.id, 0) != self._sides.get(other.id, 0)

    def route(self, dialler: MemoryTransport, where: Where) -> Route | None:
        """Who would answer there now. Dialling opens the dialler's NAT for the answer."""
        now = asyncio.get_running_loop().time()
        stranger: Route | None = None
        for address in where.addresses:
            dialler.holes[address] = now + HOLE_S
            host = self._hosts.get(address)
            if host and host is not dialler and not self.apart(dialler, host) and self._open(dialler, host, address):
                if host.id == where.peer:
                    return Route(host, address)
                stranger = stranger or Route(host, address)
        host = self._nodes.get(where.peer)
        if host and host.up and where.relay in host.relays and where.relay in self._relays:
            return None if self.apart(dialler, host) else Route(host, host.external, where.relay)
        return stranger

    def direct(self, one: MemoryTransport, other: MemoryTransport) -> str:
        """An address at which two nodes that are connected already reach each other, if there is one."""
        if one.line.lan and one.line.lan == other.line.lan:
            return other.inside
        nats = {one.line.nat, other.line.nat}
        told = one.advertised and other.advertised
        return other.external if "open" in nats or (told and "symmetric" not in nats) else ""

    def link(self, dialler: MemoryTransport, route: Route, protocol: str) -> MemoryConnection:
        """A connection whose handshake is done; the host hears of it with the dialler's next packet."""
        wire = Wire(self, dialler, route.host, route, protocol)
        self.wires[wire] = None
        near, far = wire.ends
        self.note("connect", dialler, route.host, 0)
        near.carry(PACKET_BYTES, lambda: route.host.arrive(far), Lane())
        return near

    def seen_as(self, node: MemoryTransport, by: MemoryTransport, *, lan: bool) -> str:
        """The address that another node sees."""
        if lan:
            return node.inside
        if node.line.nat == "symmetric":
            host = node.external.rpartition(":")[0]
            return f"{host}:{20000 + int(by.id.hex()[:4], 16) % 40000}"
        return node.external

    def distance(self, one: MemoryTransport, other: MemoryTransport, relay: str) -> float:
        """Seconds one way."""
        return one.line.latency_s + other.line.latency_s + 2 * self._relays.get(relay, 0.0)

    def arrival(self, source: MemoryTransport, target: MemoryTransport, size: int, relay: str) -> float:
        """When something sent now is there; takes its share of both lines."""
        wire = on_wire(size)
        now = asyncio.get_running_loop().time()
        source.traffic.sent += wire
        source.up_free = max(source.up_free, now) + wire / source.line.bytes_per_s
        way = self.distance(source, target, relay)
        target.down_free = max(target.down_free, source.up_free + way) + wire / target.line.bytes_per_s
        late = self._chance.uniform(0, source.line.jitter_s + target.line.jitter_s)
        loss = 1 - (1 - source.line.loss) * (1 - target.line.loss)
        while self._chance.random() < loss:
            late += max(RESEND_S, 3 * way)
        return target.down_free + late

    def note(self, event: str, source: MemoryTransport, target: MemoryTransport, size: int) -> None:
        """For who watches."""
        if self._on_event:
            self._on_event(asyncio.get_running_loop().time(), event, source.id, target.id, size)

    def _open(self, dialler: MemoryTransport, host: MemoryTransport, address: str) -> bool:
        """Whether the host's NAT lets the dialler in."""
        if is_lan(address):
            return bool(host.line.lan) and host.line.lan == dialler.line.lan
        if host.line.nat == "open":
            return True
        hole = host.holes.get(dialler.external, -1.0) >= asyncio.get_running_loop().time()
        return hole and host.line.nat == "cone" and dialler.line.nat != "symmetric"
