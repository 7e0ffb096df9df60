"""What is decided around a fetch: who is asked, by which way, in which order, and what a file's front may be."""

from __future__ import annotations

import asyncio
import errno
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import BrokenModelFile, NotSupported, RemoteError
from pares.inference.gguf import Header, Incomplete
from pares.store.database import Database
from pares.store.events import Events
from pares.store.pulls import VERSION, PullRecord, PullTable
from pares.swarm.front import look_at_front
from pares.swarm.holders import Holders, fetch_layer
from pares.swarm.job import Job
from pares.swarm.members import CircleFacts, Reply
from pares.swarm.merkle import FileHasher
from pares.swarm.names import clean_name
from pares.swarm.seeking import Seeker
from pares.swarm.slots import Slots
from pares.swarm.sources import name_of_version
from pares.transport.link import Connection
from pares.transport.torrents import Swarming, TorrentSource
from pares.wire.messages import Held, Offer, PieceHashes, Pieces
from pares.wire.signing import Identity, PeerId
from tiny import tiny_llama

ME, ANN, BEN, CY = (Identity(bytes([number]) * 32).id for number in range(1, 5))
VERSION_ID = bytes([9]) * 32
VERSIONS = frozenset((VERSION_ID,))
ROOT = bytes([8]) * 32
MIB = 1 << 20


def offer(*, port: int = 4000, holds: bool = True) -> Offer:
    held = [Held(version=VERSION_ID)] if holds else []
    return Offer(circle=bytes(32), sequence=1, expires=1, bulk_port=port, holds=held)


def circle(offers: Mapping[PeerId, Offer], number: int = 0, **how: bool) -> CircleFacts:
    facts = {"open": False, "internet": True} | how
    return CircleFacts(bytes([number]) * 32, "c", facts["open"], facts["internet"], 2, frozenset((ME, *offers)), offers)


@dataclass
class Members:
    """Scripted ones. `answers`: what each says when it is asked for hashes."""

    found: Sequence[CircleFacts] = ()
    here: frozenset[PeerId] = frozenset((ANN, BEN, CY))
    where: Mapping[PeerId, Sequence[str]] = field(default_factory=lambda: {ANN: ["192.0.2.1", "2001:db8::1"]})
    answers: Mapping[PeerId, bytes] = field(default_factory=dict)
    punished: list[PeerId] = field(default_factory=list)
    me: PeerId = ME

    def circles(self) -> Sequence[CircleFacts]:
        return self.found

    def online(self) -> frozenset[PeerId]:
        return self.here

    def hosts(self, peer: PeerId) -> Sequence[str]:
        return self.where.get(peer, ())

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        assert isinstance(request, Pieces)
        hashes = self.answers[peer][32 * request.first :][: 3 * 32]
        reply = PieceHashes(root=request.root, first=request.first, hashes=hashes)
        assert isinstance(reply, kind)
        return reply

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        raise RemoteError("There is none.")

    def tell_offers(self) -> None: ...

    def punish(self, peer: PeerId, why: str) -> None:
        self.punished.append(peer)


@dataclass
class Session:
    """Stands for `Torrents`: notes whom it is told to connect to."""

    connected: list[str] = field(default_factory=list)
    sources: tuple[TorrentSource, ...] = ()

    def connect(self, root: bytes, address: str) -> None:
        self.connected.append(address)

    def get(self, root: bytes) -> Swarming:
        return Swarming(root, sources=self.sources)


@dataclass
class Ways:
    """Stands for `Tunnels`."""

    port_now: int = 50_000

    async def port(self, peer: PeerId) -> int:
        if not self.port_now:
            raise RemoteError("It cannot be reached.")
        return self.port_now


class NoPorts(Ways):
    """Where no more files can be open."""

    async def port(self, peer: PeerId) -> int:
        raise OSError(errno.EMFILE, "Too many open files")


def seeker(
    session: Session, members: Members, ways: Ways | None, *, direct: bool = True, direct_s: float = 4
) -> Seeker:
    return Seeker(ROOT, VERSIONS, session, Holders(members), ways, direct=direct, direct_s=direct_s)  # type: ignore[arg-type]


