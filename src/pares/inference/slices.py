"""Which tensors and metadata make the file of a stage, or of the head. Pure.

A *stage* of layers [first, last) is an ordinary GGUF of fewer layers: blocks are numbered anew, the vocabulary is a
dummy of 32 tokens, what belongs to no layer is zeros. It takes hidden states and gives the last layer's output. A
*head* is the embedding, the final norm, the output matrix and the tokenizer around one *identity layer*: all weights of
that are zeros, so that it adds nothing to the hidden state. Tokens in give embeddings, hidden states in give logits.

Other metadata is carried over byte for byte, but for what counts layers or has one entry for each. What llama.cpp makes
of a header differs by architecture, so only those in `ARCHITECTURES` are cut: each is proven by a test to give the bits
of the whole model, wherever it is cut.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from pares.errors import BadRequest, NotSupported
from pares.inference.header import NUMBERS, GGUFArray, Header, Tensor, ValueType, check_loadable, defect
from pares.inference.tensor_types import TENSOR_TYPES

DUMMY_VOCABULARY = 32
IDENTITY_WIDTH = 32
"""Inner width of the head's identity layer: what it computes is zero, so it should cost nothing."""
SHARED_BLOCK = 4096
"""Tensors lie in a slice as they lie in the source modulo this (or its alignment), where they can: file systems that
share blocks between files can then share theirs."""

_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_HEAD = frozenset({"token_embd.weight", "output_norm.weight", "output.weight"})
_FILLER = "pares.filler"
_MOST = 1 << 16  # of what the head's identity layer has of anything
_NOT_BY_LAYER = frozenset({"rope.dimension_sections"})
"""Arrays under the architecture's prefix whose length means something else, though it may equal the layers'."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What llama.cpp makes of an architecture's header, as far as a slice must not change it."""

    shared: frozenset[str] = frozenset()
    """Tensors of no layer that every layer reads: they come with every stage, and the head does without."""
    sliding_period: int = 0
    """Where the metadata names no pattern, the last of every so many layers looks at the whole context, the others
    through the sliding window. llama.cpp wants one of these in every slice, and gets an identity layer if need be.
    0: there is no such window."""
    counts: frozenset[int] = frozenset()
    """Numbers of layers from which llama.cpp concludes how to compute."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(
            shared=frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
        ),
        # 62 layers are the 27B, whose attention is scaled otherwise.
        "gemma3": Architecture(sliding_period=6, counts=frozenset({62})),
    }
)


class Copied(NamedTuple):
    """A tensor that is carried over: its name and place in the source, and where it goes."""

    name: str
    source: int
    target: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A file to be written: `front`, then zeros up to `file_bytes` but for the tensors that are copied."""

    front: bytes
    tensors: tuple[Copied, ...]
    """In the order of both files."""
    file_bytes: int
    source_bytes: int
    """Size of the file that it is cut from."""


class Parts(NamedTuple):
    """All tensors of a model by where they go."""

    layers: tuple[tuple[Tensor, ...], ...]
    head: tuple[Tensor, ...]
    shared: tuple[Tensor, ...]


class _Entry(NamedTuple):
    """One row of a slice's tensor table; without a source it is zeros."""

    name: str
    type: str
    dims: tuple[int, ...]
    source: Tensor | None = None

    @property
    def nbytes(self) -> int:
        kind = TENSOR_TYPES[_TYPE_NUMBERS[self.type]]
        return math.prod(self.dims) // kind.block * kind.nbytes


class _Layer(NamedTuple):
    """A layer of a slice: number `origin` of the model, or an identity of its shape."""

    origin: int
    identity: bool = False


def architecture_of(header: Header) -> Architecture:
    """What is known of a model's architecture. Raises NotSupported for one that is not proven, by its name."""
    if known := ARCHITECTURES.get(header.architecture):
        return known
    raise NotSupported(
        f"Models of the architecture {header.architecture!r:.80} are not pooled: nothing proves yet that their layers, "
        "computed apart, give what the whole model gives.",
        hint=f"Run it whole. Proven are: {', '.join(ARCHITECTURES)}.",
    )


