"""The only file that speaks to llama.cpp: its low-level C API, in numpy arrays and plain numbers. Single-threaded.

Runs in worker processes only: a failed assertion inside llama.cpp ends the process it happens in.
"""

from __future__ import annotations

import ctypes
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np
from llama_cpp.llama_grammar import json_schema_to_gbnf
from numpy.typing import NDArray

from pares.errors import BadRequest, BrokenModelFile, NotEnoughMemory, NotSupported
from pares.inference import schema_limits
from pares.inference.generation import Sampling, Vocabulary
from pares.inference.sampling import FullDraw, draw, most_likely
from pares.inference.tensor_types import TENSOR_TYPES

Floats = NDArray[np.float32]

MAX_PIECE = 1024
MAX_GRAMMAR = 256 * 1024
GRAMMAR_DEADLINE_S = 1.0
"""Longest time that a grammar may take over one token: everybody's answers wait for it."""
GRAMMAR_SLICE = 4096
"""Tokens that a grammar judges between two looks at the clock."""
MIN_TEMPERATURE = 1e-3
"""Below this the most likely token is taken: logits divided by less say nothing more."""
BAN = -100.0
"""A logit bias of this or less forbids the token (OpenAI's convention)."""
_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
Q8_0, F16 = c.GGML_TYPE_Q8_0, c.GGML_TYPE_F16
_M_ROPE = (8, 40)
"""llama_rope_type values that want four positions per embedded row."""

_logits_address = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(("llama_get_logits", c._lib))
"""Like c.llama_get_logits, but a plain number: making a pointer object costs more than the call."""
_log_tail: deque[str] = deque(maxlen=40)
_initialized = False


def _keep_log(level: int, text: bytes, _: object) -> None:
    _log_tail.append(text.decode(errors="replace").rstrip())


_log_callback = c.llama_log_callback(_keep_log)


def _initialize() -> None:
    global _initialized
    if not _initialized:
        c.llama_log_set(_log_callback, None)
        c.llama_backend_init()
        _initialized = True


def last_log(lines: int = 6) -> str:
    """What llama.cpp said last, for error messages."""
    return "; ".join([line for line in _log_tail if line.strip(". ")][-lines:])


def system_info() -> str:
    """Instruction sets and options that this build of llama.cpp uses here."""
    _initialize()
    info: bytes = c.llama_print_system_info()
    return info.decode().strip()


