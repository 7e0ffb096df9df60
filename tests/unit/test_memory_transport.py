"""The simulated network: time that jumps, the same trace for the same seed, and each thing that can go wrong."""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from contextlib import AsyncExitStack

import pytest

from pares.transport.link import Connection, Disconnected, Unreachable, Where
from pares.transport.memory import Line, MemoryTransport, Network
from pares.transport.memory_connection import IDLE_S, UPGRADE_S, MemoryConnection
from pares.transport.virtual_clock import Stuck, VirtualClockLoop, simulate

PROTOCOLS = ("test/1",)
RELAY = "https://relay.example"
CALM = Line(latency_s=0.01, bytes_per_s=1e6)


def node(network: Network, number: int, line: Line = CALM) -> MemoryTransport:
    return network.node(number.to_bytes(32), PROTOCOLS, line)


def where(node: MemoryTransport, relay: str = "") -> Where:
    return Where(node.id, (node.inside, node.external), relay)


async def dial(a: MemoryTransport, b: MemoryTransport, relay: str = "", timeout_s: float = 5) -> Connection:
    return await a.connect(where(b, relay), "test/1", timeout_s=timeout_s)


def now() -> float:
    return asyncio.get_running_loop().time()


async def ask(near: Connection, far: Connection, size: int = 1) -> float:
    """Virtual seconds for `size` bytes there and one byte back."""
    started = now()
    ours = await near.open()
    await ours.send(bytes(size))
    theirs = await far.accept()
    await theirs.receive(size)
    await theirs.send(b"!")
    await ours.receive(1)
    return now() - started


# Time


def test_a_week_passes_at_once_and_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def wake(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append((name, now()))

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wake("week", 7 * 86400))
            tasks.create_task(wake("second", 1))
            tasks.create_task(wake("day", 86400))

    started = time.perf_counter()
    simulate(main())
    assert time.perf_counter() - started < 2
    assert [name for name, _ in seen] == ["second", "day", "week"]
    assert [round(at, 3) for _, at in seen] == [1, 86400, 7 * 86400]


def test_a_deadline_ends_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return now()

    assert simulate(main()) == pytest.approx(3600)


def test_waiting_for_what_nobody_will_do_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        simulate(main())


def test_the_clock_starts_at_zero_in_each_loop() -> None:
    for _ in range(2):
        loop = VirtualClockLoop()
        assert loop.time() == 0
        loop.run_until_complete(asyncio.sleep(5))
        assert loop.time() == pytest.approx(5)
        loop.close()


# Lines


def test_delay_bandwidth_and_repetition_take_their_time() -> None:
    async def main(line: Line) -> tuple[float, float]:
        network = Network(seed=3)
        async with node(network, 1, line) as a, node(network, 2, line) as b:
            started = now()
            near, far = await asyncio.gather(dial(a, b), b.accept())
            assert now() - started >= 3 * 0.02
            assert near.path.rtt_ms == pytest.approx(40)
            return await ask(near, far), await ask(near, far, 1_000_000)

    small, large = simulate(main(CALM))
    assert small == pytest.approx(0.04, abs=0.001)
    assert 1.04 < large < 1.2
    lossy, _ = simulate(main(Line(latency_s=0.01, bytes_per_s=1e6, loss=0.9)))
    assert lossy > 0.2
    shaky, _ = simulate(main(Line(latency_s=0.01, bytes_per_s=1e6, jitter_s=0.1)))
    assert 0.04 < shaky < 0.5


def test_two_senders_share_the_line_of_a_third() -> None:
    async def main() -> tuple[float, float]:
        network = Network(seed=1)
        async with node(network, 1) as a, node(network, 2) as b, node(network, 3) as c:
            pairs = [await asyncio.gather(dial(x, c), c.accept()) for x in (a, b)]
            alone = await ask(*pairs[0], 1_000_000)
            started = now()
            await asyncio.gather(*(ask(*pair, 1_000_000) for pair in pairs))
            return alone, now() - started

    alone, both = simulate(main())
    assert both > 1.8 * alone


def test_traffic_is_counted_with_headers() -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with node(network, 1) as a, node(network, 2) as b:
            near, far = await asyncio.gather(dial(a, b), b.accept())
            before = a.traffic.sent
            await ask(near, far, 12_000)
            assert a.traffic.sent - before == 12_000 + 10 * 60
            assert b.traffic.received == a.traffic.sent

    simulate(main())


# Faults


def test_nobody_is_told_of_a_death() -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with node(network, 1) as a, node(network, 2) as b:
            near, far = await asyncio.gather(dial(a, b), b.accept())
            ours = await near.open()
            network.kill(b.id)
            assert await far.closed() == "killed"
            killed = now()
            await ours.send(b"anybody?")
            with pytest.raises(Disconnected):
                await ours.receive(1)
            assert now() - killed == pytest.approx(IDLE_S)
            assert await near.closed() == "timed out"
            with pytest.raises(Unreachable):
                await dial(a, b)
            with pytest.raises(Disconnected):
                await b.accept()
            async with node(network, 2) as again:
                assert again.external != b.external
                await dial(a, again)

    simulate(main())


def test_what_a_short_partition_held_up_arrives_after_it_and_a_long_one_cuts() -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with node(network, 1) as a, node(network, 2) as b, node(network, 3) as c:
            near, far = await asyncio.gather(dial(a, b), b.accept())
            network.partition([a.id, c.id], [b.id])
            asking = asyncio.create_task(ask(near, far))
            with pytest.raises(Unreachable):
                await dial(a, b)
            await dial(a, c)
            network.heal()
            assert 5 < await asking < 6
            network.partition([a.id], [b.id, c.id])
            assert await near.closed() == await far.closed() == "timed out"
            network.heal()
            await dial(a, b)

    simulate(main())


