"""What the rooms see of the network: transports, connections, streams. Pure: the shapes, and the errors.

Two things speak it: `quic` (iroh, the real network) and `memory` (a simulated one with its own clock).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from pares.errors import RemoteError
from pares.wire.signing import PeerId

PathKind = Literal["direct", "relayed", "lan"]


_LAN_V4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8")
_LAN_V6 = ("fc00::/7", "fe80::/10", "::1/128")
_LAN = tuple(ipaddress.ip_network(network) for network in (*_LAN_V4, *_LAN_V6))


class Unreachable(RemoteError):
    """Nobody with this key answered at these addresses within the deadline."""

    code = "unreachable"


class Disconnected(RemoteError):
    """The connection or the stream ended: the peer closed it, died, or does not answer any more."""

    code = "disconnected"


@dataclass(frozen=True, slots=True)
class Where:
    """Where to dial a peer. Addresses are numeric: `192.0.2.1:4433`, `[2001:db8::1]:4433`."""

    peer: PeerId
    addresses: tuple[str, ...] = ()
    relay: str = ""
    """URL of a relay it is connected to."""


@dataclass(frozen=True, slots=True)
class Path:
    """The way that packets take now."""

    kind: PathKind
    address: str
    """The peer's address as seen from here; the relay's URL if relayed."""
    rtt_ms: float


def ip_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IP of a numeric address with port. Raises ValueError if it is not one."""
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 1 << 16:
        raise ValueError(f"{port} is not a port")
    ip = ipaddress.ip_address(host[1:-1].partition("%")[0] if host.startswith("[") else host)
    return (ip.version == 6 and ip.ipv4_mapped) or ip


def is_lan(address: str) -> bool:
    """Whether a numeric address with port is private (RFC 1918, unique local), link-local or loopback."""
    ip = ip_of(address)
    return any(ip in net for net in _LAN)


def may_dial(address: str, *, local: bool) -> bool:
    """Whether packets may be sent there on somebody's word: a unicast address, and no port of a well-known service.

    `local`: also on this machine itself.
    """
    try:
        ip = ip_of(address)
    except ValueError:
        return False
    if ip.is_loopback:
        return local
    port = int(address.rpartition(":")[2])
    return (port >= 1024 or port == 443) and not (ip.is_multicast or ip.is_unspecified or ip.is_reserved)


class Stream(Protocol):
    """Bytes in both directions, in order, with backpressure. One request or one long flow; never used twice.

    Everything raises Disconnected once the other side is gone. A cancelled `receive` may have taken bytes, a cancelled
    `send` may have sent some: abort then. The other side hears of a stream with its first bytes.
    """

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of `data`; waits while the peer does not read."""

    async def receive(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Disconnected if the stream ends before."""

    async def read(self, most: int) -> bytes:
        """What has come, at least one byte and up to `most`; nothing once the peer has finished."""

    async def finish(self) -> None:
        """Nothing more will be sent: the other side reads to the end."""

    async def sent(self) -> None:
        """Wait until the peer has acknowledged all that was sent and finished."""

    def abort(self) -> None:
        """Give the stream up in both directions, at once."""


class Connection(Protocol):
    """An encrypted connection with a peer whose key is proven. Keep it referenced: it closes when dropped."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def protocol(self) -> str: ...

    @property
    def outgoing(self) -> bool:
        """Whether this side dialled."""

    @property
    def path(self) -> Path: ...

    @property
    def observed(self) -> str:
        """The peer's address as its first packets showed it; empty if they came over a relay."""

    async def open(self) -> Stream: ...

    async def accept(self) -> Stream:
        """The next stream that the peer opens. Raises Disconnected when there will be none."""

    async def closed(self) -> str:
        """Wait for the end; why it ended."""

    def close(self, reason: str) -> None: ...


class Transport(Protocol):
    """One node's end of the network. `async with` it.

    It accepts for the protocols it was made with; the others are refused in the handshake.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def id(self) -> PeerId: ...

    def addresses(self) -> Sequence[str]:
        """Addresses of this machine where it listens, numeric with port."""

    async def connect(self, where: Where, protocol: str, *, timeout_s: float) -> Connection:
        """Dial. Raises Unreachable, also if somebody else answers there."""

    async def accept(self) -> Connection:
        """The next connection that was admitted and whose handshake is done. Raises Disconnected after closing."""

    def advertise(self, external: Sequence[str]) -> None:
        """Addresses under which others see this node, for the negotiation of direct paths; replaces the former."""

    def use_relays(self, urls: Sequence[str]) -> None:
        """Relays from now on; replaces the former."""
