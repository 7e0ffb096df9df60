"""Real nodes against members and strangers who mean harm to what is told of versions, and given away of files.

The hostile ones speak over real endpoints, in this process, and belong to circles as any node does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest
import rfc8785
from test_commons import KNOWN_S, SETTINGS, versions
from test_commons_faults import held

from circle_nodes import Profile, circle_node
from circles import person
from nodes import Node, Refused, all_online, running, until
from pares.circle import invites
from pares.circle.circles import Circles
from pares.errors import RemoteError
from pares.swarm.predicate import Licence
from pares.swarm.version import open_statement, sign_version
from pares.swarm.wanted import EACH
from pares.transport.link import Connection, Disconnected, Stream, Where
from pares.transport.memory import Network
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.switchboard import Handler, Switchboard, answer, ask, receive
from pares.wire.messages import (
    BULK,
    HELD,
    STATEMENT_BYTES,
    SWARM,
    TOLD,
    Fetch,
    Held,
    PieceHashes,
    Pieces,
    Statements,
    SwarmReply,
    SwarmRequest,
)
from pares.wire.signing import Identity, PeerId
from statements import dsse, version
from tiny import tiny_llama

MIB = 1 << 20
LOOPBACK = Settings(loopback_only=True)
SOON_S = 8.0
"""Within which an honest member's statement comes through, whatever others do."""
NOTICED_S = 20.0
GROWTH = 64 * MIB
SLOWLY = 48
"""Statements that the slow one sends at its pace, sixteen at once; then it makes haste, for the test's sake."""
TAKEN = 6 * MIB
"""Bytes of statements that a node takes from one member within a test."""
CUCKOO, ADA = person(90), person(0)
_numbers = count(100)


class Victim:
    """A node, an honest friend in a circle of both, and what to know to attack it."""

    def __init__(self, node: Node, friend: Node, circle: str, folder: Path) -> None:
        self.node, self.friend, self.circle, self.folder = node, friend, circle, folder
        self.id = PeerId(bytes.fromhex(node.id))
        self.began_with = self.memory()

    def memory(self) -> int:
        return psutil.Process(self.node.pid).memory_info().rss

    def dropped(self) -> dict[str, str]:
        """Why, by the beginning of the peer's key."""
        lines = (json.loads(line) for line in (self.node.home / "logs" / "node.log").read_text().splitlines())
        return {line["fields"]["peer"]: line["fields"]["reason"] for line in lines if line["event"] == "peer.dropped"}

    def where(self) -> Where:
        invitation = invites.parse(self.node.invite(self.circle), time.time())
        key, addresses, _ = invitation.where()[0]
        return Where(key, tuple(address for address in addresses if address.startswith("127.")))

    def share(self, by: Node, *circles: str) -> tuple[str, bytes]:
        """A new model; the ids of the version and of its file."""
        number = next(_numbers)
        path = tiny_llama(self.folder / f"model-{number}.gguf", dtype="F16", seed=number)
        by.call("POST", "/models/import", {"path": str(path)})
        asked = {"model": path.stem, "licence": "MIT", "circles": circles or (self.circle,)}
        told = by.call("POST", "/share", asked)
        return str(told["row"]["id"]), bytes.fromhex(told["files"][0]["root"])

    def hears_of_honest_ones(self) -> None:
        """What the friend gives away now is known here soon, and memory is bounded."""
        honest, _ = self.share(self.friend)
        until(lambda: held(honest, self.node), SOON_S)
        assert self.memory() - self.began_with < GROWTH


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = {**SETTINGS, "transport_handshakes_per_s": 100, "transport_handshake_burst": 400}
    anna, bela = (Node(folder / name, name, **settings) for name in ("Anna", "Béla"))
    with running(anna, bela):
        circle = anna.create("Friends", internet=False)
        bela.join(anna.invite(circle))
        until(all_online(anna, bela), NOTICED_S)
        yield Victim(anna, bela, circle, folder)


def quic(identity: Identity, protocols: Sequence[str]) -> QuicTransport:
    return QuicTransport(identity.seed, protocols, LOOPBACK)


async def mute(link: Connection, stream: Stream) -> None:
    stream.abort()


@asynccontextmanager
async def member(
    victim: Victim, folder: Path, profile: Profile, serve: Handler = mute, *circles: str
) -> AsyncIterator[Circles]:
    """A hostile one who was let in, into the friends' circle unless it is said into which."""
    async with circle_node(
        Network(seed=1),
        folder,
        "Eve",
        next(_numbers),
        profile=profile,
        handlers={SWARM: serve, BULK: mute},
        transport=quic,
    ) as eve:
        for circle in circles or (victim.circle,):
            await eve.join(await asyncio.to_thread(victim.node.invite, circle))
        yield eve


