"""How fast a file spreads, next to HTTP in the same run, and what seeding takes of memory.

    python bench/swarm.py [--mb 250] [--runs 3] [--leechers 4] [--mbit 80]     (as root: it makes network namespaces)

* One seed to one leecher over loopback, from the order to fetch until all is verified and on the disk, against `curl`
  from Python's HTTP server, to the disk as well.
* One seed and so many leechers in namespaces, each with the same upload limit, in BitTorrent and by the wire: time to
  the last one, against max(F/us, nF/(us + sum ui)) (F: size, us, ui: upload of the seed and of each leecher) and
  against one HTTP server with the seed's uplink.
* Memory of the process that seeds 20 files.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import psutil

from netns import Namespace, lan
from pares.transport.torrents import Torrent
from swarming import MIB, Content, SwarmNode, content, swarm

PORT = 8999
SERVER = ("-m", "http.server", str(PORT), "--directory")


# One peer as a process of its own: told whom to connect to on its input, it says where it is and when it is done


async def peer(folder: Path, root: bytes, size: int, layer: bytes, *, seeds: bool) -> None:
    """Seed or fetch until the input ends."""
    node = SwarmNode(folder, address="0.0.0.0")
    life = asyncio.create_task(node.session.run())
    node.torrents.add(Torrent(root, size, node.path, layer, complete=seeds))
    await node.until(lambda: node.torrents.tcp_port)
    print(node.torrents.tcp_port, flush=True)

    async def listen() -> None:
        while address := (await asyncio.to_thread(sys.stdin.readline)).strip():
            node.torrents.connect(root, address)

    listening = asyncio.create_task(listen())
    if not seeds:
        await node.settled(root, timeout_s=600)
        print(time.monotonic(), flush=True)
    await listening
    life.cancel()
    await asyncio.wait([life])


@contextmanager
def member(
    where: Namespace, folder: Path, file: Content, *, seeds: bool
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A peer in a namespace: its address, and the process."""
    folder.mkdir()
    (folder / "layer").write_bytes(file.layer)
    if seeds:
        (folder / "file").write_bytes(file.data)
    facts = (file.root.hex(), str(len(file.data)))
    with where.python(__file__, "--peer", str(folder), *facts, *(["--seeds"] if seeds else []), stdin=-1) as process:
        assert process.stdout is not None
        try:
            yield f"{where.address}:{int(process.stdout.readline())}", process
        finally:
            process.communicate(timeout=30)


def swarm_s(file: Content, leechers: int, mbit: int, folder: Path) -> float:
    """Until the last of the leechers has all."""
    with lan(leechers + 1) as places, ExitStack() as stack:
        slowed(places, mbit)
        members = [
            stack.enter_context(member(place, folder / place.name, file, seeds=place is places[0])) for place in places
        ]
        began = time.monotonic()
        for number, (_, process) in enumerate(members):
            for address, _ in members[:number]:
                assert process.stdin is not None
                process.stdin.write(address + "\n")
                process.stdin.flush()
        ends = [float(process.stdout.readline()) for _, process in members[1:] if process.stdout is not None]
        return max(ends) - began


def http_swarm_s(file: Content, leechers: int, mbit: int, folder: Path) -> float:
    """The same from one HTTP server."""
    folder.mkdir()
    (folder / "file").write_bytes(file.data)
    with lan(leechers + 1) as places:
        slowed(places, mbit)
        with served(folder, places[0]):
            began = time.monotonic()
            url = f"http://{places[0].address}:{PORT}/file"
            takers = [
                place.popen("curl", "-sfo", str(folder / place.name), "--retry-connrefused", "--retry", "20", url)
                for place in places[1:]
            ]
            for taker in takers:
                taker.communicate(timeout=600)
                assert taker.returncode == 0
            return time.monotonic() - began


