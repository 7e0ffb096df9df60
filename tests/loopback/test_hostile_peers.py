"""A real node and an honest peer, each a process of its own, against peers that mean harm: real endpoints, made bytes.

The hostile ones come from ::1, so that to the node they are another machine than the honest peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec
import psutil
import pytest

from nodes import Node, all_online, running, until
from pares.circle import invites, membership
from pares.circle.answering import INTRODUCED, INTRODUCTIONS_BURST
from pares.circle.invites import Invitation
from pares.circle.membership import CERTIFICATES_EACH
from pares.circle.statements import signed
from pares.transport.link import Connection, Disconnected, Stream, Unreachable, Where
from pares.transport.quic import QuicConnection, QuicTransport
from pares.transport.settings import Settings
from pares.transport.switchboard import RETIRED, RETIRED_S, Handler, Switchboard, answer, ask, receive
from pares.wire.framing import MESSAGE_BYTES, PREFIX, frame
from pares.wire.messages import (
    CIRCLE,
    CircleReply,
    CircleRequest,
    Contact,
    Delta,
    Digests,
    Done,
    Hello,
    Introduced,
    Join,
    Joined,
    Ping,
    Record,
    Refused,
    Role,
    Summaries,
    Title,
)
from pares.wire.signing import Identity, PeerId, Signed

MIB = 2**20
GROWTH = 96 * MIB
"""What the node's memory may grow by over all attacks together."""
NOTICED_S = 10.0
CONNECTIONS = 1000
RECORDS = 10_000
REQUESTS = 3_000
LOOPBACK = Settings(loopback_only=True)


class Victim:
    """A node under attack, and what to know to attack it."""

    def __init__(self, node: Node, friend: Node, circle: str) -> None:
        self.node, self.friend, self.circle = node, friend, circle
        self.began_with = self.memory()

    def memory(self) -> int:
        return psutil.Process(self.node.pid).memory_info().rss

    def invitation(self, circle: str = "", **how: object) -> Invitation:
        return invites.parse(self.node.invite(circle or self.circle, **how), time.time())

    def dropped(self) -> dict[str, str]:
        """Why, by the beginning of the peer's key."""
        lines = (json.loads(line) for line in (self.node.home / "logs" / "node.log").read_text().splitlines())
        return {line["fields"]["peer"]: line["fields"]["reason"] for line in lines if line["event"] == "peer.dropped"}

    def is_well(self) -> None:
        """It answers, the honest peer is there, for both of them, and memory is bounded."""
        assert self.node.call("GET", "/status")["network"] == "connected"
        assert until(all_online(self.node, self.friend), NOTICED_S) < NOTICED_S
        assert self.memory() - self.began_with < GROWTH


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    directory = tmp_path_factory.mktemp("hostile")
    bela = Node(directory / "Béla", "Béla", transport_loopback_only=True)
    # As if each attack came from a machine of its own: what one address may do is shown with the transport.
    anna = Node(
        *(directory / "Anna", "Anna"),
        transport_loopback_only=True,
        transport_handshakes_per_s=100,
        transport_handshake_burst=400,
    )
    with running(anna, bela):
        id_ = anna.create("Friends")
        bela.join(anna.invite(id_))
        until(all_online(anna, bela), NOTICED_S)
        yield Victim(anna, bela, id_)


@pytest.fixture(autouse=True)
def afterwards(victim: Victim) -> Iterator[None]:
    yield
    victim.is_well()
    assert victim.friend.members(victim.circle) >= {"Anna", "Béla"}


async def polite(link: Connection, stream: Stream) -> None:
    """What keeps a peer from being dropped."""
    await answer(stream, reply_to(await receive(stream, CircleRequest)))  # type: ignore[arg-type]


def reply_to(request: CircleRequest) -> CircleReply:
    match request:
        case Hello() | Ping():
            return request
        case Digests():
            return Summaries(buckets=[], names=b"")
        case Delta():
            return Delta(circle=request.circle)
        case _:
            return Done()


