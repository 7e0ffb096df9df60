from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import libtorrent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.swarm.merkle import (
    BLOCK,
    HASH,
    FileHasher,
    is_layer,
    piece_hash,
    piece_length,
    piece_span,
    pieces,
    root_of_layer,
)

PIECE = piece_length(1)
EDGES = sorted(
    {1, 31, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 5}
    | {PIECE - 1, PIECE, PIECE + 1, PIECE + BLOCK}
    | {2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE, 3 * PIECE - BLOCK}
    | {4 * PIECE + 1, 5 * PIECE, 7 * PIECE + 3 * BLOCK + 7}
)


def hashed(data: bytes, step: int = PIECE) -> tuple[bytes, bytes]:
    hasher = FileHasher(len(data))
    for at in range(0, len(data), step):
        hasher.update(data[at : at + step])
    return hasher.finish()


def by_libtorrent(path: Path) -> tuple[bytes, bytes]:
    """Root and layer as libtorrent itself computes them for a torrent of this file."""
    size = path.stat().st_size
    torrent = libtorrent.create_torrent(
        libtorrent.list_files(str(path)), piece_length(size), libtorrent.create_torrent.v2_only
    )
    libtorrent.set_piece_hashes(torrent, str(path.parent))
    made: Any = torrent.generate()
    root = made[b"info"][b"file tree"][path.name.encode()][b""][b"pieces root"]
    return root, made[b"piece layers"].get(root, b"")


@pytest.mark.parametrize("size", EDGES)
def test_roots_and_layers_are_those_of_libtorrent(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(size))
    assert hashed(data) == by_libtorrent(path)


def test_larger_pieces_are_hashed_as_libtorrent_does(tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = 10**9 + 5  # mostly a hole: nothing is stored
    with path.open("wb") as file:
        file.write(b"front")
        file.seek(size - 4)
        file.write(b"back")
    hasher = FileHasher(size)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            hasher.update(block)
    assert hasher.finish() == by_libtorrent(path)
    assert piece_length(size) == 1 << 20


@given(size=st.integers(1, 1 << 46), layer=st.binary(max_size=200), root=st.binary(min_size=32, max_size=32))
def test_what_a_peer_sends_as_a_layer_is_no_layer(size: int, layer: bytes, root: bytes) -> None:
    assert is_layer(layer, root, size) == (pieces(size) == 1 and not layer)


def test_pieces_grow_with_the_file() -> None:
    kib = {1: 256, 10**9 - 1: 256, 10**9: 1024, 16 * 10**9 - 1: 1024, 16 * 10**9: 4096}
    kib |= {256 * 10**9 - 1: 4096, 256 * 10**9: 16_384, 1 << 46: 16_384}
    assert {size: piece_length(size) >> 10 for size in kib} == kib
    assert [pieces(size) for size in (1, PIECE, PIECE + 1, 10**9, 16 * 10**9)] == [1, 1, 2, 954, 3815]


@settings(deadline=None)
@given(size=st.sampled_from(EDGES[:12]), steps=st.lists(st.integers(1, 200_000), min_size=1, max_size=8))
def test_how_the_bytes_arrive_changes_nothing(size: int, steps: list[int]) -> None:
    data = (b"some bytes that repeat " * (size // 20 + 1))[:size]
    hasher = FileHasher(size)
    at = turn = 0
    while at < size:
        step = steps[turn % len(steps)]
        hasher.update(data[at : at + step])
        at, turn = at + step, turn + 1
    assert hasher.finish() == hashed(data)


@settings(deadline=None, max_examples=20)
@given(size=st.sampled_from([size for size in EDGES if size > PIECE]), bit=st.integers(0, 1 << 30))
def test_a_layer_fits_its_own_root_alone(size: int, bit: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    root, layer = hashed(data)
    assert root_of_layer(layer, size) == root
    assert is_layer(layer, root, size)
    spans = [piece_span(piece, size) for piece in range(pieces(size))]
    assert b"".join(piece_hash(data[slice(*span)], size) for span in spans) == layer
    wrong = bytearray(layer)
    wrong[bit % len(layer)] ^= 1
    assert not is_layer(bytes(wrong), root, size)
    assert not is_layer(layer[:-HASH], root, size)
    assert not is_layer(layer + bytes(HASH), root, size)
    assert not is_layer(b"", root, size)


def test_a_file_of_one_piece_has_no_layer() -> None:
    root, layer = hashed(b"x" * BLOCK * 3)
    assert layer == b""
    assert piece_hash(b"x" * BLOCK * 3, BLOCK * 3) == root
    assert is_layer(b"", root, BLOCK * 3)
    assert not is_layer(root, root, BLOCK * 3)


def test_a_file_that_is_shorter_or_longer_than_it_was_has_no_root() -> None:
    hasher = FileHasher(10)
    hasher.update(b"123456789")
    with pytest.raises(ValueError, match="9 of 10"):
        hasher.finish()
    with pytest.raises(ValueError, match="more than 10"):
        hasher.update(b"01")
    with pytest.raises(ValueError, match="0 of 0"):
        FileHasher(0).finish()