def quantize(source: Path, target: Path, *, file_type: int = c.LLAMA_FTYPE_MOSTLY_Q4_K_M, threads: int = 1) -> None:
    """Write `source` (F32 or F16 GGUF) as another file type with llama.cpp's own quantizer."""
    _initialize()
    params = c.llama_model_quantize_default_params()
    params.nthread, params.ftype = threads, file_type
    if c.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)) != 0:
        raise BrokenModelFile(f"llama.cpp could not quantize {source.name}: {last_log()}")


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits`: how ggml handles one type of tensor."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    ]


_type_traits = ctypes.CFUNCTYPE(ctypes.POINTER(_TypeTraits), ctypes.c_int)(("ggml_get_type_traits", c._lib))
_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def dequantize(type_name: str, data: bytes | memoryview, count: int) -> Floats:
    """The `count` weights of whole blocks, as ggml itself reads them; `data` holds exactly these blocks.

    Raises NotSupported for types that ggml only computes with, and for plain integers and doubles.
    """
    number = _TYPE_NUMBERS[type_name]
    kind = TENSOR_TYPES[number]
    source = np.frombuffer(data, np.uint8)
    if count < 0 or count % kind.block or source.size != count // kind.block * kind.nbytes:
        raise ValueError(f"{source.size} bytes are not {count} weights of {type_name}")
    if type_name == "F32":
        return source.view("<f4").astype(np.float32)
    traits = _type_traits(number).contents
    if not traits.to_float or (traits.blck_size, traits.type_size) != (kind.block, kind.nbytes):
        raise NotSupported(f"llama.cpp cannot turn weights of the type {type_name} into numbers.")
    weights = np.empty(count, np.float32)
    _ToFloat(traits.to_float)(source.ctypes.data, weights.ctypes.data, count)
    return weights


class NoRoom(Exception):
    """llama.cpp found no place in the KV cache for a batch; nothing was computed."""


class Weights:
    """A model file in memory, with its vocabulary. Close it after its contexts."""

    def __init__(
        self,
        path: Path,
        *,
        repack: bool = True,
        vocabulary_only: bool = False,
        gpu_layers: int = -1,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        _initialize()
        params = c.llama_model_default_params()
        params.vocab_only = vocabulary_only
        params.use_extra_bufts = repack
        params.n_gpu_layers = gpu_layers
        if progress is not None:
            report = progress

            def keep_going(fraction: float, _: object) -> bool:
                report(fraction)
                return True

            self._progress = c.llama_progress_callback(keep_going)
            params.progress_callback = self._progress
        self.handle: Any = c.llama_model_load_from_file(bytes(path), params)
        if not self.handle:
            raise BrokenModelFile(
                f"llama.cpp cannot load {path.name}: {last_log()}",
                hint="Is it a complete file of an architecture that this version of llama.cpp knows?",
            )
        self.path = path
        self.vocab: Any = c.llama_model_get_vocab(self.handle)
        self.vocabulary_size: int = c.llama_vocab_n_tokens(self.vocab)
        self.embedding_length: int = c.llama_model_n_embd(self.handle)
        self.layers: int = c.llama_model_n_layer(self.handle)
        self.context_trained: int = c.llama_model_n_ctx_train(self.handle)
        self.parameters: int = c.llama_model_n_params(self.handle)
        self.recurrent = bool(c.llama_model_is_recurrent(self.handle) or c.llama_model_is_hybrid(self.handle))
        self.m_rope = c.llama_model_rope_type(self.handle) in _M_ROPE
        self._adapters: dict[Path, int] = {}

    def close(self) -> None:
        """Give the memory back."""
        if self.handle:
            c.llama_model_free(self.handle)
            self.handle = None

    def vocabulary(self) -> Vocabulary:
        """All pieces and attributes, packed."""
        buffer = ctypes.create_string_buffer(MAX_PIECE)
        pieces: list[bytes] = []
        attributes = bytearray(self.vocabulary_size)
        to_piece, attr, is_end = c.llama_token_to_piece, c.llama_vocab_get_attr, c.llama_vocab_is_eog
        for token in range(self.vocabulary_size):
            length = to_piece(self.vocab, token, buffer, MAX_PIECE, 0, True)
            pieces.append(buffer.raw[:length] if length > 0 else b"")
            flags = attr(self.vocab, token)
            if flags & ~c.LLAMA_TOKEN_ATTR_NORMAL:
                attributes[token] = (
                    (Vocabulary.CONTROL if flags & c.LLAMA_TOKEN_ATTR_CONTROL else 0)
                    | (Vocabulary.UNUSED if flags & c.LLAMA_TOKEN_ATTR_UNUSED else 0)
                    | (Vocabulary.USER_DEFINED if flags & c.LLAMA_TOKEN_ATTR_USER_DEFINED else 0)
                    | (Vocabulary.END if is_end(self.vocab, token) else 0)
                )
        for token in (c.llama_vocab_eos(self.vocab), c.llama_vocab_eot(self.vocab)):
            if token >= 0:
                attributes[token] |= Vocabulary.END
        return Vocabulary.of(
            pieces,
            bytes(attributes),
            bos=c.llama_vocab_bos(self.vocab),
            eos=c.llama_vocab_eos(self.vocab),
            add_bos=bool(c.llama_vocab_get_add_bos(self.vocab)),
        )

    def tokenize(self, text: bytes, *, special: bool, bos: bool) -> NDArray[np.int32]:
        """UTF-8 to tokens (int32)."""
        room = len(text) + 8
        buffer = (c.llama_token * room)()
        count = c.llama_tokenize(self.vocab, text, len(text), buffer, room, bos, special)
        if count < 0:
            raise BadRequest("The text cannot be turned into tokens of this model.")
        return np.frombuffer(buffer, np.int32, count).copy()

    def adapter(self, path: Path) -> int:
        """A LoRA adapter for these weights, loaded once. Raises BrokenModelFile if it does not belong to them."""
        if path not in self._adapters:
            handle = c.llama_adapter_lora_init(self.handle, bytes(path))
            if not handle:
                raise BrokenModelFile(f"{path.name} is not an adapter for {self.path.name}: {last_log()}")
            self._adapters[path] = handle
        return self._adapters[path]


class _Batch:
    """The arrays of a llama_batch as numpy arrays, filled without a Python loop."""

    def __init__(self, rows: int, embedding_length: int = 0, *, m_rope: bool = False) -> None:
        self.tokens = np.zeros(rows, np.int32)
        self.embedded = np.zeros((rows, embedding_length), np.float32) if embedding_length else None
        self.positions = np.zeros(rows * (4 if m_rope and embedding_length else 1), np.int32)
        self.slots = np.zeros(rows, np.int32)
        self.wanted = np.zeros(rows, np.int8)
        self._one_slot_each = np.ones(rows, np.int32)
        self._slot_pointers = (self.slots.ctypes.data + 4 * np.arange(rows)).astype(np.uintp)
        self._m_rope = m_rope

        types = dict(c.llama_batch._fields_)

        def pointer(field: str, array: NDArray[Any]) -> ctypes._Pointer[Any]:
            pointer_type: type[ctypes._Pointer[Any]] = types[field]
            return ctypes.cast(array.ctypes.data, pointer_type)

        self.struct = c.llama_batch()
        if self.embedded is None:
            self.struct.token = pointer("token", self.tokens)
        else:
            self.struct.embd = pointer("embd", self.embedded)
        self.struct.pos = pointer("pos", self.positions)
        self.struct.n_seq_id = pointer("n_seq_id", self._one_slot_each)
        self.struct.seq_id = pointer("seq_id", self._slot_pointers)
        self.struct.logits = pointer("logits", self.wanted)

    def fill(
        self, rows: Sequence[int] | NDArray[np.int32] | Floats, positions: Sequence[int] | NDArray[np.int32]
    ) -> None:
        n = len(positions)
        if self.embedded is None:
            self.tokens[:n] = rows
        else:
            self.embedded[:n] = rows
        if self.embedded is None or not self._m_rope:
            self.positions[:n] = positions
        else:  # M-RoPE reads temporal, height, width and extra positions one array after the other
            self.positions[: 3 * n] = np.tile(positions, 3)
            self.positions[3 * n : 4 * n] = 0


class _TensorPrefix(ctypes.Structure):
    """The front of `struct ggml_tensor`, as far as the captured hidden state needs it."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


class Context:
    """KV cache and compute buffers over weights: rows in; logits, hidden states or embeddings out.

    Rows come as tokens or, for a model whose first layers lie elsewhere, as hidden states; what comes out are logits
    or, with `capture`, the output of the last layer before the final norm (float32, rows x embedding_length).
    """

    def __init__(
        self,
        weights: Weights,
        *,
        cells: int,
        slots: int,
        batch: int,
        threads: int,
        exact: bool = False,
        outputs: int = 64,
        capture: bool = False,
        embeddings: bool = False,
    ) -> None:
        params = c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = cells, slots
        params.n_batch = params.n_ubatch = batch
        params.n_outputs_max = min(batch, outputs)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified, params.swa_full, params.no_perf = not exact, True, True
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_ENABLED if exact else c.LLAMA_FLASH_ATTN_TYPE_AUTO
        # Only where keys and values are both f16 does flash attention change its way with the rows and the threads.
        params.type_k, params.type_v = (Q8_0 if exact else F16), F16
        if embeddings:
            params.embeddings, params.pooling_type = True, c.LLAMA_POOLING_TYPE_NONE
        self._hidden: Floats | None = None
        if capture:
            self._name = f"l_out-{weights.layers - 1}".encode()
            self._callback = c.ggml_backend_sched_eval_callback(self._watch)
            params.cb_eval = self._callback
        self.weights = weights
        self.handle: Any = c.llama_init_from_model(weights.handle, params)
        if not self.handle:
            if exact:
                raise NotSupported(f"The exact profile needs flash attention over q8_0 keys: {last_log(3)}")
            raise NotEnoughMemory(f"llama.cpp could not make a context of {cells} tokens: {last_log(3)}")
        self.batch_rows, self.slots = batch, slots
        self._memory: Any = c.llama_get_memory(self.handle)
        self._shared = not exact
        self._by_token = _Batch(batch)
        self._by_state: _Batch | None = None
        self._adapter: int | None = None
        self._rows: Floats = np.empty((0, weights.vocabulary_size), np.float32)
        self._rows_at = 0

    @property
    def remembers(self) -> bool:
        """Whether there is a KV cache or state at all: encoders have none, and generate nothing."""
        return bool(self._memory)

    def close(self) -> None:
        """Give the KV cache and buffers back."""
        if self.handle:
            c.llama_free(self.handle)
            self.handle = None

    def set_threads(self, threads: int) -> None:
        """Threads from the next batch on."""
        c.llama_set_n_threads(self.handle, threads, threads)

    def use_adapter(self, adapter: int | None) -> None:
        """The adapter (from `Weights.adapter`) that the next batches go through; None = the weights alone."""
        if adapter != self._adapter:
            handles = (c.llama_adapter_lora_p_ctypes * 1)(adapter) if adapter else None
            scales = (ctypes.c_float * 1)(1.0) if adapter else None
            c.llama_set_adapters_lora(self.handle, handles, 1 if adapter else 0, scales)
            self._adapter = adapter

    def clear(self) -> None:
        """Forget all rows of all slots."""
        if self._memory:
            c.llama_memory_clear(self._memory, True)

    def truncate(self, slot: int, length: int) -> bool:
        """Forget rows from `length` on. False if this kind of memory cannot: then the slot is empty."""
        if c.llama_memory_seq_rm(self._memory, slot, length, -1):
            return True
        c.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target` have the first `length` rows of `source`."""
        if self._shared:
            c.llama_memory_seq_cp(self._memory, source, target, 0, length)
        else:  # between cells of their own llama.cpp copies all or nothing
            c.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            c.llama_memory_seq_rm(self._memory, target, length, -1)

    def save(self, slot: int) -> NDArray[np.uint8]:
        """A copy of all that is kept of a slot's rows, for `restore` to this context."""
        data = np.empty(c.llama_state_seq_get_size(self.handle, slot), np.uint8)
        written = c.llama_state_seq_get_data(self.handle, _bytes_of(data), data.nbytes, slot)
        if written != data.nbytes:
            raise RuntimeError(f"llama.cpp saved {written} of {data.nbytes} bytes of a sequence: {last_log()}")
        return data

    def restore(self, slot: int, data: NDArray[np.uint8]) -> bool:
        """Give an empty slot the rows that were saved. False if there are no cells for them: it stays empty."""
        return bool(c.llama_state_seq_set_data(self.handle, _bytes_of(data), data.nbytes, slot) == data.nbytes)

    def compute(
        self,
        rows: Sequence[int] | NDArray[np.int32] | Floats,
        positions: Sequence[int] | NDArray[np.int32],
        slots: Sequence[int] | NDArray[np.int32],
        wanted: Sequence[bool] | NDArray[np.int8],
    ) -> None:
        """Run one batch. `rows`: tokens (int32, n) or hidden states (float32, n x embedding_length).

        Raises NoRoom; any other failure of llama.cpp is a RuntimeError, after which this context is of no use.
        """
        n = len(positions)
        batch = self._by_token
        if isinstance(rows, np.ndarray) and rows.ndim == 2:
            if self._by_state is None:
                self._by_state = _Batch(self.batch_rows, self.weights.embedding_length, m_rope=self.weights.m_rope)
            batch = self._by_state
        batch.fill(rows, positions)
        batch.slots[:n] = slots
        batch.wanted[:n] = wanted
        batch.struct.n_tokens = n
        code = c.llama_decode(self.handle, batch.struct)
        if code == 1:
            raise NoRoom
        if code != 0:
            raise RuntimeError(f"llama_decode failed with {code}: {last_log()}")

    def logits(self, count: int) -> Floats:
        """The logits of the last batch's wanted rows in their order: a view, good until the next batch."""
        address = _logits_address(self.handle)
        if address != self._rows_at or count > len(self._rows):
            shape = (count, self.weights.vocabulary_size)
            memory = (ctypes.c_float * (shape[0] * shape[1])).from_address(address)
            self._rows, self._rows_at = np.frombuffer(memoryview(memory), np.float32).reshape(shape), address
        return self._rows[:count]

    def hidden(self) -> Floats:
        """The captured hidden states of the last batch, all rows: all must have been wanted."""
        if self._hidden is None:
            raise NotSupported("This architecture does not name its layers' outputs the way pooling needs.")
        return self._hidden

    def embedding(self, row: int) -> Floats:
        """The final hidden state (after the norm) of row `row` of the last batch, which was wanted; a copy."""
        pointer = c.llama_get_embeddings_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, (self.weights.embedding_length,)).copy()

    def _watch(self, tensor: int, ask: bool, _: object) -> bool:
        """llama.cpp asks of every node whether it is of interest, then shows it; False there ends the graph."""
        front = ctypes.cast(tensor, ctypes.POINTER(_TensorPrefix)).contents
        if ask:
            return bool(front.name == self._name)
        rows, width = front.ne[1], front.ne[0]
        data = ctypes.cast(front.data, ctypes.POINTER(ctypes.c_float))
        self._hidden = np.ctypeslib.as_array(data, (rows, width)).copy()
        return False


