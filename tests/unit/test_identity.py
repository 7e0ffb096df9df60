"""The file that holds who a node is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import AlreadyRunning, BadRequest, LocalError, NotSupported, VerificationFailed
from pares.store.files import claimed
from pares.store.identity import MOST_CHARACTERS, export_text, import_text, load_or_make, read, save

SEEDS = st.binary(min_size=32, max_size=32)


@given(SEEDS)
def test_what_is_exported_is_imported(seed: bytes) -> None:
    text = export_text(seed)
    assert import_text(text) == seed
    assert import_text(text.replace("\n", "\r\n")) == seed, "a text may have come by mail"
    assert import_text(f"\n> \n{text}\nBest wishes") == seed
    assert len(text) < MOST_CHARACTERS


@given(SEEDS, st.data())
def test_a_changed_digit_or_a_cut_is_noticed(seed: bytes, data: st.DataObject) -> None:
    text = export_text(seed)
    digits = range(text.index("\nseed ") + 6, text.index("\nid "))
    place = data.draw(st.sampled_from(digits))
    other = data.draw(st.sampled_from(sorted(set("0123456789abcdefg") - {text[place]})))
    with pytest.raises(VerificationFailed):
        import_text(text[:place] + other + text[place + 1 :])
    cut = data.draw(st.integers(digits.start, len(text) - 2))
    with pytest.raises(VerificationFailed):
        import_text(text[:cut])


@given(st.text() | st.text("pares-identity seedid 0123456789abcdef\n"))
def test_any_other_text_is_refused_as_what_it_is(text: str) -> None:
    with pytest.raises(LocalError):
        import_text(text)


def test_another_kind_of_file_and_a_later_version_are_told_apart() -> None:
    with pytest.raises(BadRequest, match="not the identity of a node"):
        import_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(NotSupported, match="format 2"):
        import_text(export_text(bytes(32)).replace("identity 1", "identity 2"))


def test_an_identity_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    seed = load_or_make(path)
    assert len(seed) == 32
    assert load_or_make(path) == seed
    assert load_or_make(tmp_path / "another") != seed
    assert path.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"identity", "another"}, "no temporary files stay"


def test_a_file_that_others_could_read_is_mended_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "identity"
    seed = load_or_make(path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert load_or_make(path) == seed
    assert path.stat().st_mode & 0o777 == 0o600
    assert [record.message for record in caplog.records] == ["identity.others_could_read"]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"pares-identity 1\nseed 00\nid 00\n", b"x" * 10_000_000])
def test_a_damaged_file_is_never_replaced_by_itself(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(content)
    with pytest.raises(VerificationFailed, match="left as it is"):
        load_or_make(path)
    assert path.read_bytes() == content


def test_saving_replaces_the_whole_file(tmp_path: Path) -> None:
    save(tmp_path / "identity", bytes(32))
    save(tmp_path / "identity", b"1" * 32)
    assert read(tmp_path / "identity") == b"1" * 32


def test_one_holds_a_home_at_a_time(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with claimed(home), pytest.raises(AlreadyRunning), claimed(home):
        pass
    with claimed(home):
        assert home.is_dir()
