"""Files between real BitTorrent processes on loopback: whole, in part, under limits, and what that takes of memory."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from pathlib import Path

import libtorrent
import psutil

from swarming import MIB, content, swarm


async def test_what_one_seeds_another_fetches_and_has_it_on_disk_when_it_is_settled(tmp_path: Path) -> None:
    file = content(8.3)
    async with swarm(tmp_path, 2) as (seed, leech):
        await leech.fetch(file, await seed.seed(file))
        done = await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data
        assert (done.state, done.have, done.done, done.wanted) == ("seeding", ((0, 9),), len(file.data), len(file.data))
        assert done.downloaded == len(file.data)
        await seed.until(lambda: seed.now(file.root).uploaded == len(file.data))
        assert (done.sources[0].kind, done.sources[0].have) == ("peer", 1.0) if done.sources else True
