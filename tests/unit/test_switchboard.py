"""All connections of a node, on the simulated network and in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pares.transport import switchboard as module
from pares.transport.link import Connection, Disconnected, Stream, Unreachable, Where, may_dial
from pares.transport.memory import Line, MemoryTransport, Network
from pares.transport.memory_connection import MemoryConnection
from pares.transport.switchboard import (
    ADDRESSES,
    AT_ONCE_S,
    PUNISHED,
    PUNISHED_S,
    REQUEST_S,
    RETIRED,
    RETIRED_S,
    STREAMS,
    Handler,
    Switchboard,
    answer,
    ask,
    receive,
)
from pares.transport.virtual_clock import simulate
from pares.wire.framing import MESSAGE_BYTES, PREFIX, ProtocolError
from pares.wire.messages import Ping
from pares.wire.signing import PeerId

SPOKEN = "test/1"
NOWHERE = "11.0.255.255:4433"
PING = Ping(number=7)


async def echo(link: Connection, stream: Stream) -> None:
    await answer(stream, await receive(stream, Ping))


@dataclass
class Side:
    """One node of a test."""

    transport: MemoryTransport
    board: Switchboard
    changes: list[PeerId] = field(default_factory=list)

    @property
    def id(self) -> PeerId:
        return self.transport.id

    def where(self, *more: str) -> Where:
        return Where(self.id, (*more, *self.transport.addresses()))

    def link(self, other: Side) -> Connection | None:
        return self.board.link(other.id, SPOKEN)


def in_virtual_time(test: Callable[[Network], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        simulate(test(Network(seed=1)))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@asynccontextmanager
async def side(
    network: Network,
    number: int,
    handler: Handler = echo,
    *,
    allowed: Callable[[Connection], bool] = lambda link: True,
    line: Line | None = None,
    lasting: Collection[str] = (),
) -> AsyncIterator[Side]:
    changes: list[PeerId] = []
    handlers = {SPOKEN: handler}
    async with (
        network.node(bytes([number]) * 32, (SPOKEN,), line) as transport,
        Switchboard(transport, handlers, allowed=allowed, on_change=changes.append, lasting=lasting) as board,
    ):
        yield Side(transport, board, changes)


@asynccontextmanager
async def two(network: Network, handler: Handler = echo) -> AsyncIterator[tuple[Side, Side]]:
    """The one with the lower key first."""
    async with side(network, 1, handler) as one, side(network, 2, handler) as other:
        low, high = sorted((one, other), key=lambda side: side.id)
        yield low, high


async def asked(one: Side, other: Side, timeout_s: float = REQUEST_S) -> Ping:
    link = await one.board.connect(other.where(), SPOKEN)
    return await ask(link, PING, Ping, timeout_s=timeout_s)


async def drip(stream: Stream) -> None:
    while True:
        await stream.send(b"x")
        await asyncio.sleep(0.5)


async def until(holds: Callable[[], object], within_s: float = 60) -> float:
    """Virtual seconds until it holds."""
    began = now()
    while not holds():
        assert now() - began < within_s
        await asyncio.sleep(0.01)
    return now() - began


def now() -> float:
    return asyncio.get_running_loop().time()


# One connection per peer


@in_virtual_time
async def test_one_connection_is_made_for_all_who_want_it(network: Network) -> None:
    async with two(network) as (low, high):
        links = await asyncio.gather(*(low.board.connect(high.where(), SPOKEN) for _ in range(5)))
        assert len(set(map(id, links))) == 1
        assert low.board.connected(SPOKEN) == (high.id,)
        assert await ask(links[0], PING, Ping) == PING
        assert len(high.transport.connections) == 1


@in_virtual_time
async def test_when_both_dial_at_once_the_one_of_the_lower_key_stays(network: Network) -> None:
    async with two(network) as (low, high):
        await asyncio.gather(low.board.connect(high.where(), SPOKEN), high.board.connect(low.where(), SPOKEN))
        await asyncio.sleep(RETIRED_S + 1)
        assert len(low.transport.connections) == len(high.transport.connections) == 1
        ours, theirs = low.link(high), high.link(low)
        assert ours is not None
        assert theirs is not None
        assert (ours.outgoing, theirs.outgoing) == (True, False)
        assert await asked(low, high) == await asked(high, low) == PING


@in_virtual_time
async def test_requests_on_the_connection_that_goes_are_still_answered(network: Network) -> None:
    async def slow(link: Connection, stream: Stream) -> None:
        request = await receive(stream, Ping)
        await asyncio.sleep(RETIRED_S / 2)
        await answer(stream, request)

    async with two(network, slow) as (low, high):
        first = await high.board.connect(low.where(), SPOKEN)
        waiting = asyncio.create_task(ask(first, PING, Ping))
        await asyncio.sleep(0.1)
        await low.transport.connect(high.where(), SPOKEN, timeout_s=5)  # as if it had not heard of the first
        await until(lambda: high.link(low) is not first)
        assert await waiting == PING


@in_virtual_time
async def test_a_restarted_peer_replaces_its_dead_connection(network: Network) -> None:
    async with side(network, 1) as one, AsyncExitStack() as again:
        async with AsyncExitStack() as first:
            other = await first.enter_async_context(side(network, 2))
            await other.board.connect(one.where(), SPOKEN)
            await until(lambda: one.link(other))
            dead = one.link(other)
            await asyncio.sleep(AT_ONCE_S)
            network.kill(other.id)
            other = await again.enter_async_context(side(network, 2))
            await other.board.connect(one.where(), SPOKEN)
            await until(lambda: one.link(other) is not dead, within_s=1)
            assert await asyncio.wait_for(asked(one, other), 1) == PING
        await asyncio.sleep(RETIRED_S + 1)
        assert len(one.transport.connections) == 1
        assert await asked(one, other) == PING


@in_virtual_time
async def test_a_peer_that_dials_again_and_again_has_few_connections(network: Network) -> None:
    async with side(network, 1) as one, network.node(bytes(32), (SPOKEN,)) as hostile:
        for _ in range(50):
            await hostile.connect(one.where(), SPOKEN, timeout_s=5)
        await until(lambda: one.board.link(hostile.id, SPOKEN))
        await asyncio.sleep(0.1)
        assert len(one.transport.connections) <= RETIRED + 1
        await asyncio.sleep(RETIRED_S + 1)
        assert len(one.transport.connections) == 1


# Dialling


@in_virtual_time
async def test_a_failed_dial_says_why_and_ends_nothing_else(network: Network) -> None:
    async with two(network) as (low, high):
        with pytest.raises(Unreachable, match="did not answer within 3 s"):
            await low.board.connect(Where(PeerId(b"x" * 32), (NOWHERE,)), SPOKEN, timeout_s=3)
        with pytest.raises(Unreachable, match="somebody else answers"):
            await low.board.connect(Where(PeerId(b"x" * 32), high.where().addresses), SPOKEN)
        assert await asked(low, high) == PING


@in_virtual_time
async def test_new_addresses_join_a_dial_that_is_under_way(network: Network) -> None:
    """A stale address must not hold up what an introduction or the DHT has found meanwhile."""
    async with two(network) as (low, high):
        stale = asyncio.create_task(low.board.connect(Where(high.id, (NOWHERE,)), SPOKEN, timeout_s=10))
        await asyncio.sleep(1)
        link = await asyncio.wait_for(low.board.connect(high.where(), SPOKEN), 2)
        assert await asyncio.wait_for(stale, 1) is link
        assert len(low.transport.connections) == 1


@in_virtual_time
async def test_a_dial_ends_when_the_peer_comes_by_itself(network: Network) -> None:
    async with two(network) as (low, high):
        dialling = asyncio.create_task(high.board.connect(Where(low.id, (NOWHERE,)), SPOKEN, timeout_s=10))
        await asyncio.sleep(0.1)
        await low.board.connect(high.where(), SPOKEN)
        link = await asyncio.wait_for(dialling, 1)
        assert link is high.link(low)
        assert not link.outgoing


@in_virtual_time
async def test_who_gives_up_waiting_takes_the_dial_from_nobody(network: Network) -> None:
    async with two(network) as (low, high):
        first = asyncio.create_task(low.board.connect(high.where(), SPOKEN))
        second = asyncio.create_task(low.board.connect(high.where(), SPOKEN))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).peer == high.id


@in_virtual_time
async def test_only_so_many_addresses_are_dialled_and_none_that_makes_no_sense(network: Network) -> None:
    dialled: list[tuple[str, ...]] = []

    async with side(network, 1) as one:
        original = one.transport.connect

        async def connect(where: Where, protocol: str, *, timeout_s: float) -> MemoryConnection:
            dialled.append(where.addresses)
            return await original(where, protocol, timeout_s=timeout_s)

        one.transport.connect = connect  # type: ignore[method-assign]  # what is dialled cannot be seen from outside
        many = tuple(f"11.1.0.{number}:4433" for number in range(100))
        bad = ("127.0.0.1:4433", "255.255.255.255:4433", "224.0.0.1:4433", "11.1.0.1:53", "[ff02::1]:4433", "rubbish")
        with pytest.raises(Unreachable):
            await one.board.connect(Where(PeerId(b"x" * 32), (*bad, *many)), SPOKEN, timeout_s=1)
        assert dialled == [many[:ADDRESSES]]


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("192.0.2.1:4433", True), ("192.0.2.1:443", True), ("10.0.0.1:65535", True), ("[2001:db8::1]:4433", True),
        ("[fe80::1%eth0]:4433", True), ("192.0.2.1:53", False), ("192.0.2.1:0", False), ("0.0.0.0:4433", False),
        ("[::]:4433", False), ("239.1.2.3:4433", False), ("240.0.0.1:4433", False), ("example.org:4433", False),
        ("[::ffff:224.0.0.1]:4433", False), ("", False),
    ],
)  # fmt: skip
def test_packets_go_on_somebodys_word_only_where_a_node_could_be(address: str, may: bool) -> None:
    assert may_dial(address, local=False) == may
    assert not may_dial("127.0.0.1:4433", local=False)
    assert may_dial("[::1]:4433", local=True)


# Requests


@in_virtual_time
async def test_an_answer_that_does_not_come_is_not_waited_for(network: Network) -> None:
    async def silent(link: Connection, stream: Stream) -> None:
        await asyncio.Event().wait()

    async with two(network, silent) as (low, high):
        began = now()
        with pytest.raises(Disconnected, match=r"did not answer within 1\.5 s"):
            await asked(low, high, timeout_s=1.5)
        assert 1.5 <= now() - began < 1.7
        assert low.link(high) is not None, "a slow answer costs no connection"


@in_virtual_time
async def test_a_request_that_drips_in_is_given_up(network: Network) -> None:
    async with two(network) as (low, high):
        link = await low.board.connect(high.where(), SPOKEN)
        stream = await link.open()
        began = now()
        await stream.send(PREFIX.pack(1000))
        with pytest.raises(Disconnected):
            await drip(stream)
        assert now() - began < REQUEST_S + 1
        assert await asked(low, high) == PING


@in_virtual_time
async def test_a_stream_of_a_lasting_protocol_goes_on(network: Network) -> None:
    async def repeat(link: Connection, stream: Stream) -> None:
        while True:
            await stream.send(await stream.receive(4))

    async with side(network, 1) as one, side(network, 2, repeat, lasting=(SPOKEN,)) as other:
        stream = await (await one.board.connect(other.where(), SPOKEN)).open()
        for _ in range(3):
            await stream.send(b"ping")
            assert await stream.receive(4) == b"ping"
            await asyncio.sleep(REQUEST_S)


@in_virtual_time
async def test_so_many_requests_are_worked_on_at_once_and_the_others_wait(network: Network) -> None:
    busy: list[int] = [0, 0]

    async def slow(link: Connection, stream: Stream) -> None:
        busy[0] += 1
        busy[1] = max(busy)
        await asyncio.sleep(1)
        busy[0] -= 1
        await answer(stream, await receive(stream, Ping))

    async with two(network, slow) as (low, high):
        await asyncio.gather(*(asked(low, high) for _ in range(3 * STREAMS)))
        assert busy[1] == STREAMS


@pytest.mark.parametrize(
    "sent",
    [
        PREFIX.pack(MESSAGE_BYTES + 1),
        PREFIX.pack(0),
        PREFIX.pack(3) + b"\xc1\xc1\xc1",
        PREFIX.pack(5000) + b"\x91" * 5000,
    ],
    ids=["too large", "empty", "rubbish", "nested"],
)
def test_who_breaks_the_protocol_is_left_alone_for_a_minute(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with two(network) as (low, high), side(network, 3) as honest:
            assert await asked(honest, high) == PING
            link = await low.board.connect(high.where(), SPOKEN)
            await until(lambda: high.link(low))
            await (await link.open()).send(sent)
            await until(lambda: high.link(low) is None)
            assert [record.message for record in caplog.records] == ["peer.dropped"]
            assert vars(caplog.records[0])["peer"] == low.id.hex()[:8]
            assert vars(caplog.records[0])["reason"]
            with pytest.raises(Unreachable, match="is left alone"):
                await high.board.connect(low.where(), SPOKEN)
            for _ in range(3):
                again = await low.transport.connect(high.where(), SPOKEN, timeout_s=5)
                assert await again.closed() == "not welcome"
            assert await asked(honest, high) == PING, "nobody else is concerned"
            await asyncio.sleep(PUNISHED_S)
            await until(lambda: low.link(high) is None)
            assert await asked(low, high) == PING

    with caplog.at_level(logging.WARNING):
        simulate(main())


@in_virtual_time
async def test_the_punished_are_forgotten_before_they_fill_memory(network: Network) -> None:
    async with side(network, 1) as one:
        for number in range(2 * PUNISHED):
            one.board.punish(PeerId(number.to_bytes(32)), ProtocolError("rubbish"))
        assert len(one.board._punished) == PUNISHED


def test_a_bug_in_answering_costs_one_request_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def buggy(link: Connection, stream: Stream) -> None:
        if (await receive(stream, Ping)).number:
            raise KeyError("a bug")
        await answer(stream, Ping(number=0))

    async def main() -> None:
        async with two(Network(seed=1), buggy) as (low, high):
            with pytest.raises(Disconnected):
                await asked(low, high)
            link = await low.board.connect(high.where(), SPOKEN)
            assert await ask(link, Ping(number=0), Ping) == Ping(number=0)

    simulate(main())
    assert [record.message for record in caplog.records] == ["peer.request_failed"]
    assert caplog.records[0].exc_info


@in_virtual_time
async def test_an_answer_of_rubbish_is_the_peers_fault(network: Network) -> None:
    async def rubbish(link: Connection, stream: Stream) -> None:
        await receive(stream, Ping)
        await stream.send(PREFIX.pack(4) + b"\xff" * 4)

    async with two(network, rubbish) as (low, high):
        with pytest.raises(ProtocolError):
            await asked(low, high)


@in_virtual_time
async def test_what_waits_when_a_connection_ends_is_given_up(network: Network) -> None:
    """Also when all places are taken, and nothing new is accepted."""

    async def slow(link: Connection, stream: Stream) -> None:
        await asyncio.sleep(REQUEST_S / 2)

    async with AsyncExitStack() as stack:
        low, high = await stack.enter_async_context(two(network, slow))
        asking = [asyncio.create_task(asked(low, high)) for _ in range(4 * STREAMS)]
        await asyncio.sleep(0.5)
        began = now()
        await stack.aclose()
        assert now() - began < 0.1
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(end, Disconnected) for end in ends)


# Who may be there


@in_virtual_time
async def test_who_is_not_allowed_gets_no_word_in(network: Network) -> None:
    heard: list[bytes] = []

    async def listen(link: Connection, stream: Stream) -> None:
        heard.append(link.peer)

    async with side(network, 1, listen, allowed=lambda link: False) as one, side(network, 2) as other:
        link = await other.board.connect(one.where(), SPOKEN)
        with pytest.raises(Disconnected):
            await ask(link, PING, Ping)
        assert not heard
        assert one.board.connected(SPOKEN) == ()
        await until(lambda: not other.board.connected(SPOKEN))


@in_virtual_time
async def test_whom_we_dial_has_to_be_allowed_too(network: Network) -> None:
    async with side(network, 1, allowed=lambda link: False) as one, side(network, 2) as other:
        with pytest.raises(Unreachable, match="not welcome"):
            await one.board.connect(other.where(), SPOKEN)


@in_virtual_time
async def test_dropping_a_peer_closes_all_it_has(network: Network) -> None:
    async with side(network, 1) as one, network.node(bytes(32), (SPOKEN,)) as other:
        links = [await other.connect(one.where(), SPOKEN, timeout_s=5) for _ in range(3)]
        await until(lambda: len(one.transport.connections) == 3 and one.board.link(other.id, SPOKEN))
        await asyncio.sleep(0.1)
        one.board.drop(other.id, "blocked")
        assert [await link.closed() for link in links] == ["blocked"] * 3
        assert one.changes.count(other.id) >= 2


async def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 3)

    async def main() -> None:
        network = Network(seed=1)
        async with side(network, 1) as one, AsyncExitStack() as others:
            boards = [await others.enter_async_context(side(network, number)) for number in range(2, 7)]
            for other in boards:
                await other.board.connect(one.where(), SPOKEN)
            await asyncio.sleep(1)
            assert len(one.board.connected(SPOKEN)) == 3
            assert await asked(boards[0], one) == PING

    await asyncio.to_thread(lambda: simulate(main()))


# The end


@pytest.mark.parametrize("moment", [0.0, 0.015, 0.03, 0.05, 0.5, 2.0])
def test_stopping_in_the_middle_of_anything_is_prompt(moment: float) -> None:
    async def silent(link: Connection, stream: Stream) -> None:
        await asyncio.Event().wait()

    async def failing(work: Awaitable[object]) -> None:
        with pytest.raises((Unreachable, Disconnected)):
            await work

    async def main() -> None:
        network = Network(seed=1)
        async with side(network, 2, silent) as other, AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            one = await stack.enter_async_context(side(network, 1, silent))
            tasks.create_task(failing(one.board.connect(Where(PeerId(b"x" * 32), (NOWHERE,)), SPOKEN)))
            tasks.create_task(failing(asked(one, other)))
            tasks.create_task(failing(asked(other, one)))
            await asyncio.sleep(moment)
            began = now()
            await stack.aclose()
            assert now() - began < 0.5
            with pytest.raises(Unreachable, match="stopping"):
                await one.board.connect(other.where(), SPOKEN)

    simulate(main())