def tell(eve: Circles, profile: Profile, circle: str, *digests: bytes) -> None:
    """Offer these versions in a circle, and tell of the rest."""
    profile.holds[bytes.fromhex(circle)] = [Held(version=digest) for digest in digests[:HELD]]
    profile.tells[bytes.fromhex(circle)] = list(digests[HELD:])
    assert eve.gathering is not None
    eve.gathering.touch_offers()


async def request_of(stream: Stream) -> SwarmRequest:
    return await receive(stream, SwarmRequest)  # type: ignore[arg-type]


# False statements


def cuckoo(**changes: object) -> bytes:
    return sign_version(CUCKOO, version(CUCKOO, name=f"cuckoo-{next(_numbers)}", **changes))


def payload_of(envelope: bytes) -> bytes:
    return base64.b64decode(json.loads(envelope)["payload"])


def wrongly_signed(envelope: bytes) -> bytes:
    told = json.loads(envelope)
    told["signatures"][0]["sig"] = base64.b64encode(os.urandom(64)).decode()
    return rfc8785.dumps(told)


FALSE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda envelope: envelope[:-9],
    "over-long": lambda envelope: envelope + b" " * STATEMENT_BYTES,
    "wrongly-signed": wrongly_signed,
    "in-anothers-name": lambda envelope: dsse(person(91), payload_of(envelope)),
    "replayed-under-another-digest": lambda envelope: cuckoo(),
    "not-canonical": lambda envelope: json.dumps(json.loads(envelope), indent=1).encode(),
    "rubbish": lambda envelope: os.urandom(2000),
}


async def test_false_statements_are_not_kept_and_who_sends_one_is_dropped(victim: Victim, tmp_path: Path) -> None:
    """Each from a member of its own, all at once."""
    before = await asyncio.to_thread(versions, victim.node)

    async def lie(folder: Path, false: Callable[[bytes], bytes]) -> None:
        sound = cuckoo()
        profile = Profile("Eve")

        async def serve(link: Connection, stream: Stream) -> None:
            await request_of(stream)
            await answer(stream, Statements(envelopes=[false(sound)]))

        folder.mkdir()
        async with member(victim, folder, profile, serve) as eve:
            tell(eve, profile, victim.circle, open_statement(sound).digest)
            key = eve.identity.id.hex()[:8]
            await asyncio.to_thread(until, lambda: key in victim.dropped(), NOTICED_S)

    async with asyncio.TaskGroup() as liars:
        for how, false in FALSE.items():
            liars.create_task(lie(tmp_path / how, false), name=how)
    assert (await asyncio.to_thread(versions, victim.node)).keys() == before.keys()
    await asyncio.to_thread(victim.hears_of_honest_ones)


# Floods


async def test_a_member_that_tells_very_much_and_answers_slowly_takes_its_share_and_holds_up_nobody(
    victim: Victim, tmp_path: Path
) -> None:
    """In three circles, so that it tells more than any one offer has room for."""
    told = {open_statement(envelope).digest: envelope for envelope in (cuckoo() for _ in range(3 * (HELD + TOLD)))}
    assert len(told) > EACH
    given: set[bytes] = set()

    async def serve(link: Connection, stream: Stream) -> None:
        request = await request_of(stream)
        assert isinstance(request, Fetch)
        if link.peer == victim.id:
            given.update(request.digests)
        await asyncio.sleep(2 if len(given) < SLOWLY else 0)  # that no deadline cuts short
        await answer(stream, Statements(envelopes=[told[digest] for digest in request.digests]))

    more = [await asyncio.to_thread(victim.node.create, f"Circle {number}", internet=False) for number in (1, 2)]
    profile = Profile("Eve")
    async with member(victim, tmp_path, profile, serve, victim.circle, *more) as eve:
        digests = list(told)
        for number, circle in enumerate((victim.circle, *more)):
            tell(eve, profile, circle, *digests[number * (HELD + TOLD) :][: HELD + TOLD])
        await asyncio.to_thread(until, lambda: given, NOTICED_S)
        await asyncio.to_thread(victim.hears_of_honest_ones)
        await asyncio.to_thread(until, lambda: len(given) == EACH, 3 * NOTICED_S)
    assert len(given) == EACH