def source(address: str) -> TorrentSource:
    return TorrentSource(address, "peer", 1.0, 0, 0, 0, 0)


async def test_a_holder_is_tried_at_all_its_addresses_once() -> None:
    session, members = Session(), Members([circle({ANN: offer(), BEN: offer(holds=False)})])
    look = seeker(session, members, Ways())
    for _ in range(3):
        await look.look()
    assert session.connected == ["192.0.2.1:4000", "[2001:db8::1]:4000"]
    members.found = [circle({ANN: offer(port=4001)})]
    await look.look()
    assert session.connected[2:] == ["192.0.2.1:4001", "[2001:db8::1]:4001"], "it started again, with another port"


def test_no_member_makes_this_node_knock_at_anything() -> None:
    where = {ANN: ["not an address", "224.0.0.1", "0.0.0.0", "192.0.2.1"]}
    for port, dialled in ((22, ()), (4000, ("192.0.2.1:4000",))):
        holders = Holders(Members([circle({ANN: offer(port=port)})], where=where))
        assert holders.addresses(ANN) == dialled


async def test_who_is_not_reached_directly_is_tried_through_the_circle() -> None:
    session, ways = Session(), Ways()
    look = seeker(session, Members([circle({ANN: offer()})]), ways, direct_s=0)
    session.sources = (source("192.0.2.1:50123"),)
    await look.look()
    assert "127.0.0.1:50000" not in session.connected, "it dialled us: there is a way"
    session.sources = ()
    for _ in range(2):
        await look.look()
    ways.port_now = 0
    await look.look()
    ways.port_now = 50_001
    await look.look()
    assert session.connected[2:] == ["127.0.0.1:50000", "127.0.0.1:50001"]


@pytest.mark.parametrize("how", [{"direct": False}, {"direct": True}], ids=["by setting", "it has no port"])
async def test_without_direct_connections_only_the_circles_own_are_used(how: dict[str, bool]) -> None:
    session = Session()
    port = 4000 if not how["direct"] else 0
    await seeker(session, Members([circle({ANN: offer(port=port)})]), Ways(), **how).look()
    assert session.connected == ["127.0.0.1:50000"]


def test_holders_are_members_that_offer_it_those_who_are_there_first() -> None:
    stranger = CircleFacts(bytes(32), "c", False, True, 2, frozenset((ME,)), {CY: offer(), ME: offer()})
    members = Members([circle({ANN: offer(), BEN: offer()}), stranger], here=frozenset((BEN,)))
    holders = Holders(members)
    assert holders.of(VERSIONS) == (BEN, ANN)
    assert holders.online(VERSIONS) == {BEN}
    assert holders.circles(VERSIONS) == (bytes(32),)
    assert holders.of(frozenset((bytes(32),))) == ()


