"""What loading a model takes, told from its header alone: weights, KV cache, buffers.

The sizes follow llama.cpp's allocations on the CPU: KV cache and recurrent states exactly, compute buffers by a formula
fitted to what llama.cpp reports for twenty shapes of 0.1 to 70 billion parameters (0 to 15 % above, where the logits of
few rows are wanted). It assumes what `inference/llama.py` asks for: one KV cache that all sequences share,
sliding-window layers kept in full, flash attention. Bytes throughout; GB are 10^9 bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from pares.errors import BrokenModelFile, NotEnoughMemory, NotSupported
from pares.inference.header import GGUFArray, Header, check_loadable

KeyType = Literal["f16", "q8_0"]
Fit = Literal["runs well", "tight", "needs more machines", "will not run"]

CELL_STEP = 256
"""llama.cpp rounds the KV cache up to a multiple of this."""
MAX_CELLS = 1 << 24
PROCESS_BYTES = 48_000_000
"""A worker before it loads anything: Python, numpy, llama.cpp's library."""
TOKEN_BYTES = 180
"""llama.cpp's tables, for each token and each merge of the vocabulary."""
MASK_BYTES = 2
FLOAT_BYTES = 4
_CACHES = frozenset({"attn_k.weight", "attn_kv_a_mqa.weight"})
"""What a recurrent layer has if it pays attention as well."""
REPACKED = frozenset({"Q4_0", "Q8_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"})
"""Types that llama.cpp may copy into another order of blocks for the CPU it runs on."""


class Load(TypedDict, total=False):
    """How a model is to be loaded."""

    sequences: int
    """Conversations at the same time. Default 1."""
    key_type: KeyType
    """Element type of the keys in the KV cache. Default f16; values are always f16."""
    ubatch: int
    """Rows that are computed together (`n_ubatch`). Default 512."""
    outputs: int
    """Rows of a batch that logits are wanted of (`n_outputs_max`). Default `ubatch`, which costs a large vocabulary
    512 MB: say what is needed."""
    adapters: Sequence[Header]
    """LoRA adapters loaded beside the model."""


@dataclass(frozen=True)
class Estimate:
    """Bytes that a loaded model occupies, `cells` tokens of context included."""

    cells: int
    weights: int
    """The file's tensors, once: pages of the file that repacked copies were made from are clean and never read again,
    and the system takes them back when it needs them."""
    kv: int
    """Keys and values of all cells, and the recurrent states of all sequences."""
    compute: int
    """llama.cpp's compute buffers, with the states and logits that it works on."""
    overhead: int
    """The vocabulary's tables, and the worker process itself."""
    copies: int
    """How much of `weights` may be in memory twice while the system has room to spare. Not part of `total`."""

    @property
    def buffers(self) -> int:
        """All that is neither weights nor cache."""
        return self.compute + self.overhead

    @property
    def total(self) -> int:
        """What has to be there."""
        return self.weights + self.kv + self.buffers

    def sum_text(self) -> str:
        """The sum, for people."""
        return (
            f"{_gb(self.weights)} weights + {_gb(self.kv)} KV cache for {self.cells} tokens + "
            f"{_gb(self.buffers)} buffers = {_gb(self.total)}"
        )


