"""What a node keeps, and that any two nodes agree after one exchange, whatever they held before."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import NOW, charter, contact, invitation, offer, person
from pares.circle import gossip as rules
from pares.circle.gossip import Gossip, unfinished
from pares.circle.membership import leave
from pares.circle.records import CONTACT_LIFE_S, PREFIX, REFUSAL_S, SKEW_S, Store
from pares.wire.framing import MESSAGE_BYTES, ProtocolError
from pares.wire.messages import RECORDS, Delta, Digests, Record, Refused, Summaries
from pares.wire.signing import PeerId

PEOPLE = [person(number) for number in range(8)]
ADA, BEN, CEM = PEOPLE[:3]
CHARTER = charter(ADA)
CIRCLE = CHARTER.signed.digest
LATER = NOW * 1000 + 5


def node(number: int = 0, *records: Record, view: int = 2048, commons: bool = False) -> Gossip:
    made = charter(ADA, commons=commons)
    store = Store(made, me=person(number).id, secret=bytes([number % 256]), view=view)
    for record in records:
        store.add(record, NOW)
    return Gossip(store)


def held(side: Gossip) -> set[bytes]:
    return {entry.name for entry in side.store.entries()}


def compare(one: Gossip, other: Gossip, now: float = NOW) -> int:
    """Comparisons until both are done."""
    a, b = one.store.me, other.store.me
    for count in range(1, 65):
        sent = one.digests()
        reply = other.answer_digests(a, sent, now)
        assert isinstance(reply, Summaries)
        delta = one.follow(b, sent, reply, now)
        if delta is None:
            return count
        answer, _ = other.answer_delta(a, delta, now)
        one.take(b, answer, now)
        if not unfinished(delta, answer):
            return count
    raise AssertionError("two nodes never finish")


CERTIFICATES = [invitation(ADA, who, CIRCLE) for who in PEOPLE[1:5]] + [
    invitation(PEOPLE[1], who, CIRCLE) for who in PEOPLE[5:]
]
LATEST = [contact(who, NOW * 1000 + n) for who in PEOPLE for n in range(2)] + [
    offer(who, CIRCLE, NOW * 1000 + n) for who in PEOPLE for n in range(2)
]


@settings(max_examples=60, deadline=None)
@given(
    left=st.lists(st.sampled_from(CERTIFICATES + LATEST), max_size=30),
    right=st.lists(st.sampled_from(CERTIFICATES + LATEST), max_size=30),
)
def test_two_nodes_agree_after_comparing_and_lose_nothing(left: list[Record], right: list[Record]) -> None:
    one, other = node(0, *left), node(1, *right)
    before = {e.name for side in (one, other) for e in side.store.membership.entries()}
    for now in (NOW, NOW + REFUSAL_S):
        compare(one, other, now)
    assert before <= held(one) == held(other)
    reply = other.answer_digests(one.store.me, one.digests(), NOW)
    assert reply == Summaries(buckets=[], names=b"")


@settings(max_examples=60, deadline=None)
@given(st.permutations(LATEST))
def test_the_newest_record_counts_in_any_order(order: list[Record]) -> None:
    one = node(0, *CERTIFICATES, *order)
    assert all(one.store.contact(who.id) == node(0, *CERTIFICATES, *LATEST).store.contact(who.id) for who in PEOPLE)
    assert one.store.contact(BEN.id) is not None
    assert len(one.store) == 1 + len(CERTIFICATES) + 2 * len(PEOPLE)


def test_a_thousand_members_reach_a_newcomer_in_messages_within_the_limit() -> None:
    strangers = [person(number) for number in range(100, 700)]
    full = node(0, *(invitation(ADA, who, CIRCLE) for who in strangers), *(contact(who) for who in strangers))
    fresh = node(1)
    sent = fresh.digests()
    reply = full.answer_digests(fresh.store.me, sent, NOW)
    assert isinstance(reply, Summaries)
    delta = fresh.follow(person(9).id, sent, reply, NOW)
    assert delta is not None
    assert len(delta.wants) == PREFIX * RECORDS
    answer, _ = full.answer_delta(fresh.store.me, delta, NOW)
    assert sum(len(r.signed.body) for r in answer.records) < MESSAGE_BYTES
    assert compare(fresh, full) < 16
    assert held(fresh) == held(full)


def test_contacts_of_strangers_of_the_past_and_of_the_far_future_are_not_kept() -> None:
    store = node(0, *CERTIFICATES).store
    for bad, reason in [
        (contact(person(99)), "not from a member"),
        (contact(BEN, expires=NOW), "expired"),
        (contact(BEN, expires=NOW + CONTACT_LIFE_S + SKEW_S + 1), "from too far in the future"),
        (contact(BEN, (NOW + SKEW_S + 1) * 1000), "from too far in the future"),
        (offer(BEN, bytes(32)), "of another circle"),
    ]:
        store.refused.clear()
        assert not store.add(bad, NOW)
        assert store.refused == {reason: 1}
        assert not store.wants(bad.name[:PREFIX], NOW)
        assert store.wants(bad.name[:PREFIX], NOW + 61)


def test_a_member_that_renews_without_end_is_slowed_down() -> None:
    store = node(0, *CERTIFICATES).store
    kept = sum(store.add(contact(BEN, NOW * 1000 + n), NOW) for n in range(50))
    assert kept == 8
    assert store.add(contact(BEN, NOW * 1000 + 99), NOW + 21)


def test_what_expired_and_what_a_former_member_said_is_forgotten() -> None:
    side = node(0, *CERTIFICATES, contact(BEN), offer(BEN, CIRCLE, expires=NOW + 10), contact(CEM))
    assert set(side.store.offers(NOW)) == {BEN.id}
    assert not side.store.offers(NOW + 11)
    side.store.add(leave(CEM, side.store.membership, NOW), NOW)
    assert set(side.store.contacts()) == {BEN.id}
    assert side.store.prune(NOW + 11) == 2
    assert held(side) == held(node(0, *(e.record for e in side.store.entries())))


def test_own_records_get_rising_sequences() -> None:
    side = node(0)
    assert side.made(contact(ADA, side.store.next_sequence(NOW)), NOW)
    assert side.store.next_sequence(NOW - 100) == NOW * 1000 + 1


def linked(side: Gossip, count: int) -> list[PeerId]:
    peers = [person(number).id for number in range(1, count + 1)]
    for peer in peers:
        side.link(peer)
    return peers


def test_news_goes_once_to_a_few_links_and_never_back() -> None:
    side = node(0, *CERTIFICATES)
    peers = linked(side, 7)
    message = Delta(circle=CIRCLE, records=[contact(CEM)])
    assert len(side.take(peers[0], message, NOW)) == 1
    pushes = side.pushes(NOW)
    assert len(pushes) == rules.FANOUT
    assert not {peers[0], CEM.id} & set(pushes)
    assert not side.take(peers[3], message, NOW)
    assert not side.pushes(NOW)


def test_of_what_was_replaced_before_it_left_only_the_newest_travels() -> None:
    side = node(0, *CERTIFICATES)
    linked(side, 2)
    side.made(contact(ADA), NOW)
    side.made(contact(ADA, LATER), NOW)
    assert [r.name for d in side.pushes(NOW).values() for r in d.records] == [contact(ADA, LATER).name] * 2


def test_new_links_are_compared_at_once_and_the_others_in_turn() -> None:
    side = node(0)
    peers = linked(side, 2)
    assert {side.due(NOW), side.due(NOW)} == set(peers)
    assert side.due(NOW + 29) is None
    assert side.due(NOW + 30) == peers[0]
    assert side.due(NOW + 60) == peers[1]
    side.unlink(peers[0])
    assert side.due(NOW + 90) == peers[1]


def test_a_link_has_a_budget_in_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BUDGET_BURST", 2_000)
    side = node(0, *CERTIFICATES, *LATEST)
    (peer,) = linked(side, 1)
    asks = Digests(circle=CIRCLE, bits=0, hashes=bytes([1]) * 8)
    answers = [side.answer_digests(peer, asks, NOW) for _ in range(9)]
    assert isinstance(answers[0], Summaries)
    assert isinstance(answers[-1], Refused)
    assert isinstance(side.answer_digests(peer, asks, NOW + 60), Summaries)
    flood = Delta(circle=CIRCLE, records=[contact(BEN, LATER + n) for n in range(20)])
    assert side.take(peer, flood, NOW) == []
    side.unlink(peer)
    side.link(peer)
    assert side.take(peer, flood, NOW) == []


@pytest.mark.parametrize(("bits", "hashes"), [(2, bytes(8)), (0, b""), (0, bytes(7))])
def test_digests_of_the_wrong_size_are_a_fault(bits: int, hashes: bytes) -> None:
    bad = Digests(circle=CIRCLE, bits=bits, hashes=hashes)
    with pytest.raises(ProtocolError, match="bytes of hashes"):
        node().answer_digests(BEN.id, bad, NOW)


@pytest.mark.parametrize(("buckets", "names"), [([1, 1], b""), ([1, 0], b""), ([1023], b""), ([0], b"odd")])
def test_answers_that_were_not_asked_for_are_a_fault(buckets: list[int], names: bytes) -> None:
    side, bad = node(), Summaries(buckets=buckets, names=names)
    with pytest.raises(ProtocolError):
        side.follow(person(9).id, side.digests(), bad, NOW)


@settings(deadline=None)
@given(buckets=st.sets(st.integers(0, 1)), names=st.lists(st.binary(min_size=16, max_size=16), max_size=600))
def test_made_up_names_cost_one_question(buckets: set[int], names: list[bytes]) -> None:
    side = node(0, *CERTIFICATES)
    sent = side.digests()
    delta = side.follow(person(9).id, sent, Summaries(buckets=sorted(buckets), names=b"".join(names)), NOW)
    assert delta is None or len(delta.wants) <= PREFIX * RECORDS


def commons(number: int, members: int, view: int) -> Gossip:
    side = node(number, view=view, commons=True)
    circle = side.store.membership.circle
    for who in (person(n) for n in range(members)):
        side.store.add(invitation(who, who, circle), NOW)
        side.store.add(contact(who), NOW)
    return side


def test_a_large_circle_is_kept_in_parts_that_differ_and_still_compare() -> None:
    sides = [commons(number, 400, 128) for number in range(3)]
    kept = [set(side.store.contacts()) for side in sides]
    assert all(40 <= len(part) <= 128 for part in kept)
    assert len(kept[0] | kept[1] | kept[2]) > max(map(len, kept)) + 40
    for one in sides:
        for other in sides:
            assert compare(one, other) == 1
    news = contact(person(0), LATER)
    assert sides[0].store.add(news, NOW)
    for side in sides[1:]:
        compare(sides[0], side)
        assert (news.name in held(side)) == (person(0).id in side.store.contacts())


def test_the_part_grows_again_when_members_stay_away() -> None:
    people = [person(number) for number in range(300)]
    records = [contact(who, expires=NOW + 60) for who in people]
    store = node(0, *(invitation(ADA, who, CIRCLE) for who in people[1:]), *records, view=128).store
    assert 40 <= len(store.contacts()) <= 128
    assert store.near() < set(store.contacts())
    for minute in range(1, 257):
        store.prune(NOW + 60 * minute)
    assert not store.contacts()
    assert not store.near()
    assert all(store.add(contact(who, LATER, NOW + 86_400), NOW + 60 * 257) for who in people[:128])


def test_bucket_hashes_are_as_the_protocol_says() -> None:
    side = node(0, *CERTIFICATES, *LATEST)
    entries = list(side.store.entries())
    for bits in (0, 1, 4, 10):
        hashes = side.store.hashes(bits)
        for bucket in range(1 << bits):
            inside = sorted((p, e.name) for e in entries if (p := rules_place(e.record)) >> (10 - bits) == bucket)
            joined = b"".join(name for _, name in inside)
            assert hashes[bucket] == hashlib.sha256(joined).digest()[:8]


def rules_place(record: Record) -> int:
    """The place of a record, by the words of docs/PROTOCOL.md."""
    own = record.label in ("contact/1", "offer/1")
    source = hashlib.sha256(record.signed.by).digest() if own else record.name
    first_nine = int.from_bytes(source[:2], "big") >> 7
    return (512 if own else 0) + first_nine
