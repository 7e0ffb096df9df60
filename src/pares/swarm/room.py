"""Room on the disk: asked for, and claimed, before the first byte is fetched."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from pares.errors import DiskFull
from pares.swarm.disk import named_disk_errors, readable

_KEEP_SIZE = 1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def require_room(name: str, folder: Path, *, needed: int, used: int, reserve: int, free: int) -> None:
    """Raise DiskFull unless `needed` bytes, of which `used` are there already, leave `reserve` bytes free."""
    missing = needed - used + reserve - free
    if missing > 0:
        raise DiskFull(
            f"{name} needs {readable(needed)} on the disk of {folder}, and {readable(reserve)} must stay free; "
            f"{readable(free)} are free.",
            hint=f"Free {readable(missing)}, or choose another folder (swarm.folder).",
            needed=needed,
            reserve=reserve,
            free=free,
            missing=missing,
        )


def claim(path: Path, size: int) -> None:
    """Claim disk for a file of `size` bytes where the system can do so; what is in the file stays as it is.

    The file's own size is not changed: a hole would look like bytes that are there. Raises DiskFull.
    """
    if sys.platform != "linux" or sys.maxsize <= 2**32:
        return
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fallocate(handle, _KEEP_SIZE, 0, size) != 0 and ctypes.get_errno() in _FULL:
            with named_disk_errors(path):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)
