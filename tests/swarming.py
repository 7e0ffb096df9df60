"""Real BitTorrent processes on loopback that exchange files, each with an address of its own."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from pares.swarm.merkle import FileHasher
from pares.transport.bitfield import Runs
from pares.transport.bittorrent_process import BitTorrent, Settings
from pares.transport.torrents import Poisoned, Swarming, Torrent, Torrents, piece_length

MIB = 1 << 20
PIECE = piece_length(MIB)
"""Bytes of one, of every file here."""
_numbers = count(1)


@dataclass(frozen=True)
class Content:
    """A file that somebody has."""

    data: bytes
    root: bytes
    layer: bytes

    def torrent(self, path: Path, **how: object) -> Torrent:
        return replace(Torrent(self.root, len(self.data), path, self.layer), **how)  # type: ignore[arg-type]

    def written(self, path: Path) -> Torrent:
        """Put it there, to be seeded."""
        path.write_bytes(self.data)
        return self.torrent(path, complete=True)


def pieces_of(*mib: tuple[int, int]) -> Runs:
    """The pieces that make up these MiB of a file: from one to before another."""
    return tuple((first * MIB // PIECE, after * MIB // PIECE) for first, after in mib)


def content(mib: float, seed: int = 1) -> Content:
    """Random bytes."""
    data = random.Random(seed).randbytes(int(mib * MIB))
    hasher = FileHasher(len(data))
    hasher.update(data)
    return Content(data, *hasher.finish())


class SwarmNode:
    """A BitTorrent process and its torrents, with waiting for what they say."""

    def __init__(self, folder: Path, address: str = "") -> None:
        self.address = address or f"127.88.{next(_numbers) % 250}.1"
        self.folder = folder
        self.path = folder / "file"
        resume = folder / "resume"
        resume.mkdir(parents=True, exist_ok=True)
        self._moved = asyncio.Event()
        settings = Settings(folder / "state", addresses=(self.address,), dht=False, private=True, resume=resume)
        self.session = BitTorrent(settings, on_change=self._moved.set)
        self.news: list[Swarming] = []
        self.poisoned: list[Poisoned] = []
        self.torrents = Torrents(self.session, on_change=self._heard, on_poison=self._banned)

    def _heard(self, news: Swarming) -> None:
        self.news.append(news)
        self._moved.set()

    def _banned(self, poisoned: Poisoned) -> None:
        self.poisoned.append(poisoned)
        self._moved.set()

    async def until(self, holds: Callable[[], object], *, timeout_s: float = 30) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"it did not come to that; at last: {self.news[-1:]}") from None

    async def settled(self, root: bytes, *, timeout_s: float = 30) -> Swarming:
        await self.until(lambda: self.now(root).settled or self.now(root).state == "failed", timeout_s=timeout_s)
        assert self.now(root).settled, self.now(root).error
        return self.now(root)

    async def failed(self, root: bytes, *, timeout_s: float = 30) -> str:
        """The code of what it failed of."""
        await self.until(lambda: self.now(root).state == "failed", timeout_s=timeout_s)
        return self.now(root).code

    async def fetched(self, root: bytes, share: float, *, timeout_s: float = 30) -> None:
        """Until it has that share of what it wants."""
        await self.until(lambda: 0 < share * self.now(root).wanted <= self.now(root).done, timeout_s=timeout_s)

    def now(self, root: bytes) -> Swarming:
        found = self.torrents.get(root)
        assert found is not None
        return found

    async def endpoint(self) -> str:
        await self.until(lambda: self.torrents.tcp_port)
        return f"{self.address}:{self.torrents.tcp_port}"

    async def seed(self, file: Content) -> str:
        """Have all of it; where it is to be had."""
        self.torrents.add(file.written(self.path))
        await self.settled(file.root)
        return await self.endpoint()

    async def fetch(self, file: Content, *sources: str, **how: object) -> None:
        self.torrents.add(file.torrent(self.path, **how))
        for source in sources:
            self.torrents.connect(file.root, source)
        await self.until(lambda: self.torrents.tcp_port)

    def kill(self, signal: int) -> None:
        assert self.session.pid is not None
        os.kill(self.session.pid, signal)


@asynccontextmanager
async def swarm(folder: Path, size: int) -> AsyncIterator[list[SwarmNode]]:
    """So many of them, which know nothing of each other."""
    nodes = [SwarmNode(folder / str(number)) for number in range(size)]
    async with living(*nodes):
        yield nodes


@asynccontextmanager
async def living(*nodes: SwarmNode) -> AsyncIterator[None]:
    """Their processes run."""
    lives = [asyncio.create_task(node.session.run()) for node in nodes]
    try:
        yield
    finally:
        for life in lives:
            life.cancel()
        for life in lives:
            with suppress(asyncio.CancelledError):
                await life
