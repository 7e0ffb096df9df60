"""Files in the swarm: what the BitTorrent process seeds and fetches, as the rooms see it.

A file is known by the root of its merkle tree (BEP 52) and its size. Its torrent follows from these two alone, so
everybody makes the same one, and whoever has the file is in its swarm, whatever they call it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pares.errors import BadRequest
from pares.transport import bittorrent_pipe as pipe
from pares.transport.bitfield import Runs, bits_of, runs_of
from pares.transport.bittorrent_process import BitTorrent

HASH_BYTES = 32
FILE_BYTES = 1 << 40
"""Of one file, at most: bounds pieces, hashes and messages."""
ADDRESSES = 200
"""Of one torrent to be tried."""
_LENGTHS = ((10**9, 256 << 10), (16 * 10**9, 1 << 20), (256 * 10**9, 4 << 20), (FILE_BYTES + 1, 16 << 20))


@dataclass(frozen=True, slots=True)
class Torrent:
    """A file to seed or to fetch."""

    root: bytes
    size: int
    path: Path
    """Where the file is or will be, absolute; sparse while partial. Its directory exists."""
    layer: bytes = b""
    """Hashes of the pieces, known and verified; empty for a file of one piece, or when the sources are to be asked."""
    complete: bool = False
    """Known to be whole: it is not checked again before it is seeded, and never written to."""
    have: Runs = ()
    """While not complete: pieces known to be here. What was fetched through here is known without being told."""
    wanted: Runs | None = None
    """None: all pieces."""
    public: bool = False
    """Sources may be sought in the DHT, on the local network and from other sources."""
    web_seeds: tuple[str, ...] = ()
    """URLs of directories (ending in `/`) where the file is called as its root in hexadecimal digits."""
    priority: int = 1
    """1 to 255: its share of the session's limits, in proportion to that of others."""
    download_limit: int = 0
    """Bytes per second; 0: none but the session's."""
    upload_limit: int = 0


@dataclass(frozen=True, slots=True)
class TorrentSource:
    """Somebody who is connected for a torrent."""

    address: str
    kind: Literal["peer", "web"]
    have: float
    """Share of the file that it has."""
    down_rate: int
    """Bytes per second from it; up: to it."""
    up_rate: int
    downloaded: int
    uploaded: int


@dataclass(frozen=True, slots=True)
class Swarming:
    """How a torrent stands, as it was told last: about once a second while something moves."""

    root: bytes
    state: pipe.State = "checking"
    have: Runs = ()
    done: int = 0
    """Bytes of what is wanted that are here; `wanted`: all of them. 0 of 0 until it is known."""
    wanted: int = 0
    down_rate: int = 0
    up_rate: int = 0
    downloaded: int = 0
    """Bytes since it was added, over all lives of the process; `wasted`: came twice, or wrong."""
    uploaded: int = 0
    wasted: int = 0
    sources: tuple[TorrentSource, ...] = ()
    settled: bool = False
    """All that is wanted is verified, on the disk, and known after a crash: only now may it be called complete."""
    code: str = ""
    """Of state "failed", as in the error tree: disk_full, not_found, verification_failed, forbidden, ..."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A source sent a piece with a wrong hash and was banned for it."""

    root: bytes
    address: str
    piece: int
    """The last one that was found wrong; -1 if that is not known."""


@dataclass(slots=True)
class _Entry:
    torrent: Torrent
    last: Swarming
    paused: bool = False
    turn: int = 0
    """Counts what changes the meaning of what is told."""
    peers: dict[tuple[str, int], None] = field(default_factory=dict)
    before: tuple[int, int, int] = (0, 0, 0)
    """Bytes down, up and wasted in earlier lives of the process, or before the torrent began anew."""
    now: tuple[int, int, int] = (0, 0, 0)


