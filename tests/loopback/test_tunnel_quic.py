"""Tunnels over the real network: two iroh endpoints, and real TCP at both ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.tunnel import HOST
from pares.wire.messages import BULK
from swarming import SwarmNode, content, living
from tunnels import WITHIN_S, End, Session, abort, closed, deaf, echo, ends, taken

LOOPBACK = Settings(loopback_only=True)
MIB = 2**20


@asynccontextmanager
async def pair(session: Session = echo) -> AsyncIterator[tuple[End, End]]:
    a, b = (QuicTransport(os.urandom(32), (BULK,), LOOPBACK) for _ in range(2))
    async with asyncio.timeout(2 * WITHIN_S), ends(a, b, session) as both:
        yield both


async def test_much_comes_back_as_it_went_over_several_connections_at_once() -> None:
    async with pair() as (a, b):

        async def there_and_back(number: int) -> None:
            content = random.Random(number).randbytes(random.Random(number).randrange(8 * MIB))
            reader, writer = await a.enter(b)

            async def send() -> None:
                writer.write(content)
                writer.write_eof()
                await writer.drain()

            sending = asyncio.create_task(send())
            came = hashlib.sha256(await reader.read(-1))
            await sending
            writer.transport.abort()
            assert came.digest() == hashlib.sha256(content).digest()

        await asyncio.gather(*map(there_and_back, range(6)))


async def test_one_side_may_end_while_the_other_goes_on() -> None:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(question * MIB)
        writer.close()
        await writer.wait_closed()

    async with pair(session) as (a, b):
        reader, writer = await a.enter(b)
        writer.write(b"why")
        writer.write_eof()
        assert await reader.read(-1) == b"why" * MIB
        abort((reader, writer))


@pytest.mark.parametrize("by_them", [True, False])
async def test_what_is_under_way_ends_when_one_node_drops_the_other(by_them: bool) -> None:
    async with pair() as (a, b):
        reader, writer = await a.enter(b)

        async def flood() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(bytes(MIB))
                    await writer.drain()

        flooding = asyncio.create_task(flood())
        await reader.readexactly(3 * MIB)
        one, other = (b, a) if by_them else (a, b)
        one.board.drop(other.id, "it does not answer")
        with suppress(ConnectionError):
            while await reader.read(MIB):
                pass
        await flooding
        abort((reader, writer))


async def test_no_session_at_the_other_end_is_told_soon() -> None:
    async with pair() as (a, b):
        b.target = 0
        reader, writer = await a.enter(b)
        writer.write(b"!")
        await closed(reader)
        abort((reader, writer))


async def test_a_reader_that_does_not_read_fills_no_memory() -> None:
    async with pair(deaf) as (a, b):
        connection = await a.enter(b)
        before = psutil.Process().memory_info().rss
        assert await taken(connection[1], 200 * MIB) < 40 * MIB
        assert psutil.Process().memory_info().rss - before < 60 * MIB
        abort(connection)


async def test_a_file_comes_by_bittorrent_through_a_tunnel(tmp_path: Path) -> None:
    file = content(12)
    seed, leech = SwarmNode(tmp_path / "seed", HOST), SwarmNode(tmp_path / "leech")
    async with pair() as (a, b), living(seed, leech):
        b.target = int((await seed.seed(file)).rpartition(":")[2])
        entrance = f"{HOST}:{await a.tunnels.port(b.id)}"
        seed.torrents.limit(upload=6 * MIB, download=0)
        await leech.fetch(file, entrance)
        await seed.until(lambda: seed.now(file.root).sources)
        (source,) = seed.now(file.root).sources
        assert b.tunnels.peer_of(source.address) == a.id
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data
        assert a.tunnels.peer_of(entrance) == b.id
