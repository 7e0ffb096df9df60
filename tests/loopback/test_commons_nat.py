"""Models on real networks: where no BitTorrent connection gets through, and where strangers are next door."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from test_commons import circle_of, done, pull, sha256_of
from test_commons_faults import hash_of, shared, torrent
from test_nat import three

from netns import NatKind, lan, two_homes
from nodes import Node, all_online, node, until
from pares.transport.torrents import info_of
from tiny import tiny_llama

REACHED_S = 25.0
PULLED_S = 40.0


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """6 MB."""
    return tiny_llama(tmp_path / "far.gguf", layers=3, embedding=256, ffn=1024, dtype="F16")


@pytest.mark.parametrize(("kind", "path"), [("independent", "direct"), ("symmetric", "relayed")])
def test_a_member_behind_a_nat_pulls_from_one_behind_another_over_the_circles_own_connection(
    tmp_path: Path, weights: Path, kind: NatKind, path: str
) -> None:
    with (
        two_homes(kind, kind) as homes,
        three(tmp_path, homes, relay_enabled=kind == "symmetric") as (public, first, second),
    ):
        until(all_online(public, first, second), REACHED_S)
        until(lambda: second.path("first") == path, REACHED_S)
        version = shared(weights, first, second)
        assert pulled_by_tunnel(second, version) == {"first"}
        assert sha256_of(second, weights.stem) == hash_of(weights)


def test_where_plain_connections_are_switched_off_the_circles_own_carry_everything(
    tmp_path: Path, weights: Path
) -> None:
    with circle_of(tmp_path, "A", "B", swarm_direct=False, swarm_upload_limit=4_000_000) as (a, b):
        version = shared(weights, a, b)
        assert pulled_by_tunnel(b, version) == {"A"}
        assert sha256_of(b, weights.stem) == hash_of(weights)


def test_on_the_same_network_a_stranger_who_knows_the_file_is_not_answered_and_a_member_is(
    tmp_path: Path, weights: Path
) -> None:
    with (
        lan(3) as (here, there, next_door),
        node(tmp_path, "one", here) as one,
        node(tmp_path, "other", there) as other,
    ):
        other.join(one.invite(one.create("Home", internet=False)))
        until(all_online(one, other), REACHED_S)
        version = shared(weights, one, other)
        row = torrent(one, version)
        torrent_id = hashlib.sha256(info_of(bytes.fromhex(row["root"]), row["size"])).digest()[:20]
        port = one.call("GET", "/swarm")["port"]

        def answer() -> bytes:
            with socket.create_connection((here.address, port), REACHED_S) as line, suppress(ConnectionResetError):
                line.sendall(b"\x13BitTorrent protocol" + bytes(8) + torrent_id + os.urandom(20))
                return line.recv(48)
            return b""

        assert there.inside(answer)[-20:] == torrent_id
        assert next_door.inside(answer) == b""


def pulled_by_tunnel(by: Node, version: str) -> set[str]:
    """Pull it; who sent, all of them through tunnels."""
    begun = pull(by, version)
    senders = set()

    def over() -> bool:
        for row in by.call("GET", "/swarm")["torrents"]:
            for source in row["sources"]:
                assert source["kind"] == "tunnel", source
                senders.add(source["peer"]["name"])
        return done(by, begun)

    until(over, PULLED_S)
    assert torrent(by, version)["downloaded"] > 0
    return senders
