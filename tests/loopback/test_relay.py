"""The relay with real sockets: with iroh's own endpoints, and with clients that iroh would never be."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import iroh
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from pares.circle.relay import CONNECTIONS_PER_KEY, Relay
from pares.circle.settings import RelaySettings
from pares.errors import AlreadyRunning, Misconfigured

LOOPBACK = RelaySettings(host="127.0.0.1", port=0, handshakes_per_second=1000, connections_per_address=64)
ALPN = b"relay-test/1"
CONTEXT = "iroh-relay handshake v1 challenge signature"


def seed(number: int) -> bytes:
    return bytes([number]) * 32


def public(number: int) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed(number)).public_key().public_bytes_raw()


async def until(holds: Callable[[], bool], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - iroh and the kernel set no events of ours
            await asyncio.sleep(0.005)


async def handshake(ws: ClientConnection, number: int, *, signer: int | None = None) -> bytes:
    """Prove a key, or try to; what the relay says to it."""
    challenge = await ws.recv(decode=False)
    signed = blake3(challenge[1:], derive_key_context=CONTEXT).digest()
    signature = Ed25519PrivateKey.from_private_bytes(seed(signer or number)).sign(signed)
    await ws.send(b"\x01" + public(number) + b"\x40" + signature)
    return await ws.recv(decode=False)


@asynccontextmanager
async def raw(
    relay: Relay, version: str = "iroh-relay-v2", address: str = "127.0.0.1"
) -> AsyncIterator[ClientConnection]:
    """A WebSocket to the relay that says nothing by itself."""
    url = f"ws://127.0.0.1:{relay.port}/relay"
    ours = Subprotocol(version)
    async with (
        asyncio.timeout(20),
        connect(url, subprotocols=[ours], local_addr=(address, 0), compression=None, ping_interval=None) as ws,
    ):
        yield ws


@asynccontextmanager
async def client(relay: Relay, number: int, version: str = "iroh-relay-v2") -> AsyncIterator[ClientConnection]:
    """A client whose key is proven."""
    async with raw(relay, version) as ws:
        assert await handshake(ws, number) == b"\x02"
        yield ws


async def works(relay: Relay) -> None:
    """Two fresh honest clients reach each other."""
    async with client(relay, 101) as one, client(relay, 102) as two:
        await one.send(b"\x04" + public(102) + b"\x00hello")
        assert await two.recv() == b"\x06" + public(101) + b"\x00hello"


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(LOOPBACK, allowed=lambda key: True) as relay:
        yield relay


# With iroh's endpoints


@asynccontextmanager
async def endpoint(relay: Relay, number: int) -> AsyncIterator[iroh.Endpoint]:
    relays = iroh.RelayMap.empty()
    relays.insert(iroh.RelayConfig(url=f"http://127.0.0.1:{relay.port}", quic_port=None, auth_token=None))
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        bind_addr="127.0.0.1:0",
        secret_key=seed(number),
        alpns=[ALPN],
        relay_mode=iroh.RelayMode.custom(relays),
    )
    made = await iroh.Endpoint.bind(options)
    try:
        yield made
    finally:
        await made.close()


async def echo_once(listener: iroh.Endpoint) -> None:
    incoming = await listener.accept_next()
    assert incoming is not None
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    await stream.send().write_all(await stream.recv().read_exact(5))
    await stream.send().finish()
    await stream.send().stopped()


async def exchange(dialer: iroh.Endpoint, listener: iroh.Endpoint, relay: Relay) -> None:
    """Five bytes there and back, between endpoints that know only each other's id and the relay."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(echo_once(listener))
        where = iroh.EndpointAddr(listener.id(), f"http://127.0.0.1:{relay.port}", [])
        connection = await dialer.connect(where, ALPN)
        stream = await connection.open_bi()
        await stream.send().write_all(b"hello")
        assert await stream.recv().read_exact(5) == b"hello"
        connection.close(0, b"done")


