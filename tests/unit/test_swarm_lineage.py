"""The graph of versions: every edge is what can be known of it, and no graph takes long."""

from __future__ import annotations

import hashlib
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import NOW, person
from pares.swarm.lineage import MAX_NODES, Edge, Graph, Lineage, node_id, voices
from pares.swarm.predicate import Endorsement, Licence, Parent, Revocation, Version
from pares.swarm.version import Opened, open_statement, parents_of, sign_endorsement, sign_revocation, sign_version
from pares.wire.signing import Identity
from statements import ADA, BEN, LLAMA, version

EVE = person(2)


def signed(author: Identity = ADA, **changes: object) -> Opened:
    return open_statement(sign_version(author, version(author, **changes)))


def of(opened: Opened, name: str = "") -> Parent:
    return Parent(version=opened.digest.hex(), name=name)


def named(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def hostile(number: int, parents: list[int], author: Identity = ADA) -> Opened:
    """A statement under a digest that its bytes do not have: with these, cycles can be made."""
    ties = tuple(Parent(version=named(parent).hex()) for parent in parents)
    said = version(author, name=f"v{number}", kind="merge" if ties else "base", parents=ties)
    return Opened(named(number), "version", named(number), author.id, said, b"")


def edge(lineage: Lineage) -> Edge:
    (only,) = lineage.edges
    return only


BASE = signed(name="tiny")


def test_a_family_is_walked_up_to_its_roots_and_down_to_its_children() -> None:
    small = signed(BEN, name="tiny-q4", kind="quantized", base=of(BASE, "tiny"))
    adapter = signed(EVE, name="tales", kind="adapter", base=of(small))
    merged = signed(name="mix", kind="merge", parents=(of(small), of(adapter)))
    stranger = signed(name="stranger")
    graph = Graph([merged, stranger, small, adapter, BASE])
    middle = graph.walk(small.digest)
    assert [node.name for node in middle.nodes[:2]] == ["tiny-q4", "tiny"]
    assert {node.name for node in middle.nodes[2:]} == {"tales", "mix"}
    assert {(e.child[:6], e.parent[:6], e.relation, e.state) for e in middle.edges} == {
        (small.digest.hex()[:6], BASE.digest.hex()[:6], "quantized", "checked"),
        (adapter.digest.hex()[:6], small.digest.hex()[:6], "adapter", "checked"),
        (merged.digest.hex()[:6], small.digest.hex()[:6], "merge", "checked"),
        (merged.digest.hex()[:6], adapter.digest.hex()[:6], "merge", "checked"),
    }
    assert not middle.cut
    assert {node.name for node in graph.walk(adapter.digest).nodes} == {"tales", "tiny-q4", "tiny", "mix"}
    assert [node.name for node in graph.walk(stranger.digest).nodes] == ["stranger"]


def test_a_parent_in_words_is_stated_and_one_that_is_not_here_is_missing() -> None:
    lineage = Graph([small := signed(kind="quantized", base=Parent(name="Some Lab/Tiny"))]).walk(small.digest)
    assert edge(lineage).state == "stated"
    assert (lineage.nodes[1].id, lineage.nodes[1].name, lineage.nodes[1].version) == (
        "name:Some Lab/Tiny",
        "Some Lab/Tiny",
        None,
    )
    lineage = Graph([small := signed(kind="quantized", base=of(BASE, "tiny"))]).walk(small.digest)
    assert edge(lineage).state == "missing"
    assert (lineage.nodes[1].id, lineage.nodes[1].name, lineage.nodes[1].opened) == (BASE.digest.hex(), "tiny", None)


def test_children_of_what_is_not_here_are_found() -> None:
    two = [signed(name=name, kind="quantized", base=of(BASE)) for name in ("a", "b")]
    assert [node.name for node in Graph(two).walk(BASE.digest).nodes] == ["", "a", "b"]
    worded = [signed(name=name, kind="quantized", base=Parent(name="T")) for name in ("a", "b")]
    assert len(Graph(worded).walk("name:T").edges) == 2


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("quantized", {"name": "qwen2"}),
        ("quantized", {"layers": 3, "parameters_per_layer": ()}),
        ("finetune", {"embedding_length": 512}),
        ("adapter", {"name": "gemma3", "embedding_length": 0}),
        ("adapter", {"layers": 3, "parameters_per_layer": (), "embedding_length": 0}),
    ],
)
def test_a_child_that_cannot_be_of_this_parent_is_wrong(kind: str, changes: dict[str, object]) -> None:
    forged = msgspec.structs.replace(LLAMA, **changes)
    child = signed(BEN, kind=kind, base=of(BASE), architecture=forged)
    assert edge(Graph([BASE, child]).walk(child.digest)).state == "wrong"