class Hostile:
    """An endpoint of the real engine that says what it is told to say."""

    def __init__(self, identity: Identity, transport: QuicTransport, board: Switchboard) -> None:
        self.identity, self.transport, self.board = identity, transport, board

    async def dial(self, invitation: Invitation) -> Connection:
        return await self.board.connect(where(invitation), CIRCLE)

    def request(self, invitation: Invitation, **changes: object) -> Join:
        contact = Contact(sequence=int(time.time() * 1000), expires=int(time.time()) + 86_400, name="Eve")
        join = Join(
            circle=invitation.circle,
            invite=invitation.invite,
            inviter=invitation.inviter,
            joiner=self.identity.id,
            contact=self.identity.sign("contact/1", contact),
            proof=invites.proof(invitation.secret, invitation.circle, self.identity.id),
        )
        return msgspec.structs.replace(join, **changes)

    async def join(self, invitation: Invitation, **changes: object) -> Joined | Refused:
        return await ask(await self.dial(invitation), self.request(invitation, **changes), Joined | Refused)  # type: ignore[arg-type]

    async def tell(self, invitation: Invitation, *records: Record) -> Delta | Refused:
        message = Delta(circle=invitation.circle, records=list(records))
        return await ask(await self.dial(invitation), message, Delta | Refused)  # type: ignore[arg-type]


@asynccontextmanager
async def hostile(handler: Handler = polite, identity: Identity | None = None) -> AsyncIterator[Hostile]:
    identity = identity or Identity(os.urandom(32))
    async with (
        QuicTransport(identity.seed, (CIRCLE,), LOOPBACK) as transport,
        Switchboard(transport, {CIRCLE: handler}, allowed=lambda link: True) as board,
    ):
        yield Hostile(identity, transport, board)


@asynccontextmanager
async def member(
    victim: Victim, handler: Handler = polite, role: Role = "member"
) -> AsyncIterator[tuple[Hostile, Invitation]]:
    """A hostile one that was let in."""
    async with hostile(handler) as eve:
        invitation = victim.invitation(role=role)
        assert isinstance(await eve.join(invitation), Joined)
        yield eve, invitation


def where(invitation: Invitation) -> Where:
    key, addresses, _ = invitation.where()[0]
    return Where(key, tuple(address for address in addresses if address.startswith("[::1]")))


async def is_dropped(victim: Victim, eve: Hostile, link: Connection, because: str) -> None:
    async with asyncio.timeout(NOTICED_S):
        assert await link.closed() == "protocol error"
    until(lambda: eve.identity.id.hex()[:8] in victim.dropped(), NOTICED_S)
    assert because in victim.dropped()[eve.identity.id.hex()[:8]]


def message(**fields: object) -> bytes:
    return frame(msgspec.msgpack.encode(fields))


# Strangers


@pytest.mark.parametrize(
    ("sent", "because"),
    [
        (PREFIX.pack(2**32 - 1), "A frame of 4294967295 bytes"),
        (PREFIX.pack(MESSAGE_BYTES), "A frame of 262144 bytes"),
        (PREFIX.pack(0), "A frame of 0 bytes"),
        (message(type="evil"), "could not be read"),
        (message(type="joined", records=[]), "could not be read"),
        (message(type="hello", name="x" * 65, version="", now=0), "could not be read"),
        (message(type="hello", name=7, version="", now=0), "could not be read"),
        (frame(b"\x91" * 60_000), "could not be read"),
        (frame(b"\xdf\xff\xff\xff\xff"), "could not be read"),
        (frame(os.urandom(1000)), "could not be read"),
    ],
    ids=["endless", "large", "empty", "unknown", "answer", "long", "wrong-type", "nested", "huge-map", "rubbish"],
)
async def test_a_stranger_who_breaks_the_protocol_is_dropped_with_the_reason(
    victim: Victim, sent: bytes, because: str
) -> None:
    async with hostile() as eve:
        link = await eve.dial(victim.invitation())
        await (await link.open()).send(sent)
        await is_dropped(victim, eve, link, because)


async def test_unknown_fields_are_ignored(victim: Victim) -> None:
    async with hostile() as eve:
        stream = await (await eve.dial(victim.invitation())).open()
        await stream.send(message(type="ping", number=7, later={"deep": [1, 2, 3]}))
        assert await receive(stream, Ping) == Ping(number=7)


