"""The real transport against plain asyncio TCP, each with the server in a process of its own, over loopback.

* A request of 5 KB and an answer of 5 KB on an open connection: what Pares adds to a TCP echo (median, p99).
* 64 MB one way: MB/s of both, and the ratio.
* Memory of the serving process per connected peer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import psutil

from node import median
from pares.transport.link import Connection, Disconnected, Stream, Where
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.wire.signing import Identity

ECHO, SINK, IDLE = "bench/echo/1", "bench/sink/1", "bench/idle/1"
SEED = bytes(32)
SETTINGS = Settings(
    loopback_only=True, handshakes_per_s=1e6, handshake_burst=10**6, connections=1000, connections_per_address=1000
)
MESSAGE = 5000
BULK = 64 * 10**6
BLOCK = 10**6


# Servers


async def serve_quic() -> None:
    """Echo a message per stream, or swallow the bulk and say so."""

    async def answer(stream: Stream, protocol: str) -> None:
        if protocol == SINK:
            for _ in range(BULK // BLOCK):
                await stream.receive(BLOCK)
        await stream.send(await stream.receive(MESSAGE))
        await stream.finish()

    async def connection(link: Connection) -> None:
        try:
            while True:
                tasks.create_task(answer(await link.accept(), link.protocol))
        except Disconnected:
            return

    async with QuicTransport(SEED, (ECHO, SINK, IDLE), SETTINGS) as transport, asyncio.TaskGroup() as tasks:
        print(" ".join(transport.addresses()), flush=True)
        while True:
            tasks.create_task(connection(await transport.accept()))


async def serve_tcp() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (kind := await reader.readexactly(1)) and kind != b"q":
                for _ in range(BULK // BLOCK if kind == b"b" else 0):
                    await reader.readexactly(BLOCK)
                writer.write(await reader.readexactly(MESSAGE))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2 * BLOCK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server(kind: str) -> Iterator[tuple[psutil.Process, str]]:
    """Its process, and the line that says where it listens."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield psutil.Process(process.pid), process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


# Clients


async def repeated(ask: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Milliseconds of each."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        await ask()
        took.append(1000 * (time.perf_counter() - started))
    return took


async def quic(where: Where, times: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each request, and MB/s of each bulk."""
    block, message = bytes(BLOCK), bytes(MESSAGE)

    async def request() -> None:
        stream = await link.open()
        await stream.send(message)
        await stream.finish()
        await stream.receive(MESSAGE)

    async def bulk() -> None:
        stream = await sink.open()
        for _ in range(BULK // BLOCK):
            await stream.send(block)
        await stream.send(message)
        await stream.receive(MESSAGE)

    async with QuicTransport(os.urandom(32), (), SETTINGS) as transport:
        link = await transport.connect(where, ECHO, timeout_s=10)
        sink = await transport.connect(where, SINK, timeout_s=10)
        await repeated(request, times // 10)
        return await repeated(request, times), [BULK / 1000 / ms for ms in await repeated(bulk, rounds)]


async def tcp(port: int, times: int, rounds: int) -> tuple[list[float], list[float]]:
    block, message = bytes(BLOCK), bytes(MESSAGE)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2 * BLOCK)

    async def request() -> None:
        writer.write(b"e" + message)
        await reader.readexactly(MESSAGE)

    async def bulk() -> None:
        writer.write(b"b")
        for _ in range(BULK // BLOCK):
            writer.write(block)
            await writer.drain()
        writer.write(message)
        await reader.readexactly(MESSAGE)

    await repeated(request, times // 10)
    result = await repeated(request, times), [BULK / 1000 / ms for ms in await repeated(bulk, rounds)]
    writer.close()
    await writer.wait_closed()
    return result


async def connected(where: Where, process: psutil.Process, peers: int) -> float:
    """MB that one more peer takes in the serving process."""

    async def connect(stack: AsyncExitStack) -> None:
        transport = await stack.enter_async_context(QuicTransport(os.urandom(32), (), SETTINGS))
        link = await transport.connect(where, ECHO, timeout_s=10)
        stream = await link.open()
        await stream.send(bytes(MESSAGE))
        await stream.receive(MESSAGE)

    async with AsyncExitStack() as stack:
        for _ in range(5):
            await connect(stack)
        before = process.memory_info().rss
        for _ in range(peers):
            await connect(stack)
        return (process.memory_info().rss - before) / peers / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=["quic", "tcp"])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=int, default=100)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve_quic() if options.serve == "quic" else serve_tcp())
        return
    with server("tcp") as (_, port):
        plain_ms, plain_rate = asyncio.run(tcp(int(port), options.requests, options.rounds))
    with server("quic") as (process, addresses):
        where = Where(Identity(SEED).id, tuple(addresses.split()))
        ms, rate = asyncio.run(quic(where, options.requests, options.rounds))
        memory = asyncio.run(connected(where, process, options.peers))
    p99 = [statistics.quantiles(took, n=100)[98] for took in (ms, plain_ms)]
    print(f"5 KB there and back: {median(ms):.2f} ms (p99 {p99[0]:.2f}), plain TCP {median(plain_ms):.2f}", end=" ")
    print(f"(p99 {p99[1]:.2f}): {median(ms) - median(plain_ms):.2f} ms added")
    print(f"64 MB one way: {median(rate):.0f} MB/s, plain TCP {median(plain_rate):.0f}:", end=" ")
    print(f"ratio {median(rate) / median(plain_rate):.2f}")
    print(f"memory per connected peer: {memory:.2f} MB")


if __name__ == "__main__":
    main()
