"""Files of the home: written whole or not at all, and by one node at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pares.errors import AlreadyRunning

LOCK_NAME = "node.lock"


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all of it or nothing."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Hold a home as its node does; it is made if it is not there. Raises AlreadyRunning if another one has it."""
    from filelock import FileLock, Timeout

    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(home / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunning(
            f"Another node has the home {home}.",
            hint="Use it, stop it with `pares down`, or set PARES_HOME for a second one.",
        ) from None
    try:
        yield
    finally:
        lock.release()
