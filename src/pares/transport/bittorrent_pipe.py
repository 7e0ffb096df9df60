"""What a node and its BitTorrent process say to each other, over a socket pair in frames of `wire.framing`'s form.

Both ends are ours and start from the same files, so the structs are MessagePack arrays without names. A request has an
id, and its answers carry it; what concerns a torrent carries the root of its file instead.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pares.wire.framing import PREFIX

FRAME_BYTES = 8 << 20
"""Room for the piece hashes of the largest file."""

State = Literal["checking", "fetching", "seeding", "paused", "failed"]


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
    resume: str = ""
    """Folder for what is kept of torrents; empty: no torrents."""


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


class AddTorrent(_Message, frozen=True):
    """Seed or fetch a file, or do it differently from now on. See `torrents.Torrent`; pieces are bitfields."""

    root: bytes
    size: int
    pieces: int
    path: str
    metainfo: bytes
    complete: bool
    have: bytes
    wanted: bytes
    public: bool
    web_seeds: list[str]
    priority: int
    download_limit: int
    upload_limit: int
    paused: bool
    peers: list[tuple[str, int]]
    turn: int = 0
    """Comes back in what is told from then on: what is told with an earlier one is out of date."""


class RemoveTorrent(_Message, frozen=True):
    root: bytes


class Pause(_Message, frozen=True):
    """Pause, or go on; a torrent that failed is tried again."""

    root: bytes
    paused: bool
    turn: int


class Connect(_Message, frozen=True):
    """Somebody who may have the file."""

    root: bytes
    peer: tuple[str, int]


class Limit(_Message, frozen=True):
    """Bytes per second of the whole session; 0: no limit."""

    upload: int
    download: int


class Admit(_Message, frozen=True):
    """IP addresses that may exchange torrents with this session, besides this machine; None: everybody."""

    hosts: list[str] | None


ToSession = Open | Put | Get | AddNodes | Save | AddTorrent | RemoveTorrent | Pause | Connect | Limit | Admit


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


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Somebody a torrent is connected with."""

    address: str
    web: bool
    have: float
    down_rate: int
    up_rate: int
    downloaded: int
    uploaded: int


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """Of a torrent, as libtorrent tells: bytes, bytes per second, and a bitfield of the pieces that are verified."""

    checking: bool = True
    finished: bool = False
    have: bytes = b""
    done: int = 0
    wanted: int = 0
    down_rate: int = 0
    up_rate: int = 0
    downloaded: int = 0
    uploaded: int = 0
    wasted: int = 0
    sources: list[Source] = []


class Told(_Message, frozen=True):
    """How a torrent stands: when that changes, and about once a second while something moves."""

    root: bytes
    turn: int
    state: State
    settled: bool
    facts: Facts
    code: str = ""
    error: str = ""


class Banned(_Message, frozen=True):
    """A source was banned from a torrent, because of a piece with a wrong hash."""

    root: bytes
    address: str
    piece: int


FromSession = Opened | Stored | Found | Saved | Status | Told | Banned

_encoder = msgspec.msgpack.Encoder()
to_session = msgspec.msgpack.Decoder(ToSession)
from_session = msgspec.msgpack.Decoder(FromSession)


def framed(message: ToSession | FromSession) -> bytes:
    """A message as it goes over the socket."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes to or from the BitTorrent process")
    return PREFIX.pack(len(body)) + body
