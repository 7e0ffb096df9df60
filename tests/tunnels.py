"""Two nodes with a tunnel between them, and the sessions at its ends: TCP servers that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from pares.transport.link import Connection, Transport, Where
from pares.transport.switchboard import Switchboard
from pares.transport.tunnel import HOST, Tunnels
from pares.wire.messages import BULK
from pares.wire.signing import PeerId

WITHIN_S = 10.0
TCP = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class End:
    """One node: its tunnels, and what they are told."""

    transport: Transport
    others: dict[PeerId, Where] = field(default_factory=dict)
    target: int = 0
    allowed: bool = True
    board: Switchboard = field(init=False)
    tunnels: Tunnels = field(init=False)

    @property
    def id(self) -> PeerId:
        return self.transport.id

    async def connect(self, peer: PeerId) -> Connection:
        return await self.board.connect(self.others.get(peer, Where(peer)), BULK, timeout_s=2)

    async def enter(self, peer: End) -> TCP:
        """A TCP connection into the tunnel to a peer."""
        return await asyncio.open_connection(HOST, await self.tunnels.port(peer.id))


@asynccontextmanager
async def end(transport: Transport) -> AsyncIterator[End]:
    made = End(transport)
    made.tunnels = Tunnels(made.connect, allowed=lambda peer: made.allowed, target=lambda: made.target)
    made.board = Switchboard(transport, {BULK: made.tunnels.serve}, allowed=lambda link: True, lasting=(BULK,))
    async with transport, made.tunnels, made.board:
        yield made


@asynccontextmanager
async def ends(near: Transport, far: Transport, session: Session) -> AsyncIterator[tuple[End, End]]:
    """Two nodes that know each other; at the far one runs a session."""
    async with end(near) as a, end(far) as b, serving(session) as b.target:
        for one, other in ((a, b), (b, a)):
            one.others[other.id] = Where(other.id, tuple(other.transport.addresses()))
        yield a, b


@asynccontextmanager
async def serving(session: Session) -> AsyncIterator[int]:
    """A TCP server; what it does for a connection is closed with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await session(reader, writer)
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, and end when the other side has ended."""
    while data := await reader.read(70_000):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def closed(reader: asyncio.StreamReader) -> None:
    """Wait until a connection breaks, or ends."""
    async with asyncio.timeout(WITHIN_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""


def abort(*connections: TCP) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing, for as long as there is a connection."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # sockets have it
    await asyncio.Event().wait()


async def taken(writer: asyncio.StreamWriter, most: int) -> int:
    """How many bytes a connection takes before it is full: for as long as something moves."""
    block, sent = bytes(2**20), 0
    writer.transport.set_write_buffer_limits(high=0)
    with suppress(TimeoutError):
        while sent < most:
            writer.write(block)
            async with asyncio.timeout(0.7):
                await writer.drain()
            sent += len(block)
    return sent
