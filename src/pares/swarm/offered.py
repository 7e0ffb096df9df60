"""What circles offer, as an index: versions with who holds them, what is said of them, and how they are found. Pure.

Built anew from the statements that are here and from the offers of the moment; nothing in it is decided by name alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pares.errors import Conflict, NotFound
from pares.swarm.members import CircleFacts
from pares.swarm.names import nearest
from pares.swarm.predicate import Revocation, Version
from pares.swarm.version import Opened
from pares.wire.messages import Held
from pares.wire.signing import PeerId

LEAST_PREFIX = 6
"""Digits of an id by which a version may be meant."""

_ID = re.compile(rf"[0-9a-f]{{{LEAST_PREFIX},64}}")


@dataclass(frozen=True, slots=True)
class Voice:
    """What somebody says of a version: stands for it, warns of it, or, as its publisher, takes it back."""

    opened: Opened
    counts: bool
    """It was not taken back, and comes from its publisher or a member of one of this node's circles."""


@dataclass(frozen=True)
class Row:
    """A version whose statement is here."""

    opened: Opened
    version: Version
    circles: tuple[bytes, ...]
    """Where members offer it, or this node gives it away."""
    holders: Mapping[PeerId, tuple[Held, ...]]
    """Other members, with what each holds."""
    online: frozenset[PeerId]
    """Of the holders."""
    mine: Held | None
    """What is here."""
    shared: tuple[bytes, ...]
    """Where this node gives it away."""
    voices: tuple[Voice, ...]
    conflict: bool
    """Somebody else publishes a version of the same name."""
    trouble: str
    """Why to be careful, in a sentence; empty if nothing is known."""

    @property
    def id(self) -> bytes:
        return self.opened.digest

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.version.files)

    @property
    def whole(self) -> int:
        """How many of the holders hold all of it."""
        return sum(any(held.layers is None for held in parts) for parts in self.holders.values())

    @property
    def endorsements(self) -> int:
        """Members who stand for it, its publisher not counted."""
        return sum(voice.counts and voice.opened.kind == "endorsement" for voice in self.voices)

    @cached_property
    def complete(self) -> bool:
        """All of it can be had now: this node and the holders that are online have every layer and the head."""
        parts = [held for peer in self.online for held in self.holders[peer]]
        return covers([*parts, self.mine] if self.mine else parts, self.version.architecture.layers)


