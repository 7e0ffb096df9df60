from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from unittest.mock import ANY

import msgspec
import pytest

from pares.errors import BrokenModelFile, NotFound, VerificationFailed
from pares.inference.gguf import read_header
from pares.store.content import FileRecord
from pares.store.database import Database
from pares.swarm.disk import link, used_bytes
from pares.swarm.files import Files, header_of, trouble
from pares.swarm.merkle import FileHasher, is_layer, piece_length
from tiny import tiny_llama

PIECE = piece_length(1)


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    (tmp_path / "models").mkdir()
    async with Database(tmp_path / "node.db") as database:
        yield Files(database, tmp_path / "models")


@pytest.fixture
def content() -> bytes:
    """Five pieces, the last one short."""
    return os.urandom(4 * PIECE + 12_345)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system such as FAT."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)


def own(files: Files, name: str, content: bytes) -> Path:
    path = files.folder.parent / name
    path.write_bytes(content)
    return path


def same(one: Path, other: Path) -> bool:
    return one.stat().st_ino == other.stat().st_ino


async def test_a_file_of_ours_gets_a_second_name_in_the_store(files: Files, content: bytes) -> None:
    path = own(files, "a.gguf", content)
    seen: list[int] = []
    record = await files.take(path, linked=False, progress=seen.append)
    hasher = FileHasher(len(content))
    hasher.update(content)
    assert (record.root, record.layer) == hasher.finish()
    assert is_layer(record.layer, record.root, record.size)
    assert record.sha256 == sha256(content).hexdigest()
    assert (record.size, record.pieces, seen[-1]) == (len(content), None, len(content))
    assert Path(record.path) == files.folder / record.root.hex()
    assert same(path, Path(record.path))
    assert await files.get(record.root) == record
    assert await files.take(path, linked=False) == record, "taking again changes nothing"
    assert os.listdir(files.folder) == [record.root.hex()]


async def test_equal_bytes_lie_on_the_disk_once(files: Files, content: bytes) -> None:
    one, two = own(files, "a.gguf", content), own(files, "b.gguf", content)
    assert not same(one, two)
    await asyncio.gather(files.take(one, linked=False), files.take(two, linked=False))
    assert same(one, two)
    assert two.read_bytes() == content
    assert sorted(path.name for path in files.folder.parent.iterdir()) == ["a.gguf", "b.gguf", "files"]
    (record,) = await files.all()
    assert os.stat(record.path).st_nlink == 3


