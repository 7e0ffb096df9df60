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


_decoder = msgspec.msgpack.Decoder(Kept)


def read(path: Path, size: int, have_bytes: int) -> Kept | None:
    """What was kept of a file of this size and length of bitfield; None if nothing, or nothing that makes sense."""
    try:
        with path.open("rb") as file:
            kept = _decoder.decode(file.read(KEPT_BYTES))
    except (OSError, msgspec.DecodeError):
        return None
    sound = kept.size == size and len(kept.have) == have_bytes
    return kept if sound and all(0 <= piece < 8 * have_bytes for piece in kept.unfinished) else None


def keep(path: Path, kept: Kept, file: Path, inode: tuple[int, int] | None) -> tuple[int, int]:
    """Bring the file to the disk, and only then what is known of it. Waits for the disk; raises OSError.

    Returns which file it is (device, inode). Raises FileNotFoundError if it is another than `inode`.
    """
    with file.open("rb") as content:
        status = os.fstat(content.fileno())
        found = (status.st_dev, status.st_ino)
        if inode not in (None, found):
            raise FileNotFoundError(errno.ENOENT, "replaced", str(file))
        os.fsync(content.fileno())
    write_whole(path, msgspec.msgpack.encode(kept))
    return found


def doubt(path: Path, size: int, have_bytes: int) -> None:
    """Take back what was claimed. Where even that cannot be written, without a claim the file is checked too."""
    try:
        write_whole(path, msgspec.msgpack.encode(Kept(size, bytes(have_bytes), doubtful=True)))
    except OSError:
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """All of it or nothing, also when the power fails."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def trouble(file: Path, size: int, *, complete: bool, begun: bool) -> ParesError | None:
    """Why a file cannot be seeded or fetched on: it, or the folder it belongs in, is gone or of another size."""
    try:
        found = file.stat().st_size
    except OSError as error:
        if error.errno != errno.ENOENT or complete or begun:
            return what_of(error.errno or 0, file)
        return None if file.parent.is_dir() else what_of(errno.ENOENT, file.parent)
    if found > size or (complete and found != size):
        return VerificationFailed(
            f"{file} has {found} bytes; {size} were expected.", hint="It was changed or replaced."
        )
    return None


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