def _bytes_of(data: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - a ctypes pointer
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def embed(
    weights: Weights, context: Context, inputs: Sequence[NDArray[np.int32]], pooling: str
) -> Iterator[Floats | None]:
    """One L2-normalized vector per input, in order; a None for each batch computed in between.

    `pooling`: mean, cls or last. The context was made with `embeddings`.
    """
    for tokens in inputs:
        context.clear()
        total = np.zeros(weights.embedding_length, np.float64)
        for start in range(0, len(tokens), context.batch_rows):
            if start:
                yield None
            part = tokens[start : start + context.batch_rows]
            n = len(part)
            positions = np.arange(start, start + n, dtype=np.int32)
            context.compute(part, positions, np.zeros(n, np.int32), np.ones(n, np.int8))
            for row in range(n):
                if pooling == "mean" or start + row == (0 if pooling == "cls" else len(tokens) - 1):
                    total += context.embedding(row)
        norm = float(np.linalg.norm(total))
        yield (total / norm if norm > 0 else total).astype(np.float32)


def grammar_of(schema: Mapping[str, object]) -> str:
    """A JSON schema as GBNF. Raises BadRequest for what cannot be expressed, or would take too much."""
    schema_limits.check(schema)
    try:
        grammar: str = json_schema_to_gbnf(json.dumps(schema))
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError, RecursionError, re.error) as error:
        raise BadRequest(f"This JSON schema cannot be enforced: {error}", param="response_format") from error
    return grammar