def test_endpoints_that_reach_only_the_relay_exchange_eight_megabytes_both_ways() -> None:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    lab = Path(__file__).with_name("relay_lab.py")
    done = subprocess.run(
        ["unshare", "--net", *user, sys.executable, str(lab)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, f"This needs network namespaces: root, or user namespaces.\n{done.stderr}"
    seen = json.loads(done.stdout)
    assert seen["came"] == 8 * 2**20
    assert seen["forwarded"] > 2 * seen["came"]
    assert seen["paths"] == ["http://192.0.2.1:3340/"]


async def test_endpoints_meet_by_id_and_relay_alone(relay: Relay) -> None:
    async with endpoint(relay, 1) as one, endpoint(relay, 2) as two:
        await until(lambda: relay.connected(public(2)))
        await exchange(one, two, relay)
    assert relay.metrics.forwarded_frames > 0
    assert not relay.metrics.refused


async def test_endpoints_come_back_by_themselves_when_the_relay_does() -> None:
    async with AsyncExitStack() as endpoints:
        async with Relay(LOOPBACK, allowed=lambda key: True) as relay:
            one = await endpoints.enter_async_context(endpoint(relay, 1))
            two = await endpoints.enter_async_context(endpoint(relay, 2))
            await until(lambda: relay.connected(public(1)) and relay.connected(public(2)))
        async with Relay(replace(LOOPBACK, port=relay.port), allowed=lambda key: True) as again:
            await until(lambda: again.connected(public(1)) and again.connected(public(2)), timeout_s=20)
            await exchange(one, two, again)


async def test_an_endpoint_that_is_no_member_is_refused_and_a_removed_one_is_dropped() -> None:
    members = {public(1), public(2)}
    async with (
        Relay(LOOPBACK, allowed=members.__contains__) as relay,
        endpoint(relay, 1),
        endpoint(relay, 2),
        endpoint(relay, 3),
    ):
        await until(lambda: relay.connected(public(1)) and relay.connected(public(2)))
        await until(lambda: relay.metrics.refused["not_a_member"] > 0)
        members.remove(public(2))
        relay.recheck()
        await until(lambda: not relay.connected(public(2)))
        assert relay.metrics.ended["not_a_member"] == 1
        assert relay.connected(public(1))
        assert not relay.connected(public(3))


# The rules


async def test_who_is_refused_is_told_why() -> None:
    async with Relay(replace(LOOPBACK, clients=2), allowed=lambda key: key != public(3)) as relay:
        async with raw(relay) as ws:
            assert await handshake(ws, 3) == b"\x03\x0enot authorized"
        async with raw(relay) as ws:
            assert await handshake(ws, 1, signer=2) == b"\x03\x11signature invalid"
        async with client(relay, 1), client(relay, 2), raw(relay) as ws:
            assert await handshake(ws, 4) == b"\x03\x0drelay is full"
        assert relay.metrics.refused == {"not_a_member": 1, "signature": 1, "full": 1}
        await until(lambda: relay.metrics.clients == 0)
        await works(relay)


async def test_batches_and_both_versions_pass_unchanged(relay: Relay) -> None:
    async with client(relay, 1, "iroh-relay-v1") as one, client(relay, 2) as two:
        batch = b"\x03\x00\x06" + b"sixsixsi"
        await one.send(b"\x05" + public(2) + batch)
        assert await two.recv() == b"\x07" + public(1) + batch
        largest = b"\x00" + bytes(64 * 1024 - 33)
        await two.send(b"\x04" + public(1) + largest)
        assert await one.recv() == b"\x06" + public(2) + largest
        await one.send(b"\x09" + b"12345678")
        assert await one.recv() == b"\x0a" + b"12345678"
        await one.send(b"\x04" + public(9) + b"\x00nobody")
        await until(lambda: relay.metrics.dropped["not_connected"] == 1)


async def test_correspondents_hear_that_a_client_is_gone(relay: Relay) -> None:
    async with client(relay, 2) as two, client(relay, 3):
        async with client(relay, 1) as one:
            await one.send(b"\x04" + public(2) + b"\x00hello")
            await two.recv()
        assert await two.recv() == b"\x08" + public(1)


async def test_the_latest_connection_of_a_key_gets_everything_until_it_ends(relay: Relay) -> None:
    async with client(relay, 9) as sender, client(relay, 1, "iroh-relay-v1") as oldest, client(relay, 1) as older:
        assert (await oldest.recv(decode=False)).startswith(b"\x0bAnother endpoint")
        async with client(relay, 1) as newest:
            assert await older.recv() == b"\x0d\x01"
            await sender.send(b"\x04" + public(1) + b"\x00new")
            assert await newest.recv() == b"\x06" + public(9) + b"\x00new"
            await older.send(b"\x04" + public(9) + b"\x00still")
            assert await sender.recv() == b"\x06" + public(1) + b"\x00still"
        assert await older.recv() == b"\x0d\x00"
        await sender.send(b"\x04" + public(1) + b"\x00old")
        assert await older.recv() == b"\x06" + public(9) + b"\x00old"


async def test_a_key_cannot_have_many_connections(relay: Relay) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(client(relay, 1)) for _ in range(CONNECTIONS_PER_KEY + 2)]
        for ws in sockets[:2]:
            await ws.wait_closed()
        await until(lambda: relay.metrics.clients == CONNECTIONS_PER_KEY)
        assert relay.metrics.ended == {"replaced": 2}


async def test_a_stopping_relay_says_so(relay: Relay) -> None:
    async with Relay(LOOPBACK, allowed=lambda key: True) as other, client(other, 1) as ws:
        stopping = asyncio.create_task(other.__aexit__(None, None, None))
        assert await ws.recv() == b"\x0c" + bytes(4) + (5000).to_bytes(4, "big")
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        await stopping


async def test_a_relay_that_cannot_listen_says_why(relay: Relay) -> None:
    with pytest.raises(AlreadyRunning, match="taken"):
        async with Relay(replace(LOOPBACK, port=relay.port), allowed=lambda key: True):
            pass
    with pytest.raises(Misconfigured, match=r"192\.0\.2\.1"):
        async with Relay(replace(LOOPBACK, host="192.0.2.1"), allowed=lambda key: True):
            pass


async def http(relay: Relay, request: bytes) -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        with closing(writer):
            writer.write(request)
            return await reader.read()


async def test_probes_of_the_network_report_are_answered(relay: Relay) -> None:
    assert (await http(relay, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    captive = await http(relay, b"GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Iroh-Challenge: ts_x.1\r\n\r\n")
    assert captive.startswith(b"HTTP/1.1 204")
    assert b"X-Iroh-Response: response ts_x.1\r\n" in captive
    evil = await http(relay, b"GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Iroh-Challenge: <script>\r\n\r\n")
    assert b"script" not in evil
    assert (await http(relay, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404")


# Hostile clients


@pytest.mark.parametrize(
    "sent",
    [b"\x04" + public(2) + bytes(64 * 1024), b"", b"\x07" + bytes(50), b"\x09short", b"\x04short", "text", b"\xff" * 9],
    ids=["oversize", "empty", "of the relay", "short ping", "short datagram", "text", "unknown"],
)
async def test_a_client_that_breaks_the_protocol_is_dropped_and_no_other(relay: Relay, sent: bytes | str) -> None:
    async with client(relay, 2) as bystander, client(relay, 1) as ws:
        await ws.send(sent)
        await ws.wait_closed()
        await until(lambda: not relay.connected(public(1)))
        assert relay.metrics.ended == {"fault": 1}
        await bystander.send(b"\x09" + bytes(8))
        assert await bystander.recv() == b"\x0a" + bytes(8)
    await works(relay)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4),  # a frame of 2**63 - 1 bytes
        b"\x02\xfe\xff\xff" + bytes(4) + bytes(65535) + b"\x00\xfe\xff\xff" + bytes(4) + bytes(65535),  # never ends
        b"\x02\x80" + bytes(4) + b"\x00\x80\0\0\0\0" * 200_000,  # pieces of nothing, never ends
        b"\x82\x80\0\0\0\0" * 200_000,  # empty frames
        b"\x89\x80\0\0\0\0" * 200_000,  # WebSocket pings
        b"\x82\x05hello",  # not masked
        b"\xf2\x80\0\0\0\0",  # reserved bits
        b"\x83\x80\0\0\0\0",  # reserved type
    ],
    ids=["endless", "endless fragments", "empty fragments", "empty frames", "pings", "unmasked", "reserved", "opcode"],
)
async def test_rubbish_in_the_websocket_ends_that_client(relay: Relay, sent: bytes) -> None:
    async with client(relay, 1) as ws:
        ws.transport.write(sent)
        await ws.wait_closed()
        await until(lambda: not relay.connected(public(1)))
        assert relay.metrics.ended.total() == 1
        assert not relay.metrics.ended["left"]
    await works(relay)


@pytest.mark.parametrize("frame", [b"\x82\x80\0\0\0\0", b"\x89\x80\0\0\0\0"], ids=["empty frames", "pings"])
async def test_a_stranger_cannot_have_many_frames_unpacked(relay: Relay, frame: bytes) -> None:
    async with raw(relay) as ws:
        ws.transport.write(frame * 200_000)
        await ws.wait_closed()
    await until(lambda: relay.metrics.refused == {"handshake": 1})
    await works(relay)


@pytest.mark.parametrize("size", [0, 1, 97, 98, 99, 60_000])
async def test_rubbish_for_an_authentication_is_refused(relay: Relay, size: int) -> None:
    async with raw(relay) as ws:
        await ws.recv()
        await ws.send(os.urandom(size))
        await ws.wait_closed()
    await until(lambda: relay.metrics.refused.total() == 1)
    await works(relay)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01" + bytes(500),
        b"GET /relay HTTP/1.1\r\n\r\n",
        b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500,
    ],
    ids=["TLS", "no upgrade", "no line", "many headers"],
)
async def test_rubbish_at_the_port_is_refused(sent: bytes) -> None:
    async with Relay(replace(LOOPBACK, handshake_s=0.5), allowed=lambda key: True) as relay:
        with suppress(ConnectionResetError):
            await http(relay, sent)
        await until(lambda: relay.metrics.refused["handshake"] == 1)
        await works(relay)