def parts_of(header: Header) -> Parts:
    """Every tensor, each in one place. Raises NotSupported for one of unknown use, BrokenModelFile for missing ones."""
    known = architecture_of(header)
    layers: list[list[Tensor]] = [[] for _ in range(header.block_count)]
    numbers = {str(number): layer for number, layer in enumerate(layers)}
    head: list[Tensor] = []
    shared: list[Tensor] = []
    for tensor in header.tensors:
        match tensor.name.split(".", 2):
            case ["blk", number, _] if number in numbers:
                numbers[number].append(tensor)
            case _ if tensor.name in _HEAD:
                head.append(tensor)
            case _ if tensor.name in known.shared:
                shared.append(tensor)
            case _:
                raise NotSupported(
                    f"This model has a tensor `{tensor.name}`, which is not known of the architecture "
                    f"{header.architecture}: it cannot be said which layers need it.",
                    hint="Run the model whole.",
                )
    if empty := [number for number, layer in enumerate(layers) if not layer]:
        raise defect(f"layer {empty[0]} has no tensors", header.data_start)
    if wrong := [tensor.name for tensor in head if tensor.dims[:1] != (header.embedding_length,)]:
        raise defect(f"`{wrong[0]}` has rows of another length than the hidden state", header.data_start)
    if missing := [name for name in ("token_embd.weight", "output_norm.weight") if name not in {t.name for t in head}]:
        raise defect(f"there is no tensor `{missing[0]}`", header.data_start)
    return Parts(tuple(map(tuple, layers)), tuple(head), tuple(shared))


def plan_stage(header: Header, first: int, last: int) -> Slice:
    """The file of layers [first, last). Raises BadRequest, NotSupported and BrokenModelFile."""
    check_loadable(header)
    known, parts = architecture_of(header), parts_of(header)
    if not 0 <= first < last <= header.block_count:
        raise BadRequest(f"There are no layers {first} to {last}: the model has {header.block_count}.", param="layers")
    layers = [_Layer(number) for number in range(first, last)]
    sliding = _sliding(header, known)
    if sliding and not any(sliding[layer.origin] for layer in layers):
        layers.insert(0, _Layer(sliding.index(True), identity=True))
    if len(layers) != header.block_count and not known.counts.isdisjoint({len(layers), header.block_count}):
        raise NotSupported(
            f"llama.cpp computes a {header.architecture} of {header.block_count} layers otherwise than one of "
            f"{len(layers)}: this model cannot be pooled in such parts.",
            hint="Run it whole.",
        )
    entries = [
        _renumbered(tensor, number, layer)
        for number, layer in enumerate(layers)
        for tensor in parts.layers[layer.origin]
    ]
    entries += [_Entry(tensor.name, tensor.type, tensor.dims, tensor) for tensor in parts.shared]
    entries += [_Entry(tensor.name, "F32", _dummy(header, tensor)) for tensor in parts.head]
    changed = _by_layer(header, layers, sliding) | {
        "tokenizer.ggml.model": _text("none"),
        f"{header.architecture}.vocab_size": _count(DUMMY_VOCABULARY),
    }
    return _laid_out(header, entries, changed, "tokenizer.")


def plan_head(header: Header) -> Slice:
    """The file of the head. Raises NotSupported and BrokenModelFile."""
    check_loadable(header)
    known, parts = architecture_of(header), parts_of(header)
    sliding = _sliding(header, known)
    layer = _Layer(sliding.index(True) if sliding else 0, identity=True)
    small = _Small.of(header)
    entries = [_Entry(tensor.name, tensor.type, tensor.dims, tensor) for tensor in parts.head]
    for tensor in parts.layers[layer.origin]:
        rest = tensor.name.split(".", 2)[2]
        entries.append(_Entry(f"blk.0.{rest}", "F32", small.dims(rest, tensor.dims)))
    changed = _by_layer(header, [layer], sliding) | small.facts(header)
    return _laid_out(header, entries, changed)


def _sliding(header: Header, known: Architecture) -> list[bool]:
    """Of each layer whether it looks through a sliding window; empty where none does."""
    if not known.sliding_period or not header.sliding_window:
        return []
    key = f"{header.architecture}.attention.sliding_window_pattern"
    pattern = header.metadata.get(key)
    if isinstance(pattern, GGUFArray):
        sliding = [bool(each) for each in pattern]
    else:
        period = header.number(key, known.sliding_period)
        sliding = [period == 0 or layer % period < period - 1 for layer in range(header.block_count)]
    if len(sliding) != header.block_count or not any(sliding):
        raise defect("its pattern of sliding windows does not fit its layers", header.spans.get(key, (0, 0))[0])
    return sliding


def _by_layer(header: Header, layers: Sequence[_Layer], sliding: Sequence[bool]) -> dict[str, bytes]:
    """The metadata that counts layers or has an entry for each, for these layers: types and values."""
    prefix = f"{header.architecture}."
    changed: dict[str, bytes] = {}
    for key, value in header.metadata.items():
        if not isinstance(value, GGUFArray) or value.element is ValueType.STRING or not key.startswith(prefix):
            continue
        if len(value) == header.block_count and key.removeprefix(prefix) not in _NOT_BY_LAYER:
            size = NUMBERS[value.element].size
            elements = (value.raw[layer.origin * size :][:size] for layer in layers)
            changed[key] = _array(value.element, len(layers), b"".join(elements))
    if sliding:
        pattern = bytes(sliding[layer.origin] for layer in layers)
        changed[f"{prefix}attention.sliding_window_pattern"] = _array(ValueType.BOOL, len(layers), pattern)
    return changed | {f"{prefix}block_count": _count(len(layers))}


