"""Bytes from outside: the parser gives a header, asks for more, or raises BrokenModelFile; nothing else ever."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp._ggml import libggml

import raw_gguf as raw
from pares.errors import BrokenModelFile, NotSupported
from pares.inference import memory
from pares.inference.gguf import GGUFArray, Header, Incomplete, check_loadable, parse_header

SAMPLE = raw.sample()
EDGES = [0, 1, 2, 255, 256, 2**16, 2**22, 2**22 + 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]

EDITS = st.tuples(
    st.integers(0, len(SAMPLE)),
    st.binary(max_size=12) | st.sampled_from(EDGES).map(raw.u64) | st.integers(0, 50).map(raw.u32),
    st.integers(0, 12),
)


def mutated(edits: list[tuple[int, bytes, int]]) -> bytes:
    """The sample with bytes written over, put in, or left out."""
    blob = SAMPLE
    for at, piece, removed in edits:
        blob = blob[:at] + piece + blob[at + removed :]
    return blob


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def llama_cpp_reads(blob: bytes) -> bool:
    """Whether llama.cpp's own parser takes the file."""
    libggml.gguf_init_from_file.restype = ctypes.c_void_p
    libggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    libggml.gguf_free.argtypes = [ctypes.c_void_p]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.gguf"
        path.write_bytes(blob)
        handle = libggml.gguf_init_from_file(bytes(path), InitParams(True, None))
    if handle:
        libggml.gguf_free(handle)
    return bool(handle)


def holds_together(header: Header) -> None:
    """What the rest of the program relies on."""
    end = header.data_start
    for tensor in header.tensors:
        assert tensor.offset >= end
        assert tensor.offset % header.alignment == 0
        end = tensor.offset + tensor.nbytes
    assert not header.tensors or end <= header.file_bytes
    for key, value in header.metadata.items():
        assert header.raw_field(key) in bytes(header.raw)
        if isinstance(value, GGUFArray):
            assert len(list(value)) == len(value)
    try:
        check_loadable(header)
        memory.largest_context(header, 1 << 30)
    except (BrokenModelFile, NotSupported):
        pass


def verdict(front: bytes, file_bytes: int) -> Header | Incomplete | str:
    """What the parser makes of it; a refusal as its message."""
    try:
        return parse_header(front, file_bytes)
    except BrokenModelFile as refused:
        return refused.message


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1 << 40))
def test_random_bytes(blob: bytes, file_bytes: int) -> None:
    for front in (blob, SAMPLE[:8] + blob):
        header = verdict(front, file_bytes)
        if isinstance(header, Incomplete):
            assert len(front) < header.at_least <= file_bytes
        elif isinstance(header, Header):
            holds_together(header)


@settings(max_examples=600, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_mutations_of_a_sound_file(edits: list[tuple[int, bytes, int]]) -> None:
    """What we let pass is sound, and llama.cpp's own parser takes it."""
    blob = mutated(edits)
    header = verdict(blob, len(blob))
    if isinstance(header, str):
        assert len(header) < 1000
    else:
        assert isinstance(header, Header)
        holds_together(header)
        assert llama_cpp_reads(blob)


@settings(max_examples=200, deadline=None)
@given(st.lists(EDITS, max_size=2), st.data())
def test_the_verdict_on_a_file_does_not_depend_on_how_it_arrives(
    edits: list[tuple[int, bytes, int]], data: st.DataObject
) -> None:
    blob = mutated(edits)
    there = data.draw(st.integers(0, len(blob)))
    while isinstance(arriving := verdict(blob[:there], len(blob)), Incomplete):
        assert there < arriving.at_least <= len(blob)
        there = arriving.at_least
    whole = verdict(blob, len(blob))
    assert arriving == whole if isinstance(whole, str) else isinstance(arriving, Header)
