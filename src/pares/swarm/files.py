"""The one store of files, by what is in them: models with the same bytes share them on disk, and in the swarm.

A file is known by its merkle root. `<models folder>/files/<root in hex>` is the file itself, while it is being fetched
too; a model's own name in the models folder is a hard link to it. A file that its owner imported stays where it lies,
and counts all the same. No name that a peer says ever becomes part of a path.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from pares.errors import BrokenModelFile, Conflict, NotFound, VerificationFailed
from pares.inference.gguf import FIRST_READ_BYTES, Header, Incomplete, parse_header
from pares.store.content import Content, FileRecord
from pares.store.database import Database
from pares.swarm.coverage import everything
from pares.swarm.disk import HASH_BLOCK, hash_file, in_thread, link, stamp_of, unlink
from pares.swarm.merkle import HASH, piece_hash, piece_length, piece_span, pieces

FOLDER = "files"
_CHECKING = 2
"""Batches of pieces that are checked side by side."""


class Files:
    """Files of this node. `content` has their table and what was sent and received of each."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.content = Content(database)
        self._changing = asyncio.Lock()

    async def get(self, root: bytes) -> FileRecord | None:
        return await self.content.get(root)

    async def all(self) -> tuple[FileRecord, ...]:
        """The one that was used longest ago first."""
        return await self.content.list()

    async def put(self, record: FileRecord) -> None:
        """Add or replace what is known of a file; its bytes are the caller's."""
        await self.content.put(record)

    async def put_part(self, record: FileRecord) -> None:
        """Note how far a file has come, unless all of it is here by now, from elsewhere."""
        async with self._changing:
            present = await self.content.get(record.root)
            if present is None or present.pieces is not None or trouble(present):
                await self.content.put(record)

    def partial_path(self, root: bytes) -> Path:
        """Where a file lies in the store, or will, from its first byte on. The folder is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / root.hex()

    async def take(
        self, path: Path, *, linked: bool, progress: Callable[[int], None] = lambda _: None, sha256: str = ""
    ) -> FileRecord:
        """Hash a whole file, in one pass, and register it. `sha256`: what it should be, if that is known.

        One of ours becomes a hard link into the store, or, if the store has those bytes already, another name of them;
        where there are no links the store points at it. One that is linked stays as it is. For a file at its
        `partial_path` this says that it is complete. Raises OSError, DiskFull, BrokenModelFile (empty), Conflict
        (written to meanwhile), VerificationFailed.
        """
        hashes = await hash_file(path, progress)
        if path.parent == self.folder and path.name != hashes.root.hex():
            raise VerificationFailed(f"{path} has not the bytes that it should have.", hint="Pull it again.")
        if sha256 and hashes.sha256 != sha256:
            raise changed(path, f"its SHA-256 is {hashes.sha256}, it was {sha256}")
        record = FileRecord(
            root=hashes.root,
            size=hashes.size,
            sha256=hashes.sha256,
            path=str(path),
            linked=linked,
            layer=hashes.layer,
            stamp=hashes.stamp,
        )
        async with self._changing:
            present = await self.content.get(record.root)
            if present:
                record = msgspec.structs.replace(record, keeper=present.keeper, added_at=present.added_at)
            return await self.content.put(await in_thread(self._place, record, present))

    async def forget(self, root: bytes) -> int:
        """Drop a file that nothing needs; returns the bytes freed. Only what is in the store's folder is deleted: what
        came of a file whose header was not whole yet, too, though there is no record of it."""
        async with self._changing:
            record = await self.content.get(root)
            path = Path(record.path) if record else self.partial_path(root)
            freed = await in_thread(unlink, path) if self._is_inside(path) else 0
            await self.content.remove(root)
        return freed

    async def drop_name(self, path: Path, root: bytes) -> int:
        """Delete a model's own name of a file, whose bytes stay in the store; returns the bytes freed.

        Where there are no links the store had no name of its own, and gets one now.
        """
        async with self._changing:
            record = await self.content.get(root)
            if record and record.path == str(path) and not self._is_inside(path):
                target = self.partial_path(root)
                os.replace(path, target)
                await self.content.put(msgspec.structs.replace(record, path=str(target)))
                return 0
        return 0 if self._is_inside(path) else await in_thread(unlink, path)

    async def verify(
        self, root: bytes, progress: Callable[[int], None] = lambda _: None, path: Path | None = None
    ) -> None:
        """Hash all pieces that are here again, at `path` if that is another name. `progress`: bytes done.

        Raises VerificationFailed with the first bad piece, and NotFound.
        """
        record = await self.content.get(root)
        if record is None:
            raise NotFound(f"No file with the root {root.hex()} is here.", hint="`pares list` shows what is here.")
        path = path or Path(record.path)
        batches, done = _batches(record), 0
        try:
            stat = path.stat()
            while several := list(islice(batches, _CHECKING)):
                found = await asyncio.gather(*(in_thread(_first_bad, path, record, batch) for batch in several))
                if bad := [piece for piece in found if piece is not None]:
                    first, after = piece_span(bad[0], record.size)
                    wrong = f"piece {bad[0]} of {pieces(record.size)} (bytes {first} to {after}) has another hash"
                    raise changed(path, wrong, piece=bad[0])
                done += sum(
                    piece_span(batch[-1], record.size)[1] - batch[0] * piece_length(record.size) for batch in several
                )
                progress(done)
        except OSError as error:
            raise NotFound(f"{path} cannot be read ({error.strerror}).", hint="Put it back, or remove it.") from error
        if record.pieces is None and stat.st_size != record.size:
            raise changed(path, f"it has {stat.st_size:,} bytes; it had {record.size:,}")
        async with self._changing:
            fresh = await self.content.get(root)
            if fresh and fresh.pieces is None and fresh.path == str(path):
                await self.content.put(msgspec.structs.replace(fresh, stamp=stamp_of(stat)))

    def _is_inside(self, path: str | Path) -> bool:
        return Path(path).parent == self.folder

    def _place(self, record: FileRecord, present: FileRecord | None) -> FileRecord:
        """Decide where the bytes of a file that was just hashed stay. Blocking."""
        path, store = Path(record.path), self.partial_path(record.root) if not record.linked else None
        if stamp_of(path.stat()) != record.stamp:
            raise Conflict(f"{path} was replaced while it was read.", hint="Try again when it is complete.")
        if present and present.pieces is None and not trouble(present):
            if store is None or path == store:
                return present
            if not present.linked:
                link(Path(present.path), path)
                return present
        if store is None:
            if present and self._is_inside(present.path):
                unlink(Path(present.path))  # a part of what is whole now
            return record
        # The file behind a symbolic link is somebody else's: it gets no name here under which it could be written to.
        is_there = path == store or (not path.is_symlink() and link(path, store))
        return msgspec.structs.replace(record, path=str(store if is_there else path))


def trouble(record: FileRecord) -> str:
    """Why a file cannot be served: gone, or changed since it was hashed. Empty if it can. A look, without reading."""
    try:
        stat = os.stat(record.path)
    except OSError as error:
        return f"Its file is not at {record.path} any more ({error.strerror})."
    if record.pieces is None and stamp_of(stat) != record.stamp:
        return f"Its file at {record.path} has changed since it was hashed."
    return ""


def header_of(record: FileRecord) -> Header:
    """The header of a GGUF that is here, whole or in part: until its last piece came, its file is shorter than it says.

    Blocking. Raises BrokenModelFile, also while the header itself is not all here, and OSError.
    """
    with open(record.path, "rb") as file:
        front = file.read(FIRST_READ_BYTES)
        while isinstance(header := parse_header(front, record.size), Incomplete):
            if not (more := file.read(max(header.at_least, 2 * len(front)) - len(front))):
                raise BrokenModelFile(f"{record.path} ends inside of its header.", hint="Pull the rest of it.")
            front += more
    return header


def changed(path: Path, how: str, **fields: object) -> VerificationFailed:
    """The error for a file that is not what it was."""
    return VerificationFailed(
        f"{path} has changed: {how}.", hint="Remove the model with `pares rm` and get it again.", **fields
    )


def _batches(record: FileRecord) -> Iterator[range]:
    """The pieces that are here, as many at once as make a block."""
    step = max(1, HASH_BLOCK // piece_length(record.size))
    for first, after in everything(record.size) if record.pieces is None else record.pieces:
        for start in range(first, after, step):
            yield range(start, min(start + step, after))


def _first_bad(path: Path, record: FileRecord, batch: range) -> int | None:
    with path.open("rb") as file:
        for piece in batch:
            first, after = piece_span(piece, record.size)
            file.seek(first)
            data = file.read(after - first)
            expected = record.layer[piece * HASH : (piece + 1) * HASH] or record.root
            if len(data) != after - first or piece_hash(data, record.size) != expected:
                return piece
    return None
