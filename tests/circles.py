"""Circles for tests: people with fixed keys, and what they sign."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pares.circle.membership import certify, found
from pares.circle.statements import signed
from pares.wire.messages import (
    HELD,
    TOLD,
    Bye,
    CircleReply,
    CircleRequest,
    Contact,
    Delta,
    Digests,
    Done,
    Fetch,
    Held,
    Hello,
    Introduce,
    Introduced,
    Join,
    Joined,
    Observe,
    Observed,
    Offer,
    PieceHashes,
    Pieces,
    Ping,
    Record,
    Refused,
    Revocation,
    Role,
    Statements,
    Summaries,
    SwarmReply,
    SwarmRequest,
    Title,
)
from pares.wire.signing import Identity

NOW = 1_800_000_000


def person(number: int) -> Identity:
    """The same number, the same key."""
    return Identity(hashlib.sha256(b"person %d" % number).digest())


def nonce(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()[:16]


def charter(founder: Identity, *, commons: bool = False) -> Record:
    return found(founder, "Kitchen table", NOW, nonce("charter", founder.id), open=commons)


def invitation(signer: Identity, member: Identity, circle: bytes, role: Role = "member", number: int = 0) -> Record:
    return certify(signer, circle, member.id, role, NOW, nonce(signer.id, member.id, role, number))


def contact(of: Identity, sequence: int = NOW * 1000, expires: int = NOW + 86_400, port: int = 4433) -> Record:
    addresses = [f"192.0.2.1:{port}", f"[2001:db8::1]:{port}"]
    statement = Contact(sequence=sequence, expires=expires, name="Ada", addresses=addresses)
    return signed(of, "contact/1", statement)


def offer(
    of: Identity,
    circle: bytes,
    sequence: int = NOW * 1000,
    expires: int = NOW + 3600,
    *,
    holds: Sequence[Held] = (),
    tells: Sequence[bytes] = (),
) -> Record:
    statement = Offer(
        circle=circle,
        sequence=sequence,
        expires=expires,
        memory_bytes=8 << 30,
        version="0.1.0",
        bulk_port=6881 if holds else 0,
        holds=list(holds),
        tells=list(tells),
    )
    return signed(of, "offer/1", statement)


def largest_offer(of: Identity, circle: bytes, sequence: int = NOW * 1000, expires: int = NOW + 3600) -> Record:
    """With as much in it as there may be."""
    version = hashlib.sha256(of.id).digest()
    holds = [Held(version=version, layers=(65_535, 65_536), head=True)] * HELD
    return offer(of, circle, sequence, expires, holds=holds, tells=[version] * TOLD)


VERSION = hashlib.sha256(b"a statement").digest()
HOLDS = [Held(version=VERSION), Held(version=hashlib.sha256(b"another").digest(), layers=(10, 20), head=True)]


def _statements() -> list[Record]:
    """One of each kind, in the order of their labels."""
    ada, ben = person(0), person(1)
    first = charter(ada)
    circle = first.signed.digest
    certificate = invitation(ada, ben, circle)
    revocation = Revocation(circle=circle, certificates=[certificate.name], keeps=[bytes(32)], issued=NOW)
    return [
        first,
        certificate,
        signed(ada, "revocation/1", revocation),
        signed(ada, "title/1", Title(circle=circle, name="Küchentisch", sequence=7)),
        contact(ben),
        offer(ben, circle, holds=HOLDS, tells=[VERSION]),
    ]


CIRCLE_VECTORS = _statements()


Message = CircleRequest | CircleReply | SwarmRequest | SwarmReply


def _messages() -> list[Message]:
    """One of each kind."""
    circle, ben = CIRCLE_VECTORS[0].signed.digest, person(1)
    names = b"".join(record.name[:16] for record in CIRCLE_VECTORS)
    joiner = contact(ben).signed
    proof = hashlib.sha256(b"proof").digest()
    return [
        Hello(name="Ada", version="0.1.0", now=NOW, observed="192.0.2.1:4433"),
        Ping(number=1 << 40),
        Observe(),
        Observed(address="[2001:db8::1]:4433"),
        Join(circle=circle, invite=nonce(1), inviter=person(0).id, joiner=ben.id, contact=joiner, proof=proof),
        Joined(records=CIRCLE_VECTORS[:2]),
        Digests(circle=circle, bits=1, hashes=bytes(range(16))),
        Summaries(buckets=[0, 1], names=names),
        Delta(circle=circle, records=CIRCLE_VECTORS, wants=names),
        Introduce(circle=circle, peer=ben.id),
        Introduced(circle=circle, peer=ben.id, addresses=["192.0.2.1:4433"], relay="https://relay.example.org"),
        Bye(),
        Done(),
        Refused(code="busy", reason="Later."),
        Fetch(digests=[VERSION]),
        Statements(envelopes=[b"{}"]),
        Pieces(root=VERSION, first=1),
        PieceHashes(root=VERSION, first=1, hashes=bytes(range(64))),
    ]


MESSAGE_VECTORS = _messages()
