"""Circles of real nodes, each a process of its own, on loopback.

    python bench/joining.py [--rounds 7] [--idle 30] [--peers 10]

* Joining by a link, from the request to the control API until an exchange with the member has succeeded. Next to it, in
  the same run: a bare connection of the same transport with one request over it.
* How long until a killed peer is known to be gone, while somebody looks at the peers.
* What five nodes send while nothing happens: bytes per second on the wire and node, with IP and UDP headers, counted in
  a network namespace (root).
* Memory of a real node per peer that joined it, and is connected.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from netns import Namespace, namespace
from nodes import Node, all_online, running, until
from pares.transport.link import Connection, Where
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.switchboard import answer, ask, receive
from pares.wire.messages import CIRCLE, Ping

LOOPBACK: dict[str, Any] = {"transport_loopback_only": True}
MANY: dict[str, Any] = {
    "transport_handshakes_per_s": 1000,
    "transport_handshake_burst": 1000,
    "transport_connections_per_address": 512,
}
SETTINGS = Settings(loopback_only=True)
SETTLED_S = 10.0
WAIT_S = 15.0


async def bare_s() -> float:
    """A connection between two new endpoints, and one request over it."""

    async def serve(server: QuicTransport) -> Connection:
        link = await server.accept()
        stream = await link.accept()
        await answer(stream, await receive(stream, Ping))
        return link

    async with (
        QuicTransport(os.urandom(32), (CIRCLE,), SETTINGS) as server,
        QuicTransport(os.urandom(32), (CIRCLE,), SETTINGS) as client,
        asyncio.TaskGroup() as tasks,
    ):
        serving = tasks.create_task(serve(server))
        began = time.perf_counter()
        link = await client.connect(Where(server.id, tuple(server.addresses())), CIRCLE, timeout_s=WAIT_S)
        await ask(link, Ping(number=1), Ping)
        took = time.perf_counter() - began
        await serving
        return took


def join_and_notice(directory: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each joining, and from each kill until the other node tells that the peer is gone."""
    joins, notices = [], []
    with running(anna := Node(directory / "anna", "anna", **LOOPBACK)):
        circle = anna.create("Bench")
        for number in range(rounds):
            other = Node(directory / f"{number}", f"{number}", **LOOPBACK)
            with running(other):
                link = anna.invite(circle)
                began = time.perf_counter()
                other.join(link)
                joins.append(time.perf_counter() - began)
                until(lambda: other.name in anna.online(), WAIT_S)  # noqa: B023
                other.kill()
                notices.append(until(lambda: other.name not in anna.online(), WAIT_S))  # noqa: B023
    return joins, notices


def idle_bytes_per_s(directory: Path, where: Namespace, seconds: float) -> float:
    """What each of five connected nodes sends."""
    names = ("anna", "bela", "cleo", "dora", "emil")
    nodes = [Node(directory / name, name, where, **LOOPBACK) for name in names]
    with running(*nodes):
        link = nodes[0].invite(nodes[0].create("Bench"), uses=4)
        for each in nodes[1:]:
            each.join(link)
        until(all_online(*nodes), WAIT_S)
        wait(SETTLED_S + 2)  # until nobody is taken to look at the peers any more
        before, began = loopback_bytes(where), time.perf_counter()
        wait(seconds)
        return (loopback_bytes(where) - before) / (time.perf_counter() - began) / len(nodes)


def loopback_bytes(where: Namespace) -> int:
    """Bytes that went over a namespace's loopback, with link headers of 14 bytes."""
    table = where.inside(lambda: Path("/proc/thread-self/net/dev").read_text())
    line = next(line for line in table.splitlines() if line.strip().startswith("lo:"))
    received = int(line.split(":")[1].split()[0])
    packets = int(line.split(":")[1].split()[1])
    return received - 14 * packets


def mb_per_peer(directory: Path, peers: int) -> float:
    """Of one node, while others join its circle."""
    anna, *others = (Node(directory / f"{number}", f"{number}", **LOOPBACK, **MANY) for number in range(peers + 3))
    with running(anna, *others):
        link = anna.invite(anna.create("Bench"), uses=len(others))
        process = psutil.Process(anna.pid)

        def settled(those: Sequence[Node]) -> int:
            for each in those:
                each.join(link)
            wait(SETTLED_S)
            return int(process.memory_info().rss)

        first = settled(others[:2])  # what the first of all takes is no peer's
        after = settled(others[2:])
        assert len(anna.online()) == len(others), "not all are connected"
        return (after - first) / peers / 1e6


def wait(seconds: float) -> None:
    """Nothing is to happen meanwhile."""
    threading.Event().wait(seconds)


def shown(name: str, seconds: list[float]) -> None:
    print(f"{name:44} {statistics.median(seconds):8.3f} s median {max(seconds):8.3f} s worst")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--idle", type=float, default=30)
    parser.add_argument("--peers", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown("bare connection and request", [asyncio.run(bare_s()) for _ in range(asked.rounds)])
        joins, notices = join_and_notice(Path(folder), asked.rounds)
        shown("join by link, to the first exchange", joins)
        shown("a killed peer is noticed after", notices)
        print(f"{'memory per connected peer':44} {mb_per_peer(Path(folder) / 'many', asked.peers):8.2f} MB")
        with namespace() as where:
            idle = idle_bytes_per_s(Path(folder) / "idle", where, asked.idle)
        print(f"{'sent at rest, circle of 5, per node':44} {idle:8.0f} bytes/s")


if __name__ == "__main__":
    main()
