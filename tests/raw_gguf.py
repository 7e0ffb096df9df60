"""GGUF files put together byte by byte, so that each byte can be wrong on purpose."""

from __future__ import annotations

import struct
from collections.abc import Sequence

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
F32, Q4_0 = 0, 2


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    """A string with its length in front."""
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    """One metadata entry."""
    return text(key) + u32(kind) + value


def array(element: int, length: int, values: bytes) -> bytes:
    """The value of an array entry."""
    return u32(element) + u64(length) + values


def tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int, *, dimensions: int | None = None) -> bytes:
    """One row of the tensor table."""
    count = len(dims) if dimensions is None else dimensions
    return text(name) + u32(count) + b"".join(u64(d) for d in dims) + u32(kind) + u64(offset)


def table(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    pair_count: int | None = None,
) -> bytes:
    """A header up to the end of its tensor table."""
    counts = u64(len(tensors) if tensor_count is None else tensor_count)
    counts += u64(len(pairs) if pair_count is None else pair_count)
    return magic + u32(version) + counts + b"".join(pairs) + b"".join(tensors)


def whole(header: bytes, data: int, *, alignment: int = 32) -> bytes:
    """A header, padded, with so many bytes of weights behind it."""
    return header + bytes(-len(header) % alignment) + bytes(data)


def sample() -> bytes:
    """A small sound file with every type of value, a template, and three tensors."""
    pairs = [
        pair("general.architecture", STRING, text("llama")),
        pair("general.name", STRING, text("Größe")),
        pair("general.alignment", UINT32, u32(64)),
        pair("general.file_type", UINT32, u32(15)),
        pair("llama.block_count", UINT32, u32(2)),
        pair("llama.context_length", UINT64, u64(4096)),
        pair("llama.embedding_length", UINT32, u32(64)),
        pair("llama.attention.head_count", UINT32, u32(4)),
        pair("llama.attention.head_count_kv", ARRAY, array(INT32, 2, u32(2) + u32(0))),
        pair("x.u8", UINT8, b"\xff"),
        pair("x.i8", INT8, b"\xff"),
        pair("x.u16", UINT16, b"\xff\xff"),
        pair("x.i16", INT16, b"\xfe\xff"),
        pair("x.i32", INT32, b"\xff" * 4),
        pair("x.f32", FLOAT32, struct.pack("<f", 0.5)),
        pair("x.bool", BOOL, b"\x01"),
        pair("x.i64", INT64, b"\xff" * 8),
        pair("x.f64", FLOAT64, struct.pack("<d", 0.1)),
        pair("x.empty", ARRAY, array(FLOAT32, 0, b"")),
        pair("x.flags", ARRAY, array(BOOL, 3, b"\x00\x01\x01")),
        pair("tokenizer.ggml.tokens", ARRAY, array(STRING, 4, text("a") + text("") + text(b"\xff") + text("ü"))),
        pair("tokenizer.chat_template", STRING, text("{{ messages }}")),
        pair("tokenizer.chat_template.tool_use", STRING, text("{{ tools }}")),
    ]
    tensors = [
        tensor("token_embd.weight", (64, 4), Q4_0, 0),
        tensor("blk.0.attn_norm.weight", (64,), F32, 192),
        tensor("blk.1.attn_norm.weight", (64,), F32, 448),
    ]
    return whole(table(pairs, tensors), 448 + 256, alignment=64)
