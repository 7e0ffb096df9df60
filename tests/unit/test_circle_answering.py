"""Who may ask for what, and what it costs: circle rooms on the simulated network, with peers that say made things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from circle_nodes import Raw, circle_node, raw, until
from circles import contact, invitation, nonce, person
from pares.circle import invites, overlay
from pares.circle.answering import REQUESTS_BURST, REQUESTS_PER_S
from pares.circle.book import Circle
from pares.circle.circles import Circles
from pares.circle.gathering import STRANGERS, STRANGERS_EACH, Event
from pares.errors import Conflict, Forbidden, PeersUnreachable, RemoteError
from pares.transport.link import Connection, Stream
from pares.transport.memory import Network
from pares.transport.switchboard import answer, ask, receive
from pares.wire.messages import (
    CircleRequest,
    Delta,
    Digests,
    Done,
    Hello,
    Introduce,
    Introduced,
    Join,
    Joined,
    Observe,
    Observed,
    Ping,
    Record,
    Refused,
    Summaries,
)
from pares.wire.signing import Signed

HELLO = Hello(name="Eve", version="1", now=0, observed="203.0.113.9:4433")


async def polite(link: Connection, stream: Stream) -> None:
    request: CircleRequest = await receive(stream, CircleRequest)  # type: ignore[arg-type]
    match request:
        case Delta():
            await answer(stream, Delta(circle=request.circle))
        case Digests():
            await answer(stream, Summaries(buckets=[], names=b""))
        case Hello() | Ping():
            await answer(stream, request)
        case _:
            await answer(stream, Done())


@asynccontextmanager
async def anna(tmp_path: Path, events: list[Event] | None = None) -> AsyncIterator[tuple[Network, Circles, Circle]]:
    """A node with a circle."""
    network = Network(seed=1)
    async with circle_node(network, tmp_path, "Anna", 0, events) as node:
        yield network, node, await node.create("Friends")


async def link_of(node: Circles, circle: Circle, uses: int = 1) -> str:
    return node.link_of(await node.invite(circle, expires_s=3600, uses=uses, role="member"))


def certify(node: Circles, circle: Circle, eve: Raw) -> None:
    """As if it had joined."""
    assert circle.gossip.made(invitation(person(0), eve.identity, circle.id), time.time())


# Strangers


async def test_a_stranger_is_refused_in_one_way_whatever_it_knows(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), raw(network, 9, polite) as eve:
        link = await eve.dial(node)
        for id_ in (circle.id, bytes(32)):
            for request in (
                Digests(circle=id_, bits=0, hashes=bytes(8)),
                Delta(circle=id_),
                Introduce(circle=id_, peer=person(0).id),
                Introduced(circle=id_, peer=person(0).id, addresses=[]),
            ):
                refused = await ask(link, request, Refused)
                assert refused.code == "not_a_member"
                assert refused.reason == "This node knows of no such circle with you in it."
        assert (await ask(link, Observe(), Observed)).address
        assert await ask(link, Ping(number=3), Ping) == Ping(number=3)


async def test_a_stranger_leaves_no_trace_and_hears_no_name(tmp_path: Path) -> None:
    async with (
        anna(tmp_path) as (network, node, circle),
        raw(network, 9, polite) as eve,
        raw(network, 8, polite) as mallory,
    ):
        for stranger in (eve, mallory):
            reply = await ask(await stranger.dial(node), HELLO, Hello)
            assert (reply.name, reply.version) == ("a node", "")
        assert node.network is not None
        assert node.network.online() == ()
        assert node.network.observations.seen() == (), "two strangers could name a victim's address"
        await ask(await eve.dial(node), {"type": "bye"}, Done)  # type: ignore[arg-type]
        assert (node.book.peers, node.network.reasons) == ({}, {})
        certify(node, circle, eve)
        assert (await ask(await eve.dial(node), HELLO, Hello)).name == "Anna"
        assert node.network.online() == (eve.identity.id,)


async def test_certificates_of_strangers_are_kept_only_if_they_make_them_members(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), raw(network, 9, polite) as eve:
        certify(node, circle, Raw(person(1), eve.transport, eve.board))  # Béla, a member
        before = len(circle.store)
        link = await eve.dial(node)
        junk = [invitation(person(number), eve.identity, circle.id) for number in range(20, 50)]
        assert (await ask(link, Delta(circle=circle.id, records=junk), Refused)).code == "not_a_member"
        assert len(circle.store) == before
        proof = invitation(person(1), eve.identity, circle.id)
        await ask(link, Delta(circle=circle.id, records=[proof]), Delta)
        assert circle.has(eve.identity.id)


async def test_strangers_from_one_address_leave_room_for_others(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, _), AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(raw(network, 100 + n, polite)) for n in range(STRANGERS_EACH + 2)]
        for stranger in strangers:
            stranger.transport.external = strangers[0].transport.external  # all behind one router
            await stranger.dial(node)
        gathering = node.gathering
        assert gathering is not None
        await until(lambda: len(gathering._strangers) == STRANGERS_EACH)
        other = await stack.enter_async_context(raw(network, 99, polite))
        await ask(await other.dial(node), HELLO, Hello)
        assert STRANGERS_EACH < len(gathering._strangers) <= STRANGERS
        for stranger in strangers:
            stranger.board.drop(node.identity.id, "done")
        await until(lambda: list(gathering._strangers) == [other.identity.id])


# Members


async def test_who_asks_too_fast_is_made_to_wait(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), raw(network, 9, polite) as eve:
        certify(node, circle, eve)
        link = await eve.dial(node)
        too_many = int(REQUESTS_BURST + REQUESTS_PER_S * 0.6)
        began = time.monotonic()
        replies = await asyncio.gather(*(ask(link, Ping(number=n), Ping) for n in range(too_many)))
        assert len(replies) == too_many
        assert time.monotonic() - began > 0.4


async def test_the_liar_is_blamed_and_not_who_brings_the_lie(tmp_path: Path) -> None:
    """A member answers the Join of a joiner, which another member passes on, with forged records."""

    async def lie(link: Connection, stream: Stream) -> None:
        request: CircleRequest = await receive(stream, CircleRequest)  # type: ignore[arg-type]
        if isinstance(request, Join):
            true = contact(person(0))
            await answer(
                stream,
                Joined(records=[Record(label="contact/1", signed=Signed(true.signed.body, person(5).id, bytes(64)))]),
            )
        else:
            await answer(stream, request if isinstance(request, Hello | Ping) else Done())

    async with anna(tmp_path) as (network, node, circle), raw(network, 1, lie) as liar, raw(network, 9, polite) as eve:
        certify(node, circle, liar)
        await ask(await liar.dial(node), HELLO, Hello)
        link = await eve.dial(node)
        join = Join(
            circle=circle.id, invite=nonce(1), inviter=liar.identity.id, joiner=eve.identity.id,
            contact=contact(eve.identity).signed,
        )  # fmt: skip
        assert (await ask(link, join, Refused)).code == "not_connected"
        await until(lambda: not liar.board.connected(link.protocol))
        assert await ask(link, Ping(number=1), Ping) == Ping(number=1), "the joiner is still there"


async def test_a_blocked_key_does_not_come_in_through_somebody_else(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), raw(network, 1, polite) as bela:
        certify(node, circle, bela)
        invite = invites.parse(await link_of(node, circle), time.time())
        eve = person(9)
        await node.change_peer(eve.id, name=None, blocked=True)
        join = Join(
            circle=circle.id, invite=invite.invite, inviter=node.identity.id, joiner=eve.id,
            contact=contact(eve).signed, proof=invites.proof(invite.secret, circle.id, eve.id),
        )  # fmt: skip
        assert (await ask(await bela.dial(node), join, Refused)).code == "bad_invite"
        assert not circle.has(eve.id)


async def test_whoever_was_removed_is_cut_off_by_those_who_hear_of_it(tmp_path: Path) -> None:
    """Not only by the one who removed it: nothing new goes to it from anybody."""
    async with (
        anna(tmp_path) as (network, node, circle),
        raw(network, 9, polite) as eve,
        circle_node(network, tmp_path, "Béla", 1) as bela,
    ):
        theirs = await bela.join(await link_of(node, circle))
        certify(node, circle, eve)
        node._changed(circle)
        await until(lambda: theirs.has(eve.identity.id))
        link = await eve.dial(bela)
        await ask(link, HELLO, Hello)
        await node.remove(circle, eve.identity.id)
        async with asyncio.timeout(5):
            assert await link.closed() == "removed from the circle"
        assert eve.identity.id not in theirs.gossip._links


# Joining, leaving, stopping, at the same time


async def test_two_joins_at_once_leave_one_circle(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), circle_node(network, tmp_path, "Béla", 1) as bela:
        links = [await link_of(node, circle), await link_of(node, circle)]
        ends = await asyncio.gather(*(bela.join(link) for link in links), return_exceptions=True)
        assert all(isinstance(end, Circle | Conflict) for end in ends)
        assert list(bela.book.circles) == [circle.id]
        assert bela.gathering is not None
        assert not bela.gathering.expected
        await until(lambda: node.network and node.network.online() == (bela.identity.id,))


async def test_the_last_circle_is_left_while_another_is_joined(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), circle_node(network, tmp_path, "Béla", 1) as bela:
        own = await bela.create("Own")
        link = await link_of(node, circle)
        await asyncio.gather(bela.leave(own), bela.join(link))
        assert list(bela.book.circles) == [circle.id]
        assert bela.network is not None
        await until(lambda: node.network and node.network.online() == (bela.identity.id,))


async def test_a_join_that_fails_leaves_no_connection_and_no_network(tmp_path: Path) -> None:
    async with anna(tmp_path) as (network, node, circle), circle_node(network, tmp_path, "Béla", 1) as bela:
        link = await link_of(node, circle)
        for invite in list(node.book.invites.values()):
            await node.withdraw(circle, invite.id.hex())
        with pytest.raises(Forbidden, match="not known here"):
            await bela.join(link)
        assert bela.network is None
        await bela.create("Own")
        gathering = bela.gathering
        with pytest.raises(Forbidden):
            await bela.join(link)
        assert gathering is not None
        assert gathering.switchboard.connected("pares/circle/1") == ()


async def test_who_gives_up_waiting_for_the_network_does_not_harm_it(tmp_path: Path) -> None:
    network = Network(seed=1)
    async with circle_node(network, tmp_path, "Anna", 0) as node:
        for moment in range(6):
            creating = asyncio.create_task(node.create(f"Circle {moment}"))
            for _ in range(moment):
                await asyncio.sleep(0)
            creating.cancel()
            await asyncio.wait([creating])
        circle = await node.create("Friends")
        async with circle_node(network, tmp_path, "Béla", 1) as bela:
            await bela.join(await link_of(node, circle))


async def test_who_came_by_an_invite_and_was_removed_does_not_come_back_by_it(tmp_path: Path) -> None:
    async with (
        anna(tmp_path) as (network, node, circle),
        circle_node(network, tmp_path, "Béla", 1) as bela,
        circle_node(network, tmp_path, "Cleo", 2) as cleo,
    ):
        link = await link_of(node, circle, uses=9)
        await bela.join(link)
        await node.remove(circle, bela.identity.id)
        await until(lambda: not bela.book.circles)
        for again in (bela, cleo):
            with pytest.raises(Forbidden, match="Ask for a new one"):
                await again.join(link)
        assert all(not invite.secret for invite in node.book.invites.values())
        await bela.join(await link_of(node, circle))


async def test_an_inviter_who_lies_about_the_circle_gets_nobody_in(tmp_path: Path) -> None:
    """A charter of another circle, no certificate, forged ones."""
    answers: list[Sequence[Record]] = []

    async def lie(link: Connection, stream: Stream) -> None:
        request: CircleRequest = await receive(stream, CircleRequest)  # type: ignore[arg-type]
        if isinstance(request, Join):
            await answer(stream, Joined(records=list(answers[0])))
        else:
            await answer(stream, request)

    async with (
        anna(tmp_path) as (network, node, circle),
        circle_node(network, tmp_path, "Béla", 1) as bela,
        raw(network, 9, lie) as eve,
    ):
        true = invites.parse(await link_of(node, circle), time.time())
        doors = [invites.contact(eve.identity.id, list(eve.transport.addresses()))]
        link = invites.link(msgspec.structs.replace(true, inviter=eve.identity.id, contacts=doors))
        charter = next(e.record for e in circle.store.entries() if e.record.label == "charter/1")
        by_eve = invitation(eve.identity, person(1), circle.id)
        forged = Record(label="certificate/1", signed=msgspec.structs.replace(by_eve.signed, by=person(0).id))
        for records in ([], [by_eve], [charter], [charter, by_eve], [charter, forged]):
            answers[:] = [records]
            with pytest.raises(PeersUnreachable):
                await bela.join(link)
            assert bela.book.circles == {}


@pytest.mark.parametrize("steps", range(0, 40, 8))
async def test_stopping_in_the_middle_of_a_join_is_prompt_and_clean(tmp_path: Path, steps: int) -> None:
    async with anna(tmp_path) as (network, node, circle):
        link = await link_of(node, circle)
        async with AsyncExitStack() as stack:
            bela = await stack.enter_async_context(circle_node(network, tmp_path, "Béla", 1))
            joining = asyncio.create_task(bela.join(link))
            for _ in range(steps):
                await asyncio.sleep(0)
            began = time.monotonic()
            joining.cancel()
            await asyncio.wait([joining])
            await stack.aclose()
            assert time.monotonic() - began < 2


async def test_a_large_circle_leaves_each_node_so_many_links_of_others_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "MESH", 2)
    monkeypatch.setattr(overlay, "INCOMING", 2)
    async with anna(tmp_path) as (network, node, circle), AsyncExitStack() as stack:
        members = [await stack.enter_async_context(raw(network, number, polite)) for number in (11, 12, 13)]
        for member in members:
            certify(node, circle, member)
        for member in members[:2]:
            assert isinstance(await ask(await member.dial(node), HELLO, Hello), Hello)
        with pytest.raises(RemoteError):
            await ask(await members[2].dial(node), HELLO, Hello)
        assert isinstance(await ask(await members[0].dial(node), Ping(number=1), Ping), Ping)
