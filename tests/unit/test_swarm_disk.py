from __future__ import annotations

import asyncio
import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import BrokenModelFile, DiskFull, NotSupported
from pares.swarm.disk import PartialFile, free_bytes, hash_file, in_thread, readable, used_bytes
from pares.swarm.formats import refuse_other_formats


async def test_a_full_device_has_a_name() -> None:
    async with PartialFile(Path("/dev/full")).open() as file:
        await file.reserve(1000)
        with pytest.raises(DiskFull, match="No space left"):
            await file.write(b"x")


async def test_the_hash_is_that_of_the_content_over_reopening_and_cutting(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    async with PartialFile(path).open() as file:
        await file.write(b"hello world")
    async with PartialFile(path).open() as file:
        assert file.size == 11
        await file.cut(5)
        await file.write(b"!")
        assert await file.finish() == hashlib.sha256(b"hello!").hexdigest()
        assert file.front(4) == b"hell"
    assert path.read_bytes() == b"hello!"
    assert (await hash_file(path)).sha256 == hashlib.sha256(b"hello!").hexdigest()


async def test_reserving_claims_disk_but_not_size(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    async with PartialFile(path).open() as file:
        await file.reserve(4 << 20)
        assert path.stat().st_size == 0
        assert used_bytes(path) in (0, 4 << 20), "0 where the file system cannot"
        await file.write(b"x" * 100)
        assert path.stat().st_size == 100


async def test_cancelling_waits_for_the_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_sizes_are_readable() -> None:
    assert [readable(n) for n in (12, 98_362_432, 4_372_812_000, 2 * 10**12)] == [
        "12 bytes",
        "98.4 MB",
        "4.37 GB",
        "2,000 GB",
    ]


def test_free_space_is_that_of_the_disk_a_folder_will_be_on(tmp_path: Path) -> None:
    assert abs(free_bytes(tmp_path / "not" / "yet") - free_bytes(tmp_path)) < 10**9


_heads = st.sampled_from(
    [b"GGUF", b"PK\x03\x04", b"\x80\x04", b"\n<", b"ggjt", b"tjgg", b"version https://git-lfs", b""]
)


@given(head=st.tuples(_heads, st.binary(max_size=64)).map(b"".join), name=st.sampled_from(["m.gguf", "m.pt", ""]))
def test_only_what_begins_like_a_gguf_is_let_through(head: bytes, name: str) -> None:
    if head.startswith(b"GGUF"):
        refuse_other_formats(head, name)
    else:
        with pytest.raises((NotSupported, BrokenModelFile)):
            refuse_other_formats(head, name)
