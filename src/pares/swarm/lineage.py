"""Where a version comes from, what was made from it, and what others say of it: the graph of statements. Pure.

A parent is named by the digest of its statement, so honest lineage has no cycles, and a parent that is here is the one
that was meant. What can still be false is what a child says of it; what can be missing is the parent itself. Statements
come from strangers: nothing here recurses, and a walk ends at a limit, which is said.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from pares.swarm.licences import warning
from pares.swarm.predicate import Kind, Parent, Revocation, Version
from pares.swarm.version import Opened, parents_of
from pares.wire.signing import PeerId

MAX_NODES = 512
"""Versions in one answer; nobody looks at more."""
NAMED = "name:"
"""Before the words for a parent that is known in words only."""
State = Literal["checked", "stated", "missing", "wrong", "cycle", "revoked"]


class Node(NamedTuple):
    """A version; where `opened` is None, one that only others speak of."""

    id: str
    """The digest of its statement, hex; or `name:` and words."""
    name: str
    opened: Opened | None
    version: Version | None
    troubles: tuple[str, ...]


class Edge(NamedTuple):
    """The child's publisher says that it was made from the parent. `state` is what is known of that here.

    checked: the parent's statement is here and agrees. stated: in words only. missing: the parent's statement is not
    here. wrong: the two contradict each other. cycle: the child is its own ancestor. revoked: the parent was taken
    back, or its publisher is no longer trusted.
    """

    child: str
    parent: str
    relation: Kind
    state: State
    message: str


class Lineage(NamedTuple):
    """From one version to its roots, and to what is known to be made from it."""

    of: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool
    """There is more of it than this."""


class Voice(NamedTuple):
    """What somebody says of a version: an endorsement, a warning, or its publisher's own revocation."""

    opened: Opened
    kind: Literal["endorsement", "warning", "revocation"]
    withdrawn: bool
    """The same author said something else since."""


def voices(publisher: PeerId, said: Iterable[Opened]) -> tuple[Voice, ...]:
    """What counts of the statements about one version, the newest first. Of each author the last word counts, but for
    a publisher's revocation, which is final."""
    heard: list[Voice] = []
    spoke: set[PeerId] = set()
    for opened in sorted(said, key=_newest_first):
        if isinstance(opened.predicate, Version):
            continue
        if isinstance(opened.predicate, Revocation) and opened.author == publisher:
            heard.append(Voice(opened, "revocation", withdrawn=False))
        else:
            kind: Literal["endorsement", "warning"] = "endorsement" if opened.kind == "endorsement" else "warning"
            heard.append(Voice(opened, kind, withdrawn=opened.author in spoke))
        spoke.add(opened.author)
    return tuple(heard)


class _Known(NamedTuple):
    opened: Opened
    version: Version


