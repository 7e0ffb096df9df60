"""Writing a slice of a model's file (see `slices`), from the whole file or from one that has only some of its bytes.

The kernel copies: weights pass through no memory of ours. On file systems that share blocks between files (btrfs, XFS,
bcachefs) the slice then costs next to no disk; on others it costs as much as its tensors. What is zeros is a hole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pares.errors import BrokenModelFile, DiskFull, NotFound
from pares.inference.slices import SHARED_BLOCK, Copied, Slice

ByteRuns = Sequence[tuple[int, int]]
"""Bytes of a file as ranges [first, after last) that neither overlap nor touch."""

CHUNK = 64 << 20
"""Bytes copied between two reports of progress."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


def write_slice(
    source: Path,
    plan: Slice,
    target: Path,
    *,
    have: ByteRuns | None = None,
    progress: Callable[[int], None] = lambda copied: None,
) -> None:
    """Write a planned slice of `source`: all of it, on the disk, or nothing. Blocks; one writer of a target at a time.

    `have`: the bytes that are in the source, None for all. `progress` is told the bytes copied so far, and may raise to
    give up. Raises NotFound for a tensor that is not in the source, BrokenModelFile for a source of another size,
    DiskFull, and OSError where a file cannot be read or written.
    """
    if have is not None:
        _check_present(plan, have)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with source.open("rb") as weights, partial.open("wb") as file:
            if (size := os.fstat(weights.fileno()).st_size) != plan.source_bytes:
                raise _changed(source, f"it has {size} bytes instead of {plan.source_bytes}")
            file.write(plan.front)
            file.flush()
            file.truncate(plan.file_bytes)
            done = 0
            for start, to, length in _runs(plan.tensors):
                for copied in _copy(weights, start, file, to, length):
                    if not copied:
                        raise _changed(source, "it became shorter while it was read")
                    done += copied
                    progress(done)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFull(
            f"The disk is full: {target.name} needs up to {plan.file_bytes} bytes.",
            hint="Make room and try again.",
            needed=plan.file_bytes,
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _check_present(plan: Slice, have: ByteRuns) -> None:
    for tensor in plan.tensors:
        first, after = tensor.source, tensor.source + tensor.nbytes
        if not any(start <= first and after <= end for start, end in have):
            raise NotFound(
                f"The weights `{tensor.name}` are not here: bytes {first} to {after} of the model were not fetched.",
                hint="Fetch the layers of this stage first.",
                tensor=tensor.name,
            )


def _changed(source: Path, how: str) -> BrokenModelFile:
    return BrokenModelFile(f"{source.name} is not the file that was read before: {how}.", hint="Try again.")


def _runs(tensors: Sequence[Copied]) -> Iterator[tuple[int, int, int]]:
    """(source, target, length) of neighbours that stay neighbours, the padding between them included."""
    at = 0
    while at < len(tensors):
        last = at
        while last + 1 < len(tensors) and _moved(tensors[last + 1]) == _moved(tensors[at]):
            last += 1
        end = tensors[last].source + tensors[last].nbytes
        yield tensors[at].source, tensors[at].target, end - tensors[at].source
        at = last + 1


def _moved(tensor: Copied) -> int:
    return tensor.target - tensor.source


def _copy(source: BinaryIO, start: int, target: BinaryIO, to: int, length: int) -> Iterator[int]:
    """Copy bytes from one place to another; gives how many after each chunk, 0 if the source has no more."""
    kernel = hasattr(os, "copy_file_range")
    while length:
        step = min(length, CHUNK)
        if (before := -start % SHARED_BLOCK) and start % SHARED_BLOCK == to % SHARED_BLOCK:
            step = min(length, before)  # whole blocks from there on can be shared
        if kernel:
            try:
                copied = os.copy_file_range(source.fileno(), target.fileno(), step, start, to)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                kernel = False
                continue
        else:
            source.seek(start)
            target.seek(to)
            copied = target.write(source.read(min(step, 4 << 20)))
        yield copied
        if not copied:
            return
        start, to, length = start + copied, to + copied, length - copied
