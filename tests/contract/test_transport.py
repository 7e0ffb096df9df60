"""What every transport has to do: one suite, run on the real network (loopback) and on the simulated one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pares.transport.link import Connection, Disconnected, Stream, Transport, Unreachable, Where
from pares.transport.memory import Network
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.virtual_clock import simulate
from pares.wire.signing import Identity

ECHO, OTHER = "test/echo/1", "test/other/1"
DEADLINE_S = 20.0
MIB = 2**20

Make = Callable[[], AbstractAsyncContextManager[Transport]]
Scenario = Callable[[Make], Awaitable[None]]


async def _on_quic(scenario: Scenario) -> None:
    settings = Settings(loopback_only=True, handshake_burst=100)
    async with asyncio.timeout(DEADLINE_S):
        await scenario(lambda: QuicTransport(os.urandom(32), (ECHO, OTHER), settings))


async def _on_memory(scenario: Scenario) -> None:
    network, seeds = Network(seed=1), random.Random(1)
    async with asyncio.timeout(600):
        await scenario(lambda: network.node(seeds.randbytes(32), (ECHO, OTHER)))


def on_both(scenario: Scenario) -> Callable[[str], None]:
    """A test of a scenario on both transports."""

    @pytest.mark.parametrize("world", ["quic", "memory"])
    def test(world: str) -> None:
        if world == "quic":
            asyncio.run(_on_quic(scenario))
        else:
            simulate(_on_memory(scenario))

    return test


def where(transport: Transport) -> Where:
    return Where(transport.id, tuple(transport.addresses()))


@asynccontextmanager
async def connected(make: Make) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two nodes, the dialler's side and the other's."""
    async with make() as a, make() as b:
        yield await dial(a, b)


async def dial(a: Transport, b: Transport, protocol: str = ECHO) -> tuple[Connection, Connection]:
    near, far = await asyncio.gather(a.connect(where(b), protocol, timeout_s=5), b.accept())
    return near, far


async def stream(near: Connection, far: Connection) -> tuple[Stream, Stream]:
    """A stream as both sides have it; the first byte is what shows it to the other side."""
    ours = await near.open()
    await ours.send(b"!")
    theirs = await far.accept()
    assert await theirs.receive(1) == b"!"
    return ours, theirs


async def echo(theirs: Stream, size: int) -> None:
    content = await theirs.receive(size)
    await theirs.send(content)
    await theirs.finish()


@on_both
async def test_both_sides_know_each_other_by_proven_keys(make: Make) -> None:
    async with make() as a, make() as b:
        near, far = await dial(a, b)
        assert (near.peer, far.peer) == (b.id, a.id)
        assert (near.outgoing, far.outgoing) == (True, False)
        assert near.protocol == far.protocol == ECHO
        assert near.observed in b.addresses()
        assert far.observed in a.addresses()
        assert near.path.address in b.addresses()
        assert near.path.rtt_ms >= 0


@on_both
async def test_what_is_sent_comes_back_whole_small_and_large(make: Make) -> None:
    async with connected(make) as (near, far):
        for size in (1, 100, 256 * 1024, 256 * 1024 + 1, MIB, 8 * MIB):
            ours, theirs = await stream(near, far)
            content = random.Random(size).randbytes(size)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(echo(theirs, size))
                tasks.create_task(ours.send(content))
                assert await ours.receive(size) == content