async def test_a_stranger_learns_that_a_node_answers_and_nothing_else(victim: Victim) -> None:
    async with hostile() as eve:
        invitation = victim.invitation()
        link = await eve.dial(invitation)
        reply = await ask(link, Hello(name="Eve", version="1", now=0), Hello)
        assert (reply.name, reply.version) == ("a node", "")
        for circle in (invitation.circle, secrets.token_bytes(32)):
            digests = Digests(circle=circle, bits=0, hashes=bytes(8))
            refused = await ask(link, digests, Refused)
            assert refused == await ask(link, Delta(circle=circle), Refused)
            assert refused.code == "not_a_member"
        answers = [
            await eve.join(invitation, circle=circle, invite=secrets.token_bytes(16), proof=bytes(32))
            for circle in (invitation.circle, secrets.token_bytes(32))
        ]
        assert answers[0] == answers[1], "whether the node is in that circle does not show"
        assert eve.identity.id.hex() not in {peer["id"] for peer in victim.node.peers().values()}


async def test_only_the_right_proof_for_the_right_key_lets_in_and_only_once(victim: Victim) -> None:
    invitation = victim.invitation()
    async with hostile() as eve, hostile() as mallory:
        wrong = await eve.join(invitation, proof=bytes(32))
        assert isinstance(wrong, Refused)
        assert wrong.code == "bad_invite"
        stolen = await mallory.join(invitation, proof=eve.request(invitation).proof)
        assert isinstance(stolen, Refused)
        assert stolen.code == "bad_invite"
        assert isinstance(await eve.join(invitation), Joined)
        used = await mallory.join(invitation)
        assert isinstance(used, Refused)
        assert used.code == "used_invite"
        link = await mallory.dial(invitation)
        with pytest.raises(Disconnected):
            await ask(link, eve.request(invitation), Joined)
        await is_dropped(victim, mallory, link, "for somebody else")


async def test_a_contact_that_is_not_the_joiners_own_uses_no_invite_up(victim: Victim) -> None:
    invitation = victim.invitation()
    async with hostile() as eve, hostile() as mallory, hostile() as carol:
        for liar, contact in ((eve, mallory.request(invitation).contact), (mallory, forged(mallory.identity))):
            link = await liar.dial(invitation)
            with pytest.raises(Disconnected):
                await ask(link, liar.request(invitation, contact=contact), Joined)
            await is_dropped(victim, liar, link, "contact")
        assert isinstance(await carol.join(invitation), Joined)


def forged(alleged: Identity) -> Signed:
    return Signed(carol_says(), alleged.id, os.urandom(64))


def carol_says() -> bytes:
    return msgspec.msgpack.encode(Contact(sequence=1 << 50, expires=int(time.time()) + 86_400, name="Carol"))


async def test_streams_that_drip_or_never_end_hold_up_nobody_else(victim: Victim) -> None:
    async with hostile() as eve:
        link = await eve.dial(victim.invitation())
        streams = [await link.open() for _ in range(500)]
        for stream in streams:
            await stream.send(PREFIX.pack(60_000) + bytes(100))
        victim.is_well()
        for stream in streams:
            await stream.send(b"x")
        victim.is_well()


async def test_a_thousand_connections_are_bounded_and_others_are_served(victim: Victim) -> None:
    await burst(victim)


@pytest.mark.soak
async def test_ten_thousand_connections_are_bounded_and_others_are_served(victim: Victim) -> None:
    for _ in range(10):
        await burst(victim)


async def burst(victim: Victim) -> None:
    """All at once, by one key, while others are to be served."""
    async with hostile() as eve:
        target = where(victim.invitation())
        attempts = [asyncio.create_task(eve.transport.connect(target, CIRCLE, timeout_s=8)) for _ in range(CONNECTIONS)]
        await asyncio.to_thread(victim.is_well)
        done = await asyncio.gather(*attempts, return_exceptions=True)
        made = [each for each in done if isinstance(each, QuicConnection)]
        assert all(isinstance(each, QuicConnection | Unreachable) for each in done)
        ends = [asyncio.create_task(each.closed()) for each in made]
        await asyncio.wait(ends, timeout=2 * RETIRED_S, return_when=asyncio.ALL_COMPLETED)
        assert sum(not end.done() for end in ends) <= RETIRED + 1
        for end in ends:
            end.cancel()
        await asyncio.to_thread(victim.is_well)


# Members


