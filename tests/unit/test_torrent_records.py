"""What is kept of a file that is fetched: sets of pieces, the record on disk, and what is wrong with a file."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.transport.bitfield import bits_of, packed, runs_of, unpacked
from pares.transport.bittorrent_resume import Kept, doubt, keep, read, trouble, what_of


@given(st.lists(st.booleans(), max_size=200))
def test_a_set_of_pieces_is_the_same_as_flags_as_bits_and_as_runs(flags: list[bool]) -> None:
    bits = packed(flags)
    assert unpacked(bits, len(flags)) == flags
    runs = runs_of(bits)
    assert bits_of(runs, len(flags)) == bits
    assert [piece for first, end in runs for piece in range(first, end)] == [n for n, flag in enumerate(flags) if flag]
    assert all(earlier[1] < later[0] for earlier, later in pairwise(runs))


@pytest.mark.parametrize("run", [(0, 0), (3, 2), (-1, 2), (4, 11)])
def test_runs_outside_of_the_file_are_refused(run: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="of 10"):
        bits_of((run,), 10)


def test_what_is_kept_is_read_again_for_the_same_file_only(tmp_path: Path) -> None:
    file, record = tmp_path / "file", tmp_path / "record"
    file.write_bytes(b"x" * 10)
    kept = Kept(10, b"\xa0", {1: b"\x80"})
    inode = keep(record, kept, file, 0, sync=True)
    assert read(record, 10, 1) == kept
    assert read(record, 11, 1) is None
    assert read(record, 10, 2) is None
    assert sorted(tmp_path.iterdir()) == [file, record]
    with pytest.raises(FileNotFoundError):
        keep(record, kept, file, inode + 1, sync=True)


def test_what_was_not_synced_is_in_doubt_after_a_restart_of_the_system(tmp_path: Path) -> None:
    file, record = tmp_path / "file", tmp_path / "record"
    file.write_bytes(b"x")
    keep(record, Kept(1, b"\x80"), file, 0, sync=False)
    before = read(record, 1, 1)
    assert before is not None
    assert not before.doubtful
    record.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(before, boot="another life")))
    after = read(record, 1, 1)
    assert after is not None
    assert after.doubtful
    doubt(record, 1, 1)
    assert read(record, 1, 1) == Kept(1, b"\x00", doubtful=True)


@given(st.binary(max_size=200))
def test_rubbish_in_a_record_is_no_record(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    record = tmp_path_factory.getbasetemp() / "rubbish"
    record.write_bytes(rubbish)
    found = read(record, 10, 1)
    assert found is None or (found.size == 10 and len(found.have) == 1)


def test_a_file_that_is_gone_smaller_larger_or_another_one_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def code(*, complete: bool = False, begun: bool = False, inode: int = 0) -> str:
        found = trouble(file, 5, complete=complete, begun=begun, inode=inode)
        return "" if found is None else found.code

    assert code() == ""
    assert code(begun=True) == code(complete=True) == "not_found"
    file.write_bytes(b"four")
    assert code(begun=True) == code(begun=True, inode=file.stat().st_ino) == ""
    assert code(complete=True) == "verification_failed"
    assert code(begun=True, inode=1) == "not_found"
    file.write_bytes(b"longer")
    assert code(begun=True) == "verification_failed"
    nowhere = trouble(tmp_path / "no" / "file", 5, complete=False, begun=False)
    assert nowhere is not None
    assert nowhere.code == "not_found"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EFBIG, "does_not_fit"),
        (errno.EROFS, "forbidden"),
        (errno.EIO, "not_found"),
        (errno.EINVAL, "error"),
    ],
)
def test_errors_of_the_system_have_names_for_people(number: int, code: str, tmp_path: Path) -> None:
    error = what_of(number, tmp_path / "file")
    assert error.code == code
    assert str(tmp_path) in error.message
