"""What a GGUF's header says: typed metadata, the tensor table, and the facts that are needed everywhere."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from pares.errors import BrokenModelFile, NotSupported
from pares.inference.tensor_types import FILE_TYPES, GUESSED_FILE_TYPE

MAX_BLOCKS = 1024
MAX_BASE_MODELS = 64
_POOLING = ("none", "mean", "cls", "last", "rank")


class ValueType(IntEnum):
    """The types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


NUMBERS = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
"""How each type of number lies in the file."""


class GGUFArray:
    """An array of the metadata, decoded only where it is looked at.

    Iterating decodes one element at a time. An index costs nothing for numbers; for strings it walks from the front.
    Strings that are not UTF-8 (some vocabularies have them) decode with U+FFFD; `raw` has the bytes as in the file.
    """

    __slots__ = ("_length", "element", "raw")

    def __init__(self, element: ValueType, length: int, raw: memoryview) -> None:
        self.element = element
        self.raw = raw
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Scalar]:
        if self.element is not ValueType.STRING:
            return (value for (value,) in NUMBERS[self.element].iter_unpack(self.raw))
        return (str(piece, "utf-8", "replace") for piece in self._strings())

    def __getitem__(self, index: int) -> Scalar:
        at = range(self._length)[index]
        if self.element is not ValueType.STRING:
            number = NUMBERS[self.element]
            value: Scalar = number.unpack_from(self.raw, at * number.size)[0]
            return value
        return str(next(islice(self._strings(), at, None)), "utf-8", "replace")

    def __repr__(self) -> str:
        return f"<GGUFArray of {self._length} {self.element.name}>"

    def _strings(self) -> Iterator[memoryview]:
        at = 0
        while at < len(self.raw):
            size: int = NUMBERS[ValueType.UINT64].unpack_from(self.raw, at)[0]
            yield self.raw[at + 8 : at + 8 + size]
            at += 8 + size


Scalar = bool | int | float | str
Value = Scalar | GGUFArray


class Tensor(NamedTuple):
    """One row of the tensor table. `dims[0]` is the length of a row; `offset` counts from the start of the file."""

    name: str
    type: str
    dims: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.dims)


class BaseModel(NamedTuple):
    """A model that this one was made from, as its publisher states it; empty strings where not stated."""

    name: str
    organization: str
    url: str


