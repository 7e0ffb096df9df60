"""Frames: `size(4, big endian) body`, and every limit on what a peer may send. Pure."""

from __future__ import annotations

import struct

from pares.errors import RemoteError

PREFIX = struct.Struct(">I")
MESSAGE_BYTES = 256 * 1024
"""The body of a message, at most. Bulk data follows its message raw, in a size that the message has stated."""


class ProtocolError(RemoteError):
    """A peer sent what no correct peer sends."""

    code = "protocol_error"


def frame(body: bytes) -> bytes:
    """One frame around a message's body."""
    if not 0 < len(body) <= MESSAGE_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes")
    return PREFIX.pack(len(body)) + body


def size_of(prefix: bytes, *, most: int = MESSAGE_BYTES) -> int:
    """How many bytes of body follow these four. Raises ProtocolError before anything is read or reserved for them."""
    (size,) = PREFIX.unpack(prefix)
    if not 0 < size <= most:
        raise ProtocolError(f"A frame of {size} bytes came; 1 to {most} are allowed.")
    return int(size)
