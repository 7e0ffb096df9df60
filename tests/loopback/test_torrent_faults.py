"""What goes wrong while files spread, on real BitTorrent processes: nothing corrupted, named errors, recovery."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import libtorrent
import pytest

from pares.errors import BadRequest
from pares.transport.torrents import HASH_BYTES, Torrent, metainfo
from swarming import MIB, PIECE, Content, SwarmNode, content, pieces_of, swarm

# The process dies


async def test_a_leecher_whose_process_is_killed_at_half_fetches_little_again(tmp_path: Path) -> None:
    file = content(24)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        await leech.fetch(file, source, download_limit=3 * MIB)
        await leech.fetched(file.root, 0.5)
        pid = leech.session.pid
        leech.kill(signal.SIGKILL)
        await leech.until(lambda: leech.session.pid not in (None, pid))
        leech.torrents.add(file.torrent(leech.path))
        done = await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data
        assert done.downloaded <= 1.15 * len(file.data)
        assert done.wasted == 0


async def test_a_leecher_whose_node_is_killed_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    file = content(24)
    async with swarm(tmp_path, 1) as (seed,):
        source = await seed.seed(file)
        with _node(tmp_path / "leech", file, source) as leech:
            leech.kill()
        folder = tmp_path / "leech"
        half = (folder / "file").stat().st_size
        assert half
        again = SwarmNode(folder)
        life = asyncio.create_task(again.session.run())
        await again.fetch(file, source)
        done = await again.settled(file.root)
        assert again.path.read_bytes() == file.data
        assert done.downloaded <= 0.65 * len(file.data)
        life.cancel()
        await asyncio.wait([life])


async def test_a_stopped_node_has_kept_all_that_it_fetched(tmp_path: Path) -> None:
    file = content(16)
    async with swarm(tmp_path, 1) as (seed,):
        source = await seed.seed(file)
        async with swarm(tmp_path / "leech", 1) as (leech,):
            await leech.fetch(file, source, download_limit=4 * MIB)
            await leech.fetched(file.root, 0.4)
            first = leech.now(file.root).downloaded
        async with swarm(tmp_path / "leech", 1) as (leech,):
            await leech.fetch(file, source)
            done = await leech.settled(file.root)
            assert leech.path.read_bytes() == file.data
            assert done.downloaded <= len(file.data) - first + MIB // 2  # blocks that were under way


async def test_a_killed_seed_comes_back_at_its_port_and_is_found_again(tmp_path: Path) -> None:
    file = content(16)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        await leech.fetch(file, source, download_limit=5 * MIB)
        await leech.fetched(file.root, 0.3)
        pid = seed.session.pid
        seed.kill(signal.SIGKILL)
        await seed.until(lambda: seed.session.pid not in (None, pid) and seed.torrents.tcp_port)
        assert await seed.endpoint() == source
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


async def test_two_leechers_that_hold_all_pieces_together_complete_without_the_seed(tmp_path: Path) -> None:
    file = content(12)
    async with swarm(tmp_path, 3) as (seed, one, other):
        source = await seed.seed(file)
        await one.fetch(file, source, wanted=pieces_of((0, 7)))
        await other.fetch(file, source, wanted=pieces_of((5, 12)))
        for leech in (one, other):
            await leech.settled(file.root)
        seed.torrents.remove(file.root)
        await seed.until(lambda: seed.session.pid is None)
        one.torrents.connect(file.root, await other.endpoint())
        for leech in (one, other):
            leech.torrents.add(file.torrent(leech.path))
        for leech in (one, other):
            await leech.until(lambda leech=leech: leech.now(file.root).done == len(file.data))  # type: ignore[misc]
            await leech.settled(file.root)
            assert leech.path.read_bytes() == file.data


# Sources that lie


@contextmanager
def _liar(file: Content, folder: Path, *, bad: int) -> Iterator[str]:
    """A session that serves the file with a wrong byte in one piece, and says nothing of it."""
    folder.mkdir()
    wrong = bytearray(file.data)
    wrong[bad * PIECE + 5] ^= 1
    (folder / file.root.hex()).write_bytes(wrong)
    settings: Any = dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False)
    settings |= {"listen_interfaces": "127.89.0.1:0", "disable_hash_checks": True, "webtorrent_stun_server": ""}
    session = libtorrent.session(settings)
    parameters = libtorrent.load_torrent_buffer(metainfo(file.torrent(folder / "unused")))
    parameters.save_path = str(folder)
    parameters.flags = libtorrent.torrent_flags.seed_mode
    session.add_torrent(parameters)
    yield f"127.89.0.1:{session.listen_port()}"
    session.pause()


async def test_a_source_that_sends_wrong_bytes_is_banned_and_named_and_the_file_ends_right(tmp_path: Path) -> None:
    file = content(8)
    async with swarm(tmp_path, 2) as (seed, leech):
        with _liar(file, tmp_path / "liar", bad=3) as liar:
            await leech.fetch(file, liar)
            await leech.until(lambda: leech.poisoned)
            assert [(found.address, found.piece) for found in leech.poisoned] == [(liar, 3)]
            leech.torrents.connect(file.root, await seed.seed(file))
            done = await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data
        assert done.wasted <= 2 * PIECE


async def test_a_poisoned_web_seed_is_banned_and_a_peer_has_the_rest(tmp_path: Path) -> None:
    file = content(8)
    bad = bytearray(file.data)
    bad[2 * PIECE] ^= 1
    async with swarm(tmp_path, 2) as (seed, leech), _web(bytes(bad)) as url:
        await leech.fetch(file, web_seeds=(url,))
        await leech.until(lambda: leech.poisoned)
        assert leech.poisoned[0].piece == 2
        leech.torrents.connect(file.root, await seed.seed(file))
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


async def test_a_web_seed_alone_is_enough(tmp_path: Path) -> None:
    file = content(4)
    async with swarm(tmp_path, 1) as (leech,), _web(file.data) as url:
        await leech.fetch(file, web_seeds=(url,))
        await leech.settled(file.root)
        assert leech.path.read_bytes() == file.data


@asynccontextmanager
async def _web(body: bytes) -> AsyncIterator[str]:
    """A directory of an HTTP server where every file is this one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                span = head.partition("range: bytes=")[2].partition("\r")[0].partition("-")
                first, last = int(span[0] or 0), int(span[2] or len(body) - 1)
                told = f"206 Partial\r\nContent-Range: bytes {first}-{last}/{len(body)}"
                writer.write(f"HTTP/1.1 {told}\r\nContent-Length: {last - first + 1}\r\n\r\n".encode())
                writer.write(body[first : last + 1])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/some/where/"


