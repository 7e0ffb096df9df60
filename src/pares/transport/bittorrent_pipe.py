"""What a node and its BitTorrent process say to each other, over a socket pair in the frames of `wire.framing`.

Both ends are ours and start from the same files, so the structs are MessagePack arrays without names. A request has an
id, and its answers carry it.
"""

from __future__ import annotations

import msgspec

from pares.wire.framing import frame


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Open(_Message, frozen=True):
    """The first message: what session to open. See `bittorrent_process.Settings`."""

    interfaces: str
    bootstrap: str
    state: str
    dht: bool
    local_discovery: bool
    port_mapping: bool
    private: bool


class Put(_Message, frozen=True):
    """Store a mutable item (BEP 44) under the key that this Ed25519 seed makes. Answered with Stored."""

    id: int
    seed: bytes
    salt: bytes
    value: bytes


class Get(_Message, frozen=True):
    """Look a mutable item up. Answered with one Found or several, until one is the last."""

    id: int
    key: bytes
    salt: bytes


class AddNodes(_Message, frozen=True):
    """DHT nodes to begin from."""

    nodes: list[tuple[str, int]]


class Save(_Message, frozen=True):
    """Write the state file now. Answered with Saved."""

    id: int


ToSession = Open | Put | Get | AddNodes | Save


class Opened(_Message, frozen=True):
    port: int


class Stored(_Message, frozen=True):
    id: int
    copies: int
    """Nodes that took the item."""


class Found(_Message, frozen=True):
    id: int
    value: bytes
    """Empty: nothing was found."""
    sequence: int
    last: bool


class Saved(_Message, frozen=True):
    id: int


class Status(_Message, frozen=True):
    """Whenever it changes, and every few seconds as a sign of life."""

    nodes: int = 0
    """DHT nodes in the routing table."""
    received: int = 0
    """DHT messages that have come in since the start. None although there are nodes: something blocks UDP."""


FromSession = Opened | Stored | Found | Saved | Status

_encoder = msgspec.msgpack.Encoder()
to_session = msgspec.msgpack.Decoder(ToSession)
from_session = msgspec.msgpack.Decoder(FromSession)


def framed(message: ToSession | FromSession) -> bytes:
    """A message as it goes over the socket."""
    return frame(_encoder.encode(message))