def estimate(header: Header, *, cells: int, **load: Unpack[Load]) -> Estimate:
    """The memory for `cells` tokens of context, shared by all sequences. Raises BrokenModelFile."""
    sequences, ubatch = load.get("sequences", 1), load.get("ubatch", 512)
    outputs = max(sequences, min(load.get("outputs", ubatch), ubatch))
    cells = -(-cells // CELL_STEP) * CELL_STEP
    states = [_state_elements(header) if _is_recurrent(names) else 0 for names in _layers(header)]
    keys, values = _kv_elements(header)
    key_bytes = 2 * keys if load.get("key_type", "f16") == "f16" else keys * 34 // 32
    per_cell = key_bytes + 2 * values
    logits = outputs * header.vocab_size * FLOAT_BYTES
    working_states = 3 * max(states, default=0) * sequences * FLOAT_BYTES // 2
    tables = header.vocab_size + _length(header, "tokenizer.ggml.merges")
    return Estimate(
        cells=cells,
        weights=header.tensor_bytes + sum(adapter.tensor_bytes for adapter in load.get("adapters", ())),
        kv=cells * per_cell + sum(states) * sequences * FLOAT_BYTES,
        compute=_compute(header, cells if per_cell else 0, ubatch, logits) + logits + working_states,
        overhead=tables * TOKEN_BYTES + PROCESS_BYTES,
        copies=sum(tensor.nbytes for tensor in header.tensors if tensor.type in REPACKED and len(tensor.dims) > 1),
    )


def largest_context(header: Header, free_bytes: int, *, limit: int | None = None, **load: Unpack[Load]) -> int:
    """The most tokens of context that fit: a multiple of 256, 0 if not even 256 do.

    Not above `limit`, by default the context that the model was trained with (but 256 is the least there is).
    """
    steps = range(CELL_STEP, max(CELL_STEP, min(limit or header.context_length, MAX_CELLS)) + 1, CELL_STEP)
    fitting = bisect_right(steps, free_bytes, key=lambda cells: estimate(header, cells=cells, **load).total)
    return steps[fitting - 1] if fitting else 0


def parking(header: Header, size: int) -> tuple[int, int]:
    """How many rows of f16 KV cache `size` bytes hold, and how many rows a sequence's recurrent state weighs."""
    row = 2 * sum(_kv_elements(header)) or FLOAT_BYTES
    state = FLOAT_BYTES * sum(_state_elements(header) for names in _layers(header) if _is_recurrent(names))
    return max(size // row, 0), -(-state // row)


def require(header: Header, free_bytes: int, context: int, **load: Unpack[Load]) -> Estimate:
    """The estimate for `context` tokens. Raises NotEnoughMemory, with the sum and the context that would fit."""
    needed = estimate(header, cells=context, **load)
    if needed.total <= free_bytes:
        return needed
    fitting = largest_context(header, free_bytes, limit=context, **load)
    raise NotEnoughMemory(
        f"{header.name or 'This model'} needs {needed.sum_text()}; {_gb(free_bytes)} are free.",
        hint=f"A context of {fitting} tokens would fit."
        if fitting
        else "Unload other models, close other programs, or take a smaller model or quantization.",
        needed=needed.total,
        free=free_bytes,
        weights=needed.weights,
        kv=needed.kv,
        buffers=needed.buffers,
        context=needed.cells,
        context_that_fits=fitting,
    )


def fit(header: Header, free_bytes: int, machine_bytes: int, *, context: int, **load: Unpack[Load]) -> Fit:
    """How a model with `context` tokens would do on a machine with so much memory, and so much of it free.

    `runs well`: with room to spare. `tight`: it fits, and the system has to drop what it read of the file.
    `needs more machines`: more than this machine has. `will not run`: not in what is free now, or not at all.
    """
    try:
        check_loadable(header)
        needed = estimate(header, cells=context, **load)
    except (BrokenModelFile, NotSupported):
        return "will not run"
    if needed.total + needed.copies <= free_bytes:
        return "runs well"
    if needed.total <= free_bytes:
        return "tight"
    return "needs more machines" if needed.total > machine_bytes else "will not run"


def _layers(header: Header) -> list[frozenset[str]]:
    return [header.layer_tensors.get(layer, frozenset()) for layer in range(header.block_count)]


def _is_recurrent(names: frozenset[str]) -> bool:
    return any(name.startswith(("ssm_", "shortconv.", "time_mix_")) for name in names)


def _kv_elements(header: Header) -> tuple[int, int]:
    """Elements of keys, and of values, that one token takes in all layers."""
    if not header.is_causal:
        return 0, 0
    key = max(header.key_length, header.fact("attention.key_length_swa"))
    value = max(header.value_length, header.fact("attention.value_length_swa"))
    if header.fact("attention.key_length_mla"):
        value = 0  # multi-head latent attention reads the values out of the keys' cache
    caches = [not _is_recurrent(names) or bool(names & _CACHES) for names in _layers(header)]
    own = header.block_count - min(header.fact("attention.shared_kv_layers"), header.block_count)
    heads = sum([heads * keeps for heads, keeps in zip(header.head_counts_kv, caches, strict=True)][:own])
    return heads * key, heads * value


def _state_elements(header: Header) -> int:
    """Elements of the state that a recurrent layer keeps of one sequence, convolution and recurrence together."""
    width, state, inner = header.embedding_length, header.fact("ssm.state_size"), header.fact("ssm.inner_size")
    taps = max(header.fact("ssm.conv_kernel"), 1) - 1
    if head := header.fact("wkv.head_size"):  # RWKV
        return width * (header.fact("token_shift_count", 2) + head)
    if kernel := header.fact("shortconv.l_cache"):  # LFM2
        return width * (kernel - 1)
    if head := header.fact("kda.head_dim"):  # Kimi Linear
        return max(header.head_counts, default=0) * head * (3 * taps + head)
    return taps * (inner + 2 * header.fact("ssm.group_count") * state) + state * inner


def _compute(header: Header, cells: int, ubatch: int, logits: int) -> int:
    """llama.cpp's compute buffer: the widest moment of a layer, or the output matrix at the end."""
    width = header.embedding_length
    masks = MASK_BYTES * ubatch * (cells if header.is_causal else ubatch) * (2 if header.sliding_window else 1)
    experts = header.expert_used_count
    hidden = max((*header.per_layer("feed_forward_length"), header.fact("expert_feed_forward_length") * experts))
    heads = max(header.head_counts, default=0)
    mixing = header.fact("ssm.inner_size") or (2 * width if header.fact("wkv.head_size") else 0)
    widest = max(
        3 * hidden + 4 * width,
        2 * width * experts + 6 * width,
        2 * heads * (header.key_length + header.value_length) + 5 * width,
        7 * mixing + 2 * header.fact("ssm.group_count") * header.fact("ssm.state_size"),
    )
    at_the_end = logits + 3 * width * ubatch * FLOAT_BYTES
    holes = masks if header.sliding_window and logits > masks else 0  # logits too large for the place the masks leave
    return max(widest * ubatch * FLOAT_BYTES * 21 // 20 + masks, at_the_end * 21 // 20 + holes)


def _length(header: Header, key: str) -> int:
    value = header.metadata.get(key)
    return len(value) if isinstance(value, GGUFArray) else 0


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
