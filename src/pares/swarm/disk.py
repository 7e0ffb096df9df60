"""Files as downloads and the library need them: threads that finish what they began, real names for a full disk."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from pares.errors import BrokenModelFile, Conflict, DiskFull, NotFound
from pares.swarm.merkle import FileHasher
from pares.swarm.origin import Body, Plan, Volume

T = TypeVar("T")
P = ParamSpec("P")

BLOCK = 1 << 20
HASH_BLOCK = 4 << 20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK})
_KEEP_SIZE = 1


async def in_thread(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Like asyncio.to_thread, but cancelling waits until the thread is done: a file is never closed under its feet.

    So `work` must be short: a block, not a file.
    """
    future = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


@contextmanager
def named_disk_errors(path: Path) -> Iterator[None]:
    """A disk, quota or file size that is used up, as DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(
            f"The disk is full: {path.parent} takes no more ({error.strerror}). What was fetched is kept.",
            hint="Free some space; the download goes on from there.",
        ) from error


def free_bytes(folder: Path) -> int:
    """What is free to us on the disk that `folder` will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def readable(size: int) -> str:
    """A size for people; decimal, as disks are sold."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.3g} {unit}" if size < 1000 * bytes_ else f"{size / bytes_:,.0f} {unit}"
    return f"{size} bytes"


def used_bytes(path: Path) -> int:
    """Disk blocks that a file, or the files of a folder, take up, space reserved behind their ends included."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(_allocated(file.stat()) for file in files if file.is_file() and not file.is_symlink())


def _allocated(stat: os.stat_result) -> int:
    return getattr(stat, "st_blocks", 0) * 512 or stat.st_size


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def stamp_of(stat: os.stat_result) -> str:
    """What tells that a file is another one, or was written to, without reading it."""
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"


def unlink(path: Path) -> int:
    """Delete a name of a file; returns the bytes of disk that this freed: none while the file has another name."""
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return 0
    path.unlink(missing_ok=True)
    return _allocated(stat) if stat.st_nlink == 1 else 0


def link(source: Path, target: Path) -> bool:
    """Make `target` another name of `source`, in place of what was there. False where the file system has no links.

    Raises DiskFull, OSError.
    """
    temporary = target.with_name(f".{target.name}.link")
    try:
        with named_disk_errors(target):
            temporary.unlink(missing_ok=True)
            os.link(source, temporary)
            os.replace(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    finally:
        temporary.unlink(missing_ok=True)  # renaming onto another name of the same file does nothing at all
    sync_folder(target.parent)
    return True


class Hashes(NamedTuple):
    """Of a whole file."""

    size: int
    sha256: str
    root: bytes
    layer: bytes
    stamp: str


async def hash_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> Hashes:
    """SHA-256 and merkle tree of a file, read once; can be cancelled between blocks. `progress` gets the bytes done.

    The two are computed beside each other while the next block is read. Raises OSError; BrokenModelFile for an empty
    file; Conflict for one that changed meanwhile.
    """
    with path.open("rb", buffering=0) as file:
        stat = os.fstat(file.fileno())
        digest, tree, done = hashlib.sha256(), FileHasher(stat.st_size), 0
        block = await in_thread(_read, file, stat.st_size)
        while block:
            done += len(block)
            *_, following = await asyncio.gather(
                in_thread(digest.update, block),
                in_thread(tree.update, block),
                in_thread(_read, file, stat.st_size - done),
            )
            block = following
            progress(done)
        if not stat.st_size:
            raise BrokenModelFile(f"{path} is empty.", hint="Get it again.")
        if done != stat.st_size or stamp_of(os.fstat(file.fileno())) != stamp_of(stat):
            raise Conflict(f"{path} was written to while it was read.", hint="Try again when it is complete.")
    return Hashes(stat.st_size, digest.hexdigest(), *tree.finish(), stamp_of(stat))


def _read(file: FileIO, most: int) -> bytes:
    return file.read(min(HASH_BLOCK, most))


class PartialFile:
    """A file that grows at its end, and the hash of what is in it. Its size on disk is the truth about progress."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[PartialFile]:
        """Open, hashing what is there from an earlier try."""
        with named_disk_errors(self.path):
            self._file = self.path.open("a+b", buffering=0)
        try:
            await self._rehash(os.fstat(self._file.fileno()).st_size)
            yield self
        finally:
            self._file.close()

    async def write(self, block: bytes) -> None:
        """Append. Raises DiskFull; what fitted is kept."""
        await in_thread(self._write, block)

    async def cut(self, size: int) -> None:
        """Go back to the first `size` bytes."""
        if size < self.size:
            self._file.truncate(size)
            await self._rehash(size)

    async def reserve(self, size: int) -> None:
        """Claim disk for `size` bytes in all, where the system can do so without changing the file's size.

        Raises DiskFull.
        """
        if sys.platform == "linux" and sys.maxsize > 2**32 and size > self.size:
            await in_thread(self._reserve, size)

    async def finish(self) -> str:
        """Make the content last; returns its SHA-256."""
        with named_disk_errors(self.path):
            await in_thread(os.fsync, self._file.fileno())
        return self._digest.hexdigest()

    def front(self, size: int) -> bytes:
        """The first bytes, for a look at them while the rest is still coming."""
        return self._read(0, size)

    def _write(self, block: bytes) -> None:
        with named_disk_errors(self.path):
            view = memoryview(block)
            while view:
                written = self._file.write(view)
                self._digest.update(view[:written])
                self.size += written
                view = view[written:]

    def _reserve(self, size: int) -> None:
        # posix_fallocate would grow the file at once, and then its size would not tell how much of it is there.
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
        if fallocate(self._file.fileno(), _KEEP_SIZE, 0, size) != 0 and ctypes.get_errno() in _FULL:
            with named_disk_errors(self.path):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    async def _rehash(self, size: int) -> None:
        self._digest = hashlib.sha256()
        self.size = size
        for offset in range(0, size, HASH_BLOCK):
            block = await in_thread(self._read, offset, min(HASH_BLOCK, size - offset))
            await in_thread(self._digest.update, block)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)  # only reading moves: writes always go to the end
        return self._file.read(size)


class FileOrigin:
    """A file on this machine, to be copied."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def description(self) -> str:
        return str(self._path)

    async def resolve(self) -> Plan:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise NotFound(f"{self._path} cannot be read ({error.strerror}).", hint="Check the path.") from error
        volume = Volume(
            location=str(self._path), size=stat.st_size, fetched=stat.st_size, validator=f"{stat.st_mtime_ns}"
        )
        return Plan(file_name=self._path.name, volumes=(volume,))

    @asynccontextmanager
    async def read(self, volume: Volume, start: int) -> AsyncIterator[Body]:
        with self._path.open("rb") as file:
            file.seek(start)

            async def chunks() -> AsyncIterator[bytes]:
                while block := await in_thread(file.read, BLOCK):
                    yield block

            yield Body(start, chunks())
