"""Statements on versions: fetched from those who tell them, kept, served to those who belong; hostile members."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from catalogues import circle_id, digest_of, endorsement, facts, offer, revocation, version
from circle_nodes import until
from circles import person
from pares.errors import Conflict
from pares.store.database import Database
from pares.swarm import fetching, statements
from pares.swarm.fetching import AT_ONCE
from pares.swarm.members import CircleFacts, Reply
from pares.swarm.predicate import Licence, Version
from pares.swarm.statements import Statements
from pares.swarm.version import open_statement
from pares.swarm.wanted import told_in, wanted
from pares.transport.link import Connection, Disconnected, Unreachable
from pares.wire import messages
from pares.wire.framing import MESSAGE_BYTES
from pares.wire.messages import HASHES, STATEMENT_BYTES, Fetch, Held, Offer, PieceHashes, Pieces, Refused
from pares.wire.signing import PeerId
from statements import dsse

ANNA, BEN, EVE = person(0), person(1), person(2)
Speaker = Callable[[Fetch], Awaitable[messages.Statements]]


@dataclass
class Script:
    """Members that say what the test says."""

    me: PeerId = ANNA.id
    known: list[CircleFacts] = field(default_factory=list)
    speakers: dict[PeerId, Speaker] = field(default_factory=dict)
    asked: list[tuple[PeerId, tuple[bytes, ...]]] = field(default_factory=list)
    punished: list[PeerId] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    now: float = 0.0

    def circles(self) -> Sequence[CircleFacts]:
        return self.known

    def online(self) -> frozenset[PeerId]:
        return frozenset(self.speakers)

    def hosts(self, peer: PeerId) -> Sequence[str]:
        return ()

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        assert isinstance(request, Fetch)
        self.asked.append((peer, tuple(request.digests)))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if peer not in self.speakers:
                raise Unreachable("Nobody there.")
            reply = await self.speakers[peer](request)
            assert isinstance(reply, kind)
            return reply
        finally:
            self.at_once -= 1

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        raise Unreachable("Nothing is linked here.")

    def tell_offers(self) -> None:
        pass

    def punish(self, peer: PeerId, why: str) -> None:
        assert why
        self.punished.append(peer)

    def tell(self, offers: Mapping[PeerId, Offer]) -> None:
        """One circle, with these offers."""
        self.known = [facts(offers, members=[self.me])]


def has(*envelopes: bytes) -> Speaker:
    """An honest member."""
    mine = {digest_of(envelope): envelope for envelope in envelopes}

    async def speak(request: Fetch) -> messages.Statements:
        await asyncio.sleep(0)
        return messages.Statements(envelopes=[mine[digest] for digest in request.digests if digest in mine])

    return speak


def says(*envelopes: bytes) -> Speaker:
    """One that sends this, whatever it is asked for."""

    async def speak(request: Fetch) -> messages.Statements:
        return messages.Statements(envelopes=list(envelopes))

    return speak


def telling(*envelopes: bytes) -> Offer:
    return offer(circle_id(), tells=[digest_of(envelope) for envelope in envelopes])


async def no_layer(root: bytes) -> bytes | None:
    return None


@asynccontextmanager
async def table(
    path: Path,
    members: Script,
    *,
    layer_of: Callable[[bytes], Awaitable[bytes | None]] = no_layer,
    keeps: Callable[[bytes], bool] = lambda version: False,
    gives: Callable[[bytes, bytes], bool] = lambda version, circle: True,
) -> AsyncIterator[Statements]:
    async with Database(path / "node.db") as database:
        found = Statements(database, members, layer_of=layer_of, keeps=keeps, gives=gives, now=lambda: members.now)
        await found.load()
        yield found


# Fetching


async def test_what_members_tell_is_fetched_once_and_kept_over_a_restart(tmp_path: Path) -> None:
    owl, lynx = version(BEN), version(EVE, "Lynx")
    praise = endorsement(EVE, open_statement(owl))
    members = Script(speakers={BEN.id: has(owl, praise), EVE.id: has(lynx, owl)})
    held = offer(circle_id(), [Held(version=digest_of(owl))], [digest_of(praise)])
    members.tell({BEN.id: held, EVE.id: telling(lynx, owl)})
    changes: list[int] = []
    async with table(tmp_path, members) as here:
        here.on_change = lambda: changes.append(len(here))
        await here.fetch()
        await here.fetch()
        assert {opened.digest for opened in here.versions()} == {digest_of(owl), digest_of(lynx)}
        assert [opened.digest for opened in here.about(digest_of(owl))] == [digest_of(praise)]
        assert changes[-1] == 3
        digests = [digest for _, asked in members.asked for digest in asked]
        assert sorted(digests) == sorted(map(digest_of, (owl, lynx, praise)))
    async with table(tmp_path, members) as again:
        assert len(again) == 3
        assert again.envelope(digest_of(praise)) == praise
        assert again.get(digest_of(owl)) == open_statement(owl)


def forged(envelope: bytes) -> bytes:
    """Another content under the old signature."""
    outer = json.loads(envelope)
    payload = base64.b64decode(outer["payload"]).replace(b"Owl", b"0wl")
    outer["payload"] = base64.b64encode(payload).decode()
    return json.dumps(outer, separators=(",", ":"), sort_keys=True).encode()


def wrongly_signed(envelope: bytes) -> bytes:
    """Eve's signature under Ben's name."""
    outer, eves = json.loads(envelope), json.loads(version(EVE))
    outer["signatures"][0]["sig"] = eves["signatures"][0]["sig"]
    return json.dumps(outer, separators=(",", ":"), sort_keys=True).encode()


LIES: dict[str, Callable[[bytes], list[bytes]]] = {
    "forged": lambda envelope: [forged(envelope)],
    "wrongly signed": lambda envelope: [wrongly_signed(envelope)],
    "truncated": lambda envelope: [envelope[:-20]],
    "over-long": lambda envelope: [envelope + b" " * STATEMENT_BYTES],
    "padded": lambda envelope: [envelope + b" "],
    "another one, replayed": lambda envelope: [version(BEN, "Lynx")],
    "twice": lambda envelope: [envelope, envelope],
    "more than was asked for": lambda envelope: [envelope, version(BEN, "Lynx")],
    "rubbish": lambda envelope: [b"\xff\xfe{}"],
}


@pytest.mark.parametrize("lie", LIES)
async def test_who_sends_something_false_is_dropped_and_another_asked(tmp_path: Path, lie: str) -> None:
    owl = version(BEN)
    members = Script(speakers={EVE.id: says(*LIES[lie](owl))})
    members.tell({EVE.id: telling(owl)})
    async with table(tmp_path, members) as here:
        await here.fetch()
        assert (len(here), members.punished) == (0, [EVE.id])
        await here.fetch()
        assert len(members.asked) == 1, "it is not asked again so soon"
        members.speakers[BEN.id] = has(owl)
        members.tell({EVE.id: telling(owl), BEN.id: telling(owl)})
        await here.fetch()
        assert [opened.digest for opened in here.versions()] == [digest_of(owl)]
        members.now += fetching.IGNORED_S + 1
        lynx = version(EVE, "Lynx")
        members.speakers[EVE.id] = has(lynx)
        members.tell({EVE.id: telling(lynx)})
        await here.fetch()
        assert here.get(digest_of(lynx)), "it has another chance"


async def test_a_statement_of_a_kind_that_is_not_known_here_is_no_fault(tmp_path: Path) -> None:
    payload = rfc8785.dumps({"_type": "https://in-toto.io/Statement/v1", "predicateType": "pares://version/v2"})
    newer, owl = dsse(BEN, payload), version(BEN)
    mine = {hashlib.sha256(payload).digest(): newer, digest_of(owl): owl}

    async def speak(request: Fetch) -> messages.Statements:
        return messages.Statements(envelopes=[mine[digest] for digest in request.digests])

    members = Script(speakers={EVE.id: speak})
    unknown = Held(version=hashlib.sha256(payload).digest())
    offer = telling(owl)
    members.tell({EVE.id: msgspec.structs.replace(offer, holds=[*offer.holds, unknown])})
    async with table(tmp_path, members) as here:
        await here.fetch()
        assert ([opened.digest for opened in here.versions()], members.punished) == ([digest_of(owl)], [])


async def test_what_one_does_not_have_is_asked_of_another_who_tells_it(tmp_path: Path) -> None:
    owl, lynx = version(BEN), version(BEN, "Lynx")
    members = Script(speakers={EVE.id: has(lynx), BEN.id: has(owl)})
    members.tell({EVE.id: telling(owl, lynx), BEN.id: telling(owl)})
    async with table(tmp_path, members) as here:
        await here.fetch()
        assert len(here.versions()) == 2
        assert members.punished == []


async def test_who_cannot_be_reached_rests_and_is_asked_again_later(tmp_path: Path) -> None:
    owl = version(BEN)
    members = Script()
    members.tell({BEN.id: telling(owl)})
    async with table(tmp_path, members) as here:
        await here.fetch()
        members.speakers[BEN.id] = has(owl)
        await here.fetch()
        assert len(members.asked) == 1
        members.now += fetching.REST_S + 1
        await here.fetch()
        assert here.get(digest_of(owl))


async def test_silent_members_do_not_hold_up_the_others(tmp_path: Path) -> None:
    owl, lynx = version(BEN), version(BEN, "Lynx")
    silent = [person(number).id for number in range(10, 20)]
    over, heard = asyncio.Event(), asyncio.Event()

    async def hang(request: Fetch) -> messages.Statements:
        await over.wait()
        raise Disconnected("It did not answer.")

    members = Script(speakers=dict.fromkeys(silent, hang) | {BEN.id: has(owl, lynx)})
    members.tell({BEN.id: telling(owl)})
    async with table(tmp_path, members) as here, asyncio.timeout(5):
        await here.fetch()
        here.on_change = heard.set
        nothing = [bytes([number]) * 32 for number in range(10)]
        members.tell(
            {peer: offer(circle_id(), tells=[nothing[n]]) for n, peer in enumerate(silent)} | {BEN.id: telling(owl)}
        )
        waiting = asyncio.create_task(here.fetch())
        await until(lambda: members.at_once == AT_ONCE - 1)
        members.known = [facts({**members.known[0].offers, BEN.id: telling(owl, lynx)}, members=[ANNA.id])]
        more = asyncio.create_task(here.fetch())
        await heard.wait()
        assert here.get(digest_of(lynx))
        assert not waiting.done()
        assert members.most_at_once <= AT_ONCE
        over.set()
        await asyncio.gather(waiting, more)


async def test_not_more_than_a_few_requests_are_under_way_however_often_it_is_called(tmp_path: Path) -> None:
    many = {person(number): version(person(number), f"Owl {number}") for number in range(10, 22)}
    members = Script(speakers={who.id: has(envelope) for who, envelope in many.items()})
    members.tell({who.id: telling(envelope) for who, envelope in many.items()})
    async with table(tmp_path, members) as here:
        await asyncio.gather(*(here.fetch() for _ in range(5)))
        assert len(here) == 12
        assert len(members.asked) == 12
        assert members.most_at_once <= AT_ONCE


async def test_a_flood_of_one_member_is_bounded_and_the_others_come_in_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "BYTES_BURST", 64 * 1024)
    large = Licence(spdx="MIT", text="x" * 12_000)
    flood = [version(EVE, f"Flood {number}", licence=large) for number in range(60)]
    bens = [version(BEN, f"Owl {number}") for number in range(20)]
    members = Script(speakers={EVE.id: has(*flood), BEN.id: has(*bens)})
    members.tell({EVE.id: telling(*flood), BEN.id: telling(*bens)})
    async with table(tmp_path, members) as here:
        await here.fetch()
        authors = [opened.author for opened in here.versions()]
        assert authors.count(BEN.id) == 20
        assert authors.count(EVE.id) * 12_000 < 64 * 1024 + 16 * 20_000, "a burst, and one answer over it"
        assert [peer for peer, _ in members.asked].index(BEN.id) <= 1
        before = len(here)
        await here.fetch()
        assert len(here) == before
        members.now += 60 * 60
        await here.fetch()
        assert len(here) > before, "slowly more"


def offers(numbers: Sequence[Sequence[int]]) -> dict[PeerId, Offer]:
    return {
        person(10 + n).id: offer(circle_id(), tells=[digest.to_bytes(32, "big") for digest in told])
        for n, told in enumerate(numbers)
    }


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=6),
    st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=6),
    st.integers(1, 20),
    st.integers(0, 60),
)
def test_what_is_wanted_is_told_bounded_and_shared_out(
    invited: list[list[int]], others: list[list[int]], each: int, most: int
) -> None:
    closed = facts(offers(invited))
    commons = facts({person(100 + n).id: o for n, o in enumerate(offers(others).values())}, number=1, is_open=True)
    found = wanted([commons, closed], ANNA.id, each=each, most=most)
    told = {**closed.offers, **commons.offers}
    chosen = {digest for digests in found.values() for digest in digests}
    assert len(chosen) <= most
    assert all(len(digests) <= each and set(digests) <= set(told_in(told[peer])) for peer, digests in found.items())
    if len(set().union(*(set(told_in(o)) for o in told.values()))) <= most:
        for peer, of in told.items():
            assert set(list(dict.fromkeys(told_in(of)))[:each]) <= chosen, peer.hex()
    if any(peer in commons.offers and digests for peer, digests in found.items()):
        first = {d for o in closed.offers.values() for d in list(dict.fromkeys(told_in(o)))[:each]}
        assert first <= chosen or len(chosen) == most, "the invited come first"


async def test_trouble_of_this_nodes_own_comes_out_as_it_is_and_is_nobodys_fault(tmp_path: Path) -> None:
    owl = version(BEN)
    members = Script(speakers={BEN.id: has(owl)})
    members.tell({BEN.id: telling(owl)})
    async with table(tmp_path, members) as here:
        pass
    with pytest.raises(Conflict, match="database is closed"):
        await here.fetch()
    assert (len(here), members.punished) == (0, [])


# Forgetting


async def test_what_nobody_tells_any_more_is_forgotten_after_a_while_but_not_what_is_of_use(tmp_path: Path) -> None:
    owl, lynx, mine = version(BEN), version(BEN, "Lynx"), version(ANNA, "Mole")
    warning = revocation(EVE, open_statement(lynx))
    members = Script(speakers={BEN.id: has(owl, lynx, warning)})
    members.tell({BEN.id: telling(owl, lynx, warning)})
    async with table(tmp_path, members, keeps=lambda version: version == digest_of(lynx)) as here:
        await here.add(mine)
        await here.fetch()
        members.tell({})
        await here.fetch()
        members.now += statements.UNTOLD_S / 2
        await here.fetch()
        assert len(here) == 4
        members.now += statements.UNTOLD_S
        await here.fetch()
        assert {opened.digest for opened in here.all()} == {digest_of(lynx), digest_of(mine), digest_of(warning)}
    async with table(tmp_path, members) as again:
        assert len(again) == 3


async def test_when_there_is_too_much_what_nobody_tells_goes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owl, lynx = version(BEN), version(BEN, "Lynx")
    members = Script(speakers={BEN.id: has(owl, lynx)})
    members.tell({BEN.id: telling(owl)})
    async with table(tmp_path, members) as here:
        await here.fetch()
        monkeypatch.setattr(statements, "BYTES", len(owl))
        members.tell({BEN.id: telling(lynx)})
        await here.fetch()
        assert [opened.digest for opened in here.all()] == [digest_of(lynx)]


# Answering


async def test_only_members_of_a_circle_in_which_it_is_told_are_given_a_statement(tmp_path: Path) -> None:
    owl, lynx, mole = version(ANNA), version(ANNA, "Lynx"), version(ANNA, "Mole")
    held = offer(circle_id(), [Held(version=digest_of(owl))], [digest_of(mole)])
    members = Script()
    members.known = [
        facts({ANNA.id: held}, members=[BEN.id]),
        facts({ANNA.id: offer(circle_id(1), tells=[digest_of(lynx)])}, number=1, members=[EVE.id]),
    ]
    async with table(tmp_path, members) as here:
        for envelope in (owl, lynx, mole):
            await here.add(envelope)
        everything = Fetch(digests=[digest_of(envelope) for envelope in (owl, lynx, mole)])
        assert await here.answer(BEN.id, everything) == messages.Statements(envelopes=[owl, mole])
        assert await here.answer(EVE.id, everything) == messages.Statements(envelopes=[lynx])
        stranger = await here.answer(person(9).id, everything)
        assert isinstance(stranger, Refused)
        assert stranger.code == "not_a_member"


async def test_an_answer_fits_into_a_frame_and_who_asks_too_much_is_refused(tmp_path: Path) -> None:
    large = Licence(spdx="MIT", text="x" * 40_000)
    many = [version(ANNA, f"Owl {number}", licence=large) for number in range(16)]
    members = Script()
    members.tell({ANNA.id: telling(*many), BEN.id: offer(circle_id())})
    async with table(tmp_path, members) as here:
        for envelope in many:
            await here.add(envelope)
        request = Fetch(digests=[digest_of(envelope) for envelope in many])
        replies = 0
        while isinstance(reply := await here.answer(BEN.id, request), messages.Statements):
            assert 0 < len(reply.envelopes) < 16
            assert len(msgspec.msgpack.encode(reply)) <= MESSAGE_BYTES
            replies += 1
            assert replies < 100
        assert isinstance(reply, Refused)
        assert reply.code == "busy"
        members.now += 60
        assert isinstance(await here.answer(BEN.id, request), messages.Statements)


async def test_what_is_given_away_no_more_is_served_no_more_though_the_last_offer_said_so(tmp_path: Path) -> None:
    owl = version(ANNA)
    predicate = open_statement(owl).predicate
    assert isinstance(predicate, Version)
    root, taken_back = bytes.fromhex(predicate.files[0].root), set[bytes]()

    async def layer_of(root: bytes) -> bytes | None:
        return b""

    def gives(version: bytes, circle: bytes) -> bool:
        assert circle == circle_id()
        return version not in taken_back

    members = Script()
    members.tell({ANNA.id: offer(circle_id(), [Held(version=digest_of(owl))]), BEN.id: telling()})
    async with table(tmp_path, members, layer_of=layer_of, gives=gives) as here:
        await here.add(owl)
        asked: tuple[Fetch | Pieces, ...] = (Fetch(digests=[digest_of(owl)]), Pieces(root=root))
        assert [await here.answer(BEN.id, each) for each in asked] == [
            messages.Statements(envelopes=[owl]),
            PieceHashes(root=root, first=0, hashes=b""),
        ]
        taken_back.add(digest_of(owl))
        statements, hashes = [await here.answer(BEN.id, each) for each in asked]
        assert statements == messages.Statements(envelopes=[])
        assert isinstance(hashes, Refused)


async def test_hashes_of_pieces_are_given_where_the_file_is_given_away_and_nowhere_else(tmp_path: Path) -> None:
    layer = bytes(range(256)) * (32 * (HASHES + 10) // 256)
    owl, lynx = version(ANNA), version(ANNA, "Lynx")
    roots = []
    for envelope in (owl, lynx):
        predicate = open_statement(envelope).predicate
        assert isinstance(predicate, Version)
        roots.append(bytes.fromhex(predicate.files[0].root))

    async def layer_of(root: bytes) -> bytes | None:
        return layer

    members = Script()
    members.tell({ANNA.id: offer(circle_id(), [Held(version=digest_of(owl))], [digest_of(lynx)]), BEN.id: telling()})
    async with table(tmp_path, members, layer_of=layer_of) as here:
        await here.add(owl)
        await here.add(lynx)
        whole = b""
        while len(whole) < len(layer):
            part = await here.answer(BEN.id, Pieces(root=roots[0], first=len(whole) // 32))
            assert isinstance(part, PieceHashes)
            assert part.first == len(whole) // 32
            whole += part.hashes
        assert whole == layer
        beyond = await here.answer(BEN.id, Pieces(root=roots[0], first=1 << 32))
        assert isinstance(beyond, PieceHashes)
        assert beyond.hashes == b""
        told_only = await here.answer(BEN.id, Pieces(root=roots[1]))
        assert isinstance(told_only, Refused)
        assert told_only.code == "not_held"
        assert isinstance(await here.answer(EVE.id, Pieces(root=roots[0])), Refused)
