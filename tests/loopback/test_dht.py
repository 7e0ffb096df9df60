"""A private DHT of real processes on loopback: what is put is found, newer wins, and dying costs nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from finding import DhtNode, network
from netns import lan
from pares.circle.dht import SALT, Directory
from pares.wire.messages import Contact
from pares.wire.signing import Identity

NODES = 6


async def test_what_one_puts_another_finds_and_the_newer_wins(tmp_path: Path) -> None:
    author = Identity(os.urandom(32))
    async with network(tmp_path, NODES) as (writer, other, *_, reader):
        assert await reader.torrent.get(author.id, SALT, timeout_s=5) is None
        assert await writer.torrent.put(author, SALT, b"first", timeout_s=5) >= 3
        first = await reader.torrent.get(author.id, SALT, timeout_s=5)
        assert first is not None
        assert first.value == b"first"
        assert await other.torrent.put(author, SALT, b"second", timeout_s=5) >= 3
        second = await reader.torrent.get(author.id, SALT, timeout_s=5)
        assert second is not None
        assert second.value == b"second"
        assert second.sequence > first.sequence
        assert await reader.torrent.get(author.id, b"other salt", timeout_s=5) is None


async def test_a_node_that_moved_is_found_at_its_new_address(tmp_path: Path) -> None:
    mover, seeker = Identity(os.urandom(32)), Identity(os.urandom(32))
    now = int(time.time())
    async with network(tmp_path, 3) as (one, two, three):
        for sequence, torrent in ((1, one.torrent), (2, two.torrent)):
            here = Contact(sequence=sequence, expires=now + 600, name="n", addresses=[f"127.0.0.{sequence}:4433"])
            moved = Directory(torrent, mover, now=time.time, local=True)
            seeking = Directory(three.torrent, seeker, now=time.time, local=True)
            seeking.publish(here)
            moved.publish(here)
            life = asyncio.create_task(moved.run())
            async with asyncio.timeout(10):
                while (
                    item := await three.torrent.get(mover.id, SALT, timeout_s=5)
                ) is None or item.sequence < sequence:
                    pass
            found = await seeking.lookup(mover.id, after=sequence - 1)
            assert found is not None
            assert found.addresses == here.addresses
            life.cancel()
            await asyncio.wait([life])


async def test_half_of_the_nodes_killed_loses_no_item(tmp_path: Path) -> None:
    author = Identity(os.urandom(32))
    async with network(tmp_path, NODES) as nodes:
        assert await nodes[0].torrent.put(author, SALT, b"still here", timeout_s=5) >= 3
        for node in nodes[: NODES // 2]:
            pid = node.torrent.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            node.stop()
        for node in nodes[NODES // 2 :]:
            item = await node.torrent.get(author.id, SALT, timeout_s=5)
            assert item is not None
            assert item.value == b"still here"


async def test_a_killed_process_comes_back_with_its_id_its_nodes_its_port_and_what_was_asked(tmp_path: Path) -> None:
    author = Identity(os.urandom(32))
    async with network(tmp_path, NODES) as nodes:
        victim = nodes[-1]
        torrent = victim.torrent
        assert await torrent.save(timeout_s=5)
        identity, known = victim.remembered()
        assert known
        port, pid = torrent.port, torrent.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # so that the request is certainly unanswered when the process dies
        asked = asyncio.create_task(torrent.put(author, SALT, b"asked of the dead", timeout_s=15))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        assert await asked >= 1
        assert torrent.pid not in (None, pid)
        assert torrent.port == port
        await victim.until(lambda torrent: torrent.status.nodes >= len(known) - 1)
        assert await torrent.save(timeout_s=5)
        assert victim.remembered()[0] == identity


async def test_state_survives_the_node_and_rubbish_in_its_file_does_not_hurt(tmp_path: Path) -> None:
    node = DhtNode(tmp_path, 1)
    async with node:
        assert await node.torrent.save(timeout_s=15)
    identity, _ = node.remembered()
    async with DhtNode(tmp_path, 1) as again:
        assert await again.torrent.save(timeout_s=15)
    assert again.remembered()[0] == identity
    node.state.write_bytes(b"d9:dht stated7:node-idl26:" + os.urandom(500))
    async with DhtNode(tmp_path, 1) as fresh:
        assert await fresh.torrent.save(timeout_s=15)
    assert fresh.remembered()[0] != identity


async def test_there_is_a_process_only_while_it_is_used_and_none_is_left_over(tmp_path: Path) -> None:
    node = DhtNode(tmp_path, 1)
    torrent = node.torrent
    life = asyncio.create_task(torrent.run())
    pids: set[int | None] = set()
    for _ in range(2):
        with torrent.used():
            await node.until(lambda torrent: torrent.pid is not None)
            pids.add(torrent.pid)
        await node.until(lambda torrent: torrent.pid is None)
    assert len(pids) == 2
    assert not any(pid and alive(pid) for pid in pids)
    with torrent.used():
        await node.until(lambda torrent: torrent.pid is not None)
        pid = torrent.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it will not hear that it should end
        life.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([life])
        assert not alive(pid)


async def test_without_other_nodes_every_wait_still_ends(tmp_path: Path) -> None:
    author = Identity(os.urandom(32))
    async with DhtNode(tmp_path, 1) as lonely:
        await lonely.until(lambda torrent: torrent.port != 0)
        async with asyncio.timeout(5):
            assert await lonely.torrent.get(author.id, SALT, timeout_s=1) is None
            assert await lonely.torrent.put(author, SALT, b"x", timeout_s=1) <= 1
    with pytest.raises(ValueError, match="997 bytes"):
        await lonely.torrent.put(author, SALT, bytes(997), timeout_s=1)


def alive(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SILENT = """
import asyncio, sys
from pathlib import Path
from pares.transport.bittorrent_process import BitTorrent, Settings

async def main():
    torrent = BitTorrent(Settings(Path(sys.argv[1])))
    life = asyncio.create_task(torrent.run())
    with torrent.used():
        await torrent.save(timeout_s=20)
        print("runs", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await asyncio.wait([life], timeout=0)

asyncio.run(main())
"""
WATCH = """
import select, socket, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("watches", flush=True)
until = time.monotonic() + 4
while (left := until - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
    frame = wire.recv(2048)
    kind, in_ipv6 = frame[12:14].hex(), frame[20]
    if kind != "86dd" or in_ipv6 in (6, 17):  # the kernel's own neighbour discovery is none of ours
        print(kind, frame[14:].hex(), flush=True)
"""


def test_with_nothing_told_it_contacts_nobody(tmp_path: Path) -> None:
    with lan(2) as (one, other), other.python("-c", WATCH) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watches\n"
        with one.python("-c", SILENT, str(tmp_path / "state"), stdin=-1) as node:
            assert node.stdout is not None
            assert node.stdout.readline() == "runs\n"
            assert watcher.communicate(timeout=20)[0] == ""
            node.communicate(timeout=10)
            assert node.returncode == 0
