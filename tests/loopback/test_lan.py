"""Finding peers by real multicast: on loopback, and between two namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from zeroconf import ServiceInfo
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.const import _FLAGS_AA, _FLAGS_QR_RESPONSE

from finding import machine, some_id
from netns import lan
from pares.circle.lan import SERVICE, Lan, Limits
from pares.wire.signing import PeerId

LOOPBACK = "127.0.0.1"
FOUND_S = 3.0


class Node:
    """A node on the loopback interface."""

    def __init__(self, me: PeerId, friends: Sequence[PeerId], port: int) -> None:
        self.me = me
        self.port = port
        self.found: asyncio.Queue[tuple[PeerId, tuple[str, ...]]] = asyncio.Queue()
        self.lan = Lan(
            me,
            lambda: [f"{LOOPBACK}:{self.port}"],
            wanted=lambda peer: peer in friends,
            seen=lambda peer, addresses: self.found.put_nowait((peer, addresses)),
            interfaces=[LOOPBACK],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        life = asyncio.create_task(self.lan.run())
        try:
            yield self
        finally:
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life

    async def finds(self) -> tuple[PeerId, tuple[str, ...]]:
        async with asyncio.timeout(10):
            return await self.found.get()


async def test_two_on_loopback_find_each_other_and_notice_a_new_port_and_a_goodbye() -> None:
    ours, theirs = some_id(), some_id()
    async with Node(ours, [theirs], 4001).running() as one:
        async with Node(theirs, [ours], 4002).running() as other:
            assert await one.finds() == (theirs, (f"{LOOPBACK}:4002",))
            assert await other.finds() == (ours, (f"{LOOPBACK}:4001",))
            other.port = 4003
            other.lan.refresh()
            peer, addresses = await one.finds()
            assert (peer, addresses[0]) == (theirs, f"{LOOPBACK}:4003")
        async with Node(theirs, [ours], 4004).running():
            assert await one.finds() == (theirs, (f"{LOOPBACK}:4004",)), "the goodbye was not heard"


async def test_a_flood_of_false_records_is_bounded_and_a_friend_still_found() -> None:
    ours, theirs = some_id(), some_id()
    async with Node(ours, [theirs], 4011).running() as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
            liar.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            async with Node(theirs, [ours], 4012).running():
                for number in range(1000):
                    for packet in false_record(number):
                        liar.sendto(packet, ("224.0.0.251", 5353))
                    await asyncio.sleep(0)
                assert await one.finds() == (theirs, (f"{LOOPBACK}:4012",))
        assert 1 < len(one.lan.sightings) <= Limits().peers
        assert one.found.empty()


def test_two_machines_on_one_network_find_each_other_within_three_seconds_and_again_when_one_moves() -> None:
    ours, theirs = some_id(), some_id()
    with lan(2) as (one, other), machine(one, ours, theirs, 4433) as first:
        next(first)
        with machine(other, theirs, ours, 4434) as second:
            began = float(next(second)[0])
            there, peer, address = next(second)
            assert (peer, address) == (ours.hex(), f"{one.address}:4433")
            here, peer, address = next(first)
            assert (peer, address) == (theirs.hex(), f"{other.address}:4434")
            assert max(float(here), float(there)) - began <= FOUND_S
            other.readdress("10.77.0.9")
            _, peer, address, *_ = next(first)
            assert (peer, address) == (theirs.hex(), "10.77.0.9:4434")


def false_record(number: int) -> list[bytes]:
    """A record of nobody, of some kinds of wrong."""
    id_ = number.to_bytes(32, "little").hex()
    name = id_[:16] if number % 3 else f"somebody else {number}"
    info = ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=number % 7 * 1000,
        properties={"id": id_ if number % 5 else "zz" * 32},
        server=f"{number}.local.",
        parsed_addresses=[f"127.1.{number // 250}.{number % 250}"],
    )
    out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    return out.packets()