def test_a_node_that_moved_is_found_only_at_its_new_address() -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with node(network, 1) as a, node(network, 2) as b:
            near = await dial(a, b)
            old = where(b)
            network.move(b.id)
            with pytest.raises(Unreachable):
                await a.connect(old, "test/1", timeout_s=2)
            await dial(a, b)
            assert await near.closed() == "timed out"

    simulate(main())


# NAT and relays

CONE, SYMMETRIC = Line(nat="cone"), Line(nat="symmetric")


@pytest.mark.parametrize(
    ("first", "second", "alone", "together"),
    [
        (CALM, CALM, True, True),
        (CONE, CALM, True, True),
        (CALM, CONE, False, True),
        (CONE, CONE, False, True),
        (CONE, SYMMETRIC, False, False),
        (SYMMETRIC, SYMMETRIC, False, False),
    ],
)
def test_who_reaches_whom_alone_and_when_both_dial(first: Line, second: Line, alone: bool, together: bool) -> None:
    async def main() -> None:
        network = Network(seed=1)
        async with node(network, 1, first) as a, node(network, 2, second) as b:
            one = await asyncio.gather(dial(a, b), return_exceptions=True)
            assert isinstance(one[0], MemoryConnection if alone else Unreachable)
            await asyncio.sleep(60)
            both = await asyncio.gather(dial(a, b), dial(b, a), return_exceptions=True)
            assert any(isinstance(result, MemoryConnection) for result in both) is together

    simulate(main())


def test_a_relay_carries_two_symmetric_nats_and_goes_direct_where_it_can() -> None:
    async def main(line: Line) -> tuple[str, str]:
        network = Network(seed=1)
        network.open_relay(RELAY, latency_s=0.02)
        async with node(network, 1, line) as a, node(network, 2, line) as b:
            with pytest.raises(Unreachable):
                await dial(a, b, RELAY)
            for each in (a, b):
                each.use_relays([RELAY])
                each.advertise([each.external])
            near, far = await asyncio.gather(a.connect(Where(b.id, (), RELAY), "test/1", timeout_s=5), b.accept())
            assert near.path.kind == far.path.kind == "relayed"
            assert (near.path.address, far.observed) == (RELAY, "")
            await asyncio.sleep(2 * UPGRADE_S)
            kind = near.path.kind
            await ask(near, far)
            network.close_relay(RELAY)
            asking = asyncio.create_task(ask(near, far))
            done, _ = await asyncio.wait([asking], timeout=2 * IDLE_S)
            assert done
            return kind, "cut" if asking.exception() else "lives"

    assert simulate(main(SYMMETRIC)) == ("relayed", "cut")
    assert simulate(main(CONE)) == ("direct", "lives")


def test_nodes_on_one_lan_reach_each_others_inside_addresses() -> None:
    async def main() -> None:
        network = Network(seed=1)
        home = Line(nat="symmetric", lan="home")
        async with node(network, 1, home) as a, node(network, 2, home) as b, node(network, 3, CONE) as c:
            near, far = await asyncio.gather(dial(a, b), b.accept())
            assert near.path.kind == far.path.kind == "lan"
            assert far.observed == a.inside
            with pytest.raises(Unreachable):
                await dial(c, a)

    simulate(main())


# Size and sameness


async def _busy(seed: int, nodes: int, trace: list[tuple[object, ...]]) -> None:
    """Everybody asks random others, some die, some move, a partition comes and goes."""
    network = Network(seed, on_event=lambda *event: trace.append(event))
    chance = random.Random(seed)
    shaky = Line(latency_s=0.02, jitter_s=0.05, loss=0.05)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        members = [await stack.enter_async_context(node(network, n, shaky)) for n in range(nodes)]
        serving = [tasks.create_task(_serve(member)) for member in members]
        for _ in range(3):
            asking = [tasks.create_task(_visit(a, chance.choice(members), chance.randrange(5000))) for a in members]
            await asyncio.sleep(0.1)
            network.partition([member.id for member in members[::3]], [member.id for member in members[1::3]])
            network.move(chance.choice(members[1::2]).id)
            await asyncio.sleep(2)
            network.heal()
            await asyncio.wait(asking)
        network.kill(members[0].id)
        await asyncio.sleep(2 * IDLE_S)
        for task in serving:
            task.cancel()


async def _serve(member: MemoryTransport) -> None:
    kept = []
    try:
        while True:
            connection = await member.accept()
            kept.append(connection)
            try:
                stream = await connection.accept()
                await stream.send(await stream.receive(100))
            except Disconnected:
                continue
    except Disconnected:
        return


async def _visit(member: MemoryTransport, other: MemoryTransport, size: int) -> None:
    try:
        connection = await dial(member, other, timeout_s=3)
        stream = await connection.open()
        await stream.send(bytes(100 + size))
        async with asyncio.timeout(5):
            await stream.receive(100)
        connection.close("thanks")
    except (Unreachable, Disconnected, TimeoutError):
        return


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    traces: list[list[tuple[object, ...]]] = [[], [], []]
    for trace, seed in zip(traces, (7, 7, 8), strict=True):
        simulate(_busy(seed, 30, trace))
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_a_thousand_nodes_with_ten_connections_each_take_little_memory() -> None:
    async def main() -> int:
        network = Network(seed=1)
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(node(network, n)) for n in range(1000)]
            tracemalloc.start()
            made = [
                await asyncio.gather(*(dial(member, members[(n + step) % 1000]) for n, member in enumerate(members)))
                for step in (1, 2, 3, 5, 7)
            ]
            for connection in made[0]:
                stream = await connection.open()
                await stream.send(b"hello")
            await asyncio.sleep(3600)
            size = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            return size

    assert simulate(main()) < 64 * 2**20