def _renumbered(tensor: Tensor, number: int, layer: _Layer) -> _Entry:
    name = f"blk.{number}.{tensor.name.split('.', 2)[2]}"
    return _Entry(name, tensor.type, tensor.dims, None if layer.identity else tensor)


def _dummy(header: Header, tensor: Tensor) -> tuple[int, ...]:
    """The shape of one of the head's tensors for the dummy vocabulary."""
    return (header.embedding_length,) if len(tensor.dims) == 1 else (header.embedding_length, DUMMY_VOCABULARY)


class _Small(NamedTuple):
    """The sizes of the head's identity layer: one attention head, a narrow inside, no more experts than are used."""

    width: int
    key: int
    value: int
    experts: int

    @classmethod
    def of(cls, header: Header) -> _Small:
        small = cls(header.embedding_length, header.key_length, header.value_length, header.expert_used_count)
        if max(small[1:]) > _MOST:
            raise defect("its attention heads or experts are too large", 0)
        return small

    def facts(self, header: Header) -> dict[str, bytes]:
        sizes = {
            "attention.head_count": 1,
            "attention.head_count_kv": 1,
            "attention.key_length": self.key,
            "attention.value_length": self.value,
            "feed_forward_length": IDENTITY_WIDTH,
        }
        if header.expert_count:
            sizes["expert_count"] = self.experts
        return {f"{header.architecture}.{name}": _count(size) for name, size in sizes.items()}

    def dims(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a tensor of a layer; norms and whatever else is of no size that changes keep theirs."""
        stem, _, what = name.rpartition(".")
        inner = IDENTITY_WIDTH
        matrix = {
            "attn_q": (self.width, self.key),
            "attn_k": (self.width, self.key),
            "attn_v": (self.width, self.value),
            "attn_output": (self.value, self.width),
            "ffn_gate": (self.width, inner),
            "ffn_up": (self.width, inner),
            "ffn_down": (inner, self.width),
            "ffn_gate_inp": (self.width, self.experts),
            "ffn_gate_exps": (self.width, inner, self.experts),
            "ffn_up_exps": (self.width, inner, self.experts),
            "ffn_down_exps": (inner, self.width, self.experts),
        }.get(stem)
        if matrix is None or what not in ("weight", "bias"):
            return dims
        return matrix if what == "weight" else matrix[1:]


def _laid_out(header: Header, entries: Iterable[_Entry], changed: Mapping[str, bytes], *without: str) -> Slice:
    """A whole file of these tensors, those that are copied first.

    `changed` metadata replaces or joins the source's; keys that begin with one of `without` are left out.
    """
    rows = sorted(entries, key=lambda entry: entry.source.offset if entry.source else header.file_bytes)
    left_out = (_FILLER, *without)
    fields = [header.raw_field(key) for key in header.metadata if key not in changed and not key.startswith(left_out)]
    fields += [_string(key) + value for key, value in changed.items()]
    table, places, end = [], [], 0
    for row in rows:
        table.append(
            _string(row.name)
            + struct.pack(f"<I{len(row.dims)}QIQ", len(row.dims), *row.dims, _TYPE_NUMBERS[row.type], end)
        )
        places.append(end)
        end += -(-row.nbytes // header.alignment) * header.alignment
    start = rows[0].source.offset if rows[0].source else 0
    front = _front(header, fields, table, start)
    tensors = (
        Copied(row.source.name, row.source.offset, len(front) + place, row.nbytes)
        for row, place in zip(rows, places, strict=True)
        if row.source
    )
    return Slice(front, tuple(tensors), len(front) + end, header.file_bytes)


def _front(header: Header, fields: Sequence[bytes], table: Sequence[bytes], start: int) -> bytes:
    """All that stands before the weights, made so long that they begin in their block where `start` lies in its."""

    def with_filler(length: int) -> bytes:
        filler = _string(_FILLER) + _text(" " * length)
        counts = struct.pack("<4sIQQ", b"GGUF", header.version, len(table), len(fields) + 1)
        return b"".join((counts, *fields, filler, *table))

    block = max(SHARED_BLOCK, header.alignment)
    return with_filler((start - len(with_filler(0))) % block)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _text(value: str) -> bytes:
    return struct.pack("<I", ValueType.STRING) + _string(value)


def _count(value: int) -> bytes:
    return struct.pack("<II", ValueType.UINT32, value)


def _array(element: ValueType, length: int, raw: bytes) -> bytes:
    return struct.pack("<IIQ", ValueType.ARRAY, element, length) + raw
