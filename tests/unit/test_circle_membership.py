"""Who belongs: a function of the set of statements alone, worked out from the founder down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import NOW, charter, invitation, nonce, person
from pares.circle import membership as rules
from pares.circle.membership import DEPTH, Membership, certify, leave, revoke, title
from pares.circle.statements import signed
from pares.errors import Conflict, Forbidden, NotFound
from pares.wire.framing import ProtocolError
from pares.wire.messages import Record, Revocation, Title
from pares.wire.signing import BadSignature, Identity, Signed

ADA, BEN, CEM, DAN, EVE, FAY = PEOPLE = [person(number) for number in range(6)]
CHARTER = charter(ADA)
CIRCLE = CHARTER.signed.digest


def circle(*records: Record) -> Membership:
    made = Membership(CHARTER)
    for record in records:
        made.add(record)
    return made


def names(state: Membership) -> set[str]:
    return {name for name, who in zip("ABCDEF", PEOPLE, strict=True) if who.id in state.members()}


def invites(*pairs: str) -> list[Record]:
    """`AB`: Ada invites Ben. `ab`: as a guest."""
    made = []
    for pair in pairs:
        signer, member = ("ABCDEF".index(letter) for letter in pair.upper())
        made.append(invitation(PEOPLE[signer], PEOPLE[member], CIRCLE, "guest" if pair.islower() else "member"))
    return made


def taken_back(by: Identity, *certificates: Record, keeps: Sequence[Record] = ()) -> Record:
    statement = Revocation(
        circle=CIRCLE, certificates=[c.name for c in certificates], keeps=[k.name for k in keeps], issued=NOW
    )
    return signed(by, "revocation/1", statement)


def test_a_chain_of_certificates_up_to_the_founder_makes_a_member() -> None:
    state = circle(*invites("AB", "BC", "DE"))
    assert names(state) == {"A", "B", "C"}
    assert state.members()[CEM.id].invited_by == BEN.id
    assert state.members()[CEM.id].depth == 2
    assert (state.role_of(ADA.id), state.role_of(EVE.id)) == ("member", None)


def test_a_guest_cannot_invite_and_becomes_a_member_by_a_later_certificate() -> None:
    state = circle(*invites("ab", "BC"))
    assert (names(state), state.role_of(BEN.id)) == ({"A", "B"}, "guest")
    state.add(invites("AB")[0])
    assert (names(state), state.role_of(BEN.id)) == ({"A", "B", "C"}, "member")


@pytest.mark.parametrize("remover", [ADA, BEN, CEM])
def test_founder_and_those_above_remove_a_member_and_keep_whom_it_invited(remover: Identity) -> None:
    state = circle(*invites("AB", "BC", "CD", "DE"))
    state.add(revoke(remover, state, DAN.id, NOW))
    assert names(state) == {"A", "B", "C", "E"}
    assert state.removed() == {DAN.id: remover.id}


@pytest.mark.parametrize("remover", [EVE, FAY, DAN])
def test_nobody_else_does(remover: Identity) -> None:
    certificates = invites("AB", "BC", "CD", "BE")
    state = circle(*certificates, taken_back(remover, certificates[1]))
    assert names(state) == {"A", "B", "C", "D", "E"}
    with pytest.raises(Forbidden, match="not invited by you"):
        revoke(remover, state, CEM.id, NOW)


def test_a_removed_member_cannot_backdate_new_members_in() -> None:
    state = circle(*invites("AB", "BC"))
    removal = revoke(ADA, state, BEN.id, NOW)
    assert names(circle(*invites("AB", "BC", "BD"), removal)) == {"A", "C"}
    assert names(circle(removal, *invites("BD", "BC", "AB"))) == {"A", "C"}


def test_a_removed_member_cannot_throw_out_those_whom_the_remover_kept() -> None:
    certificates = invites("AB", "BC")
    removal = revoke(ADA, circle(*certificates), BEN.id, NOW)
    spite = [taken_back(BEN, certificates[0]), taken_back(BEN, certificates[1])]
    assert names(circle(*certificates, removal, *spite)) == {"A", "C"}


def test_what_a_member_took_back_before_it_was_removed_stays_taken_back() -> None:
    state = circle(*invites("AB", "BC", "CD"))
    state.add(revoke(BEN, state, DAN.id, NOW))
    state.add(revoke(ADA, state, BEN.id, NOW))
    assert names(state) == {"A", "C"}


def test_several_at_the_same_distance_keep_what_all_of_them_keep() -> None:
    certificates = invites("AB", "BC", "BD")
    first = taken_back(ADA, certificates[0], keeps=certificates[1:2])
    second = taken_back(ADA, certificates[0], keeps=certificates[1:])
    assert names(circle(*certificates, first, second)) == {"A", "C"}


def test_who_left_may_be_invited_again() -> None:
    state = circle(*invites("AB", "BC"))
    state.add(leave(BEN, state, NOW))
    assert (names(state), state.removed()) == ({"A", "C"}, {BEN.id: BEN.id})
    state.add(certify(CEM, CIRCLE, BEN.id, "member", NOW, nonce("again")))
    assert (names(state), state.members()[BEN.id].invited_by) == ({"A", "B", "C"}, CEM.id)
    assert not state.removed()


def test_leaving_with_a_plan_does_not_outlast_a_removal() -> None:
    certificates = invites("AB", "AC", "CB", "BD")
    planned = taken_back(BEN, certificates[0], keeps=certificates[3:])
    state = circle(*certificates[:3], planned)
    state.add(revoke(ADA, state, BEN.id, NOW))
    state.add(certificates[3])
    assert names(state) == {"A", "C"}


def test_certificates_in_a_ring_carry_nobody() -> None:
    assert names(circle(*invites("BC", "CD", "DB"))) == {"A"}
    ring = invites("AB", "BC", "CD", "DB")
    state = circle(*ring)
    state.add(taken_back(ADA, ring[0]))
    assert names(state) == {"A"}


def test_two_beside_each_other_cannot_remove_each_other() -> None:
    certificates = invites("AB", "AC")
    duel = [taken_back(BEN, certificates[1]), taken_back(CEM, certificates[0])]
    assert names(circle(*certificates, *duel)) == {"A", "B", "C"}


def test_the_founder_stays() -> None:
    state = circle(*invites("AB", "BA"))
    with pytest.raises(Conflict, match="nobody can take back"):
        revoke(BEN, state, ADA.id, NOW)
    state.add(taken_back(ADA, invites("BA")[0]))
    assert names(state) == {"A", "B"}
    with pytest.raises(NotFound):
        leave(EVE, state, NOW)


def test_only_the_founder_renames_and_the_newest_name_counts() -> None:
    state = circle(*invites("AB"))
    first = title(ADA, state, "Long table", NOW)
    state.add(first)
    second = title(ADA, state, "Round table", NOW)
    assert state.add(second)
    assert not state.add(first)
    assert state.name == "Round table"
    with pytest.raises(Forbidden):
        title(BEN, state, "Mine", NOW)
    with pytest.raises(ProtocolError, match="Only the founder"):
        state.add(signed(BEN, "title/1", Title(circle=CIRCLE, name="Mine", sequence=NOW + 9)))


def test_in_a_commons_all_certify_themselves_and_nobody_else() -> None:
    commons = charter(ADA, commons=True)
    state = Membership(commons)
    for who in (BEN, CEM):
        assert state.add(invitation(who, who, state.circle))
    with pytest.raises(ProtocolError, match="commons"):
        state.add(invitation(BEN, DAN, state.circle))
    assert names(state) == {"A", "B", "C"}
    state.add(revoke(CEM, state, CEM.id, NOW))
    state.add(revoke(ADA, state, BEN.id, NOW))
    assert names(state) == {"A"}


def test_what_no_correct_peer_passes_on_is_a_fault() -> None:
    state = circle()
    good = invites("AB")[0]
    forged = Record(label=good.label, signed=Signed(good.signed.body, CEM.id, good.signed.signature))
    with pytest.raises(BadSignature):
        state.add(forged)
    with pytest.raises(BadSignature):
        state.add(Record(label="title/1", signed=good.signed))
    with pytest.raises(ProtocolError, match="another circle"):
        state.add(charter(BEN))
    with pytest.raises(ProtocolError, match="another circle"):
        state.add(invitation(ADA, BEN, bytes(32)))
    with pytest.raises(ProtocolError, match="commons"):
        state.add(invitation(BEN, BEN, CIRCLE))
    with pytest.raises(ProtocolError, match="1024 are allowed"):
        state.add(Record(label="title/1", signed=Signed(bytes(1025), ADA.id, bytes(64))))
    with pytest.raises(ProtocolError, match="charter is needed"):
        Membership(good)


def test_a_chain_has_an_end() -> None:
    people = [ADA, *(person(number) for number in range(100, 100 + DEPTH + 1))]
    state = circle(*(invitation(a, b, CIRCLE) for a, b in pairwise(people)))
    assert len(state.members()) == DEPTH + 1


def test_bounds_refuse_with_a_reason_and_give_up_what_follows_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CERTIFICATES", 4)
    monkeypatch.setattr(rules, "CERTIFICATES_EACH", 3)
    state = circle(*invites("AB", "CD", "DE", "EF"))
    assert state.add(invites("BF")[0])
    assert names(state) == {"A", "B", "F"}
    assert state.certified() == 2
    for letter in "CDE":
        state.add(invites("A" + letter)[0])
    assert names(state) == {"A", "B", "C", "D", "F"}
    assert state.refused == {"too many certificates in the circle": 1}
    monkeypatch.setattr(rules, "CERTIFICATES", 9)
    assert not state.add(invites("AE")[0])
    assert state.refused["too many certificates by one signer"] == 1


def test_strangers_cannot_use_up_the_room_for_revocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "REVOCATIONS", 3)
    certificates = invites("AB", "BC", "CD")
    state = circle(*certificates)
    for number, who in enumerate((EVE, FAY, EVE)):
        state.add(signed(who, "revocation/1", Revocation(circle=CIRCLE, certificates=[bytes(32)], issued=number)))
    assert state.add(taken_back(DAN, certificates[2]))
    assert names(state) == {"A", "B", "C"}
    for number in range(9):
        state.add(signed(BEN, "revocation/1", Revocation(circle=CIRCLE, certificates=[bytes(32)], issued=number)))
    assert state.refused == {"too many revocations": 7}
    state.add(revoke(ADA, state, BEN.id, NOW))
    assert names(state) == {"A", "C"}


def test_nobody_alone_uses_up_what_others_may_say_of_a_member() -> None:
    state = circle(*invites("AB"))
    junk = [invitation(BEN, CEM, CIRCLE, "guest", number) for number in range(100)]
    assert sum(map(state.add, junk)) == rules.CERTIFICATES_OF_PAIR
    assert state.add(invites("AC")[0])
    assert state.role_of(CEM.id) == "member"


def pool() -> list[Record]:
    """All sorts of statements of six people, useful and not."""
    certificates = [
        invitation(a, b, CIRCLE, role)
        for a in PEOPLE
        for b in PEOPLE
        if a is not b
        for role in ("member", "guest")
        if role == "member" or a is ADA
    ]
    revocations = [
        taken_back(
            PEOPLE[number % 6],
            *certificates[number : number + 3],
            keeps=certificates[(5 * number) % 30 : (5 * number) % 30 + 9],
        )
        for number in range(0, len(certificates), 2)
    ]
    titles = [signed(ADA, "title/1", Title(circle=CIRCLE, name=str(n), sequence=n % 2)) for n in range(4)]
    return certificates + revocations + titles


POOL = pool()
INVITATIONS = [record for record in POOL if record.label != "revocation/1"]


def facts(state: Membership) -> object:
    return dict(state.members()), dict(state.removed()), state.name, {entry.name for entry in state.entries()}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), chosen=st.lists(st.sampled_from(POOL), max_size=50))
def test_order_duplicates_and_way_of_merging_change_nothing(data: st.DataObject, chosen: list[Record]) -> None:
    straight = circle(*chosen)
    shuffled = data.draw(st.permutations(chosen + chosen[: len(chosen) // 2]))
    asked = Membership(CHARTER)
    for record in shuffled:
        asked.add(record)
        asked.members()
    assert facts(asked) == facts(straight)
    cut = data.draw(st.integers(0, len(chosen)))
    left, right = circle(*chosen[:cut]), circle(*chosen[cut:])
    for one, other in ((left, right.copy()), (right, left.copy())):
        for entry in other.entries():
            one.take(entry)
    assert facts(left) == facts(right) == facts(straight)


@settings(max_examples=150, deadline=None)
@given(chosen=st.lists(st.sampled_from(POOL), max_size=50))
def test_every_member_hangs_on_the_founder(chosen: list[Record]) -> None:
    state = circle(*chosen)
    for peer, member in state.members().items():
        assert member.depth <= DEPTH
        assert (member.depth == 0) == (member.invited_by is None) == (peer == ADA.id)
        assert state.proofs(peer) or peer == ADA.id


@settings(max_examples=150, deadline=None)
@given(chosen=st.lists(st.sampled_from(INVITATIONS), max_size=50), who=st.sampled_from(PEOPLE[1:]))
def test_a_removal_by_the_founder_takes_one_member_and_no_other(chosen: list[Record], who: Identity) -> None:
    state = circle(*chosen)
    others = set(state.members()) - {who.id}
    if who.id in state.members():
        state.add(revoke(ADA, state, who.id, NOW))
    assert set(state.members()) == others


@settings(max_examples=100, deadline=None)
@given(chosen=st.lists(st.sampled_from(POOL), max_size=40), who=st.sampled_from(PEOPLE[1:]), data=st.data())
def test_who_was_removed_by_the_founder_changes_nothing_any_more(
    chosen: list[Record], who: Identity, data: st.DataObject
) -> None:
    state = circle(*chosen)
    if who.id not in state.members():
        return
    state.add(revoke(ADA, state, who.id, NOW))
    before = set(state.members())
    theirs = [record for record in POOL if record.signed.by == who.id]
    for record in data.draw(st.lists(st.sampled_from(theirs), max_size=10)):
        state.add(record)
    assert set(state.members()) == before


@given(st.lists(st.sampled_from(pool()), max_size=30))
def test_what_proves_a_member_is_enough_for_who_knows_only_the_charter(chosen: list[Record]) -> None:
    state = circle(*chosen)
    for member in state.members():
        proofs = [entry.record for entry in state.proofs(member)]
        assert len(proofs) <= DEPTH
        assert len({proof.name for proof in proofs}) == len(proofs)
        assert member == ADA.id or circle(*proofs).role_of(member) == state.role_of(member)