class Torrents:
    """All torrents of a node, over one BitTorrent process: it runs while there is any, and a new one gets them all.

    `on_change` gets every news of a torrent; `on_poison` who was banned. Everything is called in the loop's thread.
    """

    def __init__(
        self, session: BitTorrent, *, on_change: Callable[[Swarming], None], on_poison: Callable[[Poisoned], None]
    ) -> None:
        if session.settings.resume is None:
            raise ValueError("a BitTorrent session without a folder for torrents")
        self._session = session
        self._on_change = on_change
        self._on_poison = on_poison
        self._entries: dict[bytes, _Entry] = {}
        self._limit = pipe.Limit(0, 0)
        self._admit = pipe.Admit(None)
        self._use = ExitStack()
        session.follow(self)

    @property
    def tcp_port(self) -> int:
        """Where sources reach us; 0 while there is no process."""
        return self._session.port if self._session.listening else 0

    def add(self, torrent: Torrent) -> None:
        """Begin to seed or fetch; or, for one that is here, replace what is wanted, limits and priority, add web seeds.

        Sources and pause of one that is here stay. Raises BadRequest for a file larger than is possible, ValueError
        for what makes no sense.
        """
        pieces = _checked(torrent)
        entry = self._entries.get(torrent.root)
        if entry is None:
            entry = self._entries[torrent.root] = _Entry(torrent, Swarming(torrent.root))
            if len(self._entries) == 1:
                self._use.enter_context(self._session.used())
        entry.torrent = torrent
        entry.turn += 1
        entry.last = _anew(entry.last)
        self._session.send(_told(entry, pieces))

    def remove(self, root: bytes) -> None:
        """Neither seed nor fetch it any more, and forget what was known of it. The file stays."""
        if self._entries.pop(root, None) is None:
            return
        self._session.send(pipe.RemoveTorrent(root))
        if not self._entries:
            self._use.close()

    def pause(self, root: bytes) -> None:
        """Exchange nothing until `resume`."""
        self._pause(root, True)

    def resume(self, root: bytes) -> None:
        """Go on; one that failed is tried again."""
        self._pause(root, False)

    def connect(self, root: bytes, address: str) -> None:
        """Try `ip:port` (`[ip]:port` for IPv6) as a source, now, and again when it is lost. Raises ValueError."""
        host, _, port = address.rpartition(":")
        peer = (str(ipaddress.ip_address(host.strip("[]"))), int(port))
        if not 0 < peer[1] < 1 << 16:
            raise ValueError(f"port {peer[1]}")
        if (entry := self._entries.get(root)) is None:
            return
        entry.peers.pop(peer, None)
        entry.peers[peer] = None
        if len(entry.peers) > ADDRESSES:
            del entry.peers[next(iter(entry.peers))]
        self._session.send(pipe.Connect(root, peer))

    def limit(self, *, upload: int, download: int) -> None:
        """Bytes per second of all torrents together, in force on the local network too; 0: none."""
        self._limit = pipe.Limit(upload, download)
        self._session.send(self._limit)

    def admit(self, hosts: Collection[str] | None) -> None:
        """Exchange with these IP addresses only, and with this machine; None: with everybody."""
        admitted = pipe.Admit(None if hosts is None else sorted(hosts))
        if admitted != self._admit:
            self._admit = admitted
            self._session.send(admitted)

    def get(self, root: bytes) -> Swarming | None:
        """How one stands; None if it is not here."""
        entry = self._entries.get(root)
        return None if entry is None else entry.last

    def all(self) -> tuple[Swarming, ...]:
        """How each stands."""
        return tuple(entry.last for entry in self._entries.values())

    # What the session calls

    def first_words(self) -> Iterator[pipe.ToSession]:
        """`bittorrent_process.Follower`"""
        yield self._limit
        yield self._admit
        for entry in self._entries.values():
            yield _told(entry, _checked(entry.torrent))

    def heard(self, message: pipe.Told | pipe.Banned) -> None:
        """`bittorrent_process.Follower`"""
        entry = self._entries.get(message.root)
        if entry is None:
            return
        if isinstance(message, pipe.Banned):
            self._on_poison(Poisoned(message.root, message.address, message.piece))
            return
        if message.turn != entry.turn:
            return
        facts = message.facts
        counted = (facts.downloaded, facts.uploaded, facts.wasted)
        if any(new < old for new, old in zip(counted, entry.now, strict=True)):
            entry.before = _sum(entry.before, entry.now)
        entry.now = counted
        downloaded, uploaded, wasted = _sum(entry.before, counted)
        entry.last = Swarming(
            message.root,
            message.state,
            runs_of(facts.have),
            facts.done,
            facts.wanted,
            facts.down_rate,
            facts.up_rate,
            downloaded,
            uploaded,
            wasted,
            tuple(_source(source) for source in facts.sources),
            message.settled,
            message.code,
            message.error,
        )
        self._on_change(entry.last)

    def lost(self) -> None:
        """`bittorrent_process.Follower`"""
        for entry in list(self._entries.values()):
            entry.before, entry.now = _sum(entry.before, entry.now), (0, 0, 0)
            entry.last = replace(entry.last, down_rate=0, up_rate=0, sources=(), settled=False)
            self._on_change(entry.last)

    def _pause(self, root: bytes, paused: bool) -> None:
        if (entry := self._entries.get(root)) is not None:
            entry.paused = paused
            entry.turn += 1
            if not paused:
                entry.last = _anew(entry.last)
            self._session.send(pipe.Pause(root, paused, entry.turn))


