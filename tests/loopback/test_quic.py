"""The real network: what only it can do wrong, and peers that mean harm."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import iroh
import psutil
import pytest
from iroh import iroh_ffi

from pares.circle.relay import Relay
from pares.circle.settings import RelaySettings
from pares.errors import AlreadyRunning
from pares.transport import quic
from pares.transport.link import Connection, Disconnected, Stream, Where
from pares.transport.quic import STREAMS, QuicTransport
from pares.transport.settings import Settings

ECHO = "test/echo/1"
LOOPBACK = Settings(loopback_only=True)
MIB = 2**20
Write = Callable[[Any, bytes | memoryview], None]


def node(settings: Settings = LOOPBACK) -> QuicTransport:
    return QuicTransport(os.urandom(32), (ECHO,), settings)


def over(transport: QuicTransport, host: str) -> Where:
    """The transport at its IPv4 or its IPv6 address only: to it, these are two sources."""
    return Where(transport.id, tuple(a for a in transport.addresses() if a.startswith(host)))


@asynccontextmanager
async def serving(transport: QuicTransport) -> AsyncIterator[None]:
    """Echo 5 bytes per stream to everybody; what connects and says nothing is kept."""
    tasks = asyncio.TaskGroup()

    async def streams(connection: Connection) -> None:
        try:
            while True:
                stream = await connection.accept()
                tasks.create_task(echo(stream))
        except Disconnected:
            return

    async def echo(stream: Stream) -> None:
        try:
            await stream.send(await stream.receive(5))
        except Disconnected:
            stream.abort()

    async def connections() -> None:
        while True:
            tasks.create_task(streams(await transport.accept()))

    async def main() -> None:
        async with tasks:
            await connections()

    running = asyncio.create_task(main())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def is_served(transport: QuicTransport) -> None:
    """An honest peer from another address is served as ever."""
    async with node() as honest:
        connection = await honest.connect(over(transport, "[::1]"), ECHO, timeout_s=5)
        stream = await connection.open()
        async with asyncio.timeout(5):
            await stream.send(b"hello")
            assert await stream.receive(5) == b"hello"


class _Hostile(iroh.Preset):
    def apply(self, builder: iroh.EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.bind_addr("127.0.0.1:0")
        builder.bind_addr("[::1]:0")


@asynccontextmanager
async def hostile() -> AsyncIterator[iroh.Endpoint]:
    """A bare endpoint of the same engine, without our manners."""
    endpoint = await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=_Hostile(),
            secret_key=os.urandom(32),
            alpns=[ECHO.encode()],
            relay_mode=iroh.RelayMode.disabled(),
        )
    )
    try:
        yield endpoint
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(endpoint.close(), 1)


async def attack(endpoint: iroh.Endpoint, where: Where, addresses: tuple[str, ...] = ()) -> iroh.Connection | None:
    target = iroh.EndpointAddr(iroh.EndpointId.from_bytes(where.peer), None, list(addresses or where.addresses))
    try:
        return await asyncio.wait_for(endpoint.connect(target, ECHO.encode()), 5)
    except (iroh.IrohError, TimeoutError):
        return None


# The binding


def test_the_mended_copy_writes_what_the_original_writes() -> None:
    original = quic._write.__wrapped__  # type: ignore[attr-defined]
    assert iroh_ffi._UniffiRustBufferBuilder.write is quic._write
    chance = random.Random(5)
    for size in (0, 1, 15, 16, 17, 1000, 70_000):
        content = chance.randbytes(size)
        written = [_written(write, content) for write in (original, quic._write)]
        assert written[0] == written[1] == content + content


def test_the_mended_copy_is_far_faster() -> None:
    def seconds(write: Write) -> float:
        started = time.perf_counter()
        _written(write, content)
        return time.perf_counter() - started

    content = bytes(MIB)
    original = quic._write.__wrapped__  # type: ignore[attr-defined]
    assert 10 * min(seconds(quic._write) for _ in range(5)) < seconds(original)


def _written(write: Write, content: bytes) -> bytes:
    """What is in the binding's buffer after two writes."""
    builder: Any = iroh_ffi._UniffiRustBufferBuilder()  # type: ignore[no-untyped-call]
    write(builder, content)
    write(builder, memoryview(content))
    result = bytes(builder.rbuf.data[: builder.rbuf.len])
    builder.discard()
    return result