async def test_a_linked_file_stays_and_is_never_deleted(files: Files, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    path.write_bytes(content)
    record = await files.take(path, linked=True)
    assert (record.path, record.linked) == (str(path), True)
    assert not files.folder.exists()
    assert await files.forget(record.root) == 0
    assert path.read_bytes() == content
    assert await files.all() == ()


async def test_a_copy_of_ours_takes_the_place_of_a_linked_one(files: Files, content: bytes, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(content)
    await files.take(theirs, linked=True)
    mine = own(files, "a.gguf", content)
    record = await files.take(mine, linked=False)
    assert not record.linked
    assert same(mine, Path(record.path))
    assert not same(mine, theirs), "the owner may write to theirs"
    assert await files.take(theirs, linked=True) == record


async def test_forgetting_frees_the_disk_once_no_name_is_left(files: Files, content: bytes) -> None:
    path = own(files, "a.gguf", content)
    record = await files.take(path, linked=False)
    used = used_bytes(path)
    assert await files.drop_name(path, record.root) == 0
    assert Path(record.path).read_bytes() == content
    assert await files.forget(record.root) == used
    assert not Path(record.path).exists()
    assert await files.forget(record.root) == 0


async def test_where_there_are_no_links_the_store_points_at_the_file(
    files: Files, content: bytes, no_links: None
) -> None:
    path = own(files, "a.gguf", content)
    record = await files.take(path, linked=False)
    assert (record.path, record.linked, trouble(record)) == (str(path), False, "")
    assert await files.drop_name(path, record.root) == 0
    moved = await files.get(record.root)
    assert moved is not None
    assert Path(moved.path) == files.folder / record.root.hex()
    assert Path(moved.path).read_bytes() == content
    assert trouble(moved) == ""
    assert await files.forget(record.root) > 0


async def test_a_change_is_noticed_without_reading(files: Files, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    path.write_bytes(content)
    record = await files.take(path, linked=True)
    assert trouble(record) == ""
    os.utime(path, ns=(1, 1))
    assert "has changed" in trouble(record)
    await files.verify(record.root)
    fresh = await files.get(record.root)
    assert fresh is not None
    assert trouble(fresh) == "", "only the time was another"
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    os.utime(copy, ns=(1, 1))
    copy.replace(path)
    assert "has changed" in trouble(fresh)
    path.unlink()
    assert "not at" in trouble(fresh)
    with pytest.raises(NotFound):
        await files.verify(record.root)


@pytest.mark.parametrize(("at", "piece"), [(0, 0), (PIECE - 1, 0), (PIECE, 1), (4 * PIECE + 12_344, 4)])
async def test_verifying_names_the_first_bad_piece(files: Files, content: bytes, at: int, piece: int) -> None:
    path = own(files, "a.gguf", content)
    record = await files.take(path, linked=False)
    seen: list[int] = []
    await files.verify(record.root, seen.append)
    assert seen[-1] == len(content)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    with pytest.raises(VerificationFailed, match=f"piece {piece} of 5") as failed:
        await files.verify(record.root)
    assert (failed.value.exit_code, failed.value.fields["piece"]) == (7, piece)


async def test_verifying_a_file_of_one_piece_that_is_cut_or_grows(files: Files) -> None:
    path = own(files, "a.gguf", b"small")
    record = await files.take(path, linked=False)
    await files.verify(record.root)
    path.write_bytes(b"smal")
    with pytest.raises(VerificationFailed, match="piece 0 of 1"):
        await files.verify(record.root)
    path.write_bytes(b"small" + bytes(1 << 20))
    with pytest.raises(VerificationFailed, match="1,048,581 bytes; it had 5"):
        await files.verify(record.root)


async def test_a_part_is_verified_as_far_as_it_is_here_and_becomes_the_whole(files: Files, content: bytes) -> None:
    whole = await files.take(own(files, "a.gguf", content), linked=False)
    await files.forget(whole.root)
    path = files.partial_path(whole.root)
    with path.open("wb") as file:
        file.truncate(len(content))
        file.seek(PIECE)
        file.write(content[PIECE : 3 * PIECE])
    part = FileRecord(
        root=whole.root, size=whole.size, path=str(path), layer=whole.layer, pieces=((1, 3),), keeper=True
    )
    await files.put(part)
    stored = await files.get(part.root)
    assert stored is not None
    assert (stored.pieces, stored.layer, trouble(stored)) == (((1, 3),), whole.layer, "")
    await files.verify(part.root)
    await files.put(msgspec.structs.replace(part, pieces=((0, 3),)))
    with pytest.raises(VerificationFailed, match="piece 0 of 5"):
        await files.verify(part.root)
    with pytest.raises(VerificationFailed, match="not the bytes"):
        await files.take(path, linked=False)
    path.write_bytes(content)
    record = await files.take(path, linked=False)
    assert (record.pieces, record.path, record.keeper) == (None, str(path), True)
    assert record.sha256 == whole.sha256


async def test_a_whole_file_takes_the_place_of_a_part(files: Files, content: bytes, tmp_path: Path) -> None:
    hasher = FileHasher(len(content))
    hasher.update(content)
    root, layer = hasher.finish()
    partial = files.partial_path(root)
    part = FileRecord(root=root, size=len(content), path=str(partial), layer=layer, pieces=((0, 1),))
    partial.write_bytes(content[:PIECE])
    await files.put(part)
    mine = own(files, "a.gguf", content)
    assert (await files.take(mine, linked=False)).pieces is None
    assert same(mine, partial)
    await files.forget(root)
    partial.write_bytes(content[:PIECE])
    await files.put(part)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(content)
    assert (await files.take(theirs, linked=True)).path == str(theirs)
    assert not partial.exists()
    await files.put_part(part)
    record = await files.get(root)
    assert record is not None
    assert record.pieces is None, "a download that ends only now does not unsay what is here"
    theirs.unlink()
    await files.put_part(part)
    assert await files.get(root) == msgspec.structs.replace(part, added_at=ANY, used_at=ANY)


async def test_the_file_behind_a_symbolic_link_gets_no_name_in_the_store(
    files: Files, content: bytes, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(content)
    mine = files.folder.parent / "a.gguf"
    mine.symlink_to(theirs)
    record = await files.take(mine, linked=False)
    assert record.path == str(mine)
    assert not files.partial_path(record.root).exists()
    assert await files.drop_name(mine, record.root) == 0
    assert await files.forget(record.root) < PIECE, "the link is ours, the file is not"
    assert theirs.read_bytes() == content
    assert not mine.is_symlink()


async def test_the_header_of_a_part_is_read_though_its_file_is_short(files: Files, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m.gguf", embedding=64, ffn=64)
    whole = await files.take(model, linked=True)
    header = header_of(whole)
    assert header.tensors == read_header(model).tensors
    cut = tmp_path / "part"
    cut.write_bytes(model.read_bytes()[: header.data_start])
    part = msgspec.structs.replace(whole, path=str(cut), pieces=((0, 1),))
    assert header_of(part).tensors == header.tensors
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(BrokenModelFile, match="ends inside"):
        header_of(part)


async def test_bytes_that_are_not_those_expected_are_not_taken(files: Files, content: bytes) -> None:
    path = own(files, "a.gguf", content)
    with pytest.raises(VerificationFailed, match="has changed"):
        await files.take(path, linked=False, sha256="0" * 64)
    with pytest.raises(BrokenModelFile, match="is empty"):
        await files.take(own(files, "empty.gguf", b""), linked=False)
    with pytest.raises(FileNotFoundError):
        await files.take(path.with_name("nothing"), linked=False)
    assert await files.all() == ()


async def test_a_stop_while_hashing_leaves_nothing_behind(files: Files, content: bytes) -> None:
    path = own(files, "a.gguf", content)
    begun = asyncio.Event()
    task = asyncio.create_task(files.take(path, linked=False, progress=lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await files.all() == ()
    assert not files.folder.exists()


async def test_traffic_adds_up_and_outlives_the_file(files: Files, content: bytes) -> None:
    record = await files.take(own(files, "a.gguf", content), linked=False)
    await files.content.add_traffic(record.root, 5, 7)
    await files.content.add_traffic(record.root, 1, 0)
    await files.forget(record.root)
    assert await files.content.traffic() == {record.root: (6, 7)}


async def test_the_file_used_longest_ago_comes_first(files: Files) -> None:
    records = [await files.take(own(files, f"{n}.gguf", bytes([n + 1])), linked=False) for n in range(3)]
    await files.content.touch(records[0].root)
    assert [each.root for each in await files.all()] == [records[n].root for n in (1, 2, 0)]


def test_linking_onto_another_name_of_the_same_file_leaves_no_third(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x")
    assert link(one, two)
    assert link(one, two)
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
