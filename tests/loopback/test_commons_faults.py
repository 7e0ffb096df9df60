"""What goes wrong while models spread in a circle of real nodes: nothing corrupted, named errors, recovery by itself.

The nodes are the same for all tests; each has a circle of its own, as members take only so many offers of one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_commons import KNOWN_S, SETTINGS, done, has, pull, sha256_of, state, versions

from nodes import Node, all_online, running, until
from pares.swarm.merkle import piece_length
from tiny import tiny_llama

MIB = 1 << 20
LAYERS = 10
SIZE = 20_000_000
"""Of the weights, about."""
SLOW = 8_000_000
"""Bytes per second."""
DISK_MIB = 160
PULLED_S = 45.0
NOTICED_S = 25.0
_numbers = count(1)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node, Node]]:
    """Three; the models of B are on a disk of their own."""
    home = tmp_path_factory.mktemp("homes")
    a, b, c = (Node(home / name, name, **SETTINGS, swarm_disk_recheck_s=0.2) for name in "ABC")
    with disk(models_of(b)), running(a, b, c):
        yield a, b, c


@pytest.fixture
def friends(nodes: tuple[Node, Node, Node]) -> Iterator[tuple[Node, Node, Node]]:
    """In a circle; A gives slowly."""
    a, b, c = nodes
    for each in [each for each in nodes if each.process is None]:
        each.start()
        each.ready()
    for each in nodes:
        each.call("PATCH", "/swarm", {"upload_limit": SLOW if each is a else 0})
    circle = a.create("Friends", internet=False)
    link = a.invite(circle, uses=2)
    for each in (b, c):
        each.join(link)
    until(all_online(a, b, c), NOTICED_S)
    yield nodes
    for each in [each for each in nodes if each.process is not None]:
        each.call("DELETE", f"/circles/{circle}")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random ones, under a name that no other test uses."""
    number = next(_numbers)
    path = tmp_path / "volume" / f"model-{number}.gguf"
    path.parent.mkdir()
    return tiny_llama(path, layers=LAYERS, embedding=256, ffn=1024, dtype="F16", seed=number)


def test_two_who_hold_everything_together_complete_when_the_first_holder_is_gone_for_good(
    friends: tuple[Node, Node, Node], weights: Path
) -> None:
    a, b, c = friends
    a.call("PATCH", "/swarm", {"upload_limit": 0})
    version = shared(weights, *friends)
    halves = {b: f"0-{LAYERS // 2}+head", c: f"{LAYERS // 2}-{LAYERS}"}
    parts = {of: pull(of, version, layers=layers) for of, layers in halves.items()}
    for of, part in parts.items():
        until(lambda of=of, part=part: done(of, part), PULLED_S)  # type: ignore[misc]
    a.kill()
    until(lambda: all(versions(of)[version]["complete"] for of in (b, c)), KNOWN_S)
    before = {of: fetched(of) for of in (b, c)}
    pulls = {of: pull(of, version) for of in (b, c)}
    for of, whole in pulls.items():
        until(lambda of=of, whole=whole: done(of, whole), PULLED_S)  # type: ignore[misc]
        assert sha256_of(of, weights.stem) == hash_of(weights)
        assert fetched(of) - before[of] < 0.75 * SIZE, "what was there was fetched again"


def test_a_leecher_that_is_killed_at_half_fetches_little_again(friends: tuple[Node, Node, Node], weights: Path) -> None:
    a, b, _ = friends
    version = shared(weights, *friends)
    before = given(a)
    begun = pull(b, version)
    until(lambda: has(b, begun, 0.5), PULLED_S)
    b.kill()
    b.start()
    b.ready()
    until(lambda: done(b, begun), PULLED_S)
    assert sha256_of(b, weights.stem) == hash_of(weights)
    assert given(a) - before <= 1.15 * SIZE


def test_when_the_transfer_processes_of_seed_and_leecher_are_killed_the_download_goes_on_by_itself(
    friends: tuple[Node, Node, Node], weights: Path
) -> None:
    a, b, _ = friends
    version = shared(weights, *friends)
    before = fetched(b)
    begun = pull(b, version)
    for victim, at in ((a, 0.3), (b, 0.6)):
        until(lambda at=at: has(b, begun, at), PULLED_S)  # type: ignore[misc]
        process = transfer_process(victim)
        process.kill()
        until(lambda process=process: not process.is_running(), NOTICED_S)  # type: ignore[misc]
    until(lambda: done(b, begun), PULLED_S)
    assert sha256_of(b, weights.stem) == hash_of(weights)
    assert fetched(b) - before <= 1.15 * SIZE
    assert transfer_process(a).is_running()


# The disk


