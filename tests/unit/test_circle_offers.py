"""What a node says of itself in its circles, and who may speak further protocols with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from circle_nodes import LINE, WITHIN_S, Profile, circle_node, raw, until
from circles import NOW, charter, contact, invitation, largest_offer, person
from pares.circle import links, offers
from pares.circle.book import Circle
from pares.circle.circles import Circles
from pares.circle.gossip import Gossip
from pares.circle.offers import Offers
from pares.circle.overlay import Overlay
from pares.circle.records import RENEWAL_S, Store
from pares.circle.statements import checked, signed
from pares.errors import RemoteError
from pares.store.circles import CircleRecord
from pares.transport.link import Connection, Stream, Unreachable, Where
from pares.transport.memory import Network
from pares.transport.switchboard import Switchboard, answer, ask, receive
from pares.wire.framing import frame
from pares.wire.messages import (
    BODY_BYTES,
    BULK,
    HELD,
    SWARM,
    TOLD,
    Contact,
    Fetch,
    Held,
    Offer,
    Refused,
    Statements,
    SwarmRequest,
)

ANNA, BEN, EVE = person(0), person(1), person(2)


def small_circle(me: bytes = ANNA.id) -> Circle:
    first = charter(ANNA)
    store = Store(first, me=ANNA.id if me == ANNA.id else BEN.id, secret=b"")
    store.add(invitation(ANNA, BEN, first.signed.digest), NOW)
    return Circle(CircleRecord(id=first.signed.digest, joined_at=NOW), Gossip(store), Overlay(store.me, b""))


def digests(count: int, salt: int = 0) -> list[bytes]:
    return [(1000 * salt + number).to_bytes(32, "big") for number in range(count)]


# The offer


def test_a_change_is_told_at_once_then_no_oftener_than_members_take_it() -> None:
    """Whatever happens, a member that follows the rules keeps every single one of these offers."""
    circle, other, profile = small_circle(), small_circle(BEN.id), Profile("Anna")
    mine = Offers(ANNA, profile)
    made: list[float] = []
    for tenth in range(6_000):
        now = NOW + tenth / 10
        profile.tells[circle.id] = digests(1, tenth)
        if (record := mine.make(circle, now)) is not None:
            assert circle.gossip.made(record, now)
            assert other.store.add(record, now)
            made.append(now)
        if tenth in (500, 3000):
            moved = contact(ANNA, circle.store.next_sequence(now), NOW + 9_000, port=4000 + tenth)
            assert other.store.add(moved, now)
    assert made[0] == NOW
    assert made[1] - made[0] == pytest.approx(offers.PAUSE_S, abs=0.11)
    assert len(made) == pytest.approx(600 / RENEWAL_S, abs=8)
    assert other.store.refused.total() == 0


def test_an_offer_stands_until_it_changes_or_grows_old() -> None:
    circle, profile = small_circle(), Profile("Anna", bulk_port=6881)
    profile.holds[circle.id] = [Held(version=digests(1)[0])]
    mine = Offers(ANNA, profile)

    def told(now: float) -> Offer | None:
        record = mine.make(circle, now)
        if record is None:
            return None
        circle.gossip.made(record, now)
        found = circle.store.offer(ANNA.id, now)
        assert found is not None
        return found

    first = told(NOW)
    assert first is not None
    assert (first.bulk_port, first.holds, first.expires) == (6881, profile.holds[circle.id], NOW + offers.LIFE_S)
    assert told(NOW + 60) is None
    later = told(NOW + offers.LIFE_S / 2)
    assert later is not None
    assert later.expires > first.expires
    profile.relay_url = "http://192.0.2.1:3340"
    assert told(NOW + offers.LIFE_S / 2 + 3) is not None


def test_an_offer_holds_as_much_as_it_may_and_no_more() -> None:
    circle, profile = small_circle(), Profile("Anna")
    profile.holds[circle.id] = [
        Held(version=digest, layers=(65_535, 65_536), head=True) for digest in digests(HELD + 5)
    ]
    profile.tells[circle.id] = digests(TOLD + 5, 1)
    record = Offers(ANNA, profile).make(circle, NOW)
    assert record is not None
    assert len(record.signed.body) < BODY_BYTES["offer/1"]
    offer = checked(record).statement
    assert isinstance(offer, Offer)
    assert offer.holds == profile.holds[circle.id][:HELD]
    assert offer.tells == profile.tells[circle.id][:TOLD]


def test_a_member_that_changes_its_offer_all_the_time_is_kept_up_with_at_the_pace_of_all() -> None:
    circle = small_circle()
    kept = sum(
        circle.store.add(largest_offer(BEN, circle.id, (NOW + second) * 1000), NOW + second) for second in range(200)
    )
    assert kept <= 8 + 200 / RENEWAL_S
    assert circle.store.refused["renewed too often"] == 200 - kept
    assert len(list(circle.store.offers(NOW + 200))) == 1


# Further protocols


class Asked:
    """A handler that answers every Fetch with nothing, and notes who asked."""

    def __init__(self) -> None:
        self.by: list[bytes] = []

    async def __call__(self, link: Connection, stream: Stream) -> None:
        self.by.append(link.peer)
        request: SwarmRequest = await receive(stream, SwarmRequest)  # type: ignore[arg-type]
        if isinstance(request, Fetch):
            await answer(stream, Statements())
        else:
            await answer(stream, Refused(code="not_held", reason="Nothing is here."))


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[Network, Sequence[Circles], Circle, Asked]]:
    """Anna and Ben in a circle; Ben answers on the further protocols."""
    network, asked = Network(seed=1), Asked()
    async with (
        circle_node(network, tmp_path, "Anna", 0, handlers={SWARM: Asked(), BULK: Asked()}) as anna,
        circle_node(network, tmp_path, "Ben", 1, handlers={SWARM: asked, BULK: asked}) as ben,
    ):
        circle = await anna.create("Friends")
        invite = await anna.invite(circle, expires_s=3600, uses=1, role="member")
        await ben.join(anna.link_of(invite))
        await until(lambda: anna.network and anna.network.get(BEN.id))
        yield network, (anna, ben), circle, asked


FETCH = Fetch(digests=digests(1))


async def test_members_ask_each_other_over_a_connection_of_its_own(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, (anna, _ben), _circle, asked):
        assert anna.gathering
        to = anna.gathering.links
        assert await to.ask(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S) == Statements()
        assert asked.by == [ANNA.id]
        live = await to.link(BEN.id, SWARM, timeout_s=WITHIN_S)
        assert live.protocol == SWARM
        assert to.hosts(BEN.id)[0] == live.path.address.rpartition(":")[0]
        with pytest.raises(Unreachable, match="no circle"):
            await to.link(EVE.id, SWARM, timeout_s=WITHIN_S)
        with pytest.raises(Unreachable, match="does not speak"):
            await to.link(BEN.id, "pares/other/1", timeout_s=WITHIN_S)


async def test_a_connection_that_nobody_uses_is_closed_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path) as (_, (anna, _ben), _circle, asked):
        gathering = anna.gathering
        assert gathering
        await gathering.links.ask(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)
        monkeypatch.setattr(links, "IDLE_S", -1.0)
        gathering.touch()
        await until(lambda: gathering.switchboard.link(BEN.id, SWARM) is None)
        await gathering.links.ask(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)
        assert asked.by == [ANNA.id] * 2


async def test_a_stranger_cannot_connect_for_a_further_protocol_nor_one_who_was_blocked(tmp_path: Path) -> None:
    async with two(tmp_path) as (network, (anna, ben), _circle, asked):
        assert ben.gathering
        where = Where(BEN.id, tuple(ben.gathering.transport.addresses()))
        async with (
            network.node(EVE.seed, (SWARM, BULK), LINE) as transport,
            Switchboard(transport, {SWARM: Asked(), BULK: Asked()}, allowed=lambda link: True) as board,
        ):

            async def knock(protocol: str) -> None:
                await ask(await board.connect(where, protocol, timeout_s=1), FETCH, Statements, timeout_s=1)

            for protocol in (SWARM, BULK):
                with pytest.raises(RemoteError, match="not welcome"):
                    await knock(protocol)
        assert asked.by == []
        await ben.change_peer(ANNA.id, name=None, blocked=True)
        assert anna.gathering
        with pytest.raises(RemoteError):
            await anna.gathering.links.ask(BEN.id, SWARM, FETCH, Statements, timeout_s=1)
        assert asked.by == []


async def test_who_is_removed_loses_every_connection(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, (anna, ben), circle, _asked):
        assert anna.gathering
        assert ben.gathering
        await ben.gathering.links.ask(ANNA.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)
        link = ben.gathering.switchboard.link(ANNA.id, SWARM)
        assert link
        await anna.remove(circle, BEN.id)
        async with asyncio.timeout(WITHIN_S):
            await link.closed()
        assert anna.gathering.switchboard.link(BEN.id, SWARM) is None


async def test_who_answers_what_no_correct_peer_does_is_dropped_and_a_refusal_is_no_fault(tmp_path: Path) -> None:
    replies = [msgspec.msgpack.encode(Refused(code="busy", reason="Later.")), b"\xc1rubbish"]

    async def rude(link: Connection, stream: Stream) -> None:
        await receive(stream, SwarmRequest)  # type: ignore[arg-type]
        await stream.send(frame(replies.pop(0)))
        await stream.finish()

    async with AsyncExitStack() as stack:
        network = Network(seed=1)
        anna = await stack.enter_async_context(circle_node(network, tmp_path, "Anna", 0, handlers={SWARM: Asked()}))
        ben = await stack.enter_async_context(circle_node(network, tmp_path, "Ben", 1, handlers={SWARM: rude}))
        circle = await anna.create("Friends")
        await ben.join(anna.link_of(await anna.invite(circle, expires_s=3600, uses=1, role="member")))
        await until(lambda: anna.network and anna.network.get(BEN.id))
        assert anna.gathering
        ask_ben = anna.gathering.links.ask
        with pytest.raises(RemoteError, match=r"refused: Later\.") as refused:
            await ask_ben(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)
        assert refused.value.fields["refusal"] == "busy"
        with pytest.raises(RemoteError, match="could not be read"):
            await ask_ben(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)
        with pytest.raises(Unreachable, match="broke the protocol"):
            await ask_ben(BEN.id, SWARM, FETCH, Statements, timeout_s=WITHIN_S)


async def test_a_hostile_contact_does_not_make_a_node_dial_nonsense(tmp_path: Path) -> None:
    network = Network(seed=1)

    async def silent(link: Connection, stream: Stream) -> None:
        await stream.receive(1 << 20)

    async with (
        circle_node(network, tmp_path, "Anna", 0, handlers={SWARM: Asked()}) as anna,
        raw(network, 2, silent),
    ):
        circle = await anna.create("Friends")
        now = time.time()
        circle.gossip.made(invitation(ANNA, EVE, circle.id), now)
        nonsense = [
            *("127.0.0.1:4433", "[::1]:4433", "224.0.0.1:4433", "0.0.0.0:4433", "240.0.0.1:4433", "8.8.8.8:25"),
            *("example.org:4433", "198.51.100.7:4433", "198.51.100.7:5544", "[2001:db8::1]:4433"),
        ]
        told = Contact(sequence=int(now * 1000), expires=int(now) + 900, name="Eve", addresses=nonsense)
        assert circle.store.add(signed(EVE, "contact/1", told), now)
        assert anna.gathering
        assert anna.gathering.links.hosts(EVE.id) == ("198.51.100.7", "2001:db8::1")
        assert anna.gathering.links.hosts(person(9).id) == ()


async def test_offers_tell_holdings_soon_after_they_change(tmp_path: Path) -> None:
    network, profile = Network(seed=1), Profile("Anna")
    async with (
        circle_node(network, tmp_path, "Anna", 0, profile=profile) as anna,
        circle_node(network, tmp_path, "Ben", 1) as ben,
    ):
        circle = await anna.create("Friends", copies=3)
        await ben.join(anna.link_of(await anna.invite(circle, expires_s=3600, uses=1, role="member")))
        held = Held(version=digests(1)[0], layers=(1, 2))
        profile.holds[circle.id], profile.bulk_port = [held], 6881
        assert anna.gathering
        anna.gathering.touch_offers()

        def heard() -> bool:
            (facts,) = ben.book.facts(time.time())
            offer = facts.offers.get(ANNA.id)
            return facts.copies == 3 and offer is not None and (offer.holds, offer.bulk_port) == ([held], 6881)

        await until(heard)
        (facts,) = ben.book.facts(time.time())
        assert facts.members == {ANNA.id, BEN.id}
        assert (facts.name, facts.open, facts.internet) == ("Friends", False, True)


async def test_a_joiner_exchanges_news_also_with_those_whom_it_greeted_before_it_was_a_member(tmp_path: Path) -> None:
    network, profile = Network(seed=1), Profile("Ben")
    async with (
        circle_node(network, tmp_path, "Anna", 0) as anna,
        circle_node(network, tmp_path, "Ben", 1, profile=profile) as ben,
        circle_node(network, tmp_path, "Cleo", 3) as cleo,
    ):
        circle = await anna.create("Friends")
        invite = await anna.invite(circle, expires_s=3600, uses=2, role="member")
        await ben.join(anna.link_of(invite))
        await until(lambda: circle.store.contact(BEN.id))
        await cleo.join(anna.link_of(invite))  # the link names Ben too
        await until(lambda: ben.network and ben.network.get(person(3).id))
        network.kill(ANNA.id)
        profile.tells[circle.id] = digests(1)

        def heard() -> bool:
            (facts,) = cleo.book.facts(time.time())
            return BEN.id in facts.offers and facts.offers[BEN.id].tells == digests(1)

        await until(heard)
