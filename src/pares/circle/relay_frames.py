"""What a relay and its clients say: the frames of iroh's relay protocol, versions 1 and 2. Pure.

Every frame is one binary WebSocket message: a type byte, then its fields. Facts: iroh-relay 1.x, `protos/common.rs`,
`protos/handshake.rs`, `protos/relay.rs`. (The type is a QUIC varint there; all types are below 64 and take one byte.)
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pares.wire.framing import ProtocolError
from pares.wire.signing import KEY_BYTES, SIGNATURE_BYTES, BadSignature

VERSION_1 = "iroh-relay-v1"
VERSION_2 = "iroh-relay-v2"
"""Has STATUS where version 1 has HEALTH."""

FRAME_BYTES = 1 + 64 * 1024
"""A frame with its type, at most; clients accept no longer ones."""
NONCE_BYTES = 16
PING_BYTES = 8

_CHALLENGE_CONTEXT = "iroh-relay handshake v1 challenge signature"
_RESTARTING = struct.Struct(">BII")
_SEGMENT = struct.Struct(">H")


class Kind(IntEnum):
    """The first byte of a frame. C: sent by the client, R: by the relay."""

    CHALLENGE = 0
    """R: 16 random bytes."""
    AUTH = 1
    """C: key, length of the signature (64), signature of the challenge."""
    CONFIRM = 2
    """R: nothing."""
    DENY = 3
    """R: length, reason."""
    SEND = 4
    """C: destination, ECN, one datagram."""
    SEND_BATCH = 5
    """C: destination, ECN, segment size (2, big endian), datagrams of that size (the last may be shorter)."""
    RECEIVE = 6
    """R: like SEND, with the source."""
    RECEIVE_BATCH = 7
    """R: like SEND_BATCH, with the source."""
    GONE = 8
    """R: the key of a client that sent something to this one and is no longer connected."""
    PING = 9
    """Both: 8 bytes, to come back as PONG."""
    PONG = 10
    HEALTH = 11
    """R, version 1: what is wrong, for people."""
    RESTARTING = 12
    """R: milliseconds until one should reconnect, and for how long to try (4 + 4, big endian)."""
    STATUS = 13
    """R, version 2: one byte of Status."""


class Status(IntEnum):
    """What a client is told about its connection."""

    HEALTHY = 0
    SAME_KEY_CONNECTED = 1
    """Another connection with the same key came; this one receives nothing more."""


_HEALTH = {
    Status.HEALTHY: "The connection is healthy again.",
    Status.SAME_KEY_CONNECTED: "Another endpoint connected with the same id; nothing more will arrive here.",
}


class Packet(NamedTuple):
    """Datagrams from a client for another one. `payload` is everything behind the destination."""

    kind: Kind
    destination: bytes
    payload: memoryview

    def relayed(self, source: bytes) -> bytes:
        """The frame that its destination gets."""
        kind = Kind.RECEIVE if self.kind is Kind.SEND else Kind.RECEIVE_BATCH
        return b"".join((bytes((kind,)), source, self.payload))


class Ping(NamedTuple):
    """Wants its data back."""

    data: bytes


class Pong(NamedTuple):
    """The data of a ping."""

    data: bytes


def parse(frame: bytes) -> Packet | Ping | Pong:
    """What an authenticated client says. Raises ProtocolError."""
    if not 0 < len(frame) <= FRAME_BYTES:
        raise ProtocolError(f"A relay frame of {len(frame)} bytes came; 1 to {FRAME_BYTES} are allowed.")
    match frame[0]:
        case Kind.SEND | Kind.SEND_BATCH:
            return _packet(Kind(frame[0]), frame)
        case Kind.PING | Kind.PONG if len(frame) == 1 + PING_BYTES:
            return (Ping if frame[0] == Kind.PING else Pong)(frame[1:])
        case kind:
            raise ProtocolError(f"A relay frame of type {kind} with {len(frame)} bytes came from a client.")


def _packet(kind: Kind, frame: bytes) -> Packet:
    payload = memoryview(frame)[1 + KEY_BYTES :]
    header = 1 if kind is Kind.SEND else 1 + _SEGMENT.size
    if len(payload) <= header:
        raise ProtocolError(f"A relay frame of type {kind} has {len(frame)} bytes and no datagram.")
    if payload[0] > 3:
        raise ProtocolError(f"A relay frame has {payload[0]} as its ECN bits.")
    if kind is Kind.SEND_BATCH and _SEGMENT.unpack_from(payload, 1) == (0,):
        raise ProtocolError("A batch of datagrams of no size came.")
    return Packet(kind, frame[1 : 1 + KEY_BYTES], payload)


def challenge(nonce: bytes) -> bytes:
    """What the relay asks first: sign this."""
    return bytes((Kind.CHALLENGE,)) + nonce


def proven_key(frame: bytes, nonce: bytes) -> bytes:
    """The key whose owner signed the challenge. Raises ProtocolError, and BadSignature."""
    if (
        len(frame) != 2 + KEY_BYTES + SIGNATURE_BYTES
        or frame[0] != Kind.AUTH
        or frame[1 + KEY_BYTES] != SIGNATURE_BYTES
    ):
        raise ProtocolError("The answer to the relay's challenge is not an authentication.")
    key, signature = frame[1 : 1 + KEY_BYTES], frame[-SIGNATURE_BYTES:]
    signed = blake3(nonce, derive_key_context=_CHALLENGE_CONTEXT).digest()
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except InvalidSignature:
        raise BadSignature(f"The relay's challenge is not signed by {key.hex()[:8]}.") from None
    return key


def confirm() -> bytes:
    """You are in."""
    return bytes((Kind.CONFIRM,))


def deny(reason: str) -> bytes:
    """You are not. `reason` is shorter than 128 bytes."""
    text = reason.encode()
    return bytes((Kind.DENY, len(text))) + text


def gone(key: bytes) -> bytes:
    """This client, who sent you something, is no longer connected."""
    return bytes((Kind.GONE,)) + key


def ping(data: bytes) -> bytes:
    """Are you there?"""
    return bytes((Kind.PING,)) + data


def pong(data: bytes) -> bytes:
    """Yes."""
    return bytes((Kind.PONG,)) + data


def status(value: Status, version: str) -> bytes:
    """How the connection is, in the words of the negotiated version."""
    if version == VERSION_1:
        return bytes((Kind.HEALTH,)) + _HEALTH[value].encode()
    return bytes((Kind.STATUS, value))


def restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """The relay goes away, perhaps to come back."""
    return _RESTARTING.pack(Kind.RESTARTING, reconnect_in_ms, try_for_ms)
