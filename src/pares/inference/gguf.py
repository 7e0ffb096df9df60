"""The header of a GGUF file, parsed within bounds: metadata, tokenizer and tensors, before llama.cpp sees the file.

Follows the GGUF specification (ggml-org/ggml, docs/gguf.md), versions 2 and 3, little endian, and is at least as strict
as llama.cpp's own loader. Every count and length is checked against a limit below, against the file's size and against
the bytes that are there before anything is read or allocated; a defect raises BrokenModelFile and nothing else.
Arrays stay raw bytes until somebody asks for an element: a tokenizer of 262,144 tokens costs no Python objects.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pares.errors import BrokenModelFile
from pares.inference.header import NUMBERS, GGUFArray, Header, Scalar, Tensor, Value, ValueType, check_loadable, defect
from pares.inference.tensor_types import TENSOR_TYPES, TensorType

__all__ = [
    "GGUFArray",
    "Header",
    "Incomplete",
    "Scalar",
    "Tensor",
    "Value",
    "ValueType",
    "check_loadable",
    "parse_header",
    "read_header",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32

MAX_HEADER_BYTES = 64 << 20  # a vocabulary of 260,000 tokens with half a million merges takes about 20 MB
MAX_KEY_VALUES = 4096
MAX_KEY_BYTES = 256
MAX_STRING_BYTES = 4 << 20
MAX_ARRAY_LENGTH = 4 << 20
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 63  # ggml keeps 64, with the closing NUL
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
FIRST_READ_BYTES = 1 << 20

_U32 = NUMBERS[ValueType.UINT32]
_U64 = NUMBERS[ValueType.UINT64]


class Incomplete(NamedTuple):
    """The header goes on behind the bytes that are there: try again with at least this many from the file's front."""

    at_least: int


def read_header(path: Path) -> Header:
    """Parse the header of a whole file. Raises BrokenModelFile, and OSError where the file cannot be read."""
    if not path.is_file():
        raise BrokenModelFile(f"{path} is not a file.", hint="Name a .gguf file.")
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        front = file.read(FIRST_READ_BYTES)
        while isinstance(header := parse_header(front, file_bytes), Incomplete):
            more = file.read(max(header.at_least, 2 * len(front)) - len(front))
            if not more:
                raise defect("the file became shorter while it was read", len(front))
            front += more
    return header


def parse_header(front: bytes, file_bytes: int) -> Header | Incomplete:
    """Parse what has arrived of a file's front; `file_bytes` is the size of the whole file.

    Incomplete says how many bytes are needed to get further; each try starts over, so at least double what is there.
    Raises BrokenModelFile as soon as a defect is in sight.
    """
    limit = min(file_bytes, MAX_HEADER_BYTES)
    reader = _Reader(front if len(front) <= limit else front[:limit], file_bytes)
    try:
        return _parse(reader)
    except _NeedsMore as short:
        return Incomplete(short.at_least)


class _NeedsMore(Exception):
    """Internal: the bytes that are there end inside the header."""

    def __init__(self, at_least: int) -> None:
        super().__init__(at_least)
        self.at_least = at_least