class Graph:
    """The versions of which there are statements here. `distrusted` are publishers who lost their key, or were put out
    of the circle."""

    def __init__(self, statements: Iterable[Opened], *, distrusted: Collection[PeerId] = ()) -> None:
        self._distrusted = frozenset(distrusted)
        self._versions: dict[str, _Known] = {}
        self._said: defaultdict[str, list[Opened]] = defaultdict(list)
        self._taken_back: dict[tuple[str, PeerId], str] = {}
        self._kinds: dict[str, str] = {}
        self._parents: dict[str, dict[str, Parent]] = {}
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        for opened in statements:
            name = opened.digest.hex()
            self._kinds[name] = opened.kind
            if not isinstance(opened.predicate, Version):
                self._said[opened.about.hex()].append(opened)
                if isinstance(opened.predicate, Revocation):
                    self._taken_back[opened.about.hex(), opened.author] = opened.predicate.reason
            elif name not in self._versions:
                self._versions[name] = _Known(opened, opened.predicate)
                self._parents[name] = {node_id(parent): parent for parent in parents_of(opened.predicate)}
                for parent in self._parents[name]:
                    self._children[parent].append(name)

    def voices(self, version: bytes) -> tuple[Voice, ...]:
        """What is said of a version that is here; empty for others."""
        known = self._versions.get(version.hex())
        return voices(known.opened.author, self._said.get(version.hex(), ())) if known else ()

    def walk(self, of: bytes | str, *, most: int = MAX_NODES) -> Lineage:
        """The lineage of a version, or of a node's id. The nearest come first, and ancestors before descendants."""
        start = of.hex() if isinstance(of, bytes) else of
        above, more_above = _reach(start, lambda name: self._parents.get(name, ()), most)
        below, more_below = _reach(start, lambda name: self._children.get(name, ()), most - len(above) + 1)
        names = dict.fromkeys((*above, *below))
        pairs = [(child, parent) for child in names for parent in self._parents.get(child, ()) if parent in names]
        component = _components(names, pairs)
        edges = tuple(self._edge(child, parent, cycle=component[child] == component[parent]) for child, parent in pairs)
        words = {parent: word for word, parent in sorted((self._parents[c][p].name, p) for c, p in pairs)}
        nodes = tuple(self._node(name, words.get(name, name.removeprefix(NAMED))) for name in names)
        return Lineage(start, nodes, edges, more_above or more_below)

    def _node(self, name: str, words: str) -> Node:
        known = self._versions.get(name)
        if known is None:
            return Node(name, words, None, None, ())
        opened, version = known
        troubles = [self._revoked(opened)]
        if warnings := sum(voice.kind == "warning" and not voice.withdrawn for voice in self.voices(opened.digest)):
            troubles.append(f"Warnings of it: {warnings}.")
        above = (self._versions[parent].version for parent in self._parents[name] if parent in self._versions)
        troubles += [warning(version.licence.spdx, parent.licence.spdx) for parent in above]
        return Node(name, version.name, opened, version, tuple(filter(None, troubles)))

    def _revoked(self, opened: Opened) -> str:
        if reason := self._taken_back.get((opened.digest.hex(), opened.author)):
            return f"Its publisher took it back: {reason}"
        return "Its publisher's key is no longer trusted." if opened.author in self._distrusted else ""

    def _edge(self, child: str, parent: str, *, cycle: bool) -> Edge:
        below = self._versions[child].version
        state, message = self._judged(below, parent, self._parents[child][parent])
        if cycle:
            state, message = "cycle", "By these statements it is its own ancestor, which cannot be."
        return Edge(child, parent, below.kind, state, message)

    def _judged(self, child: Version, parent: str, stated: Parent) -> tuple[State, str]:
        if stated.version is None:
            return "stated", "Its publisher says so, in words; nobody signed what is meant."
        known = self._versions.get(parent)
        if known is None and (kind := self._kinds.get(parent)):
            return "wrong", f"What it names as its parent is no version, but of the kind {kind}."
        if known is None:
            return "missing", "The parent's statement is not here; nobody who is reachable has told it."
        if problem := _disagreement(child, known.version, stated):
            return "wrong", problem
        if revoked := self._revoked(known.opened):
            return "revoked", revoked
        return "checked", "The parent's statement is here, signed by its publisher, and agrees."


def node_id(parent: Parent) -> str:
    """Under what name a parent stands in the graph."""
    return parent.version or NAMED + parent.name


def _disagreement(child: Version, parent: Version, stated: Parent) -> str:
    """What a child says of its parent and is not so; of a merge only the name, because it may recombine layers."""
    if stated.name and stated.name != parent.name:
        return f"It calls its parent {stated.name}; that one's publisher calls it {parent.name}."
    if child.kind == "merge":
        return ""
    ours, theirs = child.architecture, parent.architecture
    if ours.name != theirs.name:
        return f"Its architecture is {ours.name}, its parent's {theirs.name}."
    if child.kind == "adapter":
        if parent.kind != "adapter" and ours.layers > theirs.layers:
            return f"It changes layer {ours.layers - 1}; its parent has {theirs.layers} layers."
        return ""
    if ours.layers != theirs.layers:
        return f"It has {ours.layers} layers, its parent {theirs.layers}."
    if ours.embedding_length != theirs.embedding_length:
        return f"Its embeddings have {ours.embedding_length} numbers, its parent's {theirs.embedding_length}."
    return ""


def _reach(start: str, onward: Callable[[str], Iterable[str]], most: int) -> tuple[list[str], bool]:
    """What can be reached, the nearest first; and whether there is more than that."""
    found = {start: None}
    queue = deque(found)
    while queue:
        for name in onward(queue.popleft()):
            if name not in found:
                if len(found) >= most:
                    return list(found), True
                found[name] = None
                queue.append(name)
    return list(found), False


def _components(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> Mapping[str, int]:
    """The strongly connected component of each node (Kosaraju's algorithm, with a stack of its own): an edge is part
    of a cycle exactly where it stays in its component."""
    up, down = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for child, parent in pairs:
        up[child].append(parent)
        down[parent].append(child)
    finished: list[str] = []
    seen: set[str] = set()
    for root in names:
        stack = [(root, False)]
        while stack:
            name, left = stack.pop()
            if left:
                finished.append(name)
            elif name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack.extend((parent, False) for parent in up[name])
    component: dict[str, int] = {}
    for number, root in enumerate(reversed(finished)):
        members = [root]
        while members:
            if (name := members.pop()) not in component:
                component[name] = number
                members.extend(down[name])
    return component


def _newest_first(opened: Opened) -> tuple[int, bytes]:
    predicate = opened.predicate
    return (-predicate.created if isinstance(predicate, Version) else -predicate.at, opened.digest)