def test_what_may_differ_from_the_parent_does_not_count() -> None:
    fewer = msgspec.structs.replace(LLAMA, layers=1, parameters_per_layer=(8,), parameters=8, embedding_length=0)
    adapter = signed(kind="adapter", base=of(BASE), architecture=fewer)
    assert edge(Graph([BASE, adapter]).walk(adapter.digest)).state == "checked"
    longer = msgspec.structs.replace(LLAMA, layers=9, parameters_per_layer=())
    merged = signed(kind="merge", parents=(of(BASE),), architecture=longer)
    assert edge(Graph([BASE, merged]).walk(merged.digest)).state == "checked"


def test_another_name_for_the_parent_is_wrong() -> None:
    child = signed(BEN, kind="quantized", base=of(BASE, "Famous 70B"))
    assert "Famous 70B" in edge(Graph([BASE, child]).walk(child.digest)).message


def test_a_parent_that_is_no_version_is_wrong() -> None:
    praise = open_statement(sign_endorsement(BEN, BASE.digest, "tiny", at=NOW))
    child = signed(BEN, kind="quantized", base=of(praise))
    assert edge(Graph([praise, BASE, child]).walk(child.digest)).state == "wrong"


def test_only_its_publisher_revokes_a_version() -> None:
    child = signed(BEN, kind="quantized", base=of(BASE))
    warned = open_statement(sign_revocation(BEN, BASE.digest, "tiny", reason="Odd.", at=NOW))
    lineage = Graph([BASE, child, warned]).walk(child.digest)
    assert edge(lineage).state == "checked"
    assert lineage.nodes[1].troubles == ("Warnings of it: 1.",)
    revoked = open_statement(sign_revocation(ADA, BASE.digest, "tiny", reason="Wrong template.", at=NOW))
    lineage = Graph([BASE, child, revoked]).walk(child.digest)
    assert edge(lineage).state == "revoked"
    assert lineage.nodes[1].troubles == ("Its publisher took it back: Wrong template.",)
    assert lineage.nodes[0].troubles == ()


def test_what_a_distrusted_key_signed_is_shown_as_such() -> None:
    child = signed(BEN, kind="quantized", base=of(BASE))
    lineage = Graph([BASE, child], distrusted=[ADA.id]).walk(child.digest)
    assert edge(lineage).state == "revoked"
    assert "no longer trusted" in lineage.nodes[1].troubles[0]


def test_terms_that_go_on_are_pointed_out_and_nothing_is_refused() -> None:
    bound = signed(name="bound", licence=Licence(spdx="LicenseRef-gemma"))
    child = signed(BEN, kind="adapter", base=of(bound))
    lineage = Graph([bound, child]).walk(child.digest)
    assert edge(lineage).state == "checked"
    assert "LicenseRef-gemma" in lineage.nodes[0].troubles[0]


def test_of_each_voice_the_last_word_counts_and_a_revocation_is_final() -> None:
    about = BASE.digest
    said = [
        open_statement(sign_endorsement(BEN, about, "tiny", at=1)),
        open_statement(sign_revocation(BEN, about, "tiny", reason="Odd.", at=2)),
        open_statement(sign_endorsement(EVE, about, "tiny", at=3)),
        open_statement(sign_revocation(ADA, about, "tiny", reason="Wrong.", at=4)),
        open_statement(sign_endorsement(ADA, about, "tiny", at=5)),
    ]
    heard = [(v.opened.author, v.kind, v.withdrawn) for v in voices(ADA.id, said)]
    assert heard == [
        (ADA.id, "endorsement", False),
        (ADA.id, "revocation", False),
        (EVE.id, "endorsement", False),
        (BEN.id, "warning", False),
        (BEN.id, "endorsement", True),
    ]
    assert Graph([BASE, *said]).voices(about) == voices(ADA.id, reversed(said))
    assert Graph(said).voices(about) == ()