# Sockets


async def test_loopback_mode_listens_on_this_machine_only() -> None:
    before = _udp()
    async with node() as transport:
        hosts = {host for host, _ in _bound(transport)}
        assert hosts == {"127.0.0.1", "::1"}
        # The engine looks for a router for a second, from a socket of its own; its binding cannot turn that off.
        bound = _bound(transport)
        await asyncio.to_thread(_until, lambda: _udp() - before == bound)


def _bound(transport: QuicTransport) -> set[tuple[str, int]]:
    pairs = [address.rpartition(":") for address in transport.addresses()]
    return {(host.strip("[]"), int(port)) for host, _, port in pairs}


def _until(holds: Callable[[], bool], deadline_s: float = 10) -> None:
    until = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until
        os.sched_yield()


def _udp() -> set[tuple[str, int]]:
    return {(c.laddr.ip, c.laddr.port) for c in psutil.Process().net_connections("udp")}


async def test_loopback_mode_dials_and_relays_nowhere_else() -> None:
    async with node() as transport:
        assert not transport._may_dial("192.0.2.1:443")
        assert not transport._may_relay("https://relay.example")
        assert transport._may_relay("http://127.0.0.1:3340")


async def test_a_port_is_used_as_set_and_a_taken_one_is_said() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(AlreadyRunning, match=f"UDP port {port}"):
            async with node(Settings(loopback_only=True, port=port)):
                raise AssertionError("it opened a port that is taken")
    for _ in range(3):
        async with node(Settings(loopback_only=True, port=port)) as transport:
            assert f"127.0.0.1:{port}" in transport.addresses()
        await asyncio.to_thread(_until, lambda: port not in {used for _, used in _udp()})


async def test_a_relay_brings_two_nodes_together_that_know_only_keys_and_goes_out_of_the_way() -> None:
    settings = RelaySettings(host="127.0.0.1", port=0, handshakes_per_second=1000)
    async with Relay(settings, allowed=lambda key: True) as relay, node() as a, node() as b:
        url = f"http://127.0.0.1:{relay.port}"
        for each in (a, b):
            each.use_relays([url])
        near, far = await asyncio.gather(a.connect(Where(b.id, (), url), ECHO, timeout_s=10), b.accept())
        assert far.observed == ""
        assert relay.metrics.forwarded_frames > 0
        stream = await near.open()
        await stream.send(b"hello")
        assert await (await far.accept()).receive(5) == b"hello"
        await asyncio.to_thread(_until, lambda: near.path.kind == far.path.kind == "lan")


async def test_what_a_peer_says_at_the_end_is_one_plain_line() -> None:
    async with node() as transport, hostile() as endpoint:
        connection = await attack(endpoint, over(transport, "127"))
        ours = await transport.accept()
        assert connection
        connection.close(7, b"\x1b[2J\nyou lost\xff" + b"x" * 900)
        reason = await ours.closed()
        assert reason.isprintable()
        assert len(reason) <= 100
        assert "you lost" in reason


# Peers that mean harm


async def test_a_thousand_connections_in_a_burst_are_bounded_and_others_are_served() -> None:
    before = psutil.Process().memory_info().rss
    async with node() as transport, serving(transport), hostile() as endpoint:
        where = over(transport, "127")
        attempts = [asyncio.create_task(attack(endpoint, where)) for _ in range(1000)]
        await is_served(transport)
        made = [connection for connection in await asyncio.gather(*attempts) if connection]
        assert len(made) <= LOOPBACK.connections_per_address
        assert transport.admission.open <= LOOPBACK.connections_per_address + 1
        await is_served(transport)
        assert psutil.Process().memory_info().rss - before < 300 * MIB