async def test_a_websocket_of_another_protocol_is_refused(relay: Relay) -> None:
    with pytest.raises(InvalidStatus):
        async with raw(relay, "chat"):
            pass
    await until(lambda: relay.metrics.refused["handshake"] == 1)


async def test_half_open_handshakes_are_few_and_short() -> None:
    few = replace(LOOPBACK, connections_per_address=16, handshake_s=1)
    async with Relay(few, allowed=lambda key: True) as relay, AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            stack.enter_context(closing(writer))
        async with raw(relay, address="127.0.0.2") as ws:
            assert await handshake(ws, 1) == b"\x02"
        await until(lambda: relay.metrics.refused.total() == 200)
        assert relay.metrics.refused["address_full"] >= 150  # 184, if all came before the first deadline
        await works(relay)


async def test_who_opens_a_websocket_and_proves_nothing_is_dropped_at_the_deadline() -> None:
    async with Relay(replace(LOOPBACK, handshake_s=0.3), allowed=lambda key: True) as relay, raw(relay) as ws:
        start = time.monotonic()
        await ws.wait_closed()
        assert time.monotonic() - start < 2
        await until(lambda: relay.metrics.refused["handshake"] == 1)


async def test_one_address_cannot_knock_all_the_time() -> None:
    async with Relay(replace(LOOPBACK, handshakes_per_second=1), allowed=lambda key: True) as relay:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.close()
        await until(lambda: relay.metrics.refused["address_rate"] == 16)
        async with raw(relay, address="127.0.0.2") as ws:
            assert await handshake(ws, 1) == b"\x02"


