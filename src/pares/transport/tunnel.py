"""`pares/bulk/1`: BitTorrent between members whose machines cannot reach each other otherwise.

For a peer there is a port on 127.0.0.1. Each TCP connection to it is carried over a stream of its own, encrypted and
known by key, and comes out as a TCP connection to the peer's BitTorrent session. The stream is the connection's bytes
and nothing else; who connects speaks first, as in BitTorrent, or the peer hears of nothing.

Any program on this machine can connect to such a port while it is open, and then speaks with the peer's session in this
node's name. It gets what the session gives to whoever knows a file's hash; nothing else is behind it.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pares.errors import Fence, RemoteError
from pares.transport.link import Connection, Disconnected, Stream, Unreachable
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
CHUNK = 256 * 1024
"""Bytes that are moved at once; about as many wait on either side of a slow reader."""
CONNECT_S = 10.0
"""For reaching the peer or the session, and at the end for handing over the last bytes."""
CONNECTIONS = 8
"""Carried at once for one peer, in each direction."""
IN_ALL = 128
"""Carried at once, in each direction."""
ENTRANCES = 2 * IN_ALL
"""Ports open at once. More than connections, so that one of them is idle and can be closed for another."""
IDLE_S = 300.0
"""A port that nobody uses is closed after so long."""


@dataclass(slots=True, eq=False)
class _Entrance:
    """The port of one peer."""

    server: asyncio.Server
    port: int
    idle: asyncio.TimerHandle | None = None


class Tunnels:
    """`async with` it. `connect` raises RemoteError; `allowed` says for whom bytes are carried, either way.

    `target` is the port on 127.0.0.1 where tunnels of others come out; 0: there is none now.
    """

    def __init__(
        self,
        connect: Callable[[PeerId], Awaitable[Connection]],
        *,
        allowed: Callable[[PeerId], bool],
        target: Callable[[], int],
    ) -> None:
        self._connect, self._allowed, self._target = connect, allowed, target
        self._entrances: dict[PeerId, _Entrance] = {}
        self._opening = asyncio.Lock()
        self._entered: Counter[PeerId] = Counter()
        self._left: Counter[PeerId] = Counter()
        """Connections that are carried now, from here and to here."""
        self._exits: dict[int, PeerId] = {}
        """Ports from which they reach the session here."""
        self._live: set[asyncio.Task[None]] = set()
        self._tasks = asyncio.TaskGroup()
        self._stopping = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for peer in tuple(self._entrances):
            self._close(peer)
        for task in self._live:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def port(self, peer: PeerId) -> int:
        """The port whose connections come out at this peer's session. Raises Unreachable if it is not allowed.

        Ask before each use: while nobody uses it, it is closed after some minutes, and is another one then.
        """
        if self._stopping or not self._allowed(peer):
            raise Unreachable(f"Nothing is carried to {_short(peer)}: it is in no circle of this node.")
        async with self._opening:
            if peer not in self._entrances:
                await self._open(peer)
            self._await_use(peer)
            return self._entrances[peer].port

    def peer_of(self, address: str) -> PeerId | None:
        """Who is behind an address, `127.0.0.1:port`, that the session here is connected with."""
        host, _, port = address.rpartition(":")
        if host != HOST or not port.isdecimal():
            return None
        entrances = (peer for peer, entrance in self._entrances.items() if entrance.port == int(port))
        return self._exits.get(int(port)) or next(entrances, None)

    async def serve(self, link: Connection, stream: Stream) -> None:
        """Handle a stream that a peer opened, until it has ended."""
        if self._welcome(link.peer, self._left):
            await asyncio.wait([self._start(link.peer, self._left, self._leave(link, stream), stream.abort)])
        else:
            stream.abort()

    # Ports

    async def _open(self, peer: PeerId) -> None:
        if len(self._entrances) >= ENTRANCES:
            self._close(next(other for other in self._entrances if not self._entered[other]))

        def connected(reader: StreamReader, writer: StreamWriter) -> None:
            if self._welcome(peer, self._entered):
                self._start(peer, self._entered, self._enter(peer, reader, writer), writer.transport.abort)
            else:
                writer.transport.abort()

        server = await asyncio.start_server(connected, HOST, 0, limit=CHUNK // 2)
        if self._stopping:
            server.close()
            raise Unreachable("The node is stopping.")
        self._entrances[peer] = _Entrance(server, server.sockets[0].getsockname()[1])

    def _await_use(self, peer: PeerId) -> None:
        """From now on the port may be idle for `IDLE_S`."""
        if (entrance := self._entrances.get(peer)) is not None:
            if entrance.idle is not None:
                entrance.idle.cancel()
            entrance.idle = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle, peer)

    def _close_idle(self, peer: PeerId) -> None:
        if not self._entered[peer]:
            self._close(peer)

    def _close(self, peer: PeerId) -> None:
        entrance = self._entrances.pop(peer)
        entrance.server.close()
        if entrance.idle is not None:
            entrance.idle.cancel()

    # Connections

    def _welcome(self, peer: PeerId, carried: Counter[PeerId]) -> bool:
        if self._stopping or not self._allowed(peer):
            return False
        if carried[peer] >= CONNECTIONS or carried.total() >= IN_ALL:
            log.debug("tunnel.full", extra={"peer": _short(peer), "of_peer": carried[peer], "in_all": carried.total()})
            return False
        return True

    def _start(
        self, peer: PeerId, carried: Counter[PeerId], work: Coroutine[Any, Any, None], give_up: Callable[[], None]
    ) -> asyncio.Task[None]:
        """Have one connection carried, and counted."""

        def ended(task: asyncio.Task[None]) -> None:
            self._live.discard(task)
            carried[peer] -= 1
            if not carried[peer]:
                del carried[peer]
            if task.cancelled():  # perhaps before it had begun
                work.close()
                give_up()
            elif carried is self._entered:
                self._await_use(peer)

        carried[peer] += 1
        task = self._tasks.create_task(_contained(peer, work), name=f"tunnel {_short(peer)}")
        self._live.add(task)
        task.add_done_callback(ended)
        return task

    async def _enter(self, peer: PeerId, reader: StreamReader, writer: StreamWriter) -> None:
        """From the session here to a peer."""
        try:
            async with asyncio.timeout(CONNECT_S):
                link = await self._connect(peer)
                stream = await link.open()
        except BaseException:
            writer.transport.abort()
            raise
        await _carry(link, stream, reader, writer)

    async def _leave(self, link: Connection, stream: Stream) -> None:
        """From a peer to the session here."""
        try:
            if not (target := self._target()):
                raise Disconnected("No BitTorrent session runs here.")
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(HOST, target, limit=CHUNK // 2)
        except BaseException:
            stream.abort()
            raise
        port = writer.get_extra_info("sockname")[1]
        self._exits[port] = link.peer
        try:
            await _carry(link, stream, reader, writer)
        finally:
            del self._exits[port]


async def _contained(peer: PeerId, work: Awaitable[None]) -> None:
    """What goes wrong with one connection, on either side, is the end of this connection."""
    with Fence() as fence:
        try:
            await work
        except* (RemoteError, OSError) as ends:
            log.debug("tunnel.ended", extra={"peer": _short(peer), "reason": str(ends.exceptions[0])})
    if fence.problem is not None:
        log.error("tunnel.failed", extra={"peer": _short(peer)}, exc_info=fence.problem)


async def _carry(link: Connection, stream: Stream, reader: StreamReader, writer: StreamWriter) -> None:
    """Both ways, until both have come to their end. If anything breaks, both break."""
    writer.transport.set_write_buffer_limits(high=CHUNK)
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_until_closed(link))
            await asyncio.wait([tasks.create_task(_send(reader, stream)), tasks.create_task(_receive(stream, writer))])
            watch.cancel()
        writer.close()
        async with asyncio.timeout(CONNECT_S):
            await writer.wait_closed()
    except BaseException:
        stream.abort()
        writer.transport.abort()
        raise


async def _send(reader: StreamReader, stream: Stream) -> None:
    while chunk := await reader.read(CHUNK):
        await stream.send(chunk)
    await stream.finish()


async def _receive(stream: Stream, writer: StreamWriter) -> None:
    while chunk := await stream.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


async def _until_closed(link: Connection) -> None:
    """A stream that only waits would not notice."""
    raise Disconnected(f"The connection ended: {await link.closed()}.")


def _short(peer: PeerId) -> str:
    return peer.hex()[:8]