@dataclass(frozen=True, eq=False)
class Header:
    """What stands before the weights. `metadata` has every key; the properties have what is needed everywhere.

    A property raises BrokenModelFile where its key has a value of another kind than the format knows; where a key is
    absent it is 0 or empty. `check_loadable` looks at all of them once.
    """

    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...] = field(repr=False)
    data_start: int
    """Where the weights begin: bytes from the start of the file."""
    file_bytes: int
    raw: memoryview = field(repr=False)
    """The file from its first byte to the end of the tensor table."""
    spans: Mapping[str, tuple[int, int]] = field(repr=False)
    """Where each key lies in `raw` together with its type and value: what to copy to carry it over unchanged."""

    def text(self, key: str) -> str:
        """A string of the metadata; empty where it is absent."""
        value = self.metadata.get(key, "")
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def number(self, key: str, default: int = 0) -> int:
        """A count of the metadata, never negative."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(key, "a count")
        return value

    def fact(self, key: str, default: int = 0) -> int:
        """A count under the architecture's own prefix: `fact("block_count")` is `llama.block_count`."""
        return self.number(f"{self.architecture}.{key}", default)

    def per_layer(self, key: str, default: int = 0) -> tuple[int, ...]:
        """A count under the architecture's prefix that may be one for all layers or an array with one for each."""
        name = f"{self.architecture}.{key}"
        value = self.metadata.get(name)
        if not isinstance(value, GGUFArray):
            return (self.number(name, default),) * self.block_count
        counts = tuple(islice((count for count in value if isinstance(count, int) and count >= 0), self.block_count))
        if len(counts) < self.block_count:
            raise self._wrong(name, "one count for each layer")
        return counts

    def _wrong(self, key: str, expected: str) -> BrokenModelFile:
        at, _ = self.spans.get(key, (0, 0))
        return defect(f"`{key}` should be {expected}, not {self.metadata[key]!r:.80}", at)

    def raw_field(self, key: str) -> bytes:
        """Key, type and value as they stand in the file."""
        return bytes(self.raw[slice(*self.spans[key])])

    @property
    def architecture(self) -> str:
        """As llama.cpp names it, such as `llama` or `gemma3`."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """The model's name as its publisher gave it."""
        return self.text("general.name") or self.text("general.basename")

    @property
    def kind(self) -> str:
        """`model`, `adapter`, `mmproj` or `imatrix`."""
        return self.text("general.type") or "model"

    @property
    def is_adapter(self) -> bool:
        """A LoRA: weights to be added to those of a base model."""
        return self.kind == "adapter"

    @property
    def licence(self) -> str:
        """SPDX identifier or the publisher's own words."""
        return self.text("general.license.name") or self.text("general.license")

    @property
    def base_models(self) -> tuple[BaseModel, ...]:
        """The models this one was made from."""
        count = min(self.number("general.base_model.count"), MAX_BASE_MODELS)
        stems = [f"general.base_model.{i}" for i in range(count)]
        return tuple(
            BaseModel(self.text(f"{s}.name"), self.text(f"{s}.organization"), self.text(f"{s}.repo_url")) for s in stems
        )

    @property
    def block_count(self) -> int:
        """Layers."""
        count = self.fact("block_count")
        if count > MAX_BLOCKS:
            raise self._wrong(f"{self.architecture}.block_count", f"at most {MAX_BLOCKS}")
        return count

    @property
    def context_length(self) -> int:
        """Tokens of context the model was trained with."""
        return self.fact("context_length")

    @property
    def embedding_length(self) -> int:
        """Width of the hidden state."""
        return self.fact("embedding_length")

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Attention heads of each layer."""
        return self.per_layer("attention.head_count")

    @property
    def head_counts_kv(self) -> tuple[int, ...]:
        """Key/value heads of each layer; 0 for a layer without attention."""
        if f"{self.architecture}.attention.head_count_kv" in self.metadata:
            return self.per_layer("attention.head_count_kv")
        return self.head_counts

    @property
    def key_length(self) -> int:
        """Elements of one head's key."""
        return self.fact("attention.key_length") or self.embedding_length // max((*self.head_counts, 1))

    @property
    def value_length(self) -> int:
        """Elements of one head's value."""
        return self.fact("attention.value_length") or self.embedding_length // max((*self.head_counts, 1))

    @property
    def sliding_window(self) -> int:
        """Tokens that a sliding-window layer looks back on; 0 where there are no such layers."""
        return self.fact("attention.sliding_window")

    @property
    def expert_count(self) -> int:
        """Experts of a mixture; 0 for a dense model."""
        return self.fact("expert_count")

    @property
    def expert_used_count(self) -> int:
        """Experts that compute each token."""
        return self.fact("expert_used_count")

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, GGUFArray):
            return len(tokens)
        embedding = next((t for t in self.tensors if t.name == "token_embd.weight"), None)
        return self.fact("vocab_size") or (embedding.dims[-1] if embedding and embedding.dims else 0)

    @property
    def is_causal(self) -> bool:
        """Tokens see only what came before them; False for encoders such as BERT."""
        return self.metadata.get(f"{self.architecture}.attention.causal", True) is not False

    @property
    def pooling(self) -> str:
        """How an embedding model pools its tokens: none, mean, cls, last, rank; empty where it does not say."""
        key = f"{self.architecture}.pooling_type"
        if key not in self.metadata:
            return ""
        number = self.number(key)
        if number >= len(_POOLING):
            raise self._wrong(key, "a way of pooling")
        return _POOLING[number]

    @property
    def templates(self) -> dict[str, str]:
        """Chat templates: `default`, and named ones such as `tool_use`. Empty for base models."""
        prefix = "tokenizer.chat_template"
        found = {"default": self.text(prefix)} if prefix in self.metadata else {}
        return found | {k[len(prefix) + 1 :]: self.text(k) for k in self.metadata if k.startswith(f"{prefix}.")}

    @property
    def split_count(self) -> int:
        """Files that the model is cut into; this is one of them."""
        return self.number("split.count", 1) or 1

    @cached_property
    def parameters(self) -> int:
        """Weights of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, padding not counted."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def layer_tensors(self) -> Mapping[int, frozenset[str]]:
        """What each layer consists of: layer to the rest of the names, `attn_k.weight` for `blk.7.attn_k.weight`."""
        layers: dict[int, set[str]] = {}
        for tensor in self.tensors:
            match tensor.name.split(".", 2):
                case ["blk", layer, rest] if layer.isdecimal():
                    layers.setdefault(int(layer), set()).add(rest)
        return {layer: frozenset(names) for layer, names in layers.items()}

    @property
    def quantization(self) -> str:
        """`Q4_K_M` and the like: what the file says of itself, else the type that most of its bytes have."""
        if label := FILE_TYPES.get(self.number("general.file_type", GUESSED_FILE_TYPE)):
            return label
        shares: Counter[str] = Counter()
        for tensor in self.tensors:
            shares[tensor.type] += tensor.nbytes
        return max(shares, key=shares.__getitem__, default="")


def check_loadable(header: Header) -> None:
    """Whether llama.cpp can be given this file as a model. Raises NotSupported or BrokenModelFile with what to do."""
    if header.split_count > 1:
        raise NotSupported(
            f"This file is one of {header.split_count} parts of a model.",
            hint="Put the parts together with `llama-gguf-split --merge FIRST_PART WHOLE.gguf`, and use the whole.",
        )
    if header.is_adapter:
        raise NotSupported(
            "This file is an adapter, not a model.", hint="Load its base model and choose it as `base+adapter`."
        )
    if header.kind != "model":
        raise NotSupported(f"This file is of the kind {header.kind!r}, not a model.", hint="Name a model's .gguf file.")
    needed = {
        "architecture": header.architecture,
        "layers": header.block_count,
        "width": header.embedding_length,
        "tensors": header.tensors,
        "vocabulary": header.vocab_size,
    }
    if missing := [what for what, there in needed.items() if not there]:
        raise defect(f"it names no {missing[0]}", 0)
    for name in (name for name, member in vars(Header).items() if isinstance(member, property)):
        getattr(header, name)


def defect(what: str, at: int) -> BrokenModelFile:
    """The error for a file that breaks the format at a byte."""
    return BrokenModelFile(
        f"This is not a sound GGUF file: {what} (byte {at}).", hint="Fetch it again, or from another source.", at=at
    )