@pytest.mark.parametrize(
    ("open_", "internet", "public"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_only_in_a_commons_with_the_internet_anybody_may_know_who_has_it(
    open_: bool, internet: bool, public: bool
) -> None:
    members = Members([circle({ANN: offer()}, open=open_, internet=internet)])
    assert Holders(members).is_public(VERSIONS) is public


def test_people_are_told_whom_a_download_waits_for() -> None:
    members = Members(here=frozenset())
    holders = Holders(members, lambda peer: {ANN: "Ann", BEN: "Ben"}[peer])
    assert "Nobody offers tiny" in holders.absence(VERSIONS, "tiny")
    members.found = [circle({ANN: offer(), BEN: offer()})]
    assert "waits for Ann, Ben" in holders.absence(VERSIONS, "tiny")
    members.here = frozenset((ANN,))
    assert "send nothing: Ann, Ben" in holders.absence(VERSIONS, "tiny")


async def test_hashes_of_pieces_come_in_several_answers_and_must_fit_the_root() -> None:
    size = 9 * MIB + 1
    hasher = FileHasher(size)
    hasher.update(bytes(size))
    root, layer = hasher.finish()
    wrong = {ANN: layer[:-1] + b"\1", BEN: b"", CY: layer + layer}
    members = Members(answers=wrong | {ME: layer})
    assert await fetch_layer(members, ME, root, size, timeout_s=1) == layer
    for peer in wrong:
        with pytest.raises(RemoteError):
            await fetch_layer(members, peer, root, size, timeout_s=1)
    assert members.punished == [ANN, BEN, CY]


async def test_places_go_to_the_most_urgent_then_to_who_came_first() -> None:
    slots, order = Slots(1), []
    urgency = {"a": 1, "b": 0, "c": 2, "d": 2, "gone": 2}

    async def work(name: str) -> None:
        async with slots.taken(lambda: urgency[name]):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks, slots.taken(lambda: 0):
        waiting = {name: tasks.create_task(work(name)) for name in urgency}
        await asyncio.sleep(0)
        waiting["gone"].cancel()
        urgency["b"] = 3
        await asyncio.sleep(0)
    assert order == ["b", "c", "d", "a"]
    async with asyncio.timeout(1), slots.taken(lambda: 0):
        pass


async def test_a_place_given_to_who_leaves_at_that_moment_goes_on_to_the_next() -> None:
    slots = Slots(1)

    async def work() -> None:
        async with slots.taken(lambda: 0):
            pass

    async with slots.taken(lambda: 0):
        leaving = asyncio.create_task(work())
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    async with asyncio.timeout(1):
        await work()


@given(name=st.text(min_size=1, max_size=128))
def test_any_name_of_a_version_makes_a_name_of_a_model(name: str) -> None:
    assert clean_name(name_of_version(name)) == name_of_version(name)


def test_the_front_of_a_file_says_what_it_is(tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "tiny.gguf", layers=1, embedding=32, ffn=64)
    size = path.stat().st_size
    assert isinstance(look_at_front(path, size, size, "tiny"), Header)
    assert isinstance(look_at_front(path, 100, size, "tiny"), Incomplete)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    tensors = tmp_path / "a.safetensors"
    tensors.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    size = tensors.stat().st_size
    assert look_at_front(tensors, size, size, "a") is None
    assert look_at_front(tensors, 20, size, "a") == Incomplete(8 + len(header))
    with pytest.raises(BrokenModelFile):
        look_at_front(tensors, size, size + 1, "a")


@given(front=st.binary(max_size=200), kind=st.sampled_from([b"", b"GGUF\3\0\0\0", b"\x80\4", b"\x20\0\0\0\0\0\0\0{"]))
def test_no_front_of_a_file_does_anything_but_be_refused(
    tmp_path_factory: pytest.TempPathFactory, front: bytes, kind: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "front"
    path.write_bytes(kind + front)
    try:
        found = look_at_front(path, len(kind + front), 1 << 30, "x")
    except (BrokenModelFile, NotSupported):
        return
    assert isinstance(found, Incomplete)


async def test_a_download_remembers_its_part_its_terms_and_its_version(tmp_path: Path) -> None:
    record = PullRecord(
        id="1",
        source="tiny",
        name="tiny",
        identity=VERSION + VERSION_ID.hex(),
        layers="2-4+head",
        priority=2,
        limit_bytes_per_s=5,
    )
    async with Database(tmp_path / "node.db") as database:
        job = Job(record, PullTable(database), await Events.open(database))
        await job.set(state="paused")
        (kept,) = await PullTable(database).list()
    assert (kept.layers, kept.priority, kept.limit_bytes_per_s, kept.version) == ("2-4+head", 2, 5, VERSION_ID.hex())
    assert (job.terms.priority, job.terms.limit_bytes_per_s) == (2, 5)
    assert job.view.version == VERSION_ID.hex()


@pytest.mark.parametrize("ways", [Ways(0), NoPorts()])
async def test_where_there_is_no_way_to_a_holder_the_others_are_tried(ways: Ways) -> None:
    session = Session()
    members = Members([circle({ANN: offer(), BEN: offer()})], where={BEN: ["192.0.2.2"]})
    looking = seeker(session, members, ways, direct_s=0)
    await looking.look()
    assert session.connected == ["192.0.2.2:4000"]