# The disk


@contextmanager
def _disk(where: Path, mib: int) -> Iterator[None]:
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "pares", where], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True, timeout=10)


def _grow(where: Path, mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mib}m", where], check=True, timeout=10)


async def test_a_full_disk_is_named_corrupts_nothing_and_fetching_goes_on_when_there_is_room(tmp_path: Path) -> None:
    file = content(16)
    async with swarm(tmp_path, 2) as (seed, leech):
        with _disk(tmp_path / "disk", 12):
            leech.path = tmp_path / "disk" / "file"
            ballast = tmp_path / "disk" / "ballast"
            ballast.write_bytes(bytes(3 * MIB))
            await leech.fetch(file, await seed.seed(file))
            assert await leech.failed(file.root) == "disk_full"
            assert len([news for news in leech.news if news.state == "failed"]) == 1
            leech.torrents.resume(file.root)
            assert await leech.failed(file.root) == "disk_full"
            ballast.unlink()
            _grow(tmp_path / "disk", 24)
            leech.torrents.resume(file.root)
            await leech.settled(file.root)
            assert leech.path.read_bytes() == file.data
            leech.torrents.remove(file.root)
            await leech.until(lambda: leech.session.pid is None)


async def test_a_seeded_file_that_is_gone_is_not_fetched_again_and_seeded_when_it_is_back(tmp_path: Path) -> None:
    file = content(4)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        seed.path.rename(tmp_path / "away")
        pid = seed.session.pid
        seed.kill(signal.SIGKILL)
        await seed.until(lambda: seed.session.pid not in (None, pid))
        assert await seed.failed(file.root) == "not_found"
        assert not seed.path.exists()
        (tmp_path / "away").rename(seed.path)
        seed.torrents.resume(file.root)
        await seed.settled(file.root)
        await leech.fetch(file, source)
        await leech.settled(file.root)