async def test_of_a_member_that_sends_very_large_statements_only_so_many_bytes_are_taken(
    victim: Victim, tmp_path: Path
) -> None:
    text = "x" * 38_000
    licence = Licence(spdx="LicenseRef-x", text=text, text_sha256=hashlib.sha256(text.encode()).hexdigest())
    large = [cuckoo(licence=licence) for _ in range(HELD + TOLD)]
    told = {open_statement(envelope).digest: envelope for envelope in large}
    assert sum(map(len, large)) > 1.5 * TAKEN
    given = 0

    async def serve(link: Connection, stream: Stream) -> None:
        nonlocal given
        request = await request_of(stream)
        assert isinstance(request, Fetch)
        envelopes = [told[digest] for digest in request.digests[:4]]
        given += sum(map(len, envelopes)) if link.peer == victim.id else 0
        await answer(stream, Statements(envelopes=envelopes))

    profile = Profile("Eve")
    async with member(victim, tmp_path, profile, serve) as eve:
        tell(eve, profile, victim.circle, *told)
        await asyncio.to_thread(until, lambda: given > TAKEN / 2, NOTICED_S)
        await asyncio.to_thread(victim.hears_of_honest_ones)
    assert given <= TAKEN


async def test_members_that_never_answer_hold_up_nobody(victim: Victim, tmp_path: Path) -> None:
    asked: set[bytes] = set()

    async def serve(link: Connection, stream: Stream) -> None:
        request = await request_of(stream)
        assert isinstance(request, Fetch)
        if link.peer == victim.id:
            asked.update(request.digests)
        await link.closed()

    profile = Profile("Eve")
    async with member(victim, tmp_path, profile, serve) as eve:
        tell(eve, profile, victim.circle, *(os.urandom(32) for _ in range(HELD + TOLD)))
        await asyncio.to_thread(until, lambda: asked, NOTICED_S)
        await asyncio.to_thread(victim.hears_of_honest_ones)


# Who does not belong


@asynccontextmanager
async def stranger(victim: Victim, protocol: str) -> AsyncIterator[Connection]:
    identity = Identity(os.urandom(32))
    async with (
        QuicTransport(identity.seed, (protocol,), LOOPBACK) as transport,
        Switchboard(transport, {protocol: mute}, allowed=lambda link: True) as board,
    ):
        yield await board.connect(await asyncio.to_thread(victim.where), protocol)


async def test_a_stranger_gets_neither_statements_nor_hashes(victim: Victim) -> None:
    shared, root = await asyncio.to_thread(victim.share, victim.node)
    for request in (Fetch(digests=[bytes.fromhex(shared)]), Pieces(root=root)):
        async with stranger(victim, SWARM) as link:
            with pytest.raises(Disconnected):
                await ask(link, request, SwarmReply)  # type: ignore[arg-type]


async def test_a_stranger_gets_no_bytes_through_the_circles_connections(victim: Victim) -> None:
    _, root = await asyncio.to_thread(victim.share, victim.node)
    async with stranger(victim, BULK) as link:
        with pytest.raises(Disconnected):
            await answer_to(link, handshake(root))


async def test_what_is_shared_in_one_circle_is_neither_told_nor_served_in_another(
    victim: Victim, tmp_path: Path
) -> None:
    anna, bela = victim.node, victim.friend
    work = await asyncio.to_thread(anna.create, "Work", internet=False)
    private, private_root = await asyncio.to_thread(victim.share, anna)
    other, other_root = await asyncio.to_thread(victim.share, anna, work)
    async with member(victim, tmp_path, Profile("Eve"), mute, work) as eve:
        assert eve.gathering is not None
        links = eve.gathering.links

        def heard() -> set[bytes]:
            (facts,) = eve.book.facts(time.time())
            offer = facts.offers.get(victim.id)
            return {held.version for held in offer.holds} | set(offer.tells) if offer else set()

        async with asyncio.timeout(NOTICED_S):
            while not heard():  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.05)
        assert heard() == {bytes.fromhex(other)}
        both = Fetch(digests=[bytes.fromhex(private), bytes.fromhex(other)])
        reply = await links.ask(victim.id, SWARM, both, Statements, timeout_s=5)
        assert [open_statement(each).digest.hex() for each in reply.envelopes] == [other]
        hashes = await links.ask(victim.id, SWARM, Pieces(root=other_root), PieceHashes, timeout_s=5)
        assert hashes.root == other_root
        with pytest.raises(RemoteError, match="not give that file away"):
            await links.ask(victim.id, SWARM, Pieces(root=private_root), PieceHashes, timeout_s=5)
    await asyncio.to_thread(until, lambda: held(private, bela), KNOWN_S)
    assert other not in await asyncio.to_thread(versions, bela)
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(bela.call, "POST", "/pulls", {"source": other, "accept_licence": True})
    assert refused.value.status == 404


async def answer_to(link: Connection, sent: bytes) -> bytes:
    """The first byte of it."""
    async with asyncio.timeout(NOTICED_S):
        stream = await link.open()
        await stream.send(sent)
        return await stream.receive(1)


def handshake(root: bytes) -> bytes:
    """How a BitTorrent client begins."""
    return b"\x13BitTorrent protocol" + bytes(8) + root[:20] + os.urandom(20)
