"""What the BitTorrent process keeps on disk of a file that it fetches, and what it finds wrong with files.

Not libtorrent's own resume data: that has the hashes of all blocks in it, 2 MB per GB of file, at every save.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from pares.errors import DiskFull, DoesNotFit, Forbidden, NotFound, ParesError, VerificationFailed

KEPT_BYTES = 4 << 20


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Pieces of a file that are verified and on the disk; of unfinished ones the blocks of 16 KiB."""

    size: int
    have: bytes
    unfinished: dict[int, bytes] = {}
    doubtful: bool = False
    """The file was begun, but all of it has to be checked."""
    boot: str = ""
    """Only the system's memory is known to have it all: it holds while the system runs on."""


_decoder = msgspec.msgpack.Decoder(Kept)


def read(path: Path, size: int, have_bytes: int) -> Kept | None:
    """What was kept of a file of this size and length of bitfield; None if nothing, or nothing that makes sense."""
    try:
        with path.open("rb") as file:
            kept = _decoder.decode(file.read(KEPT_BYTES))
    except (OSError, msgspec.DecodeError):
        return None
    if kept.boot not in ("", _boot()):
        kept = msgspec.structs.replace(kept, doubtful=True)
    sound = kept.size == size and len(kept.have) == have_bytes
    return kept if sound and all(0 <= piece < 8 * have_bytes for piece in kept.unfinished) else None


def keep(path: Path, kept: Kept, file: Path, inode: int, *, sync: bool) -> int:
    """Write down what is known of a file; with `sync`, after the file was brought to the disk. Raises OSError.

    A kill of the process loses neither. Without `sync`, nothing is known after a power failure, and all is checked.
    Returns the file's inode. Raises FileNotFoundError if it is another than `inode`, which is 0 if it is not known.
    """
    with file.open("rb") as content:
        found = os.fstat(content.fileno()).st_ino
        if inode not in (0, found):
            raise FileNotFoundError(errno.ENOENT, "replaced", str(file))
        if sync:
            os.fsync(content.fileno())
    write_whole(path, msgspec.msgpack.encode(kept if sync else msgspec.structs.replace(kept, boot=_boot())), sync=sync)
    return found


def doubt(path: Path, size: int, have_bytes: int) -> None:
    """Take back what was claimed. Where even that cannot be written, without a claim the file is checked too."""
    try:
        write_whole(path, msgspec.msgpack.encode(Kept(size, bytes(have_bytes), doubtful=True)))
    except OSError:
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """All of it or nothing; with `sync`, also when the power fails."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)


def trouble(file: Path, size: int, *, complete: bool, begun: bool, inode: int = 0) -> ParesError | None:
    """Why a file cannot be seeded or fetched on: it, or the folder it belongs in, is gone or of another size.

    Another file in its place counts as gone: where a disk was unmounted, libtorrent begins a new one.
    """
    try:
        found = file.stat()
    except OSError as error:
        if error.errno != errno.ENOENT or complete or begun:
            return what_of(error.errno or 0, file)
        return None if file.parent.is_dir() else what_of(errno.ENOENT, file.parent)
    if inode not in (0, found.st_ino):
        return what_of(errno.ENOENT, file)
    if found.st_size > size or (complete and found.st_size != size):
        message = f"{file} has {found.st_size} bytes; {size} were expected."
        return VerificationFailed(message, hint="It was changed or replaced.")
    return None


def _boot() -> str:
    """What names this run of the system; something new each time where the system has no such name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def what_of(number: int, file: Path, said: str = "") -> ParesError:
    """The error for people behind an error of the system."""
    match number:
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(f"The disk is full at {file.parent}.", hint="Make room, then resume; nothing is lost.")
        case errno.EFBIG:
            return DoesNotFit(f"The file system at {file.parent} does not hold files of this size.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Forbidden(f"{file} may not be opened here.", hint="Check the permissions, then resume.")
        case errno.ENOENT | errno.ENOTDIR | errno.ENODEV | errno.ENXIO | errno.ESTALE | errno.EIO:
            return NotFound(f"{file} is gone, or its disk.", hint="Bring it back, then resume.")
    return ParesError(f"{file}: {said or os.strerror(number)}.")