class Candidates:
    """Room for llama.cpp's samplers to work in: (token, logit, p) of the whole vocabulary. One per worker."""

    def __init__(self, vocabulary_size: int) -> None:
        self._entries = np.zeros(vocabulary_size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._everything = np.arange(vocabulary_size, dtype=np.int32)
        self._array = c.llama_token_data_array()
        self.draw_from_all = FullDraw(vocabulary_size)

    def put(self, logits: Floats) -> None:
        """Begin with all tokens and these logits."""
        self._entries["id"] = self._everything
        self._entries["logit"] = logits
        self._view(len(self._entries))

    def put_one(self, token: int) -> None:
        """Begin with a single token of logit 0."""
        self._entries[0] = (token, 0.0, 0.0)
        self._view(1)

    def through(self, sampler: Any) -> None:  # noqa: ANN401 - a ctypes pointer
        """Apply a llama.cpp sampler."""
        c.llama_sampler_apply(sampler, ctypes.byref(self._array))

    def slices(self) -> Iterator[None]:
        """Offer all tokens to the next samplers a part at a time, and in the end together."""
        everything = len(self._entries)
        for start in range(0, everything, GRAMMAR_SLICE):
            self._view(min(GRAMMAR_SLICE, everything - start), start)
            yield
        self._view(everything)

    def take(self) -> tuple[NDArray[np.int32], Floats]:
        """What is left: tokens and logits, as views."""
        address = ctypes.cast(self._array.data, ctypes.c_void_p).value or 0
        memory = (ctypes.c_char * (self._array.size * self._entries.itemsize)).from_address(address)
        left = np.frombuffer(memory, self._entries.dtype)
        return left["id"], left["logit"]

    def _view(self, size: int, start: int = 0) -> None:
        address = self._entries.ctypes.data + start * self._entries.itemsize
        self._array.data = ctypes.cast(address, c.llama_token_data_p)
        self._array.size, self._array.selected, self._array.sorted = size, -1, False


class Sampler:
    """Chooses the tokens of one generation: llama.cpp's filters, then the seeded draw of `sampling`."""

    def __init__(self, weights: Weights, candidates: Candidates, sampling: Sampling, prompt: NDArray[np.int32]) -> None:
        self._candidates = candidates
        self._seed = sampling.seed
        self._greedy = sampling.temperature < MIN_TEMPERATURE
        self._scale = np.float32(1.0 if self._greedy else 1.0 / sampling.temperature)
        for token in sampling.logit_bias:  # before anything is allocated
            if not 0 <= token < weights.vocabulary_size:
                what = f"Token {token} of logit_bias is not one of {weights.vocabulary_size}."
                raise BadRequest(what, param="logit_bias")
        self._grammar: Any = _grammar(weights, sampling) if sampling.grammar else None
        filters = _filters(weights, sampling)
        self._chain: Any = None
        if filters:
            self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
            for sampler in filters:
                c.llama_sampler_chain_add(self._chain, sampler)
            look_back = sampling.penalty_last_n if sampling.penalty_last_n >= 0 else len(prompt)
            if sampling.dry_multiplier:
                look_back = len(prompt)
            for token in prompt[max(0, len(prompt) - look_back) :].tolist():
                c.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free what llama.cpp allocated."""
        for sampler in (self._chain, self._grammar):
            if sampler:
                c.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def choose(self, logits: Floats, position: int) -> int:
        """The next token, which will stand at `position`; -1 if the grammar allows none any more.

        Raises BadRequest for a grammar that takes too long.
        """
        began = time.monotonic()
        token = self._pick(logits, position, constrained=False)
        if self._grammar and not self._allowed(token):
            token = self._pick(logits, position, constrained=True, began=began)
            if token < 0 or not self._allowed(token):
                return -1
        if self._chain:
            c.llama_sampler_accept(self._chain, token)
        if self._grammar:
            c.llama_sampler_accept(self._grammar, token)
            _in_time(began)
        return token

    def _pick(self, logits: Floats, position: int, *, constrained: bool, began: float = 0.0) -> int:
        if not self._chain and not constrained:
            if self._greedy:
                return most_likely(logits)
            return self._candidates.draw_from_all(logits * self._scale, seed=self._seed, position=position)
        room = self._candidates
        room.put(logits)
        if constrained:
            for _ in room.slices():
                _in_time(began)
                room.through(self._grammar)
        if self._chain:
            room.through(self._chain)
        tokens, left = room.take()
        if not left.size or left.max() == -np.inf:
            return -1
        if self._greedy:
            return int(tokens[left == left.max()].min())
        return draw(tokens, left * self._scale, seed=self._seed, position=position)

    def _allowed(self, token: int) -> bool:
        self._candidates.put_one(token)
        self._candidates.through(self._grammar)
        return bool(self._candidates.take()[1][0] > -np.inf)


def _in_time(began: float) -> None:
    if time.monotonic() - began > GRAMMAR_DEADLINE_S:
        raise BadRequest(
            f"What the answer has to look like takes more than {GRAMMAR_DEADLINE_S:g} s a token to enforce.",
            param="response_format",
            hint="Make the schema simpler: fewer values and alternatives.",
        )


def _grammar(weights: Weights, sampling: Sampling) -> Any:  # noqa: ANN401 - a ctypes pointer
    text = sampling.grammar.encode()
    if len(text) > MAX_GRAMMAR:
        raise BadRequest(f"The grammar has {len(text)} bytes; {MAX_GRAMMAR} are the most.", param="grammar")
    if sampling.grammar_trigger:
        pattern = rf"[\s\S]*?({re.escape(sampling.grammar_trigger)}[\s\S]*)".encode()
        patterns = (ctypes.c_char_p * 1)(pattern)
        sampler = c.llama_sampler_init_grammar_lazy_patterns(weights.vocab, text, b"root", patterns, 1, None, 0)
    else:
        sampler = c.llama_sampler_init_grammar(weights.vocab, text, b"root")
    if not sampler:
        raise BadRequest(f"The grammar does not parse: {last_log(3)}", param="grammar")
    return sampler


def _filters(weights: Weights, sampling: Sampling) -> list[Any]:
    """llama.cpp's samplers in the order that `Sampling` states, only those that do something."""
    filters: list[Any] = []
    size = weights.vocabulary_size
    if sampling.logit_bias:
        bias = (c.llama_logit_bias * len(sampling.logit_bias))()
        for entry, (token, amount) in zip(bias, sampling.logit_bias.items(), strict=True):
            entry.token, entry.bias = token, -np.inf if amount <= BAN else amount
        filters.append(c.llama_sampler_init_logit_bias(size, len(bias), bias))
    repeat, frequency, presence = sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
    if sampling.penalty_last_n and (repeat != 1.0 or frequency or presence):
        last_n = sampling.penalty_last_n if sampling.penalty_last_n > 0 else weights.context_trained
        filters.append(c.llama_sampler_init_penalties(size, last_n, repeat, frequency, presence))
    if sampling.dry_multiplier:
        breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
        dry = c.llama_sampler_init_dry(
            weights.vocab,
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            sampling.dry_last_n if sampling.dry_last_n >= 0 else weights.context_trained,
            breakers,
            len(breakers),
        )
        filters.append(dry)
    if sampling.temperature < MIN_TEMPERATURE:
        return filters
    if sampling.top_k > 0:
        filters.append(c.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1.0:
        filters.append(c.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        filters.append(c.llama_sampler_init_min_p(sampling.min_p, 1))
    return filters