def slowed(places: tuple[Namespace, ...], mbit: int) -> None:
    """Give each the same uplink."""
    for place in places:
        limits = ("rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms")
        place.command("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limits)


@contextmanager
def served(folder: Path, where: Namespace) -> Iterator[None]:
    """A folder by HTTP; it answers when this is entered."""
    with where.python(*SERVER, str(folder)) as server:
        address = f"http://{where.address}:{PORT}/"
        where.command(
            "curl", "-sfo", "/dev/null", "--retry-connrefused", "--retry", "20", "--retry-delay", "1", address
        )
        try:
            yield
        finally:
            server.terminate()


# On loopback


async def one_to_one_s(file: Content, folder: Path) -> float:
    """From the order to fetch until the file is settled; both processes run already."""
    async with swarm(folder, 2) as (seed, leech):
        source = await seed.seed(file)
        other = content(0.1, seed=2)
        leech.torrents.add(other.torrent(folder / "other"))
        await leech.endpoint()
        began = time.perf_counter()
        leech.torrents.add(file.torrent(leech.path))
        leech.torrents.connect(file.root, source)
        await leech.settled(file.root, timeout_s=300)
        return time.perf_counter() - began


def curl_s(file: Content, folder: Path) -> float:
    """With what is fetched on the disk, as a settled file is."""
    folder.mkdir()
    (folder / "file").write_bytes(file.data)
    with subprocess.Popen([sys.executable, *SERVER, folder], stdout=-3, stderr=-3) as server:
        url = f"http://127.0.0.1:{PORT}/"
        retry = ("--retry-connrefused", "--retry", "20", "--retry-delay", "1")
        subprocess.run(["curl", "-sfo", "/dev/null", *retry, url], check=True, timeout=30)
        began = time.perf_counter()
        subprocess.run(["curl", "-sfo", folder / "fetched", url + "file"], check=True, timeout=300)
        subprocess.run(["sync", folder / "fetched"], check=True, timeout=300)
        took = time.perf_counter() - began
        server.terminate()
    return took


async def memory_mb(folder: Path, files: int) -> tuple[float, float]:
    """Resident memory of the process that seeds so many files, idle, and after all were fetched from it."""
    contents = [content(2, seed) for seed in range(files)]
    async with swarm(folder, 2) as (seed, leech):
        for number, file in enumerate(contents):
            torrent = file.written(folder / f"seeded-{number}")
            seed.torrents.add(torrent)
        for file in contents:
            await seed.settled(file.root)
        process = psutil.Process(seed.session.pid)
        idle = process.memory_info().rss
        for number, file in enumerate(contents):
            leech.torrents.add(file.torrent(folder / f"fetched-{number}"))
            leech.torrents.connect(file.root, await seed.endpoint())
        for file in contents:
            await leech.settled(file.root)
        return idle / 1e6, process.memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--mb", type=int, default=250)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--leechers", type=int, default=4)
    parser.add_argument("--mbit", type=int, default=80)
    parser.add_argument("--peer", nargs=3, metavar=("FOLDER", "ROOT", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--seeds", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        folder = Path(asked.peer[0])
        layer = (folder / "layer").read_bytes()
        asyncio.run(peer(folder, bytes.fromhex(asked.peer[1]), int(asked.peer[2]), layer, seeds=asked.seeds))
        return
    file = content(asked.mb * 1e6 / MIB)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        direct, curl, spread, http = [], [], [], []
        for run in range(asked.runs):
            direct.append(asyncio.run(one_to_one_s(file, root / f"direct-{run}")))
            curl.append(curl_s(file, root / f"curl-{run}"))
            spread.append(swarm_s(file, asked.leechers, asked.mbit, root))
            http.append(http_swarm_s(file, asked.leechers, asked.mbit, root / f"http-{run}"))
        idle, busy = asyncio.run(memory_mb(root, 20))
    plain, ours = statistics.median(curl), statistics.median(direct)
    print(f"{asked.mb} MB, one to one: {ours:.2f} s, curl {plain:.2f} s: {plain / ours:.2f} of its speed")
    last, server = statistics.median(spread), statistics.median(http)
    up = asked.mbit / 8
    bound = max(asked.mb / up, asked.leechers * asked.mb / (up * (asked.leechers + 1)))
    print(f"1 seed, {asked.leechers} leechers, {asked.mbit} Mbit/s up each: {last:.1f} s to the last;", end=" ")
    print(f"bound {bound:.1f} s: x {last / bound:.2f}; HTTP {server:.1f} s: {server / last:.1f} times faster")
    print(f"memory while seeding 20 files: {idle:.0f} MB, {busy:.0f} MB after they were fetched")


if __name__ == "__main__":
    main()
