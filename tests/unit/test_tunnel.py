"""Tunnels on the simulated network: real TCP at both ends, what is between them in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.transport import tunnel
from pares.transport.link import Disconnected, Unreachable
from pares.transport.memory import Line, Network
from pares.transport.tunnel import CONNECTIONS, HOST
from pares.wire.messages import BULK
from pares.wire.signing import PeerId
from tunnels import WITHIN_S, End, Session, abort, closed, deaf, echo, ends, serving, taken

LINE = Line(latency_s=0.0001, bytes_per_s=1e9)
MIB = 2**20


@asynccontextmanager
async def pair(session: Session = echo) -> AsyncIterator[tuple[End, End]]:
    network = Network(seed=1)
    a, b = (network.node(bytes([number]) * 32, (BULK,), LINE) for number in (1, 2))
    async with asyncio.timeout(WITHIN_S), ends(a, b, session) as both:
        yield both


async def carries(a: End, b: End) -> bool:
    """Whether what goes into the tunnel comes back."""
    reader, writer = await a.enter(b)
    writer.write(b"!")
    try:
        return await reader.read(1) == b"!"
    except ConnectionError:
        return False
    finally:
        writer.transport.abort()


def pieces(content: bytes, sizes: list[int]) -> list[bytes]:
    """The content cut into pieces of these sizes, over and over."""
    cut: list[bytes] = []
    at = 0
    while at < len(content):
        cut.append(content[at : at + sizes[len(cut) % len(sizes)]])
        at += len(cut[-1])
    return cut


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 2 * MIB), sizes=st.lists(st.integers(1, 300_000), min_size=1, max_size=4), seed=st.integers()
)
def test_what_goes_in_comes_out_whatever_its_size_and_pieces(size: int, sizes: list[int], seed: int) -> None:
    content = random.Random(seed).randbytes(size)
    sizes = [max(each, size // 500) for each in sizes]

    async def scenario() -> None:
        async with pair() as (a, b):
            reader, writer = await a.enter(b)

            async def send() -> None:
                for piece in pieces(content, sizes):
                    writer.write(piece)
                    await writer.drain()
                writer.write_eof()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                assert await reader.read(-1) == content
            abort((reader, writer))

    asyncio.run(scenario())


async def test_one_side_may_end_while_the_other_goes_on() -> None:
    heard_all = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(-1) == b"question"
        heard_all.set()
        writer.write(b"answer")
        writer.close()

    async with pair(session) as (a, b):
        reader, writer = await a.enter(b)
        writer.write(b"question")
        writer.write_eof()
        await heard_all.wait()
        assert await reader.read(-1) == b"answer"
        abort((reader, writer))


async def test_both_sides_see_that_a_connection_broke() -> None:
    broke = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        try:
            assert await reader.read(-1) == b""
        finally:
            broke.set()

    async with pair(session) as (a, b):
        reader, writer = await a.enter(b)
        writer.write(b"!")
        assert await reader.readexactly(1) == b"!"
        writer.transport.abort()
        await broke.wait()


async def test_the_end_of_the_connection_between_the_nodes_ends_all_that_it_carries() -> None:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        await closed(reader)
        over.set()

    over = asyncio.Event()
    async with pair(session) as (a, b):
        ended, waiting = await a.enter(b), await a.enter(b)
        for reader, writer in (ended, waiting):
            writer.write(b"!")
            assert await reader.readexactly(1) == b"!"
        ended[1].write_eof()
        a.board.drop(b.id, "it does not answer")
        await closed(ended[0])
        await closed(waiting[0])
        await over.wait()
        again = await a.enter(b)
        again[1].write(b"?")
        assert await again[0].readexactly(1) == b"?", "the next one is carried over a new connection"
        abort(ended, waiting, again)


async def test_a_peer_that_cannot_be_reached_ends_the_connection_into_the_tunnel() -> None:
    async with pair() as (a, _):
        stranger = PeerId(bytes(32))
        reader, writer = await asyncio.open_connection(HOST, await a.tunnels.port(stranger))
        await closed(reader)
        abort((reader, writer))


@pytest.mark.parametrize("gone", ["no session", "nobody listens"])
async def test_a_session_that_is_not_there_ends_the_connection(gone: str) -> None:
    async with serving(echo) as port:
        pass
    async with pair() as (a, b):
        b.target = 0 if gone == "no session" else port
        reader, writer = await a.enter(b)
        writer.write(b"!")
        await closed(reader)
        abort((reader, writer))


async def test_nothing_is_carried_for_who_is_not_allowed() -> None:
    async with pair() as (a, b):
        port = await a.tunnels.port(b.id)
        a.allowed = False
        with pytest.raises(Unreachable):
            await a.tunnels.port(b.id)
        reader, writer = await asyncio.open_connection(HOST, port)
        await closed(reader)
        a.allowed, b.allowed = True, False
        other = await a.enter(b)
        other[1].write(b"!")
        await closed(other[0])
        assert a.board.link(b.id, BULK) is not None, "the connection between the nodes stays"
        abort((reader, writer), other)


async def test_connections_of_one_peer_are_bounded_in_each_direction() -> None:
    async with pair() as (a, b):
        carried = [await a.enter(b) for _ in range(CONNECTIONS)]
        for reader, writer in carried:
            writer.write(b"!")
            assert await reader.readexactly(1) == b"!"
        one_more = await a.enter(b)
        await closed(one_more[0])
        # A peer that does not count itself is refused by the other side.
        link = await a.connect(b.id)
        stream = await link.open()
        await stream.send(b"!")
        with pytest.raises(Disconnected):
            await stream.read(1)
        reader, writer = carried.pop()
        writer.write_eof()
        assert await reader.read() == b""
        abort(one_more, (reader, writer))
        while not await carries(a, b):
            pass  # until both sides have seen that there is room again
        abort(*carried)


async def test_connections_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "IN_ALL", 2)
    async with pair() as (a, b):
        carried = [await a.enter(b) for _ in range(3)]
        await closed(carried[2][0])
        carried[1][1].write(b"!")
        assert await carried[1][0].readexactly(1) == b"!"
        abort(*carried)


async def test_a_port_is_the_same_until_nobody_has_used_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "IDLE_S", 0.05)
    async with pair() as (a, b):
        port = await a.tunnels.port(b.id)
        assert await a.tunnels.port(b.id) == port
        assert a.tunnels.peer_of(f"{HOST}:{port}") == b.id
        reader, writer = await asyncio.open_connection(HOST, port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4 * tunnel.IDLE_S):
                await reader.read(1)
        assert a.tunnels.peer_of(f"{HOST}:{port}") == b.id, "it is in use"
        abort((reader, writer))
        while a.tunnels.peer_of(f"{HOST}:{port}") is not None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(HOST, port)


async def test_an_idle_port_is_closed_for_one_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "ENTRANCES", 2)
    async with pair() as (a, b):
        first, second = PeerId(bytes(32)), PeerId(b"\1" * 32)
        used, unused = await a.tunnels.port(b.id), await a.tunnels.port(first)
        connection = await asyncio.open_connection(HOST, used)
        connection[1].write(b"!")
        assert await connection[0].readexactly(1) == b"!"
        assert a.tunnels.peer_of(f"{HOST}:{await a.tunnels.port(second)}") == second
        assert a.tunnels.peer_of(f"{HOST}:{unused}") is None
        assert a.tunnels.peer_of(f"{HOST}:{used}") == b.id
        abort(connection)


async def test_the_session_can_tell_whose_tunnel_a_connection_comes_from() -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("peername")
        seen.put_nowait(f"{host}:{port}")
        await echo(reader, writer)

    async with pair(session) as (a, b):
        reader, writer = await a.enter(b)
        writer.write(b"!")
        address = await seen.get()
        assert await reader.readexactly(1) == b"!"
        assert b.tunnels.peer_of(address) == a.id
        assert a.tunnels.peer_of(address) is None
        assert b.tunnels.peer_of(address.replace(HOST, "192.0.2.1")) is None
        assert b.tunnels.peer_of("nonsense") is None
        writer.write_eof()
        assert await reader.read() == b""
        abort((reader, writer))


async def test_a_node_that_stops_at_once_leaves_nothing_behind() -> None:
    for _ in range(10):
        async with pair() as (a, b):
            connection = await a.enter(b)
            connection[1].write(b"!")
            link = await a.connect(b.id)
            stream = await link.open()
            await stream.send(b"!")
        await closed(connection[0])
        abort(connection)


async def test_a_reader_that_does_not_read_stops_the_sender() -> None:
    async with pair(deaf) as (a, b):
        connection = await a.enter(b)
        assert await taken(connection[1], 200 * MIB) < 30 * MIB, "what the kernels and a few buffers hold"
        abort(connection)