async def test_a_client_that_reads_nothing_costs_a_bounded_queue_and_its_connection() -> None:
    slow = replace(LOOPBACK, stalled_s=1.5, queue_bytes=2**18, bytes_per_second=2**30)
    frame = b"\x00" + bytes(60_000)
    async with (
        Relay(slow, allowed=lambda key: True) as relay,
        client(relay, 1) as sender,
        client(relay, 2) as sleeper,
        client(relay, 3) as bystander,
    ):
        sleeper.transport.pause_reading()
        while not relay.metrics.dropped["queue_full"]:
            await sender.send(b"\x04" + public(2) + frame)
        assert relay.metrics.forwarded_bytes < 2**24  # the queue, and what the kernel buffers
        await bystander.send(b"\x09" + bytes(8))
        assert await bystander.recv() == b"\x0a" + bytes(8)
        await until(lambda: not relay.connected(public(2)))
        assert relay.metrics.ended == {"stalled": 1}
        sleeper.transport.abort()


async def test_a_client_that_does_not_answer_is_dropped_and_one_that_does_stays() -> None:
    async with (
        Relay(replace(LOOPBACK, idle_s=0.4), allowed=lambda key: True) as relay,
        client(relay, 1) as mute,
        client(relay, 2) as alive,
    ):
        for _ in range(4):
            ping = await alive.recv(decode=False)
            await alive.send(b"\x0a" + ping[1:])
        await mute.wait_closed()
        assert relay.metrics.ended == {"idle": 1}
        assert relay.connected(public(2))


async def test_a_fast_client_waits_and_nobody_waits_for_it() -> None:
    paced = replace(LOOPBACK, bytes_per_second=2**20)
    async with (
        Relay(paced, allowed=lambda key: True) as relay,
        client(relay, 1) as fast,
        client(relay, 2) as receiver,
        client(relay, 3) as bystander,
    ):
        start = time.monotonic()
        sending = [asyncio.create_task(fast.send(b"\x04" + public(2) + b"\x00" + bytes(60_000))) for _ in range(18)]
        await bystander.send(b"\x09" + bytes(8))
        assert await bystander.recv() == b"\x0a" + bytes(8)
        for _ in range(18):
            await receiver.recv()
        await asyncio.gather(*sending)
        assert time.monotonic() - start > 0.6  # 1.08 MB at 1 MiB/s, 0.25 MiB of it at once
        assert relay.metrics.delayed_s > 0
        assert not relay.metrics.dropped
