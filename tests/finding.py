"""Nodes that find each other by real means: in a DHT of processes on loopback, and by multicast between namespaces."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import libtorrent

from netns import Namespace
from pares.transport.bittorrent_process import BitTorrent, Settings
from pares.wire.signing import PeerId

LAN_NODE = """
import asyncio, sys, time
from pares.circle.lan import Lan, _own_addresses
from pares.wire.signing import PeerId

me, friend, port = PeerId(bytes.fromhex(sys.argv[1])), PeerId(bytes.fromhex(sys.argv[2])), sys.argv[3]

async def main():
    def seen(peer, addresses):
        print(time.monotonic(), peer.hex(), *addresses, flush=True)
    def addresses():
        return [f"{address}:{port}" for address in _own_addresses()]
    node = Lan(me, addresses, wanted=lambda peer: peer == friend, seen=seen)
    async with asyncio.TaskGroup() as tasks:
        print(time.monotonic(), "began", flush=True)
        life = tasks.create_task(node.run())
        await asyncio.to_thread(sys.stdin.read)
        life.cancel()

asyncio.run(main())
"""


def some_id() -> PeerId:
    return PeerId(os.urandom(32))


class DhtNode:
    """A BitTorrent process of its own address on loopback, with waiting for what it says."""

    def __init__(self, directory: Path, number: int) -> None:
        self.address = f"127.77.0.{number}"
        self.state = directory / f"{number}.dht"
        self._moved = asyncio.Event()
        self.torrent = BitTorrent(
            Settings(self.state, addresses=(self.address,), private=True), on_change=self._moved.set
        )

    async def __aenter__(self) -> DhtNode:
        self._life = asyncio.create_task(self.torrent.run())
        self._use = ExitStack()
        self._use.enter_context(self.torrent.used())
        return self

    def stop(self) -> None:
        """Let nothing start again."""
        self._use.close()

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        self._life.cancel()
        with suppress(asyncio.CancelledError):
            await self._life

    async def until(self, holds: Callable[[BitTorrent], bool], *, timeout_s: float = 15) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds(self.torrent):
                self._moved.clear()
                await self._moved.wait()

    @property
    def endpoint(self) -> tuple[str, int]:
        return self.address, self.torrent.port

    def remembered(self) -> tuple[bytes, set[bytes]]:
        """Id and nodes in the state file."""
        state: Any = libtorrent.bdecode(self.state.read_bytes())
        dht = state[b"dht state"]
        return dht[b"node-id"][0][:20], set(dht.get(b"nodes", []))


@asynccontextmanager
async def network(directory: Path, size: int) -> AsyncIterator[list[DhtNode]]:
    """Nodes who were told of each other."""
    nodes = [DhtNode(directory, number) for number in range(1, size + 1)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        for node in nodes:
            await node.until(lambda torrent: torrent.port != 0)
        for node in nodes:
            node.torrent.add_nodes(other.endpoint for other in nodes if other is not node)
        for node in nodes:
            await node.until(lambda torrent: torrent.status.nodes == size - 1)
        yield nodes


@contextmanager
def machine(where: Namespace, me: PeerId, friend: PeerId, port: int) -> Iterator[Iterator[list[str]]]:
    """A node inside a namespace: when it began, then when it saw whom and where, as lines of words."""
    with where.python("-c", LAN_NODE, me.hex(), friend.hex(), str(port), stdin=-1) as process:
        assert process.stdout is not None
        yield (line.split() for line in process.stdout)
        process.communicate(timeout=10)
    assert process.returncode == 0
