"""Circles of real nodes in networks of their own: behind NATs, on a LAN, with a DHT; and what leaves a machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from netns import Homes, Namespace, lan, two_homes
from nodes import Node, all_online, node, running, until

REACHED_S = 10.0
NOTICED_S = 5.0
QUIET_S = 2.0
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
def three(directory: Path, homes: Homes, **of_public: object) -> Iterator[tuple[Node, Node, Node]]:
    """A public node, which founded a circle, and one in each home. The second was invited by the first, which cannot be
    dialled: the public one passed the wish to join on."""
    public = Node(directory / "public", "public", homes.public, **of_public)
    first = Node(directory / "first", "first", homes.first)
    second = Node(directory / "second", "second", homes.second)
    with running(public, first, second):
        circle = public.create("Homes")
        first.join(public.invite(circle))
        until(lambda: first.online() == {"public"}, NOTICED_S)
        second.join(first.invite(circle))
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


def test_with_a_relay_the_path_becomes_direct_and_the_connection_outlives_the_relay(tmp_path: Path) -> None:
    with two_homes() as homes, three(tmp_path, homes, relay_enabled=True) as (public, first, second):
        until(lambda: all(each.call("GET", "/network")["relay"] for each in (first, second)), REACHED_S)
        until(lambda: first.path("second") == second.path("first") == "direct", REACHED_S)
        since = first.peers()["second"]["since"]
        public.kill()
        until(lambda: first.online() == {"second"} and second.online() == {"first"}, NOTICED_S)
        assert first.peers()["second"]["since"] == since, "it was connected anew"


def test_on_one_network_nodes_find_each_other_by_id_when_all_addresses_change_running_or_not(tmp_path: Path) -> None:
    with (
        lan(2) as (here, there),
        node(tmp_path, "one", here, circle_lan=True) as one,
        node(tmp_path, "other", there, circle_lan=True) as other,
    ):
        other.join(one.invite(one.create("Home", internet=False)))
        until(all_online(one, other), REACHED_S)
        moved(here, there)
        until(lambda: not one.online() and not other.online(), REACHED_S)
        until(all_online(one, other), REACHED_S)
        one.stop()
        other.stop()
        moved(here, there, to=201)
        with running(one, other):
            until(all_online(one, other), REACHED_S)
            assert "works" in [state(each, "lan") for each in (one, other)]


def test_when_all_addresses_changed_at_once_members_find_each_other_through_a_dht(tmp_path: Path) -> None:
    with lan(3) as (here, there, third), dht_node(tmp_path, third) as sequence_of:
        settings = {
            "circle_dht": True,
            "circle_dht_private": True,
            "circle_dht_bootstrap": f"{third.address}:{DHT_PORT}",
        }
        one, other = (
            Node(tmp_path / name, name, where, **settings) for name, where in (("one", here), ("other", there))
        )
        with running(one, other):
            other.join(one.invite(one.create("Far")))
            until(all_online(one, other), REACHED_S)
            ids = one.id, other.id
            until(lambda: all(sequence_of(id_) for id_ in ids), 2 * REACHED_S)
            one.kill()
            other.kill()
        moved(here, there)
        with running(one, other):
            until(all_online(one, other), 4 * REACHED_S)
            assert "works" in [state(each, "dht") for each in (one, other)]


def test_offline_and_in_loopback_mode_nothing_leaves_the_machine(tmp_path: Path) -> None:
    with lan(1) as (machine,), captured(machine) as sent:
        # With a router, whose hardware address is known: what is meant for it is seen to leave.
        machine.ip("route", "replace", "default", "via", "10.77.0.254")
        machine.ip("neigh", "add", "10.77.0.254", "lladdr", "02:00:00:00:00:09", "dev", "eth0")
        one, other = (Node(tmp_path / name, name, machine) for name in ("one", "other"))
        for each in (one, other):
            each.settings = {"circle_name": each.name, "transport_loopback_only": True}
        with running(one, other):
            other.join(one.invite(one.create("Here")))
            until(all_online(one, other), REACHED_S)
            ask_everything(one)
            assert not sent(QUIET_S)
        with running(one, flags=["--offline"]):
            assert one.call("GET", "/status")["network"] == "offline"
            ask_everything(one)
            assert not sent(QUIET_S)
        one.settings = {}
        with running(one):
            ask_everything(one)
            assert sent(REACHED_S), "the capture sees nothing at all"


def ask_everything(node: Node) -> None:
    for path in ("status", "peers", "network", "circles", "doctor"):
        node.call("GET", f"/{path}")


def state(of: Node, way: str) -> str:
    """What came of a way of finding peers."""
    return str(next(each["state"] for each in of.call("GET", "/network")["ways"] if each["way"] == way))


def moved(*machines: Namespace, to: int = 101) -> None:
    """Give machines on a LAN other addresses."""
    for number, machine in enumerate(machines, to):
        machine.readdress(f"10.77.0.{number}")
        machine.ip("route", "add", "default", "dev", "eth0")


@contextmanager
def dht_node(directory: Path, where: Namespace) -> Iterator[Callable[[str], int]]:
    """A DHT node; asks it for the sequence of the record of a key."""
    with where.python("-c", DHT_NODE, str(directory / "dht"), where.address, str(DHT_PORT), stdin=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answer = process.stdin, process.stdout

        def sequence_of(key: str) -> int:
            ask.write(f"{key}\n")
            ask.flush()
            return int(answer.readline())

        yield sequence_of
        process.communicate("", timeout=10)
    assert process.returncode == 0


@contextmanager
def captured(where: Namespace) -> Iterator[Callable[[float], bytes]]:
    """Whatever leaves a machine, on any device but loopback: waits so long for a packet, which it returns."""
    every_protocol = 3
    where.command("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")  # the kernel itself speaks IPv6
    with where.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every_protocol))) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)

        def sent(wait_s: float) -> bytes:
            until = time.monotonic() + wait_s
            while (left := until - time.monotonic()) > 0:
                tap.settimeout(left)
                try:
                    packet, (device, _, kind, *_) = tap.recvfrom(2048)
                except TimeoutError:
                    break
                if device != "lo" and kind == socket.PACKET_OUTGOING:
                    return packet
            return b""

        while sent(0.5):  # of the kernel, from before
            pass
        yield sent
