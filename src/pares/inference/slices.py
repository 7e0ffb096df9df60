"""Which tensors and metadata make the file of a stage, or of the head. Pure.

A *stage* of layers [first, last) is an ordinary GGUF of fewer layers: blocks are numbered anew, the vocabulary is a
dummy of 32 tokens, what belongs to no layer is zeros. It takes hidden states and gives the last layer's output. A
*head* is the embedding, the final norm, the output matrix and the tokenizer around one *identity layer*: all weights of
that are zeros, so that it adds nothing to the hidden state. Tokens in give embeddings, hidden states in give logits.

Other metadata is carried over byte for byte, but for what counts layers or has one entry for each. What llama.cpp makes
of a header differs by architecture: `architectures` has those that may be cut, and their peculiarities.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pares.errors import BadRequest, NotSupported
from pares.inference.architectures import Architecture, architecture_of
from pares.inference.header import NUMBERS, GGUFArray, Header, Tensor, ValueType, check_loadable, defect
from pares.inference.tensor_types import TENSOR_TYPES

DUMMY_VOCABULARY = 32
IDENTITY_WIDTH = 32
"""Inner width of the head's identity layer: what it computes is zero, so it should cost nothing."""
SHARED_BLOCK = 4096
"""Tensors lie in a slice as they lie in the source modulo this (or its alignment), where they can: file systems that
share blocks between files can then share theirs."""

_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_SHARED = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
_HEAD = frozenset({"token_embd.weight", "output_norm.weight", "output.weight"})
_FILLER = "pares.filler"
_MOST = 1 << 16  # of what the head's identity layer has of anything
_NOT_BY_LAYER = frozenset({"rope.dimension_sections"})
"""Arrays under the architecture's prefix whose length means something else, though it may equal the layers'."""


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
    """What every layer reads comes with every stage; the head does without."""


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


def parts_of(header: Header) -> Parts:
    """Every tensor, each in one place. Raises NotSupported for one of unknown use, BrokenModelFile for missing ones."""
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
            case _ if tensor.name in _SHARED:
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
    known, parts = _known(header)
    if not 0 <= first < last <= header.block_count:
        raise BadRequest(f"There are no layers {first} to {last}: the model has {header.block_count}.", param="layers")
    kinds = known.kinds.of(header) if known.kinds else ()
    layers = [_Layer(number) for number in range(first, last)]
    layers = [*_identities(known, kinds, besides=kinds[first:last]), *layers]
    if len(layers) != header.block_count and not known.counts.isdisjoint({len(layers), header.block_count}):
        raise NotSupported(
            f"llama.cpp computes a {header.architecture} of {header.block_count} layers otherwise than one of "
            f"{len(layers)}: this model cannot be pooled in such parts.",
            hint="Run it whole.",
        )
    entries = [
        _Entry(_renumbered(tensor, number), tensor.type, tensor.dims, None if layer.identity else tensor)
        for number, layer in enumerate(layers)
        for tensor in parts.layers[layer.origin]
    ]
    entries += [_Entry(tensor.name, tensor.type, tensor.dims, tensor) for tensor in parts.shared]
    entries += [
        _Entry(tensor.name, "F32", (*tensor.dims[:1], DUMMY_VOCABULARY)[: len(tensor.dims)]) for tensor in parts.head
    ]
    changed = _by_layer(header, known, layers, kinds) | {
        "tokenizer.ggml.model": _text("none"),
        f"{header.architecture}.vocab_size": _count(DUMMY_VOCABULARY),
    }
    scale = () if first == 0 else (_embedding_scale(header),)
    return _laid_out(header, entries, changed, "tokenizer.", *scale)


def plan_head(header: Header) -> Slice:
    """The file of the head. Raises NotSupported and BrokenModelFile."""
    known, parts = _known(header)
    kinds = known.kinds.of(header) if known.kinds else ()
    layers = _identities(known, kinds) or [_Layer(0, identity=True)]
    entries = [_Entry(tensor.name, tensor.type, tensor.dims, tensor) for tensor in parts.head]
    small = _Small.of(header, known, parts.layers[0])
    for number, layer in enumerate(layers):
        for tensor in parts.layers[layer.origin]:
            dims = small.dims(_rest(tensor), tensor.dims)
            kind = tensor.type if dims == tensor.dims else "F32"
            entries += [_Entry(_renumbered(tensor, number), kind, dims)]
    changed = _by_layer(header, known, layers, kinds) | small.facts(header)
    return _laid_out(header, entries, changed, _embedding_scale(header))


def _known(header: Header) -> tuple[Architecture, Parts]:
    check_loadable(header)
    return architecture_of(header), parts_of(header)


def _identities(known: Architecture, kinds: tuple[bool, ...], *, besides: tuple[bool, ...] = ()) -> list[_Layer]:
    """An identity layer of each kind that llama.cpp wants in a file and that is not there."""
    needed = known.kinds.needed if known.kinds and kinds else ()
    return [_Layer(kinds.index(kind), identity=True) for kind in needed if kind not in besides]


def _renumbered(tensor: Tensor, number: int) -> str:
    return f"blk.{number}.{_rest(tensor)}"


def _rest(tensor: Tensor) -> str:
    """A layer's tensor's name without the layer."""
    return tensor.name.split(".", 2)[2]


def _embedding_scale(header: Header) -> str:
    """The key of a factor that llama.cpp applies to whatever comes in, tokens or hidden states.

    So the head goes without it, and only the stage that begins with layer 0 applies it.
    """
    return f"{header.architecture}.embedding_scale"