async def test_a_roster_cannot_be_forged(victim: Victim) -> None:
    """Neither strangers nor guests make members, and what is no signature drops who brings it."""
    nobody, other = Identity(os.urandom(32)), Identity(os.urandom(32))
    before = len(roster(victim))
    async with member(victim, role="guest") as (guest, invitation):
        by_nobody = certify(nobody, invitation.circle, other.id)
        by_guest = certify(guest.identity, invitation.circle, other.id)
        await guest.tell(invitation, by_nobody, by_guest)
        assert len(roster(victim)) == before + 1, "the guest alone"
        fake = msgspec.structs.replace(by_nobody.signed, by=invitation.inviter)
        link = await guest.dial(invitation)
        with pytest.raises(Disconnected):
            await guest.tell(invitation, Record(label="certificate/1", signed=fake))
        await is_dropped(victim, guest, link, "is not signed by")


def certify(signer: Identity, circle: bytes, peer: PeerId) -> Record:
    return membership.certify(signer, circle, peer, "member", int(time.time()), os.urandom(16))


def roster(victim: Victim) -> list[str]:
    return [member["id"] for member in victim.node.call("GET", f"/circles/{victim.circle}")["members"]]


async def test_nobody_else_says_where_a_member_is_or_what_the_circle_is_called(victim: Victim) -> None:
    async with member(victim) as (eve, invitation), member(victim) as (mallory, _):
        link = await eve.dial(invitation)
        body = Contact(sequence=1 << 50, expires=int(time.time()) + 3600, name="Eve as Béla", addresses=["127.0.0.1:9"])
        contact = Signed(msgspec.msgpack.encode(body), bytes.fromhex(victim.friend.id), os.urandom(64))
        with pytest.raises(Disconnected):
            await eve.tell(invitation, Record(label="contact/1", signed=contact))
        await is_dropped(victim, eve, link, "is not signed by")
        link = await mallory.dial(invitation)
        title = signed(mallory.identity, "title/1", Title(circle=invitation.circle, name="Mine", sequence=1))
        with pytest.raises(Disconnected):
            await mallory.tell(invitation, title)
        await is_dropped(victim, mallory, link, "Only the founder")
    assert "Béla" in victim.node.peers()
    assert victim.node.circles()[victim.circle] == "Friends"


async def test_what_is_old_or_from_the_future_changes_nothing(victim: Victim) -> None:
    async with member(victim) as (eve, invitation):
        now = int(time.time())
        for sequence, expires in ((5, now + 3600), (1 << 60, now + 3600), ((now + 60) * 1000, now + 90 * 86_400)):
            contact = Contact(sequence=sequence, expires=expires, name="Another")
            await eve.tell(invitation, signed(eve.identity, "contact/1", contact))
        assert "Another" not in victim.node.peers()
        assert (await ask(await eve.dial(invitation), Ping(number=1), Ping)).number == 1, "that is no fault"


async def test_a_member_who_floods_requests_slows_itself_only(victim: Victim) -> None:
    async with member(victim) as (eve, invitation):
        link = await eve.dial(invitation)
        asking = [asyncio.create_task(ask(link, Ping(number=n), Ping | Refused)) for n in range(REQUESTS)]  # type: ignore[arg-type]
        await asyncio.to_thread(victim.is_well)
        assert (await asyncio.to_thread(victim.friend.peers))["Anna"]["rtt_ms"] < 1000
        await asyncio.wait(asking, timeout=2)
        for task in asking:
            task.cancel()
        answered = [each for each in await asyncio.gather(*asking, return_exceptions=True) if isinstance(each, Ping)]
        assert 0 < len(answered) < REQUESTS


async def test_a_member_who_answers_nothing_is_gone(victim: Victim) -> None:
    async def silent(link: Connection, stream: Stream) -> None:
        await asyncio.Event().wait()

    async with member(victim, silent) as (eve, invitation):
        link = await eve.dial(invitation)
        await ask(link, Hello(name="Eve", version="", now=int(time.time())), Hello)
        assert "Eve" in {peer["name"] for peer in victim.node.call("GET", "/peers")["peers"]}
        await asyncio.to_thread(until, lambda: "Eve" not in victim.node.online(), NOTICED_S)
        async with asyncio.timeout(NOTICED_S):
            assert await link.closed() == "no answer"


