"""A tunnel between two members over loopback, each end of it in a process of its own.

* Bytes one way on one connection, against the same TCP server without the tunnel.
* A file by BitTorrent from one seed to one leecher, until it is verified and on the disk, against the same without.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from node import median
from pares.transport.link import Connection, Disconnected, Where
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.tunnel import HOST, Tunnels
from pares.wire.messages import BULK
from pares.wire.signing import Identity, PeerId

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from swarming import MIB, SwarmNode, content, living

SEED = bytes(32)
SETTINGS = Settings(loopback_only=True)
BLOCK = 10**6


async def serve_sink() -> None:
    """Read what the first four bytes say, in MB, and say when it is done."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = BLOCK * int.from_bytes(await reader.readexactly(4))
        while left:
            left -= len(await reader.read(left))
        writer.write(b"!")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0, limit=BLOCK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def serve_far(target: int) -> None:
    """Where the tunnel comes out."""

    async def no_way(peer: PeerId) -> Connection:
        raise Disconnected("Nobody dials from here.")

    tunnels = Tunnels(no_way, allowed=lambda peer: True, target=lambda: target)
    async with QuicTransport(SEED, (BULK,), SETTINGS) as transport, tunnels, asyncio.TaskGroup() as tasks:
        print(" ".join(transport.addresses()), flush=True)
        link = await transport.accept()
        while True:
            tasks.create_task(tunnels.serve(link, await link.accept()))


async def serve_near(addresses: list[str]) -> None:
    """Where it begins."""
    async with QuicTransport(os.urandom(32), (), SETTINGS) as transport:
        far = Identity(SEED).id
        link = await transport.connect(Where(far, tuple(addresses)), BULK, timeout_s=10)

        async def connect(peer: PeerId) -> Connection:
            return link

        async with Tunnels(connect, allowed=lambda peer: True, target=lambda: 0) as tunnels:
            print(await tunnels.port(far), flush=True)
            await link.closed()


async def rates(port: int, megabytes: int, rounds: int) -> list[float]:
    """MB/s of each round."""
    block, took = bytes(BLOCK), []
    for _ in range(rounds):
        reader, writer = await asyncio.open_connection(HOST, port)
        started = time.perf_counter()
        writer.write(megabytes.to_bytes(4))
        for _ in range(megabytes):
            writer.write(block)
            await writer.drain()
        await reader.readexactly(1)
        took.append(megabytes / (time.perf_counter() - started))
        writer.close()
    return took


async def fetches(megabytes: int, rounds: int) -> tuple[list[float], list[float]]:
    """MB/s of each time that a new leecher fetches a file, plainly and through the tunnel."""
    took: tuple[list[float], list[float]] = [], []
    file = content(megabytes * BLOCK / MIB)
    with TemporaryDirectory() as name:
        folder = Path(name)
        seed = SwarmNode(folder / "seed", HOST)
        async with living(seed):
            source = await seed.seed(file)
            with server("far", source.rpartition(":")[2]) as addresses, server("near", *addresses) as (entrance,):
                for number in range(2 * rounds):
                    leech = SwarmNode(folder / str(number))
                    async with living(leech):
                        await leech.fetch(file)
                        started = time.perf_counter()
                        leech.torrents.connect(file.root, f"{HOST}:{entrance}" if number % 2 else source)
                        await leech.settled(file.root, timeout_s=300)
                        took[number % 2].append(megabytes / (time.perf_counter() - started))
                    leech.path.unlink()
    return took


@contextmanager
def server(*what: str) -> Iterator[list[str]]:
    """A process that serves, and the words with which it says where."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", *what], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().split()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", nargs="+")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.serve:
        kind, *what = options.serve
        uvloop.run(serve_sink() if kind == "sink" else serve_far(int(*what)) if kind == "far" else serve_near(what))
        return
    with server("sink") as (target,), server("far", target) as addresses, server("near", *addresses) as (entrance,):
        plain = median(asyncio.run(rates(int(target), options.megabytes, options.rounds)))
        through = median(asyncio.run(rates(int(entrance), options.megabytes, options.rounds)))
    print(f"{options.megabytes} MB one way through a tunnel: {through:.0f} MB/s, plain TCP {plain:.0f}:", end=" ")
    print(f"ratio {through / plain:.2f}")
    plain, through = map(median, asyncio.run(fetches(options.megabytes // 2, options.rounds)))
    print(
        f"{options.megabytes // 2} MB by BitTorrent through a tunnel: {through:.0f} MB/s, plain {plain:.0f}:", end=" "
    )
    print(f"ratio {through / plain:.2f}")


if __name__ == "__main__":
    main()
