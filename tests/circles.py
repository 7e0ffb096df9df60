"""Circles for tests: people with fixed keys, and what they sign."""

from __future__ import annotations

import hashlib

from pares.circle.membership import certify, found
from pares.circle.statements import signed
from pares.wire.messages import Contact, Offer, Record, Role
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


def offer(of: Identity, circle: bytes, sequence: int = NOW * 1000, expires: int = NOW + 3600) -> Record:
    statement = Offer(circle=circle, sequence=sequence, expires=expires, memory_bytes=8 << 30, version="0.1.0")
    return signed(of, "offer/1", statement)
