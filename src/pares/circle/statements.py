"""Statements of peers, with their signatures checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from pares.wire.framing import ProtocolError
from pares.wire.messages import (
    BODY_BYTES,
    STATEMENTS,
    Certificate,
    Charter,
    Contact,
    Label,
    Offer,
    Record,
    Revocation,
    Title,
)
from pares.wire.signing import Identity, PeerId, opened

Statement = Charter | Certificate | Revocation | Title | Contact | Offer
Kind = TypeVar("Kind", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record whose signature and form have been checked."""

    record: Record
    statement: Statement
    name: bytes

    @property
    def by(self) -> PeerId:
        return PeerId(self.record.signed.by)

    @property
    def size(self) -> int:
        """Bytes in a message, rounded up."""
        return len(self.record.signed.body) + 160


def checked(record: Record) -> Entry:
    """Size, signature and form of a record. Raises ProtocolError."""
    size, most = len(record.signed.body), BODY_BYTES[record.label]
    if size > most:
        raise ProtocolError(f"A {record.label} statement of {size} bytes came; {most} are allowed.")
    return Entry(record, opened(record.label, record.signed, STATEMENTS[record.label]), record.name)


def signed(identity: Identity, label: Label, statement: Statement) -> Record:
    """A record of this node."""
    return Record(label=label, signed=identity.sign(label, statement))


def as_kind(entry: Entry, kind: type[Kind]) -> Kind:
    """The statement of an entry that is known to be of this kind."""
    assert isinstance(entry.statement, kind)
    return entry.statement