class _OneWay(asyncio.DatagramProtocol):
    """Passes on to the target and swallows the answers: handshakes begin and never end."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        self._out.connect(target)

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            self._out.send(data)
        except OSError:
            return

    def connection_lost(self, exc: Exception | None) -> None:
        self._out.close()


async def test_handshakes_that_never_end_are_bounded_and_others_are_served() -> None:
    async with node() as transport, serving(transport), hostile() as endpoint:
        where = over(transport, "127")
        host, _, port = where.addresses[0].rpartition(":")
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.create_datagram_endpoint(lambda: _OneWay((host, int(port))), ("127.0.0.1", 0))
        name = pipe.get_extra_info("sockname")
        swallowed = (f"{name[0]}:{name[1]}",)
        attempts = [asyncio.create_task(attack(endpoint, where, swallowed)) for _ in range(200)]
        most = 0
        for _ in range(3):
            await is_served(transport)
            most = max(most, transport.admission.half_done)
            await asyncio.wait(attempts, timeout=0.3)
        assert 0 < most <= LOOPBACK.half_done_per_address
        for attempt in attempts:
            attempt.cancel()
        await asyncio.wait(attempts)
        pipe.close()


async def test_streams_left_half_open_are_bounded_and_others_are_served() -> None:
    async with node() as transport, serving(transport), hostile() as endpoint:
        connection = await attack(endpoint, over(transport, "127"))
        assert connection
        opened: list[iroh.BiStream] = []

        async def open_for_ever() -> None:
            while True:
                opened.append(await connection.open_bi())
                await opened[-1].send().write_all(b"h")

        opening = asyncio.create_task(open_for_ever())
        before = -1
        while len(opened) != before:
            before = len(opened)
            await asyncio.wait([opening], timeout=0.5)
        assert 100 < len(opened) <= STREAMS
        await is_served(transport)
        opening.cancel()
        await asyncio.wait([opening])


async def test_a_peer_that_fills_memory_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic, "UNREAD", 16 * MIB)
    async with node() as transport, hostile() as endpoint:
        connection = await attack(endpoint, over(transport, "127"))
        ours = await transport.accept()
        assert connection

        async def fill() -> None:
            stream = await connection.open_bi()
            await stream.send().write_all(bytes(MIB))
            await connection.closed()

        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(_until_error(fill()))
            assert await ours.closed() == "more sent than can be held"


async def _until_error(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except iroh.IrohError:
        return


async def test_much_traffic_that_is_read_is_not_taken_for_filling_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic, "UNREAD", 4 * MIB)
    async with node() as a, node() as b:
        near, far = await asyncio.gather(a.connect(over(b, "127"), ECHO, timeout_s=5), b.accept())
        ours = await near.open()
        await ours.send(b"!")
        theirs = await far.accept()
        await theirs.receive(1)
        for sender, reader in ((ours, theirs), (theirs, ours)):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sender.send(bytes(48 * MIB)))
                assert len(await reader.receive(48 * MIB)) == 48 * MIB
        for number in range(2000):
            await ours.send(b"x")
            await theirs.receive(1)
            assert number % 100 or near.meter.unread(near.arrived_bytes) < 4 * MIB
        for side in (near, far):
            assert side.meter.unread(side.arrived_bytes) < 4 * MIB


async def test_noise_on_the_port_harms_nobody() -> None:
    chance = random.Random(1)
    async with node() as transport, serving(transport):
        host, _, port = over(transport, "127").addresses[0].rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for _ in range(2000):
                content = bytearray(chance.randbytes(chance.randrange(1, 1400)))
                content[0] |= chance.choice((0, 0x40, 0x80, 0xC0))
                out.sendto(content, (host, int(port)))
        await is_served(transport)
