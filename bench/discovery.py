"""How long it takes to find a peer: on a local network, and in a DHT.

    python bench/discovery.py [--runs 5] [--nodes 20]

LAN: two network namespaces on one switch (root), from the start of the second node until both know of each other.
DHT: so many processes on loopback, each with a DHT node of its own; an item is put on one and got on another. Next to
a bare UDP round trip between two sockets in the same run: a lookup is a handful of those, and what libtorrent adds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from finding import machine, network, some_id
from netns import lan
from pares.circle.dht import SALT
from pares.wire.signing import Identity


def lan_s() -> float:
    """From the start of the second node until each knows of the other."""
    ours, theirs = some_id(), some_id()
    with lan(2) as (one, other), machine(one, ours, theirs, 4433) as first:
        next(first)
        with machine(other, theirs, ours, 4434) as second:
            began = float(next(second)[0])
            return max(float(next(second)[0]), float(next(first)[0])) - began


def udp_s() -> float:
    """One datagram of 900 bytes there and back."""
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for end in (one, other):
            end.bind(("127.0.0.1", 0))
            end.settimeout(5)
        began = time.perf_counter()
        one.sendto(bytes(900), other.getsockname())
        data, back = other.recvfrom(2048)
        other.sendto(data, back)
        one.recv(2048)
        return time.perf_counter() - began


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    """Seconds that it takes; it has to succeed."""
    began = time.perf_counter()
    assert await action()
    return time.perf_counter() - began


async def dht_s(nodes: int, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of puts, and of gets up to the first answer."""
    puts, gets = [], []
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            members = await stack.enter_async_context(network(Path(directory), nodes))
            for run in range(runs):
                author, value = Identity(os.urandom(32)), os.urandom(900)
                writer, reader = (members[(run * step) % nodes].torrent for step in (3, 7))
                puts.append(await timed(lambda: writer.put(author, SALT, value, timeout_s=30)))  # noqa: B023
                gets.append(await timed(lambda: reader.get(author.id, SALT, timeout_s=30, settle_s=0)))  # noqa: B023
    return puts, gets


def shown(name: str, seconds: list[float]) -> None:
    """Median and worst."""
    print(f"{name:32} {statistics.median(seconds) * 1e3:9.2f} ms median {max(seconds) * 1e3:9.2f} ms worst")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=20)
    asked = parser.parse_args()
    shown("UDP round trip, loopback", [udp_s() for _ in range(200)])
    puts, gets = asyncio.run(dht_s(asked.nodes, 10 * asked.runs))
    shown(f"DHT of {asked.nodes}: put", puts)
    shown(f"DHT of {asked.nodes}: get", gets)
    shown("LAN, two namespaces: found", [lan_s() for _ in range(asked.runs)])


if __name__ == "__main__":
    main()