async def test_a_member_who_answers_rubbish_is_dropped_with_the_reason(victim: Victim) -> None:
    async def rubbish(link: Connection, stream: Stream) -> None:
        await receive(stream, msgspec.Raw)
        await stream.send(frame(b"\xc1" * 10))
        await stream.finish()

    async with member(victim, rubbish) as (eve, invitation):
        link = await eve.dial(invitation)
        await ask(link, Hello(name="Eve", version="", now=int(time.time())), Hello)
        await is_dropped(victim, eve, link, "could not be read")


async def test_ten_thousand_records_are_bounded(victim: Victim) -> None:
    """Of a member who certifies whoever it makes up; and a signature costs the node as much as the member."""
    id_ = victim.node.create("Flooded")
    async with hostile() as eve:
        invitation = victim.invitation(id_)
        assert isinstance(await eve.join(invitation), Joined)
        made = 0
        while made < RECORDS:
            records = [certify(eve.identity, invitation.circle, PeerId(os.urandom(32))) for _ in range(250)]
            made += len(records)
            await eve.tell(invitation, *records)
        await asyncio.to_thread(victim.is_well)
        told = await asyncio.to_thread(victim.node.call, "GET", f"/circles/{id_}")
        assert len(told["members"]) <= 2 + CERTIFICATES_EACH
    victim.node.call("DELETE", f"/circles/{id_}")


async def test_introductions_make_the_node_send_little_and_only_to_find_members(victim: Victim) -> None:
    async with member(victim) as (away, _):
        pass
    with ExitStack() as stack:
        victims = [stack.enter_context(closing(listening())) for _ in range(20)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in victims]
        async with member(victim) as (eve, invitation):
            link = await eve.dial(invitation)
            stranger = Introduced(circle=invitation.circle, peer=secrets.token_bytes(32), addresses=addresses)
            assert (await ask(link, stranger, Refused)).code == "not_a_member"
            about = Introduced(circle=invitation.circle, peer=away.identity.id, addresses=addresses)
            replies = [await ask(link, about, Done | Refused) for _ in range(40)]  # type: ignore[arg-type]
            assert 0 < sum(isinstance(reply, Done) for reply in replies) <= INTRODUCTIONS_BURST + 4
            await asyncio.to_thread(until, lambda: heard(victims), NOTICED_S)
        assert heard(victims) <= INTRODUCED


def listening() -> socket.socket:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def heard(sockets: Sequence[socket.socket]) -> int:
    """How many of them have been sent something."""
    return sum(bool(each.recv(1, socket.MSG_PEEK)) for each in sockets if readable(each))


def readable(each: socket.socket) -> bool:
    try:
        return bool(each.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def test_a_removed_member_hears_nothing_more_and_its_invite_lets_it_in_no_more(victim: Victim) -> None:
    heard_after: list[object] = []
    removed = asyncio.Event()

    async def listen(link: Connection, stream: Stream) -> None:
        request: CircleRequest = await receive(stream, CircleRequest)  # type: ignore[arg-type]
        if removed.is_set() and not isinstance(request, Ping):
            heard_after.append(request)
        await answer(stream, reply_to(request))

    invitation = victim.invitation(uses=5)
    async with hostile(listen) as eve:
        assert isinstance(await eve.join(invitation), Joined)
        link = await eve.dial(invitation)
        await ask(link, Hello(name="Eve", version="", now=int(time.time())), Hello)
        path = f"/circles/{victim.circle}/members/{eve.identity.id.hex()}"
        await asyncio.to_thread(victim.node.call, "DELETE", path)
        async with asyncio.timeout(NOTICED_S):
            assert await link.closed() == "removed from the circle"
        removed.set()
        await all_closed(eve)
    async with hostile(identity=eve.identity) as again, hostile() as mallory:
        refused = [await each.join(invitation) for each in (again, mallory)]
    assert [each.code for each in refused if isinstance(each, Refused)] == ["used_invite"] * 2
    assert heard_after == []


async def all_closed(eve: Hostile) -> None:
    """Until all connections that there were have ended."""
    for peer in eve.board.connected(CIRCLE):
        if (link := eve.board.link(peer, CIRCLE)) is not None:
            async with asyncio.timeout(NOTICED_S):
                await link.closed()


def test_what_the_node_wrote_down_holds_no_secret(victim: Victim) -> None:
    invitation = victim.invitation()
    log = (victim.node.home / "logs" / "node.log").read_text() + Path(f"{victim.node.home}.output").read_text()
    assert invitation.secret.hex() not in log
    assert "pares://join/" not in log
