"""Fetching a file from members who hold it, whole or in part: BitTorrent, with sources that the circles' offers tell.

The order is that of trust. Hashes of the pieces, checked against the root, so that every piece can be judged by itself;
the header's pieces, so that a wrong or hostile file is refused before the rest comes; then what is wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from pares.errors import (
    BrokenModelFile,
    DiskFull,
    LocalError,
    NotFound,
    NotSupported,
    PeersUnreachable,
    RemoteError,
    VerificationFailed,
)
from pares.inference.gguf import MAX_HEADER_BYTES, Incomplete
from pares.inference.header import Header
from pares.store.content import FileRecord
from pares.store.database import now
from pares.swarm.coverage import Runs, bytes_in, covers, everything, union
from pares.swarm.disk import free_bytes, in_thread, used_bytes
from pares.swarm.files import Files, trouble
from pares.swarm.front import look_at_front, require_truth
from pares.swarm.holders import Holders, fetch_layer
from pares.swarm.members import Members
from pares.swarm.merkle import pieces
from pares.swarm.predicate import File, Version
from pares.swarm.ranges import Part, header_pieces, part_pieces
from pares.swarm.room import claim, require_room
from pares.swarm.seeking import Seeker, Ways
from pares.swarm.settings import Settings
from pares.transport.torrents import FILE_BYTES, Swarming, Torrent, Torrents
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

FIRST_LOOK_BYTES = 1 << 16
SHARES = (1, 4, 16)
"""Of the session's limits, by priority."""
SAVE_S = 15.0
"""How old the note of what is there may be, while more is coming."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a download may take. Asked for again and again while it runs."""

    priority: int = 1
    limit_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    look: float = 2.0
    """Between looks for holders."""
    direct: float = 4.0
    """After which a peer that no direct connection reaches is tried through the circle's own."""
    ask: float = 10.0
    patience: float = 20.0
    """Without any source, until a download gives its place up and waits; three times that with sources but no bytes."""
    retry: float = 60.0
    """After which one that waits tries again though nobody new has come."""


class Progress(NamedTuple):
    """How far a download is: bytes that are there and verified, of those that are wanted."""

    done: int
    wanted: int
    sources: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to fetch, and what is said of it."""

    name: str
    """For messages."""
    file: File
    versions: frozenset[bytes]
    """Digests of the versions that list it: who holds one of them has it, or a part of it."""
    version: Version | None = None
    """The version whose only file it is: its header has to be as this says."""
    part: Part | None = None
    """None: the whole."""
    web_seeds: tuple[str, ...] = ()
    terms: Callable[[], Terms] = Terms
    on_progress: Callable[[Progress], None] = field(default=lambda _: None)
    on_check: Callable[[], Awaitable[None]] | None = None
    """Before a whole file's SHA-256 is computed."""
    on_header: Callable[[], Awaitable[None]] | None = None
    """The header is there and sound: from now on this node holds a part."""

    @property
    def root(self) -> bytes:
        return bytes.fromhex(self.file.root)


class SwarmFetch:
    """Fetches files. `async with` owns the tasks that look for holders.

    `release` gets the root of a file that is not fetched any more, done or not: to give it away, or to take its torrent
    out, which happens where nothing is said. While a root is in `fetching`, its torrent belongs to this.
    """

    def __init__(
        self,
        files: Files,
        torrents: Torrents,
        members: Members,
        ways: Ways | None,
        settings: Settings,
        *,
        called: Callable[[PeerId], str] | None = None,
        release: Callable[[bytes], None] | None = None,
        free_disk: Callable[[Path], int] = free_bytes,
        pace: Pace | None = None,
    ) -> None:
        self.files, self.torrents, self.ways = files, torrents, ways
        self.avoided: set[tuple[bytes, PeerId]] = set()
        """Roots of files, and members who sent wrong bytes of them."""
        self.members = members
        self.holders = Holders(members, called) if called else Holders(members)
        self.settings, self.free_disk, self.pace = settings, free_disk, pace or Pace()
        self.release = release or torrents.remove
        self.tasks = asyncio.TaskGroup()
        self._running: dict[bytes, _Fetch] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.__aexit__(None, None, None)

    @property
    def fetching(self) -> Collection[bytes]:
        """Roots of the files that are fetched now."""
        return self._running.keys()

    def told(self, change: Swarming) -> None:
        """For `Torrents.on_change`."""
        if fetch := self._running.get(change.root):
            fetch.moved.set()

    def offers_changed(self) -> None:
        """Look for holders now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def news(self, within_s: float) -> None:
        """Wait until offers have changed, but not longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()

    async def fetch(self, wanted: Wanted) -> FileRecord:
        """Returns when all that is wanted is verified and on the disk; goes on from what is there already.

        Raises DiskFull; NotFound where what was fetched before is gone; PeersUnreachable where nobody sends anything;
        VerificationFailed, BrokenModelFile and NotSupported for a file that is not what it should be, which is removed;
        BadRequest for layers that there are not; LocalError for a fault of the disk.
        """
        while running := self._running.get(wanted.root):
            await running.over.wait()
        fetch = self._running[wanted.root] = _Fetch(self, wanted)
        try:
            return await fetch.run()
        finally:
            del self._running[wanted.root]
            fetch.over.set()
            self.release(wanted.root)

    def terms_changed(self) -> None:
        """Ask all downloads for their terms now."""
        for fetch in self._running.values():
            fetch.moved.set()

    async def until_somebody(self, versions: frozenset[bytes]) -> None:
        """Wait until a holder comes who is not there now; or a while, as ways to those who are there may open."""
        there = self.holders.online(versions)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pace.retry):
                while not self.holders.online(versions) - there:
                    there &= self.holders.online(versions)
                    await self.news(self.pace.look)


