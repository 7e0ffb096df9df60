"""Identities and signatures: Ed25519 (RFC 8032) over the bytes that are sent, with a domain label. Pure.

A signature made for one purpose is never valid for another: what is signed is `pares/<label>`, a zero byte, the body.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, NewType, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pares.wire.framing import ProtocolError

PeerId = NewType("PeerId", bytes)
"""A peer's Ed25519 public key: 32 bytes. Also its iroh endpoint id and its DHT key."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Message = TypeVar("Message")

_LOW_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Public keys that nobody owns, but for the sign bit: points of order 8 and less, under which anybody can sign."""


class BadSignature(ProtocolError):
    """A statement that its alleged author did not sign."""

    code = "bad_signature"


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """A statement as it was sent: the encoded body, who made it, and their signature over label and body."""

    body: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64 * 1024)]
    by: Key
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

    @property
    def digest(self) -> bytes:
        """SHA-256 of body and author: the statement's name. Not of the signature, of which there may be several."""
        return hashlib.sha256(self.by + self.body).digest()


class Identity:
    """The private key of a node."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise ValueError(f"an Ed25519 seed has {KEY_BYTES} bytes, not {len(seed)}")
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.id = PeerId(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"Identity({self.id.hex()[:8]})"

    def sign(self, label: str, statement: msgspec.Struct) -> Signed:
        """A statement of this node. `label` is its kind, like `contact/1`."""
        body = msgspec.msgpack.encode(statement)
        return Signed(body, self.id, self._key.sign(_to_sign(label, body)))


def can_be_owned(key: bytes) -> bool:
    """Whether only somebody with its private half can sign under this key: not so under one of low order."""
    return key[:-1] + bytes([key[-1] & 0x7F]) not in _LOW_ORDER


def opened(label: str, signed: Signed, kind: type[Message]) -> Message:
    """The statement, checked: signed by `signed.by` for this purpose, and well formed. Raises ProtocolError."""
    try:
        if not can_be_owned(signed.by):
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(signed.by).verify(signed.signature, _to_sign(label, signed.body))
    except InvalidSignature:
        raise BadSignature(f"A {label} statement is not signed by {signed.by.hex()[:8]}.") from None
    return decoded(signed.body, kind)


def decoded(body: bytes, kind: type[Message]) -> Message:
    """A MessagePack body as `kind`. Raises ProtocolError for anything else."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"A message could not be read as {kind}: {error}") from error


def _to_sign(label: str, body: bytes) -> bytes:
    return b"pares/" + label.encode() + b"\0" + body