def test_a_cycle_is_shown_as_one() -> None:
    graph = Graph([hostile(0, [1]), hostile(1, [2]), hostile(2, [0, 3]), hostile(3, [])])
    states = {(e.child, e.parent): e.state for e in graph.walk(named(1)).edges}
    names = [named(number).hex() for number in range(4)]
    assert states == {
        (names[0], names[1]): "cycle",
        (names[1], names[2]): "cycle",
        (names[2], names[0]): "cycle",
        (names[2], names[3]): "checked",
    }
    assert edge(Graph([hostile(7, [7])]).walk(named(7))).state == "cycle"


GRAPHS = st.lists(st.lists(st.integers(0, 14), max_size=4), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(GRAPHS, st.integers(0, 14), st.integers(1, 20))
def test_any_graph_is_told_as_it_is(parents: list[list[int]], start: int, most: int) -> None:
    family = [hostile(number, above) for number, above in enumerate(parents)]
    graph = Graph(family)
    told = graph.walk(named(start), most=most)
    names = [node.id for node in told.nodes]
    assert names[0] == named(start).hex()
    assert len(names) == len(set(names)) <= max(most, 1)

    true = {(f.digest.hex(), node_id(p)) for f in family if isinstance(f.predicate, Version) for p in made_from(f)}
    ancestors, descendants = closure(named(start).hex(), true), closure(named(start).hex(), {(b, a) for a, b in true})
    assert set(names) <= ancestors | descendants | {names[0]}
    if not told.cut:
        assert set(names) == ancestors | descendants | {names[0]}
    assert {(e.child, e.parent) for e in told.edges} == {(c, p) for c, p in true if {c, p} <= set(names)}
    inside = {(e.child, e.parent) for e in told.edges}
    for tie in told.edges:
        if tie.child in closure(tie.parent, inside) or tie.child == tie.parent:
            assert tie.state == "cycle"
        else:
            assert tie.state == ("checked" if tie.parent in {f.digest.hex() for f in family} else "missing")


def made_from(opened: Opened) -> tuple[Parent, ...]:
    return parents_of(opened.predicate) if isinstance(opened.predicate, Version) else ()


def closure(start: str, ties: set[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        child = ahead.pop()
        fresh = {parent for below, parent in ties if below == child} - found
        found |= fresh
        ahead.extend(fresh)
    return found


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.data())
def test_the_order_in_which_statements_came_changes_nothing(order: list[int], data: st.DataObject) -> None:
    parents = data.draw(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=6, max_size=6))
    family = [hostile(number, above) for number, above in enumerate(parents)]
    one, other = Graph(family), Graph([family[number] for number in order])
    for number in range(6):
        left, right = one.walk(named(number)), other.walk(named(number))
        assert {node.id: node for node in left.nodes} == {node.id: node for node in right.nodes}
        assert set(left.edges) == set(right.edges)


@pytest.mark.parametrize(
    "family",
    [
        [hostile(number, [number + 1]) for number in range(5000)],
        [hostile(number, [(number + 1) % 5000]) for number in range(5000)],
        [hostile(number, [0]) for number in range(5000)],
        [hostile(number, [(number * 7 + step) % 5000 for step in range(16)]) for number in range(5000)],
    ],
    ids=["chain", "ring", "star", "thicket"],
)
def test_a_hostile_graph_costs_little_and_is_cut_where_it_says(family: list[Opened]) -> None:
    warnings = [
        Opened(named(9000 + n), "revocation", named(0), EVE.id, Revocation(by=EVE.id.hex(), at=n, reason="x"), b"")
        for n in range(2000)
    ] + [
        Opened(named(20_000 + n), "endorsement", named(1), EVE.id, Endorsement(by=EVE.id.hex(), at=n), b"")
        for n in range(2000)
    ]
    begun = time.monotonic()
    told = Graph([*family, *warnings]).walk(named(0))
    assert time.monotonic() - begun < 5
    assert told.cut
    assert len(told.nodes) == MAX_NODES