def test_a_disk_that_is_too_small_is_named_before_a_byte_is_fetched(
    friends: tuple[Node, Node, Node], weights: Path
) -> None:
    _, b, _ = friends
    version = shared(weights, *friends)
    before = fetched(b)
    with filled(models_of(b), leaving=8 * MIB):
        begun = pull(b, version)
        until(lambda: state(b, begun)["state"] == "failed", PULLED_S)
        told = state(b, begun)
        assert told["code"] == "disk_full"
        assert "needs 20 MB" in told["error"]
        assert "Free 11" in told["error"]
        assert fetched(b) == before


def test_a_disk_that_fills_up_pauses_with_what_to_do_and_the_download_goes_on_when_there_is_room(
    friends: tuple[Node, Node, Node], weights: Path
) -> None:
    _, b, _ = friends
    version = shared(weights, *friends)
    begun = pull(b, version, layers=f"0-{LAYERS}")
    until(lambda: has(b, begun, 0.2), PULLED_S)
    with filled(models_of(b), leaving=0):
        until(lambda: state(b, begun)["state"] == "paused", PULLED_S)
        told = state(b, begun)
        assert told["code"] == "disk_full"
        assert "the download goes on from there" in told["error"]
    until(lambda: done(b, begun), PULLED_S)
    rest = pull(b, version)
    until(lambda: done(b, rest), PULLED_S)
    assert sha256_of(b, weights.stem) == hash_of(weights)


def test_what_lies_on_a_volume_that_vanished_is_offered_no_more_and_again_when_it_is_back(
    friends: tuple[Node, Node, Node], weights: Path, tmp_path: Path
) -> None:
    a, b, _ = friends
    version = shared(weights, *friends)
    weights.parent.rename(tmp_path / "away")
    until(lambda: not held(version, b), NOTICED_S)
    row = torrent(a, version)
    assert (row["state"], row["code"]) == ("failed", "not_found")
    assert str(weights) in row["error"]
    (tmp_path / "away").rename(weights.parent)
    until(lambda: held(version, b), NOTICED_S)
    begun = pull(b, version)
    until(lambda: done(b, begun), PULLED_S)
    assert sha256_of(b, weights.stem) == hash_of(weights)


# A member that sends what is wrong


def test_a_member_that_sends_wrong_pieces_is_banned_and_named_and_the_file_ends_right(
    friends: tuple[Node, Node, Node], weights: Path
) -> None:
    _a, b, c = friends
    sound = hash_of(weights)
    version = shared(weights, *friends)
    first = pull(b, version)
    until(lambda: done(b, first), PULLED_S)
    until(lambda: held(version, c) == 2, KNOWN_S)
    spoil(weights)  # of what A has read and sent once, it does not doubt the bytes
    second = pull(c, version)
    until(lambda: done(c, second), PULLED_S)
    assert sha256_of(c, weights.stem) == sound
    row = torrent(c, version)
    assert row["code"] == "poisoned"
    assert row["error"] == "A sent a wrong piece and was banned for this file."
    assert 0 < row["wasted"] < SIZE


def shared(weights: Path, by: Node, *others: Node) -> str:
    """A file that a node imports and gives away, which the others know; the version's id."""
    by.call("POST", "/models/import", {"path": str(weights)})
    told = by.call("POST", "/share", {"model": weights.stem, "licence": "Apache-2.0"})
    version = str(told["row"]["id"])
    for each in others:
        until(lambda each=each: held(version, each), KNOWN_S)  # type: ignore[misc]
    return version


def held(version: str, of: Node) -> int:
    """How many others are known to a node that hold all of it."""
    return int(versions(of).get(version, {"whole": 0})["whole"])


def fetched(of: Node) -> int:
    return int(of.call("GET", "/swarm")["downloaded"])


def given(by: Node) -> int:
    return int(by.call("GET", "/swarm")["uploaded"])


def torrent(of: Node, version: str) -> dict[str, Any]:
    """What a node tells of the file of a version."""
    (found,) = (row for row in of.call("GET", "/swarm")["torrents"] if version in row["versions"])
    assert isinstance(found, dict)
    return found


def transfer_process(of: Node) -> psutil.Process:
    children = psutil.Process(of.pid).children()
    (found,) = (child for child in children if "pares.transport.bittorrent" in child.cmdline())
    return found


def models_of(node: Node) -> Path:
    return node.home / "models"


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spoil(path: Path) -> None:
    """Change a bit of nearly every piece, without a trace in the file's times."""
    stat = path.stat()
    spoiled = bytearray(path.read_bytes())
    for place in range(2 * MIB, len(spoiled), piece_length(len(spoiled)) // 2):
        spoiled[place] ^= 1
    with path.open("r+b") as file:
        file.write(spoiled)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextmanager
def disk(where: Path) -> Iterator[None]:
    where.mkdir(parents=True)
    size = f"size={DISK_MIB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "pares", where], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True, timeout=10)


@contextmanager
def filled(where: Path, *, leaving: int) -> Iterator[None]:
    """A disk with nearly no room, for a while."""
    ballast = where / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(psutil.disk_usage(str(where)).free - leaving, 1))
    try:
        yield
    finally:
        ballast.unlink()