class _Fetch:
    """One file on its way."""

    def __init__(self, owner: SwarmFetch, wanted: Wanted) -> None:
        self._owner, self._wanted, self._file = owner, wanted, wanted.file
        self._root, self._size = wanted.root, wanted.file.size
        self._path = owner.files.partial_path(wanted.root)
        self._record = FileRecord(
            root=self._root, size=self._size, path=str(self._path), pieces=(), added_at=now(), used_at=now()
        )
        self.moved, self.over = asyncio.Event(), asyncio.Event()
        self._stale: Swarming | None = None
        self._asked: Torrent | None = None
        self._saved_at = 0.0
        self._sound = False

    async def run(self) -> FileRecord:
        owner = self._owner
        self._record = await owner.files.get(self._root) or self._record
        if self._record.size != self._size:
            raise VerificationFailed(
                f"{self._wanted.name} is not what its publisher says: the file with its root has {self._record.size:,} "
                f"bytes here, not {self._size:,}.",
                hint="Take another version.",
            )
        if self._record.pieces is None:
            if not trouble(self._record):
                return self._record
            # A whole file that was taken away: it is fetched into the store.
            self._record = msgspec.structs.replace(self._record, path=str(self._path), linked=False, pieces=())
        if self._record.pieces and not self._path.exists():
            raise NotFound(
                f"What was fetched of {self._wanted.name} is not at {self._path} any more.",
                hint="It goes on when that is back: mount the disk, or cancel this and begin anew.",
            )
        self._require_room(self._size if self._wanted.part is None else 0)
        if not self._record.layer and pieces(self._size) > 1:
            layer = await self._layer()
            self._record = msgspec.structs.replace(self._record, layer=layer)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        status = owner.torrents.get(self._root)
        self._stale = status if status and status.state == "failed" else None
        seeking = owner.tasks.create_task(self._seek(), name=f"look for holders of {self._wanted.name}")
        try:
            return await self._fetch()
        except (VerificationFailed, BrokenModelFile, NotSupported):
            owner.torrents.remove(self._root)
            await owner.files.forget(self._root)
            self._path.unlink(missing_ok=True)
            self._sound = False
            raise
        finally:
            seeking.cancel()
            await asyncio.wait([seeking])
            if self._sound and self._record.pieces is not None:
                self._note(owner.torrents.get(self._root))
                await self._save()

    async def _fetch(self) -> FileRecord:
        header = await self._header()
        part = self._wanted.part
        if part is not None and header is None:
            raise NotSupported(f"{self._wanted.name} is no GGUF file: it has no layers.", hint="Pull all of it.")
        wanted = part_pieces(header, part) if part is not None and header is not None else everything(self._size)
        self._sound = True
        await self._save()
        if self._wanted.on_header is not None:
            await self._wanted.on_header()
        self._require_room(bytes_in(union(wanted, self._record.pieces or ()), self._size))
        if part is None:
            await in_thread(claim, self._path, self._size)
        await self._get(wanted)
        if self._record.pieces == everything(self._size):
            await self._check_whole()
        return self._record

    async def _header(self) -> Header | None:
        """Fetch and parse it; None for a safetensors file, which has no layers that anybody could ask for.

        Raises BrokenModelFile, NotSupported, VerificationFailed.
        """
        version = self._wanted.version
        front = max(FIRST_LOOK_BYTES, version.architecture.header_bytes if version else 0)
        while True:
            front = min(front, MAX_HEADER_BYTES, self._size)
            await self._get(header_pieces(front, self._size))
            header = await in_thread(look_at_front, self._path, front, self._size, self._file.name)
            if not isinstance(header, Incomplete):
                break
            if front in (MAX_HEADER_BYTES, self._size):
                raise BrokenModelFile(f"{self._file.name} ends inside of its header.", hint="Take another version.")
            front = max(header.at_least, 2 * front)
        if header is not None and version is not None:
            require_truth(version, header, self._wanted.name)
        return header

    async def _check_whole(self) -> None:
        """The pieces prove the root; the statement names the SHA-256 too, by which other tools know the file."""
        if self._wanted.on_check is not None:
            await self._wanted.on_check()
        record = await self._owner.files.take(self._path, linked=False)
        if record.sha256 != self._file.sha256:
            raise VerificationFailed(
                f"The statement on {self._wanted.name} contradicts itself: the file with its merkle root has the "
                f"SHA-256 {record.sha256}.",
                hint="It was thrown away. Take another version.",
                sha256=record.sha256,
                expected=self._file.sha256,
            )
        self._record = record

    async def _get(self, wanted: Runs) -> None:
        """Have these pieces fetched. Returns when they are on the disk."""
        patience = _Patience(self._owner.pace.patience)
        while True:
            self.moved.clear()
            self._ask(wanted)
            status = self._owner.torrents.get(self._root)
            if status is not None and status is not self._stale:
                _raise_failure(status, self._wanted.name)
                self._note(status)
                self._wanted.on_progress(Progress(status.done, bytes_in(wanted, self._size), len(status.sources)))
                if status.settled and covers(status.have, wanted):
                    return
                if self._sound and asyncio.get_running_loop().time() - self._saved_at > SAVE_S:
                    await self._save()
            if patience.is_over(status):
                raise PeersUnreachable(self._owner.holders.absence(self._wanted.versions, self._wanted.name))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._owner.pace.look, self._owner.pace.patience / 4)):
                    await self.moved.wait()

    def _ask(self, wanted: Runs) -> None:
        """Tell the session what is wanted, where that is not what it was told last."""
        terms, owner = self._wanted.terms(), self._owner
        torrent = Torrent(
            root=self._root,
            size=self._size,
            path=self._path,
            layer=self._record.layer,
            have=self._asked.have if self._asked else self._record.pieces or (),
            wanted=None if wanted == everything(self._size) else wanted,
            public=owner.settings.public_discovery and owner.holders.is_public(self._wanted.versions),
            web_seeds=self._wanted.web_seeds,
            priority=SHARES[terms.priority],
            download_limit=terms.limit_bytes_per_s,
        )
        if torrent != self._asked:
            self._asked = torrent
            owner.torrents.add(torrent)
            owner.torrents.resume(self._root)  # it may be there already, paused or failed

    async def _layer(self) -> bytes:
        """The hashes of the pieces, from whoever has them. Raises PeersUnreachable, NotSupported."""
        if self._size > FILE_BYTES:
            raise NotSupported(f"{self._wanted.name} is larger than any file that is fetched here.")
        owner, wanted = self._owner, self._wanted
        for peer in owner.holders.of(wanted.versions):
            try:
                return await fetch_layer(owner.members, peer, self._root, self._size, timeout_s=owner.pace.ask)
            except RemoteError as error:
                log.info("swarm.no_hashes", extra={"peer": peer.hex(), "reason": error.message})
        raise PeersUnreachable(owner.holders.absence(wanted.versions, wanted.name))

    async def _seek(self) -> None:
        owner = self._owner
        seeker = Seeker(
            self._root,
            self._wanted.versions,
            owner.torrents,
            owner.holders,
            owner.ways,
            direct=owner.settings.direct,
            direct_s=owner.pace.direct,
            avoided=lambda peer: (self._root, peer) in owner.avoided,
        )
        while True:
            await seeker.look()
            await owner.news(owner.pace.look)

    def _require_room(self, needed: int) -> None:
        owner = self._owner
        folder = self._path.parent
        require_room(
            self._wanted.name,
            folder,
            needed=needed,
            used=used_bytes(self._path) if self._path.exists() else 0,
            reserve=owner.settings.reserve_bytes,
            free=owner.free_disk(folder),
        )

    def _note(self, status: Swarming | None) -> None:
        """What is here by now; while a file is checked, nothing of it seems to be."""
        if status is not None and status.state != "checking":
            self._record = msgspec.structs.replace(self._record, pieces=status.have or self._record.pieces)

    async def _save(self) -> None:
        self._saved_at = asyncio.get_running_loop().time()
        await self._owner.files.put_part(self._record)


class _Patience:
    """How long nothing may move."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mark = (-1, -1)
        self._since = asyncio.get_running_loop().time()

    def is_over(self, status: Swarming | None) -> bool:
        now = asyncio.get_running_loop().time()
        mark = (status.done, status.downloaded) if status else (0, 0)
        if mark != self._mark or (status and status.state == "checking"):
            self._mark, self._since = mark, now
        return now - self._since > self._seconds * (3 if status and status.sources else 1)


def _raise_failure(status: Swarming, name: str) -> None:
    if status.state != "failed":
        return
    kinds: dict[str, type[LocalError]] = {each.code: each for each in (DiskFull, NotFound, VerificationFailed)}
    hint = "Free some space; the download goes on from there." if status.code == DiskFull.code else "Try again."
    raise kinds.get(status.code, LocalError)(f"{name} cannot be fetched: {status.error}", hint=hint)
