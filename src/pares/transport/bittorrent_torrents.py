"""The torrents of the BitTorrent process: when what is here is kept on disk, what is wrong, what the node is told.

libtorrent itself is behind `Engine` and `Handle`. Three rules hold whatever happens:

* What is kept as "here" was verified by libtorrent, then flushed, then synced to the disk; in this order, so that
  neither a kill nor a power failure leaves a claim without its bytes.
* A file that was known to be complete is only ever read: gone or changed, its torrent fails and fetches nothing.
* A torrent that fails leaves libtorrent, which would go on trying. Resuming begins it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pares.errors import ParesError, VerificationFailed
from pares.transport import bittorrent_pipe as pipe
from pares.transport.bittorrent_resume import Kept, doubt, keep, read, trouble, what_of

log = logging.getLogger(__name__)

SAVE_S = 0.4
"""Between two savings of what a torrent has, while it fetches; longer where saving takes long, so that it takes a
tenth of the time at most."""
SAVE_AT_MOST_S = 5.0
TELL_S = 0.9
LOOK_S = 5.0
"""Between two looks whether a file is still there: libtorrent goes on with a deleted one that it has open."""
DIAL_S = 10.0
"""Between two tries of sources that are not connected, while fetching."""
PEERS = 200


class Handle(Protocol):
    """A torrent that libtorrent runs."""

    def blocks(self) -> dict[int, bytes]:
        """Of unfinished pieces, which blocks of 16 KiB are here."""

    def facts(self) -> pipe.Facts:
        """How it stands now."""

    def flush(self) -> None:
        """Write out what is still in memory; `Torrents.flushed` is called when it is done."""

    def adjust(self, wish: pipe.AddTorrent) -> None:
        """Take over what is wanted, limits, priority and web seeds."""

    def pause(self, paused: bool) -> None: ...

    def dial(self, peer: tuple[str, int]) -> None: ...

    def drop(self) -> None:
        """Out of libtorrent; the file stays."""


class Engine(Protocol):
    """What makes them."""

    def load(self, wish: pipe.AddTorrent, kept: Kept | None) -> Handle:
        """Begin. Without `kept`, a file that is there is checked whole. Raises VerificationFailed for wrong hashes."""


@dataclass(slots=True, eq=False)
class _Torrent:
    wish: pipe.AddTorrent
    paused: bool
    turn: int
    handle: Handle | None = None
    facts: pipe.Facts = field(default_factory=pipe.Facts)
    settled: bool = False
    leaving: bool = False
    """Was removed; its last bytes are still being flushed."""
    snapshot: Kept | None = None
    """Waits for being flushed."""
    last: bool = False
    """The snapshot has all that is wanted."""
    writing: Future[int] | None = None
    began_saving: float = 0.0
    save_at: float = 0.0
    saved: Kept | None = None
    told: tuple[pipe.State, bool] | None = None
    told_at: float = 0.0
    untold: bool = False
    looked_at: float = 0.0
    dialled_at: float = 0.0
    inode: int = 0
    rejected: int = -1
    banned: list[str] = field(default_factory=list)
    """Addresses of whom the node is not told yet."""
    check: bool = False
    """After a failed write, nothing is taken for granted."""
    failure: ParesError | None = None

    @property
    def path(self) -> Path:
        return Path(self.wish.path)


class Torrents:
    """All of them. One thread calls everything here; `wake` makes it call `collect`, and may be called from another."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        send: Callable[[pipe.FromSession], None],
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._send = send
        self._wake = wake
        self._now = now
        self._torrents: dict[bytes, _Torrent] = {}
        self._stopping = False
        self._writer = ThreadPoolExecutor(1, "sync")

    # What the node asks for

    def handle(self, message: pipe.AddTorrent | pipe.RemoveTorrent | pipe.Pause | pipe.Connect) -> None:
        torrent = self._torrents.get(message.root)
        if isinstance(message, pipe.AddTorrent):
            self._add(message, torrent)
        elif torrent is None or torrent.leaving:
            return
        elif isinstance(message, pipe.RemoveTorrent):
            self._remove(torrent)
        elif isinstance(message, pipe.Connect):
            if message.peer not in torrent.wish.peers and len(torrent.wish.peers) < PEERS:
                torrent.wish.peers.append(message.peer)
            if torrent.handle is not None:
                torrent.handle.dial(message.peer)
        else:
            torrent.paused, torrent.turn = message.paused, message.turn
            if torrent.handle is not None:
                torrent.handle.pause(message.paused)
            elif not message.paused:
                self._begin(torrent)
            self._tell(torrent)

    def _add(self, wish: pipe.AddTorrent, torrent: _Torrent | None) -> None:
        if torrent is None or torrent.leaving or torrent.handle is None or torrent.wish.path != wish.path:
            if torrent is not None:
                self._unload(torrent)
            torrent = self._torrents[wish.root] = _Torrent(wish, wish.paused, wish.turn)
            self._begin(torrent)
            return
        if wish.wanted != torrent.wish.wanted:
            torrent.settled = False
        torrent.wish, torrent.turn = wish, wish.turn
        torrent.handle.adjust(wish)
        self.moved(wish.root, torrent.handle.facts())
        self._tell(torrent)

    def _remove(self, torrent: _Torrent) -> None:
        self._kept_at(torrent).unlink(missing_ok=True)
        if torrent.writing is not None:
            self._writer.submit(self._kept_at(torrent).unlink, missing_ok=True)
        if torrent.handle is None or torrent.wish.complete:
            self._unload(torrent)
            del self._torrents[torrent.wish.root]
            return
        torrent.leaving = True
        torrent.snapshot = None
        torrent.handle.pause(True)
        torrent.handle.flush()

    def _begin(self, torrent: _Torrent) -> None:
        wish = torrent.wish
        kept = None if wish.complete else read(self._kept_at(torrent), wish.size, len(wish.have))
        begun = wish.complete or kept is not None or any(wish.have)
        if kept is None:
            kept = Kept(wish.size, wish.have)
        elif not (torrent.check or kept.doubtful):
            kept = Kept(wish.size, _union(kept.have, wish.have), kept.unfinished)
        torrent.check |= kept.doubtful
        torrent.failure = self._look(torrent, begun=begun)
        torrent.facts = pipe.Facts(have=kept.have)
        torrent.settled = False
        if torrent.failure is None:
            try:
                torrent.handle = self._engine.load(wish, kept if begun and not torrent.check else None)
            except VerificationFailed as error:
                torrent.failure = error
        if torrent.handle is not None:
            torrent.check = False
            torrent.handle.pause(torrent.paused)
            torrent.looked_at = torrent.dialled_at = self._now()
            for peer in wish.peers:
                torrent.handle.dial(peer)
        self._tell(torrent)

    # What libtorrent tells

    def moved(self, root: bytes, facts: pipe.Facts) -> None:
        """How a torrent stands has changed."""
        torrent = self._torrents.get(root)
        if torrent is None or torrent.handle is None or torrent.leaving:
            return
        torrent.facts = facts
        if torrent.wish.complete and not facts.checking:
            if facts.done < torrent.wish.size:
                missing = torrent.wish.size - facts.done
                error = f"{missing} bytes of {torrent.path} are not what they were."
                self._fail(torrent, VerificationFailed(error, hint="Fetch it again."))
                return
            torrent.settled = True
        if not facts.finished:
            torrent.settled = False
        elif not torrent.settled and not facts.checking:
            self._save(torrent)
        self._tell(torrent, soon=False)

    def flushed(self, root: bytes) -> None:
        """All that a torrent had when `Handle.flush` was called is in the file."""
        torrent = self._torrents.get(root)
        if torrent is None:
            return
        if torrent.leaving:
            self._unload(torrent)
            del self._torrents[root]
        elif torrent.snapshot is not None and torrent.writing is None:
            arguments = (self._kept_at(torrent), torrent.snapshot, torrent.path, torrent.inode)
            torrent.writing = self._writer.submit(keep, *arguments, sync=torrent.last or self._stopping)
            torrent.writing.add_done_callback(lambda _: self._wake())

    def broke(self, root: bytes, number: int, said: str, path: str = "") -> None:
        """Its file could not be read or written: the system's error number and text."""
        torrent = self._torrents.get(root)
        if torrent is not None and torrent.handle is not None:
            self._fail(torrent, what_of(number, Path(path or torrent.wish.path), said), check=True)

    def rejected(self, root: bytes, piece: int) -> None:
        """A piece came with a wrong hash."""
        if (torrent := self._torrents.get(root)) is not None:
            torrent.rejected = piece
            self._tell_of_banned(torrent)

    def banned(self, root: bytes, address: str) -> None:
        """Who sent it was found out; that can be told before which piece it was."""
        if (torrent := self._torrents.get(root)) is not None:
            torrent.banned.append(address)

    # Time

    def tick(self) -> None:
        """To be called about twice a second."""
        now = self._now()
        for torrent in list(self._torrents.values()):
            if torrent.handle is None or torrent.leaving:
                continue
            self._tell_of_banned(torrent)
            if torrent.untold:
                self._tell(torrent, soon=False)
            if now - torrent.looked_at >= LOOK_S:
                torrent.looked_at = now
                if found := self._look(torrent, begun=torrent.inode != 0):
                    self._fail(torrent, found, check=True)
                    continue
            if torrent.settled or torrent.paused:
                continue
            if now >= torrent.save_at:
                self._save(torrent)
            if now - torrent.dialled_at >= DIAL_S:
                torrent.dialled_at = now
                for peer in torrent.wish.peers:
                    torrent.handle.dial(peer)

    def collect(self) -> None:
        """Take in what the writer has done."""
        for torrent in list(self._torrents.values()):
            if torrent.writing is None or not torrent.writing.done():
                continue
            writing, torrent.writing, torrent.snapshot = torrent.writing, None, None
            if torrent.handle is None or torrent.leaving:
                continue
            took_s = (now := self._now()) - torrent.began_saving
            torrent.save_at = now + min(max(SAVE_S, 9 * took_s), SAVE_AT_MOST_S)
            try:
                torrent.inode = writing.result()
            except OSError as error:
                self._fail(torrent, what_of(error.errno or 0, torrent.path), check=True)
                continue
            if not torrent.facts.finished:
                continue
            if not torrent.last:
                self._save(torrent)
                continue
            torrent.settled = True
            self._tell(torrent)

    # The end

    def stop(self) -> None:
        """Keep what is here; `busy` says when that is done."""
        self._stopping = True
        for torrent in self._torrents.values():
            if torrent.handle is not None and not torrent.leaving and not torrent.settled:
                torrent.handle.pause(True)
                torrent.writing = torrent.snapshot = torrent.saved = None
                self._save(torrent)

    @property
    def busy(self) -> bool:
        """Something is still being flushed or written."""
        return any(torrent.leaving or torrent.snapshot is not None for torrent in self._torrents.values())

    # Inside

    def _kept_at(self, torrent: _Torrent) -> Path:
        return self._folder / f"{torrent.wish.root.hex()}.resume"

    def _look(self, torrent: _Torrent, *, begun: bool) -> ParesError | None:
        wish = torrent.wish
        return trouble(torrent.path, wish.size, complete=wish.complete, begun=begun, inode=torrent.inode)

    def _save(self, torrent: _Torrent) -> None:
        """Begin to keep what is verified now. What is verified only later is not in it, flushed or not."""
        if torrent.handle is None or torrent.snapshot is not None or torrent.facts.checking or torrent.wish.complete:
            return
        facts = torrent.handle.facts()
        kept = Kept(torrent.wish.size, facts.have, torrent.handle.blocks())
        if not any(kept.have) and not kept.unfinished:
            return  # there may be no file yet
        if kept == torrent.saved and not facts.finished:
            return
        torrent.facts, torrent.last = facts, facts.finished
        torrent.snapshot = torrent.saved = kept
        torrent.began_saving = self._now()
        torrent.handle.flush()

    def _fail(self, torrent: _Torrent, error: ParesError, *, check: bool = False) -> None:
        self._unload(torrent)
        torrent.failure = error
        torrent.check = check
        torrent.settled = False
        if check and not torrent.wish.complete:
            self._writer.submit(doubt, self._kept_at(torrent), torrent.wish.size, len(torrent.wish.have))
        self._tell(torrent)

    def _unload(self, torrent: _Torrent) -> None:
        if torrent.handle is not None:
            torrent.handle.drop()
        torrent.handle = torrent.snapshot = None

    def _tell_of_banned(self, torrent: _Torrent) -> None:
        for address in torrent.banned:
            self._send(pipe.Banned(torrent.wish.root, address, torrent.rejected))
        torrent.banned.clear()

    def _tell(self, torrent: _Torrent, *, soon: bool = True) -> None:
        facts = torrent.facts
        state: pipe.State = (
            "failed"
            if torrent.failure is not None and torrent.handle is None
            else "paused"
            if torrent.paused
            else "checking"
            if facts.checking
            else "seeding"
            if facts.finished
            else "fetching"
        )
        now = self._now()
        if not soon and torrent.told == (state, torrent.settled) and now - torrent.told_at < TELL_S:
            torrent.untold = True
            return
        torrent.told, torrent.told_at, torrent.untold = (state, torrent.settled), now, False
        code, error = (
            (torrent.failure.code, str(torrent.failure)) if state == "failed" and torrent.failure else ("", "")
        )
        self._send(pipe.Told(torrent.wish.root, torrent.turn, state, torrent.settled, facts, code, error))


def _union(one: bytes, other: bytes) -> bytes:
    return bytes(a | b for a, b in zip(one, other, strict=True))