def _by_layer(
    header: Header, known: Architecture, layers: Sequence[_Layer], kinds: tuple[bool, ...]
) -> dict[str, bytes]:
    """The metadata that counts layers or has an entry for each, for these layers: types and values."""
    prefix = f"{header.architecture}."
    changed = {f"{prefix}block_count": _count(len(layers))}
    for key, value in header.metadata.items():
        if not isinstance(value, GGUFArray) or value.element is ValueType.STRING or not key.startswith(prefix):
            continue
        if len(value) == header.block_count and key.removeprefix(prefix) not in _NOT_BY_LAYER:
            size = NUMBERS[value.element].size
            elements = (value.raw[layer.origin * size :][:size] for layer in layers)
            changed[key] = _array(value.element, len(layers), b"".join(elements))
    if known.kinds and kinds:
        of_these = bytes(kinds[layer.origin] for layer in layers)
        changed[f"{prefix}{known.kinds.key}"] = _array(ValueType.BOOL, len(layers), of_these)
    if dense := header.fact("leading_dense_block_count"):
        changed[f"{prefix}leading_dense_block_count"] = _count(sum(layer.origin < dense for layer in layers))
    return changed


class _Small(NamedTuple):
    """The sizes of the head's identity layer: one attention head, a narrow inside, no more experts than are used."""

    width: int
    key: int
    value: int
    up: int
    experts: int
    shared: int
    heads: bool
    latent: bool
    """Keys and values are compressed (MLA): `key` and `value` are the sizes of what they are expanded to."""

    @classmethod
    def of(cls, header: Header, known: Architecture, layer: Iterable[Tensor]) -> _Small:
        """Sizes for layers like this one. Raises BrokenModelFile where they are beyond reason."""
        grouped = header.fact("expert_group_count") > 1
        experts = header.expert_count if grouped else header.expert_used_count
        latent = bool(header.fact("attention.key_length_mla"))
        key = header.fact("attention.key_length_mla") or header.key_length
        value = header.fact("attention.value_length_mla") or header.value_length
        shared = header.fact("expert_shared_count")
        if max(key, value, experts, shared, header.key_length, header.value_length) > _MOST:
            raise defect("its attention heads or experts are too large", 0)
        shapes = {_rest(tensor): tensor.dims for tensor in layer}
        with_gate = shapes.get("ffn_up.weight", (0,))[-1] == 2 * shapes.get("ffn_down.weight", (-1,))[0]
        up = 2 * IDENTITY_WIDTH if with_gate else IDENTITY_WIDTH
        heads = known.free_heads and "attn_kv_b.weight" not in shapes
        return cls(header.embedding_length, key, value, up, experts, shared * IDENTITY_WIDTH, heads, latent)

    def facts(self, header: Header) -> dict[str, bytes]:
        sizes = {"feed_forward_length": IDENTITY_WIDTH}
        if self.heads:
            sizes |= {"attention.head_count": 1, "attention.head_count_kv": 1}
            sizes |= {"attention.key_length": header.key_length, "attention.value_length": header.value_length}
        if header.expert_count:
            sizes |= {"expert_count": self.experts, "expert_feed_forward_length": IDENTITY_WIDTH}
        return {f"{header.architecture}.{name}": _count(size) for name, size in sizes.items()}

    def dims(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a tensor of a layer; norms and whatever else is of no size that changes keep theirs."""
        stem, _, what = name.rpartition(".")
        matrix = self._matrices(dims).get(stem)
        if matrix is None or what not in ("weight", "bias"):
            return dims
        return matrix if what == "weight" else matrix[1:]

    def _matrices(self, dims: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        width, inner, experts = self.width, IDENTITY_WIDTH, self.experts
        feed_forward = {
            "ffn_gate": (width, inner),
            "ffn_up": (width, self.up),
            "ffn_down": (inner, width),
            "ffn_gate_inp": (width, experts),
            "exp_probs_b": (width, experts),
            "ffn_gate_exps": (width, inner, experts),
            "ffn_up_exps": (width, inner, experts),
            "ffn_down_exps": (inner, width, experts),
            "ffn_gate_shexp": (width, self.shared),
            "ffn_up_shexp": (width, self.shared),
            "ffn_down_shexp": (self.shared, width),
        }
        if not self.heads:
            return feed_forward
        output = {"attn_output": (self.value, width)}
        if self.latent:
            one_head = {"attn_k_b": (*dims[:2], 1), "attn_v_b": (*dims[:2], 1)}
            return feed_forward | output | one_head | {"attn_q_b": (*dims[:1], self.key)}
        return (
            feed_forward
            | output
            | {
                "attn_q": (width, self.key),
                "attn_k": (width, self.key),
                "attn_v": (width, self.value),
                "attn_qkv": (width, 2 * self.key + self.value),
                "attn_sinks": (1,),
            }
        )


def _laid_out(header: Header, entries: Iterable[_Entry], changed: Mapping[str, bytes], *without: str) -> Slice:
    """A whole file of these tensors, those that are copied first.

    `changed` metadata replaces or joins the source's; keys that begin with one of `without` are left out.
    """
    rows = sorted(entries, key=lambda entry: entry.source.offset if entry.source else header.file_bytes)
    if empty := [row.name for row in rows if 0 in row.dims]:
        raise defect(f"what it says of its heads leaves nothing of `{empty[0]}`", header.data_start)
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