async def test_a_file_that_vanishes_while_it_is_seeded_is_noticed(tmp_path: Path) -> None:
    file = content(2)
    async with swarm(tmp_path, 1) as (seed,):
        await seed.seed(file)
        seed.path.unlink()
        assert await seed.failed(file.root, timeout_s=15) == "not_found"


async def test_a_volume_that_vanishes_while_a_file_is_fetched_is_noticed_and_left_alone(tmp_path: Path) -> None:
    file = content(16)
    async with swarm(tmp_path, 2) as (seed, leech):
        source = await seed.seed(file)
        leech.path = tmp_path / "disk" / "file"
        with _disk(tmp_path / "disk", 24):
            await leech.fetch(file, source, download_limit=4 * MIB)
            await leech.fetched(file.root, 0.4)
        assert await leech.failed(file.root) == "not_found"
        leech.torrents.resume(file.root)
        assert await leech.failed(file.root) == "not_found"


async def test_a_seeded_file_that_was_changed_is_never_given_away_or_mended(tmp_path: Path) -> None:
    file = content(4)
    changed = bytearray(file.data)
    changed[MIB + 7] ^= 1
    async with swarm(tmp_path, 2) as (seed, leech):
        seed.path.write_bytes(changed)
        seed.torrents.add(file.torrent(seed.path, complete=True))
        await leech.fetch(file, await seed.endpoint())
        assert await seed.failed(file.root) == "verification_failed"
        assert seed.path.read_bytes() == changed
        assert leech.poisoned == []


async def test_a_file_of_another_size_and_wrong_hashes_of_pieces_are_refused(tmp_path: Path) -> None:
    file = content(4)
    async with swarm(tmp_path, 1) as (node,):
        node.path.write_bytes(file.data[:-1])
        node.torrents.add(file.torrent(node.path, complete=True))
        assert await node.failed(file.root) == "verification_failed"
        assert node.path.stat().st_size == len(file.data) - 1
        other = content(3, seed=2)
        count = len(other.data) // PIECE
        node.torrents.add(Torrent(other.root, len(other.data), tmp_path / "other", bytes(HASH_BYTES * count)))
        assert await node.failed(other.root) == "verification_failed"
        with pytest.raises(BadRequest, match="too large"):
            node.torrents.add(Torrent(other.root, 1 << 41, tmp_path / "other"))
        with pytest.raises(ValueError, match=f"hashes for {count} pieces"):
            node.torrents.add(Torrent(other.root, len(other.data), tmp_path / "other", bytes(HASH_BYTES * (count - 1))))
        with pytest.raises(ValueError, match="address"):
            node.torrents.connect(file.root, "example.com:80")


NODE = """
import asyncio, sys
from pathlib import Path
from swarming import MIB, SwarmNode, content

async def main():
    node, file = SwarmNode(Path(sys.argv[1])), content(float(sys.argv[2]))
    life = asyncio.create_task(node.session.run())
    await node.fetch(file, sys.argv[3], download_limit=4 * MIB)
    await node.fetched(file.root, 0.5)
    print("half", flush=True)
    await life

asyncio.run(main())
"""


@contextmanager
def _node(folder: Path, file: Content, source: str) -> Iterator[subprocess.Popen[str]]:
    """A node of its own that has fetched half."""
    command = [sys.executable, "-c", NODE, str(folder), str(len(file.data) / MIB), source]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        yield process
        process.wait(10)


async def test_where_the_state_of_the_dht_cannot_be_kept_files_are_exchanged_all_the_same(tmp_path: Path) -> None:
    file = content(3)
    async with swarm(tmp_path, 2) as (one, other):
        for node in (one, other):
            (node.folder / "state" / "in the way").mkdir(parents=True)
        source = await one.seed(file)
        pid = one.session.pid
        await other.fetch(file, source)
        await other.settled(file.root)
        assert one.session.pid == pid, "one process all the time"


async def test_limits_above_what_libtorrent_takes_are_none(tmp_path: Path) -> None:
    file = content(3)
    async with swarm(tmp_path, 2) as (one, other):
        for node in (one, other):
            node.torrents.limit(upload=5_000_000_000, download=1 << 53)
        source = await one.seed(file)
        pid = one.session.pid
        await other.fetch(file, source, download_limit=1 << 53, upload_limit=1 << 31)
        await other.settled(file.root)
        assert one.session.pid == pid, "one process all the time"
