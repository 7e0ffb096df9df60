"""The header of a safetensors file, checked within bounds. Such files are shared and stored; llama.cpp loads none.

Follows the format's description (huggingface/safetensors, README): a length of 8 bytes, little endian, so many bytes of
JSON that begin with `{`, then the tensors' bytes. As its own reader does, insists that the tensors lie one behind the
other and fill the file to its end, so that nothing else can hide in it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from pares.errors import BrokenModelFile

MAX_HEADER_BYTES = 100_000_000
MAX_FIELDS = 1 << 19
MAX_DIMENSIONS = 16
_METADATA = "__metadata__"
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}

Number = Annotated[int, Meta(ge=0, le=1 << 62)]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Annotated[str, Meta(max_length=32)]
    shape: Annotated[tuple[Number, ...], Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[Number, Number]


class SafeTensor(NamedTuple):
    """`offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_tensors(path: Path) -> tuple[SafeTensor, ...]:
    """The tensors of a safetensors file, as they lie. Raises BrokenModelFile for a defect, and OSError."""
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if file_bytes < 10 or length > min(MAX_HEADER_BYTES, file_bytes - 8):
            raise _defect(f"its header should have {length} bytes, the file has {file_bytes}")
        return parse_tensors(file.read(length), file_bytes)


def parse_tensors(header: bytes, file_bytes: int) -> tuple[SafeTensor, ...]:
    """The same from the JSON between the length and the data. Raises BrokenModelFile."""
    if header[:1] != b"{":
        raise _defect("its header does not begin with {")
    if header.count(b":") > MAX_FIELDS:  # no field is without one: this bounds what decoding allocates
        raise _defect(f"its header has more than {MAX_FIELDS} fields")
    try:
        rows = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        msgspec.json.decode(rows.pop(_METADATA, b"{}"), type=dict[str, str])
        table = {name: msgspec.json.decode(raw, type=_Row) for name, raw in rows.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _defect(f"its header cannot be read ({error})") from None
    start, end, tensors = 8 + len(header), 0, []
    for name, row in sorted(table.items(), key=lambda each: each[1].data_offsets):
        first, after = row.data_offsets
        if first != end or after - first != _nbytes(name, row):
            raise _defect(f"the tensor {name[:80]!r} lies at {first} to {after}, where it does not belong")
        tensors.append(SafeTensor(name, row.dtype, row.shape, start + first, after - first))
        end = after
    if start + end != file_bytes:
        raise _defect(f"its tensors end at byte {start + end}, the file has {file_bytes}")
    return tuple(tensors)


def _nbytes(name: str, row: _Row) -> int:
    bits = math.prod(row.shape) * _BITS.get(row.dtype, 1)
    if row.dtype not in _BITS or bits % 8:
        raise _defect(f"the tensor {name[:80]!r} has the type {row.dtype!r} and the shape {row.shape}")
    return bits // 8


def _defect(what: str) -> BrokenModelFile:
    return BrokenModelFile(
        f"This is not a sound safetensors file: {what}.", hint="Fetch it again, or from another source."
    )