class _Reader:
    """A position in the front of a file that never moves past what is there, what is allowed, or the file's end."""

    def __init__(self, front: bytes, file_bytes: int) -> None:
        self.front = front
        self.file_bytes = file_bytes
        self.at = 0

    def skip(self, size: int, what: str) -> int:
        """Claim `size` bytes and step over them; gives where they begin."""
        start, stop = self.at, self.at + size
        if stop > self.file_bytes:
            raise defect(f"the file ends inside {what}", start)
        if stop > MAX_HEADER_BYTES:
            raise defect(f"{what} makes the header larger than {MAX_HEADER_BYTES} bytes", start)
        if stop > len(self.front):
            raise _NeedsMore(stop)
        self.at = stop
        return start

    def u32(self, what: str) -> int:
        value: int = _U32.unpack_from(self.front, self.skip(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = _U64.unpack_from(self.front, self.skip(8, what))[0]
        return value

    def count(self, what: str, most: int) -> int:
        at = self.at
        if (value := self.u64(what)) > most:
            raise defect(f"{what} is {value}; at most {most} is possible", at)
        return value

    def string(self, what: str, most: int) -> str:
        size = self.count(f"the length of {what}", most)
        start = self.skip(size, what)
        try:
            return self.front[start : self.at].decode()
        except UnicodeDecodeError:
            raise defect(f"{what} is not UTF-8", start) from None

    def identifier(self, what: str, most: int) -> str:
        """A name that llama.cpp reads as a C string: a control character could make it another name there."""
        start = self.at
        name = self.string(what, most)
        if not name or not name.isprintable():
            raise defect(f"{what} is {name[:80]!r}", start)
        return name

    def value_type(self, what: str) -> ValueType:
        start = self.at
        number = self.u32(what)
        try:
            return ValueType(number)
        except ValueError:
            raise defect(f"{what} is {number}, which is none", start) from None

    def value(self, key: str) -> Value:
        kind = self.value_type(f"the type of `{key}`")
        if kind is ValueType.ARRAY:
            return self.array(key)
        if kind is ValueType.STRING:
            return self.string(f"`{key}`", MAX_STRING_BYTES)
        value: Scalar = NUMBERS[kind].unpack_from(self.front, self.skip(NUMBERS[kind].size, f"`{key}`"))[0]
        return value

    def array(self, key: str) -> GGUFArray:
        element = self.value_type(f"the element type of `{key}`")
        if element is ValueType.ARRAY:
            raise defect(f"`{key}` is an array of arrays", self.at)
        length = self.count(f"the length of `{key}`", MAX_ARRAY_LENGTH)
        start = self.at
        if element is ValueType.STRING:
            self.skip_strings(length, key)
        else:
            self.skip(length * NUMBERS[element].size, f"`{key}`")
        return GGUFArray(element, length, memoryview(self.front)[start : self.at])

    def skip_strings(self, length: int, key: str) -> None:
        """Step over strings by their lengths alone: this loop is most of the time a large header takes."""
        what = f"`{key}`"
        at = start = self.skip(8 * length, what)
        front, unpack = self.front, _U64.unpack_from
        try:
            for _ in range(length):
                (size,) = unpack(front, at)
                if size > MAX_STRING_BYTES:
                    raise defect(f"a string of {what} has {size} bytes; at most {MAX_STRING_BYTES} are possible", at)
                at += 8 + size
        except struct.error:
            at += 8
        self.at = start
        self.skip(at - start, what)


def _parse(reader: _Reader) -> Header:
    version = _preamble(reader)
    tensor_count = reader.count("the number of tensors", MAX_TENSORS)
    pairs = reader.count("the number of metadata keys", MAX_KEY_VALUES)
    metadata: dict[str, Value] = {}
    spans: dict[str, tuple[int, int]] = {}
    for i in range(pairs):
        start = reader.at
        key = reader.identifier(f"metadata key {i}", MAX_KEY_BYTES)
        if key in metadata:
            raise defect(f"`{key}` is there twice", start)
        metadata[key] = reader.value(key)
        spans[key] = (start, reader.at)
    alignment = DEFAULT_ALIGNMENT
    if place := spans.get(ALIGNMENT_KEY):
        alignment = _alignment(reader, metadata[ALIGNMENT_KEY], place[0])
    tensors, data_start = _tensor_table(reader, tensor_count, alignment)
    return Header(
        version=version,
        alignment=alignment,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        data_start=data_start,
        file_bytes=reader.file_bytes,
        raw=memoryview(reader.front)[: reader.at],
        spans=MappingProxyType(spans),
    )


def _preamble(reader: _Reader) -> int:
    magic = reader.front[reader.skip(4, "the file's magic") : reader.at]
    if magic != MAGIC:
        raise defect(f"it begins with {magic!r} instead of {MAGIC!r}", 0)
    version = reader.u32("the version")
    if version == 1:
        raise defect("its version is 1, which llama.cpp no longer reads: convert the model anew", 4)
    if version & 0xFFFF == 0 and version:
        raise defect("it is big endian; only little endian models run here", 4)
    if version not in VERSIONS:
        raise defect(f"its version is {version}; 2 and 3 are known", 4)
    return version


def _alignment(reader: _Reader, value: Value, at: int) -> int:
    kind = _U32.unpack_from(reader.front, at + 8 + len(ALIGNMENT_KEY))[0]
    if kind != ValueType.UINT32 or not isinstance(value, int) or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise defect(f"`{ALIGNMENT_KEY}` is {value!r:.80}, not a power of two up to {MAX_ALIGNMENT} as UINT32", at)
    return value


def _tensor_table(reader: _Reader, count: int, alignment: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensors, with offsets made absolute, and where their data begins.

    Like llama.cpp, insists on tensors that lie one behind the other in the order of the table, each padded to the
    alignment: so none overlap, all are aligned, and the last one shows whether the file is whole.
    """
    table: dict[str, Tensor] = {}
    expected = 0
    for i in range(count):
        start = reader.at
        name = reader.identifier(f"the name of tensor {i}", MAX_NAME_BYTES)
        what = f"tensor `{name}`"
        if name in table:
            raise defect(f"{what} is there twice", start)
        dims, kind = _shape(reader, what)
        offset = reader.u64(what)
        if offset != expected:
            raise defect(f"{what} lies at {offset} of the data instead of {expected}", start)
        nbytes = math.prod(dims) // kind.block * kind.nbytes
        if offset + nbytes > reader.file_bytes:
            raise defect(f"{what} ends at {offset + nbytes} of the data, the file has {reader.file_bytes} bytes", start)
        table[name] = Tensor(name, kind.name, dims, offset, nbytes)
        expected = _padded(offset + nbytes, alignment)
    data_start = _padded(reader.at, alignment)
    tensors = tuple(tensor._replace(offset=data_start + tensor.offset) for tensor in table.values())
    if tensors and (end := tensors[-1].offset + tensors[-1].nbytes) > reader.file_bytes:
        raise defect(f"the weights end at byte {end}, the file has {reader.file_bytes}: it is cut off", reader.at)
    return tensors, data_start


def _shape(reader: _Reader, what: str) -> tuple[tuple[int, ...], TensorType]:
    start = reader.at
    dimensions = reader.u32(what)
    if dimensions > MAX_DIMENSIONS:
        raise defect(f"{what} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible", start)
    dims = tuple(reader.u64(what) for _ in range(dimensions))
    number = reader.u32(what)
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise defect(f"{what} has the type {number}, which is not known", reader.at - 4)
    if 0 in dims or math.prod(dims) >= 1 << 63:
        raise defect(f"{what} has the shape {dims}", start)
    row = dims[0] if dims else 1
    if row % kind.block:
        raise defect(f"{what} has rows of {row}, not a multiple of {kind.name}'s {kind.block}", start)
    return dims, kind


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
