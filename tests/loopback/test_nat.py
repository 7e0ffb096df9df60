"""Circles of real nodes in networks of their own: behind NATs, on a LAN, in a private DHT; and what leaves a machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from netns import Homes, Namespace, lan, two_homes
from nodes import Node, all_online, node, running, until

REACHED_S = 10.0
NOTICED_S = 5.0
DHT_PORT = 6881
DHT_NODE = """
import asyncio, pathlib, sys
from pares.circle.dht import SALT
from pares.transport.bittorrent_process import BitTorrent, Settings

async def main(state, address, port):
    torrent = BitTorrent(Settings(pathlib.Path(state), addresses=(address,), port=int(port), private=True))
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(torrent.run())
        with torrent.used():
            while key := (await asyncio.to_thread(sys.stdin.readline)).strip():
                item = await torrent.get(bytes.fromhex(key), SALT, timeout_s=1)
                print(item.sequence if item else 0, flush=True)
        life.cancel()

asyncio.run(main(*sys.argv[1:]))
"""
"""A DHT node that nobody else knows: of each key that it reads, it tells the sequence of the record it finds."""


@contextmanager
def three(
    directory: Path, homes: Homes, **of_public: object
) -> Iterator[tuple[Node, Node, Node]]:
    """A public node, which founded a circle, and one in each home, who joined it by link."""
    public = Node(directory / "public", "public", homes.public, **of_public)
    first = Node(directory / "first", "first", homes.first)
    second = Node(directory / "second", "second", homes.second)
    with running(public, first, second):
        circle = public.create("Homes")
        link = public.invite(circle, uses=2)
        first.join(link)
        second.join(link)
        yield public, first, second


def test_behind_a_nat_a_node_joins_a_public_one_directly_and_comes_back_to_it(tmp_path: Path) -> None:
    with (
        two_homes() as homes,
        node(tmp_path, "public", homes.public, transport_port=4433) as public,
        node(tmp_path, "first", homes.first) as first,
    ):
        first.join(public.invite(public.create("Homes")))
        until(all_online(public, first), REACHED_S)
        assert (public.path("first"), first.path("public")) == ("direct", "direct")
        public.kill()
        until(lambda: not first.online(), NOTICED_S)
        public.start()
        public.ready()
        until(all_online(public, first), 2 * REACHED_S)


def test_two_behind_nats_are_introduced_by_a_common_peer_and_stay_connected_without_it(tmp_path: Path) -> None:
    with two_homes() as homes, three(tmp_path, homes) as (public, first, second):
        until(all_online(public, first, second), REACHED_S)
        assert (first.path("second"), second.path("first")) == ("direct", "direct")
        assert first.call("GET", "/network")["relay"] == ""
        public.kill()
        until(lambda: first.online() == {"second"} and second.online() == {"first"}, NOTICED_S)


def test_between_two_symmetric_nats_a_members_relay_carries(tmp_path: Path) -> None:
    with (
        two_homes("symmetric", "symmetric") as homes,
        three(tmp_path, homes, relay_enabled=True) as (public, first, second),
    ):
        until(all_online(public, first, second), 2 * REACHED_S)
        assert (first.path("second"), second.path("first")) == ("relayed", "relayed")
        assert first.peers()["second"]["rtt_ms"] > 0
        assert (first.path("public"), second.path("public")) == ("direct", "direct")


def test_a_connection_that_began_over_a_relay_becomes_direct_and_outlives_the_relay(tmp_path: Path) -> None:
    with two_homes() as homes, three(tmp_path, homes, relay_enabled=True) as (public, first, second):
        until(lambda: all(each.call("GET", "/network")["relay"] for each in (first, second)), REACHED_S)
        until(lambda: first.path("second") == second.path("first") == "direct", REACHED_S)
        since = first.peers()["second"]["since"]
        public.kill()
        until(lambda: first.online() == {"second"} and second.online() == {"first"}, NOTICED_S)
        assert first.peers()["second"]["since"] == since, "it was connected anew"


def test_on_one_network_a_node_is_found_by_its_id_after_all_addresses_changed(tmp_path: Path) -> None:
    with (
        lan(2) as (here, there),
        node(tmp_path, "one", here, circle_lan=True) as one,
        node(tmp_path, "other", there, circle_lan=True) as other,
    ):
        other.join(one.invite(one.create("Home", internet=False)))
        until(all_online(one, other), REACHED_S)
        one.stop()
        other.stop()
        here.readdress("10.77.0.11", gateway="")
        there.readdress("10.77.0.12", gateway="")
        for machine in (here, there):
            machine.ip("route", "add", "default", "dev", "eth0")
        with running(one, other):
            until(all_online(one, other), REACHED_S)
            ways = {way["way"]: way["state"] for way in one.call("GET", "/network")["ways"]}
            assert ways["lan"] == "works"
