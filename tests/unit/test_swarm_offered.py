"""The index of what circles offer: who holds what, what is said of it, and how a version is meant."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogues import circle_id, endorsement, facts, offer, revocation, version
from circles import NOW, person
from pares.errors import Conflict, NotFound
from pares.swarm.members import CircleFacts
from pares.swarm.offered import Offered, Row, covers, folded
from pares.swarm.predicate import Architecture, Licence
from pares.swarm.version import Opened, open_statement
from pares.wire.messages import Held
from pares.wire.signing import PeerId

ANNA, BEN, CLEO, EVE = (person(number) for number in range(4))
NAMES = {ANNA.id: "Anna", BEN.id: "Ben", CLEO.id: "Cleo", EVE.id: "Eve"}


def index(
    envelopes: Sequence[bytes],
    circles: Sequence[CircleFacts] = (),
    *,
    online: Sequence[PeerId] = (),
    here: Mapping[bytes, Held] | None = None,
    contradictions: Mapping[bytes, str] | None = None,
) -> Offered:
    return Offered(
        map(open_statement, envelopes),
        circles,
        me=ANNA.id,
        online=online,
        here=here,
        contradictions=contradictions,
        name_of=lambda peer: NAMES.get(peer, peer.hex()[:8]),
    )


def opened(envelope: bytes) -> Opened:
    return open_statement(envelope)


OWL = version(BEN)
ID = opened(OWL).digest


def whole(version: bytes = ID) -> Held:
    return Held(version=version)


def part(first: int, last: int, *, head: bool = False) -> Held:
    return Held(version=ID, layers=(first, last), head=head)


def test_a_row_says_who_holds_it_where_and_who_is_there() -> None:
    circles = [
        facts({BEN.id: offer(circle_id(), [whole()]), CLEO.id: offer(circle_id(), [part(0, 2)])}, members=[ANNA.id]),
        facts(
            {CLEO.id: offer(circle_id(1), [part(0, 2)]), ANNA.id: offer(circle_id(1), [part(2, 4)])},
            number=1,
        ),
        facts({EVE.id: offer(circle_id(2))}, number=2),
    ]
    row = index([OWL], circles, online=[CLEO.id, EVE.id], here={ID: part(2, 4)}).rows[ID]
    assert set(row.circles) == {circle_id(0), circle_id(1)}
    assert row.shared == (circle_id(1),)
    assert dict(row.holders) == {BEN.id: (whole(),), CLEO.id: (part(0, 2),)}, "this node is not among them"
    assert (row.whole, set(row.online)) == (1, {CLEO.id})
    assert not row.complete, "the head is with Ben, who is away"
    assert row.size == 1 << 20


def test_versions_that_are_offered_before_their_statement_is_here_are_known_as_such() -> None:
    offered = index([], [facts({BEN.id: offer(circle_id(), [whole()])})])
    assert offered.unknown == {ID}
    assert offered.rows == {}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.booleans()), max_size=6), st.integers(0, 10))
def test_parts_cover_a_version_exactly_if_each_layer_and_the_head_are_there(
    parts: list[tuple[int, int, bool]], layers: int
) -> None:
    held = [part(first, last, head=head) for first, last, head in parts]
    there = {layer for first, last, _ in parts for layer in range(first, last)}
    every = layers > 0 and there >= set(range(layers)) and any(head for *_, head in parts)
    assert covers(held, layers) == every
    assert covers([*held, whole()], layers)


# What is said of it


def voices(*said: bytes, contradiction: str = "", outsiders: bool = False) -> Row:
    members = [ANNA.id, BEN.id, CLEO.id] + ([] if outsiders else [EVE.id])
    circle = facts({BEN.id: offer(circle_id(), [whole()])}, members=members)
    return index([OWL, *said], [circle], contradictions={ID: contradiction} if contradiction else None).rows[ID]


def test_its_publisher_takes_a_version_back_and_members_warn_of_it() -> None:
    of = opened(OWL)
    assert voices().trouble == ""
    assert voices(revocation(BEN, of, reason="It was poisoned.")).trouble == (
        "Its publisher took it back: It was poisoned."
    )
    assert voices(revocation(EVE, of)).trouble == "Eve warned of it: It bites."
    both = voices(revocation(EVE, of, at=NOW), revocation(CLEO, of, at=NOW + 1, reason="It\n\x1b[31mlies."))
    assert both.trouble == "Eve, Cleo warned of it: It [31mlies.", "in one line, without escapes"
    assert voices(contradiction="Layers: 5.").trouble == "It is not what its statement says: Layers: 5."


def test_who_belongs_to_no_circle_is_not_heard() -> None:
    of = opened(OWL)
    row = voices(revocation(EVE, of), endorsement(EVE, of), outsiders=True)
    assert (row.trouble, row.endorsements, len(row.voices)) == ("", 0, 2)


def test_endorsements_count_once_per_member_and_not_the_publishers_own() -> None:
    of = opened(OWL)
    said = [endorsement(CLEO, of, at=NOW + n) for n in range(3)]
    row = voices(*said, endorsement(EVE, of), endorsement(BEN, of))
    assert row.endorsements == 2
    assert len(row.voices) == 5


def test_of_what_one_member_says_the_newest_counts() -> None:
    of = opened(OWL)
    praise, warning = endorsement(EVE, of, at=NOW), revocation(EVE, of, at=NOW + 1)
    assert voices(praise, warning).endorsements == 0
    assert voices(praise, warning).trouble
    later = endorsement(EVE, of, at=NOW + 2)
    assert voices(praise, warning, later).trouble == ""
    assert voices(praise, warning, later).endorsements == 1
    own = revocation(BEN, of, at=NOW)
    assert voices(own, endorsement(BEN, of, at=NOW + 9)).trouble, "praising it does not undo a publisher's revocation"


def test_what_is_said_can_be_taken_back_by_who_said_it_and_nobody_else() -> None:
    of = opened(OWL)
    praise, warning = endorsement(EVE, of), revocation(CLEO, of)
    assert voices(praise, revocation(EVE, opened(praise))).endorsements == 0
    assert voices(praise, revocation(CLEO, opened(praise))).endorsements == 1
    assert voices(warning, revocation(CLEO, opened(warning))).trouble == ""
    assert voices(warning, revocation(BEN, opened(warning))).trouble, "the publisher does not silence a warning"


# Names


def test_one_name_by_two_publishers_is_a_conflict_also_in_other_letters() -> None:
    twin, other = version(EVE, "ＯＷＬ"), version(EVE, "Lynx")
    offered = index([OWL, twin, other])
    assert offered.rows[ID].conflict
    assert offered.rows[opened(twin).digest].conflict
    assert not offered.rows[opened(other).digest].conflict
    again = index([OWL, version(BEN, "owl", label="v2")])
    assert not again.rows[ID].conflict, "a publisher may have several of one name"


def test_a_version_is_found_by_id_by_its_beginning_and_by_name() -> None:
    offered = index([OWL, version(EVE, "Lynx")])
    for text in (ID.hex(), ID.hex().upper(), ID.hex()[:6], "Owl", " owl ", "OWL"):
        assert offered.find(text).id == ID, text
    for text in (ID.hex()[:5], "Ow", "", "f" * 64):
        with pytest.raises(NotFound):
            offered.find(text)
    with pytest.raises(NotFound, match="Close to it: Lynx") as found:
        offered.find("lynks")
    assert found.value.fields["nearest"] == ("Lynx",)


def test_what_is_ambiguous_is_refused_with_the_publishers() -> None:
    twin = version(EVE, "owl", label="v2")
    offered = index([OWL, twin])
    with pytest.raises(Conflict) as conflict:
        offered.find("Owl")
    assert "by Ben" in conflict.value.message
    assert "by Eve" in conflict.value.message
    assert set(conflict.value.fields["publishers"]) == {BEN.id.hex(), EVE.id.hex()}  # type: ignore[call-overload]
    for envelope in (OWL, twin):
        digest = opened(envelope).digest
        assert offered.find(digest.hex()[:12]).id == digest


def test_a_name_that_looks_like_the_beginning_of_an_id_takes_nothing_from_it() -> None:
    trap = version(EVE, ID.hex()[:8])
    with pytest.raises(Conflict):
        index([OWL, trap]).find(ID.hex()[:8])
    full = version(EVE, ID.hex())
    assert index([OWL, full]).find(ID.hex()).id == ID


@given(st.text(string.printable, max_size=70))
def test_whatever_is_asked_for_gives_the_version_that_is_meant_or_says_why_not(text: str) -> None:
    offered = index([OWL, version(EVE, "Lynx"), version(CLEO, "lynx")])
    with contextlib.suppress(NotFound, Conflict):
        row = offered.find(text)
        assert folded(row.version.name) == folded(text.strip()) or row.id.hex().startswith(text.strip().lower())


def test_search_goes_by_words_circle_licence_architecture_publisher_and_size() -> None:
    lynx = version(
        EVE,
        "Lynx",
        description="Speaks Finnish",
        licence=Licence(spdx="MIT"),
        architecture=Architecture(name="qwen2", parameters=1, layers=1),
    )
    circle = facts({EVE.id: offer(circle_id(), [whole(opened(lynx).digest)])})
    offered = index([OWL, lynx, version(BEN, "owl", created=NOW + 5)], [circle])

    def names(*rows: Row) -> list[str]:
        return [row.version.name for row in rows]

    assert names(*offered.search()) == ["Lynx", "owl", "Owl"], "by name, the newest first"
    assert names(*offered.search("finnish LYNX")) == ["Lynx"]
    assert names(*offered.search("finnish owl")) == []
    assert names(*offered.search("ben")) == ["owl", "Owl"], "words are looked for in the publisher's name too"
    assert names(*offered.search(circle=circle_id())) == ["Lynx"]
    assert names(*offered.search(licence="apache")) == ["owl", "Owl"]
    assert names(*offered.search(architecture="Qwen2")) == ["Lynx"]
    assert names(*offered.search(architecture="qwen")) == []
    assert names(*offered.search(publisher="eve")) == ["Lynx"]
    assert names(*offered.search(publisher=EVE.id.hex()[:10])) == ["Lynx"]
    assert names(*offered.search(most_bytes=1000)) == []