@on_both
async def test_any_buffer_can_be_sent(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        for content in (b"bytes", bytearray(b"array"), memoryview(b"_view")):
            await ours.send(content)
            assert await theirs.receive(5) == bytes(content)
        await ours.send(b"")
        assert await theirs.receive(0) == b""


@on_both
async def test_reads_cut_the_bytes_where_they_ask_to(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        for piece in (b"a", b"bcdef", b"ghi"):
            await ours.send(piece)
        assert [await theirs.receive(n) for n in (4, 4, 1)] == [b"abcd", b"efgh", b"i"]


@on_both
async def test_what_has_come_is_read_as_it_is_there_until_nothing_more_comes(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        await ours.send(b"hello")
        assert await theirs.receive(1) == b"h"
        assert await theirs.read(2) == b"el", "no more than was asked for"
        assert await theirs.read(MIB) == b"lo", "without waiting for the rest"
        content = random.Random(3).randbytes(2 * MIB)

        async def rest() -> bytes:
            return b"".join([piece async for piece in pieces()])

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await theirs.read(100_000):
                assert len(piece) <= 100_000
                yield piece

        reading = asyncio.create_task(rest())
        await ours.send(content)
        await ours.finish()
        assert await reading == content
        assert await theirs.read(1) == b"", "and so it stays"
        ours, theirs = await stream(near, far)
        ours.abort()
        with pytest.raises(Disconnected):
            await theirs.read(1)


@on_both
async def test_many_streams_at_once_do_not_mix(make: Make) -> None:
    async def ask(near: Connection, number: int) -> None:
        ours = await near.open()
        content = number.to_bytes(4) * 500
        await ours.send(content)
        assert await ours.receive(len(content)) == content

    async with connected(make) as (near, far), asyncio.TaskGroup() as tasks:
        for number in range(300):
            tasks.create_task(ask(near, number))
        for _ in range(300):
            tasks.create_task(echo(await far.accept(), 2000))


@on_both
async def test_both_sides_open_streams(make: Make) -> None:
    async with connected(make) as (near, far):
        for a, b in ((near, far), (far, near)):
            ours, theirs = await stream(a, b)
            await theirs.send(b"answer")
            assert await ours.receive(6) == b"answer"


@on_both
async def test_a_sender_waits_for_a_reader_that_does_not_read(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        handed_over = 0

        async def pour() -> None:
            nonlocal handed_over
            while True:
                await ours.send(bytes(64 * 1024))
                handed_over += 64 * 1024

        pouring = asyncio.create_task(pour())
        before = -1
        while handed_over != before:
            before = handed_over
            await asyncio.wait([pouring], timeout=0.3)
        assert 512 * 1024 < handed_over < 4 * MIB
        await theirs.receive(4 * MIB)
        await asyncio.wait([pouring], timeout=0.3)
        assert handed_over > before
        pouring.cancel()
        await asyncio.wait([pouring])


@on_both
async def test_one_full_stream_does_not_hold_up_the_others(make: Make) -> None:
    async with connected(make) as (near, far):
        full, _unread = await stream(near, far)
        pouring = asyncio.create_task(full.send(bytes(4 * MIB)))
        await asyncio.wait([pouring], timeout=0.2)
        ours, theirs = await stream(near, far)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(echo(theirs, 5000))
            await ours.send(bytes(5000))
            assert len(await ours.receive(5000)) == 5000
        pouring.cancel()
        await asyncio.wait([pouring])


@on_both
async def test_a_finished_stream_is_read_to_its_end_and_no_further(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        await ours.send(b"last words")
        await ours.finish()
        assert await theirs.receive(10) == b"last words"
        with pytest.raises(Disconnected, match="ended 3 bytes before the 3"):
            await theirs.receive(3)
        await theirs.send(b"still")
        assert await ours.receive(5) == b"still"
        with pytest.raises(Disconnected):
            await ours.send(b"more")


@on_both
async def test_a_stream_that_ends_too_early_says_how_much_was_missing(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        await ours.send(b"half")
        await ours.finish()
        with pytest.raises(Disconnected, match="ended 4 bytes before the 8"):
            await theirs.receive(8)


@on_both
async def test_after_sent_nothing_is_lost_by_closing(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        reading = asyncio.create_task(theirs.receive(MIB))
        await ours.send(bytes(MIB))
        await ours.finish()
        await ours.sent()
        assert len(await reading) == MIB
        near.close("done")


@on_both
async def test_an_aborted_stream_ends_on_both_sides_at_once(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        reading, other_reading = asyncio.create_task(ours.receive(1)), asyncio.create_task(theirs.receive(1))
        await asyncio.wait([reading, other_reading], timeout=0.1)
        ours.abort()
        for task in (reading, other_reading):
            with pytest.raises(Disconnected, match=r"given up here|gave the stream up"):
                await asyncio.wait_for(task, 5)
        for ended in (ours, theirs):
            with pytest.raises(Disconnected):
                await ended.receive(1)
        with pytest.raises(Disconnected):
            await ours.send(b"x")
        ours.abort()
        await stream(near, far)


@on_both
async def test_a_writer_learns_that_the_reader_gave_up(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        pouring = asyncio.create_task(ours.send(bytes(8 * MIB)))
        await asyncio.wait([pouring], timeout=0.2)
        theirs.abort()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(pouring, 5)


@on_both
async def test_a_cancelled_call_leaves_a_stream_that_can_be_aborted(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        for call in (ours.receive(10), ours.send(bytes(8 * MIB))):
            task = asyncio.ensure_future(call)
            await asyncio.wait([task], timeout=0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        ours.abort()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(theirs.receive(16 * MIB), 5)


@on_both
async def test_the_other_side_sees_a_connection_close_with_the_reason(make: Make) -> None:
    async with connected(make) as (near, far):
        ours, theirs = await stream(near, far)
        reading, accepting = asyncio.create_task(theirs.receive(1)), asyncio.create_task(far.accept())
        await asyncio.wait([reading, accepting], timeout=0.1)
        near.close("had enough")
        assert await asyncio.wait_for(far.closed(), 5) == "had enough"
        assert await near.closed() == "had enough"
        for task in (reading, accepting):
            with pytest.raises(Disconnected):
                await asyncio.wait_for(task, 5)
        for ended in (near, far):
            with pytest.raises(Disconnected):
                await ended.open()
        with pytest.raises(Disconnected):
            await ours.send(b"x")


@on_both
async def test_a_transport_that_closes_takes_its_connections_along_quickly(make: Make) -> None:
    async with make() as a:
        async with make() as b:
            near, far = await dial(a, b)
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 1
        assert await asyncio.wait_for(near.closed(), 5) == await far.closed() == "the node is stopping"


@on_both
async def test_nobody_at_an_address_is_unreachable_within_the_deadline(make: Make) -> None:
    async with make() as a:
        nobody = Where(Identity(bytes(32)).id, ("127.0.0.1:9", "[::1]:9"))
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unreachable, match=r"did not answer within 0\.5 s"):
            await a.connect(nobody, ECHO, timeout_s=0.5)
        assert 0.4 < asyncio.get_running_loop().time() - started < 2


@on_both
async def test_somebody_else_at_the_address_is_unreachable(make: Make) -> None:
    async with make() as a, make() as b:
        wrong = Where(Identity(bytes(32)).id, tuple(b.addresses()))
        with pytest.raises(Unreachable, match="somebody else answers there"):
            await a.connect(wrong, ECHO, timeout_s=5)


@on_both
async def test_a_protocol_that_is_not_spoken_is_refused(make: Make) -> None:
    async with make() as a, make() as b:
        with pytest.raises(Unreachable, match="does not speak this protocol"):
            await a.connect(where(b), "test/unknown/1", timeout_s=5)
        near, _ = await dial(a, b, OTHER)
        assert near.protocol == OTHER


@on_both
async def test_what_cannot_be_dialled_is_unreachable(make: Make) -> None:
    async with make() as a:
        with pytest.raises(Unreachable, match="own key"):
            await a.connect(where(a), ECHO, timeout_s=1)
        with pytest.raises(Unreachable):
            await a.connect(Where(Identity(bytes(32)).id), ECHO, timeout_s=1)
        with pytest.raises(Unreachable):
            await a.connect(Where(Identity(bytes(32)).id, ("nonsense", "1.2.3.4", "x:99999")), ECHO, timeout_s=0.2)


@on_both
async def test_a_cancelled_dial_leaves_nothing_behind(make: Make) -> None:
    async with make() as a, make() as b:
        for pause in (0.0, 0.0, 0.001, 0.002):
            dialling = asyncio.create_task(a.connect(where(b), ECHO, timeout_s=5))
            await asyncio.wait([dialling], timeout=pause)
            if not dialling.done():
                dialling.cancel()
                await asyncio.wait([dialling])
            if not dialling.cancelled():
                dialling.result().close("not needed")
        near = await a.connect(where(b), ECHO, timeout_s=5)
        ours = await near.open()
        await ours.send(b"here")
        async with asyncio.timeout(10):
            assert await (await _first_stream(b)).receive(4) == b"here"


async def _first_stream(transport: Transport) -> Stream:
    """Of whichever connection has one first: of one that was given up, the far side may hear late."""
    found: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    async def take(far: Connection) -> None:
        with contextlib.suppress(Disconnected):
            stream = await far.accept()
            if not found.done():
                found.set_result(stream)

    async def take_all() -> None:
        with contextlib.suppress(Disconnected):
            while True:
                taking.append(tasks.create_task(take(await transport.accept())))

    taking: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as tasks:
        taking.append(tasks.create_task(take_all()))
        stream = await found
        for task in taking:
            task.cancel()
    return stream


async def _talk(near: Connection, far: Connection) -> None:
    ours, theirs = await stream(near, far)
    await theirs.send(b"here")
    assert await ours.receive(4) == b"here"


@on_both
async def test_two_connections_between_the_same_nodes_live_side_by_side(make: Make) -> None:
    async with make() as a, make() as b:
        one = await dial(a, b)
        two = await dial(b, a)
        three = await dial(a, b, OTHER)
        one[0].close("one too many")
        await one[1].closed()
        for near, far in (two, three):
            await _talk(near, far)


@on_both
async def test_a_closed_transport_neither_accepts_nor_dials(make: Make) -> None:
    async with make() as a:
        async with make() as b:
            accepting = asyncio.create_task(b.accept())
            await asyncio.wait([accepting], timeout=0.05)
        for call in (accepting, asyncio.ensure_future(b.accept())):
            with pytest.raises(Disconnected):
                await asyncio.wait_for(call, 5)
        with pytest.raises(Disconnected):
            await b.connect(where(a), ECHO, timeout_s=1)


@on_both
async def test_addresses_and_relays_change_while_running(make: Make) -> None:
    async with make() as a, make() as b:
        a.advertise(["127.0.0.1:4000", "nonsense"])
        a.use_relays(["http://127.0.0.1:9", "nonsense"])
        await _talk(*await dial(b, a))
        a.advertise([])
        a.use_relays([])
        assert "127.0.0.1:4000" not in a.addresses()
        await _talk(*await dial(b, a))
