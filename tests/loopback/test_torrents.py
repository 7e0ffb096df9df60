"""Files between real BitTorrent processes on loopback: whole, in part, under limits, and what that takes of memory."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import libtorrent
import psutil
import pytest

from netns import lan
from pares.swarm import merkle
from pares.transport.torrents import info_of, piece_length
from swarming import MIB, PIECE, content, pieces_of, swarm


async def test_what_one_seeds_another_fetches_and_has_on_disk_when_it_is_settled(tmp_path: Path) -> None:
    file = content(8.3)
    async with swarm(tmp_path, 2) as (seed, leech):
        await leech.fetch(file, await seed.seed(file))
        done = await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data
        assert (done.state, done.have) == ("seeding", ((0, -(-len(file.data) // PIECE)),))
        assert (done.done, done.wanted) == (len(file.data), len(file.data))
        assert done.downloaded == len(file.data)
        await seed.until(lambda: seed.now(file.root).uploaded == len(file.data))


@pytest.mark.parametrize("size", [1, PIECE // 2, PIECE, 2 * PIECE + 1])
async def test_files_of_one_byte_of_one_piece_and_of_a_byte_more(tmp_path: Path, size: int) -> None:
    file = content(size / MIB)
    async with swarm(tmp_path, 2) as (seed, leech):
        await leech.fetch(file, await seed.seed(file))
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


async def test_the_hashes_of_pieces_come_from_the_sources_where_they_are_not_known(tmp_path: Path) -> None:
    file = content(5)
    async with swarm(tmp_path, 2) as (seed, leech):
        await leech.fetch(file, await seed.seed(file), layer=b"")
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


async def test_two_leechers_exchange_what_they_have(tmp_path: Path) -> None:
    file = content(12)
    async with swarm(tmp_path, 3) as (seed, one, other):
        source = await seed.seed(file)
        seed.torrents.limit(upload=6 * MIB, download=0)
        for leech in (one, other):
            await leech.fetch(file, source)
        one.torrents.connect(file.root, await other.endpoint())
        for leech in (one, other):
            await leech.settled(file.root)
            assert leech.path.read_bytes() == file.data
        assert one.now(file.root).uploaded + other.now(file.root).uploaded >= 2 * MIB


async def test_only_what_is_wanted_is_fetched_and_the_rest_later_without_fetching_twice(tmp_path: Path) -> None:
    file = content(16)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        await leech.fetch(file, source, wanted=pieces_of((0, 1), (5, 8)))
        part = await leech.settled(file.root)
        assert (part.have, part.downloaded, part.wanted) == (pieces_of((0, 1), (5, 8)), 4 * MIB, 4 * MIB)
        held = leech.path.read_bytes()
        assert held[5 * MIB : 8 * MIB] == file.data[5 * MIB : 8 * MIB]
        assert leech.path.stat().st_blocks * 512 <= 5 * MIB
        await leech.fetch(file, wanted=pieces_of((0, 1), (5, 8), (9, 10)))
        await leech.until(lambda: leech.now(file.root).settled and leech.now(file.root).wanted == 5 * MIB)
        await leech.fetch(file)
        await leech.until(lambda: leech.now(file.root).settled and leech.now(file.root).wanted == 16 * MIB)
        assert leech.now(file.root).downloaded == 16 * MIB
        assert leech.path.read_bytes() == file.data


async def test_pieces_that_are_said_to_be_here_are_not_fetched_and_are_given_on(tmp_path: Path) -> None:
    file = content(10)
    async with swarm(tmp_path, 2) as (one, other):
        for node, first, end in ((one, 0, 6), (other, 4, 10)):
            with node.path.open("wb") as out:
                out.seek(first * MIB)
                out.write(file.data[first * MIB : end * MIB])
        await one.fetch(file, have=pieces_of((0, 6)))
        await other.fetch(file, await one.endpoint(), have=pieces_of((4, 10)))
        for node in (one, other):
            await node.settled(file.root)
            assert node.path.read_bytes() == file.data
            assert node.now(file.root).downloaded == 4 * MIB


async def test_without_a_word_of_what_is_here_a_file_is_checked_and_only_the_rest_fetched(tmp_path: Path) -> None:
    file = content(10)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        leech.path.write_bytes(file.data[: 7 * MIB] + bytes(2 * MIB))
        await leech.fetch(file, source)
        assert (await leech.settled(file.root)).downloaded == 3 * MIB
        assert leech.path.read_bytes() == file.data


async def test_limits_hold_on_loopback_for_the_session_and_for_one_torrent(tmp_path: Path) -> None:
    file = content(3)
    async with swarm(tmp_path, 3) as (seed, one, other):
        source = await seed.seed(file)
        seed.torrents.limit(upload=3 * MIB, download=0)
        began = time.monotonic()
        await one.fetch(file, source)
        await one.settled(file.root)
        assert time.monotonic() - began > 0.65
        told = [who for news in one.news for who in news.sources]
        assert {(who.address, who.kind, who.have) for who in told} == {(source, "peer", 1.0)}
        seed.torrents.limit(upload=0, download=0)
        began = time.monotonic()
        await other.fetch(file, source, download_limit=3 * MIB)
        await other.settled(file.root)
        assert time.monotonic() - began > 0.65


async def test_paused_it_exchanges_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    file = content(8)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        seed.torrents.limit(upload=4 * MIB, download=0)
        await leech.fetch(file, source)
        await leech.fetched(file.root, 0.2)
        leech.torrents.pause(file.root)
        await leech.until(lambda: leech.now(file.root).state == "paused" and not leech.now(file.root).sources)
        leech.torrents.resume(file.root)
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


async def test_a_removed_torrent_leaves_its_file_and_nothing_else(tmp_path: Path) -> None:
    file = content(8)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        seed.torrents.limit(upload=4 * MIB, download=0)
        await leech.fetch(file, source)
        await leech.fetched(file.root, 0.4)
        leech.torrents.remove(file.root)
        assert leech.torrents.get(file.root) is None
        await leech.until(lambda: leech.session.pid is None)
        assert list((leech.folder / "resume").iterdir()) == []
        held = leech.path.read_bytes()
        right = [n for n in range(0, len(held), PIECE) if held[n : n + PIECE] == file.data[n : n + PIECE]]
        assert len(right) * PIECE >= 3 * MIB
        await leech.fetch(file, source)
        again = await leech.settled(file.root)
        assert again.downloaded <= len(file.data) - PIECE * len(right)
        assert leech.path.read_bytes() == file.data


async def test_seeding_twenty_files_takes_little_memory(tmp_path: Path) -> None:
    files = [content(1.5, seed) for seed in range(20)]
    async with swarm(tmp_path, 2) as (seed, leech):
        for number, file in enumerate(files):
            seed.torrents.add(file.written(tmp_path / f"seeded-{number}"))
            leech.torrents.add(file.torrent(tmp_path / f"fetched-{number}"))
        for file in files:
            leech.torrents.connect(file.root, await seed.endpoint())
        for file in files:
            await leech.settled(file.root)
        for node in (seed, leech):
            memory = psutil.Process(node.session.pid).memory_info().rss
            assert memory < 80 * MIB, f"{memory / MIB:.0f} MiB"


def test_the_torrent_follows_from_root_and_size_alone() -> None:
    file = content(2.5)
    info = info_of(file.root, len(file.data))
    parsed = libtorrent.load_torrent_buffer(b"d4:info" + info + b"e")
    assert parsed.info_hashes.v2.to_bytes() == hashlib.sha256(info).digest()
    assert not parsed.info_hashes.has_v1()
    for size in (1, 10**9 - 1, 10**9, 16 * 10**9 - 1, 16 * 10**9, 256 * 10**9 - 1, 256 * 10**9, 1 << 40):
        assert piece_length(size) == merkle.piece_length(size)


MEMBER = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from swarming import SwarmNode, content

async def main():
    node = SwarmNode(Path(sys.argv[1]), address="0.0.0.0")
    life = asyncio.create_task(node.session.run())
    await node.seed(content(1))
    print("seeds", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    life.cancel()
    await asyncio.wait([life])

asyncio.run(main())
"""
WATCH = """
import select, socket, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("watches", flush=True)
until = time.monotonic() + 3
while (left := until - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
    frame = wire.recv(2048)
    kind, in_ipv6 = frame[12:14].hex(), frame[20]
    if kind != "86dd" or in_ipv6 in (6, 17):  # the kernel's own neighbour discovery is none of ours
        print(kind, frame[14:].hex(), flush=True)
"""


def test_a_torrent_tells_nobody_that_it_is_here(tmp_path: Path) -> None:
    with lan(2) as (one, other), other.python("-c", WATCH) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watches\n"
        with one.python("-c", MEMBER, str(tmp_path), stdin=-1) as node:
            assert node.stdout is not None
            assert node.stdout.readline() == "seeds\n"
            assert watcher.communicate(timeout=20)[0] == ""
            node.communicate(timeout=10)
            assert node.returncode == 0