class Offered:
    """`rows` by id. All is of the moment at which it was made."""

    def __init__(
        self,
        statements: Iterable[Opened],
        circles: Sequence[CircleFacts],
        *,
        me: PeerId,
        online: Collection[PeerId],
        here: Mapping[bytes, Held] | None = None,
        contradictions: Mapping[bytes, str] | None = None,
        name_of: Callable[[PeerId], str] = lambda peer: peer.hex()[:8],
    ) -> None:
        """`here`: what this node holds, shared or not. `contradictions`: where a file was found not to be as its
        version's statement says. `name_of`: what a publisher is called."""
        known = {opened.digest: opened for opened in statements}
        here, contradictions = here or {}, contradictions or {}
        self._me = me
        self._name_of = name_of
        self._members = frozenset(peer for circle in circles for peer in circle.members)
        holders, where = _holders(circles)
        about: dict[bytes, list[Opened]] = {}
        for opened in known.values():
            if opened.kind != "version":
                about.setdefault(opened.about, []).append(opened)
        publishers: dict[str, set[PeerId]] = {}
        for opened in known.values():
            if isinstance(opened.predicate, Version):
                publishers.setdefault(folded(opened.predicate.name), set()).add(opened.author)
        self.rows: dict[bytes, Row] = {}
        for digest, opened in known.items():
            if not isinstance(opened.predicate, Version):
                continue
            theirs = {peer: parts for peer, parts in holders.get(digest, {}).items() if peer != me}
            voices = self._voices(opened, about)
            self.rows[digest] = Row(
                opened=opened,
                version=opened.predicate,
                circles=tuple(sorted({circle for found in where.get(digest, {}).values() for circle in found})),
                holders=theirs,
                online=frozenset(theirs) & frozenset(online),
                mine=here.get(digest),
                shared=tuple(sorted(where.get(digest, {}).get(me, ()))),
                voices=voices,
                conflict=len(publishers[folded(opened.predicate.name)]) > 1,
                trouble=self._trouble(opened, voices, contradictions.get(digest, "")),
            )
        self.unknown: frozenset[bytes] = frozenset(holders) - self.rows.keys()
        """Versions that are offered and whose statements are not here yet."""

    # Finding

    def search(
        self,
        text: str = "",
        *,
        circle: bytes | None = None,
        licence: str = "",
        architecture: str = "",
        publisher: str = "",
        most_bytes: int | None = None,
    ) -> tuple[Row, ...]:
        """Those that fit all of it, by name, the newest first of each: `text` has words, each of which is in the name,
        label, description or publisher's name; a licence is meant by a part of its expression, an architecture by its
        name, a publisher by a part of the name or the beginning of the key."""
        words = folded(text).split()
        found = [
            row
            for row in self.rows.values()
            if (circle is None or circle in row.circles)
            and folded(licence) in folded(row.version.licence.spdx)
            and folded(architecture) in ("", folded(row.version.architecture.name))
            and self._is_by(row, publisher)
            and (most_bytes is None or row.size <= most_bytes)
            and all(word in self._text(row) for word in words)
        ]
        return tuple(sorted(found, key=lambda row: (folded(row.version.name), -row.version.created, row.id)))

    def find(self, text: str) -> Row:
        """The version that is meant: by its id, by six digits or more of its beginning, or by its name.

        Raises NotFound with the names that look like it, Conflict where several are meant.
        """
        wanted = text.strip()
        named = [row for row in self.rows.values() if folded(row.version.name) == folded(wanted)]
        if _ID.fullmatch(wanted.lower()):
            begun = [row for row in self.rows.values() if row.id.hex().startswith(wanted.lower())]
            named = begun if len(wanted) == 64 else [*named, *(row for row in begun if row not in named)]
        if len(named) > 1:
            raise self._ambiguous(wanted, named)
        if named:
            return named[0]
        near = nearest(wanted, {row.version.name for row in self.rows.values()})
        raise NotFound(
            f"No version {wanted[:64]!r} is known here." + (f" Close to it: {', '.join(near)}." if near else ""),
            hint="`pares search` shows what your circles offer.",
            nearest=near,
        )

    def _ambiguous(self, wanted: str, rows: Sequence[Row]) -> Conflict:
        rows = sorted(rows, key=lambda row: (row.opened.author, -row.version.created, row.id))
        each = [
            f"{row.id.hex()[:12]} ({row.version.name}{f', {row.version.label}' if row.version.label else ''}"
            f" by {self._name_of(row.opened.author)}, key {row.opened.author.hex()[:8]})"
            for row in rows
        ]
        return Conflict(
            f"{len(rows)} versions are meant by {wanted[:64]!r}: {'; '.join(each[:8])}.",
            hint="Say which by its id.",
            versions=[row.id.hex() for row in rows],
            publishers=list(dict.fromkeys(row.opened.author.hex() for row in rows)),
        )

    def _text(self, row: Row) -> str:
        said = (row.version.name, row.version.label, row.version.description, self._name_of(row.opened.author))
        return folded("\n".join(said))

    def _is_by(self, row: Row, publisher: str) -> bool:
        author = row.opened.author
        return author.hex().startswith(publisher.lower()) or folded(publisher) in folded(self._name_of(author))

    # What is said

    def _voices(self, of: Opened, about: Mapping[bytes, Sequence[Opened]]) -> tuple[Voice, ...]:
        """The oldest first. Of what one signer says the newest counts, unless they took it back; nobody can stand for
        what they published themselves."""
        said = sorted(about.get(of.digest, ()), key=lambda o: (_at(o), o.kind == "revocation", o.digest))
        heard = self._members | {of.author, self._me}
        latest = {
            opened.author: opened
            for opened in said
            if opened.author in heard
            and not _taken_back(opened, about)
            and (opened.author != of.author or opened.kind == "revocation")
        }
        return tuple(Voice(opened, counts=latest.get(opened.author) is opened) for opened in said)

    def _trouble(self, of: Opened, voices: Sequence[Voice], contradiction: str) -> str:
        against = [voice.opened for voice in voices if voice.counts and voice.opened.kind == "revocation"]
        own = [opened for opened in against if opened.author == of.author]
        if own:
            return f"Its publisher took it back: {_reason(own[-1])}"
        if contradiction:
            return f"It is not what its statement says: {contradiction}"
        if against:
            names = ", ".join(self._name_of(opened.author) for opened in against[:3])
            more = f" and {len(against) - 3} more" if len(against) > 3 else ""
            return f"{names}{more} warned of it: {_reason(against[-1])}"
        return ""


def folded(text: str) -> str:
    """As names are compared: without case, and look-alike forms of one letter (full width, ligatures) as one."""
    return unicodedata.normalize("NFKC", text).casefold()


def covers(parts: Iterable[Held], layers: int) -> bool:
    """Whether these hold every one of so many layers and the head together. What has no layers is held whole or not."""
    parts = list(parts)
    if any(held.layers is None for held in parts):
        return True
    reached = 0
    for first, last in sorted(held.layers for held in parts if held.layers is not None):
        if first > reached:
            break
        reached = max(reached, last)
    return 0 < layers <= reached and any(held.head for held in parts)


def _holders(
    circles: Iterable[CircleFacts],
) -> tuple[dict[bytes, dict[PeerId, tuple[Held, ...]]], dict[bytes, dict[PeerId, set[bytes]]]]:
    """By version: who holds what of it, and in which circles they say so."""
    parts: dict[bytes, dict[PeerId, tuple[Held, ...]]] = {}
    where: dict[bytes, dict[PeerId, set[bytes]]] = {}
    for circle in circles:
        for peer, offer in circle.offers.items():
            for held in offer.holds:
                before = parts.setdefault(held.version, {}).get(peer, ())
                parts[held.version][peer] = before if held in before else (*before, held)
                where.setdefault(held.version, {}).setdefault(peer, set()).add(circle.id)
    return parts, where


def _at(opened: Opened) -> int:
    return 0 if isinstance(opened.predicate, Version) else opened.predicate.at


def _taken_back(opened: Opened, about: Mapping[bytes, Sequence[Opened]]) -> bool:
    return any(o.author == opened.author and o.kind == "revocation" for o in about.get(opened.digest, ()))


def _reason(opened: Opened) -> str:
    """In one line, without signs that a terminal would obey."""
    reason = opened.predicate.reason if isinstance(opened.predicate, Revocation) else ""
    return "".join(sign for sign in " ".join(reason.split()) if sign.isprintable())