def piece_length(size: int) -> int:
    """Bytes of a piece of a file of `size` bytes; part of what a torrent's identity follows from."""
    return next(length for limit, length in _LENGTHS if size < limit)


def info_of(root: bytes, size: int) -> bytes:
    """The bencoded info dictionary (BEP 52) of a file's torrent; its SHA-256 is the infohash."""
    name = root.hex().encode()
    file = _dictionary({b"": _dictionary({b"length": b"i%de" % size, b"pieces root": _string(root)})})
    return _dictionary(
        {
            b"file tree": _dictionary({name: file}),
            b"meta version": b"i2e",
            b"name": _string(name),
            b"piece length": b"i%de" % piece_length(size),
        }
    )


def metainfo(torrent: Torrent) -> bytes:
    """What a `.torrent` file of it would hold."""
    parts = {b"info": info_of(torrent.root, torrent.size)}
    if torrent.layer:
        parts[b"piece layers"] = _dictionary({torrent.root: _string(torrent.layer)})
    return _dictionary(parts)


def _string(value: bytes) -> bytes:
    return b"%d:%b" % (len(value), value)


def _dictionary(items: dict[bytes, bytes]) -> bytes:
    """Of values that are bencoded already; the keys are given in their order."""
    return b"d%be" % b"".join(_string(key) + value for key, value in items.items())


def _checked(torrent: Torrent) -> int:
    """The number of its pieces. Raises BadRequest or ValueError, see `Torrents.add`."""
    if torrent.size > FILE_BYTES:
        raise BadRequest(f"A file of {torrent.size / 1e12:.1f} TB is too large for the swarm; 1.1 TB are possible.")
    if torrent.size < 1 or len(torrent.root) != HASH_BYTES or not torrent.path.is_absolute():
        raise ValueError(f"not a file in the swarm: {torrent.size} bytes, {torrent.path}")
    pieces = -(-torrent.size // piece_length(torrent.size))
    if torrent.layer and pieces > 1 and len(torrent.layer) != HASH_BYTES * pieces:
        raise ValueError(f"{len(torrent.layer)} bytes of hashes for {pieces} pieces")
    if not 0 < torrent.priority < 256:
        raise ValueError(f"priority {torrent.priority}")
    return pieces


def _told(entry: _Entry, pieces: int) -> pipe.AddTorrent:
    torrent = entry.torrent
    return pipe.AddTorrent(
        torrent.root,
        torrent.size,
        pieces,
        str(torrent.path),
        metainfo(torrent if pieces > 1 else replace(torrent, layer=b"")),
        torrent.complete,
        bits_of(torrent.have, pieces),
        bits_of(((0, pieces),) if torrent.wanted is None else torrent.wanted, pieces),
        torrent.public,
        list(torrent.web_seeds),
        torrent.priority,
        torrent.download_limit,
        torrent.upload_limit,
        entry.paused,
        list(entry.peers),
        entry.turn,
    )


def _anew(last: Swarming) -> Swarming:
    """Neither settled nor failed until that is told again."""
    state = "checking" if last.state == "failed" else last.state
    return replace(last, state=state, settled=False, code="", error="")


def _source(source: pipe.Source) -> TorrentSource:
    return TorrentSource(
        source.address,
        "web" if source.web else "peer",
        source.have,
        source.down_rate,
        source.up_rate,
        source.downloaded,
        source.uploaded,
    )


def _sum(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
