"""Tiny models with random weights, made in milliseconds: every shape and kind of GGUF without a download.

`sparse=True` writes the header of a model of any size and leaves a hole where the weights would be.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFType, GGUFWriter, quants
from numpy.typing import NDArray

from pares.inference.gguf import read_header

Shapes = dict[str, tuple[int, ...]]
"""Tensor name to dimensions, the row's length first, as in the GGUF."""
Facts = Mapping[str, bool | int | float | str | list[int]]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NORMAL, CONTROL, UNUSED = 1, 3, 5
VOCABULARY = 320


def tiny_llama(
    path: Path,
    *,
    layers: int = 2,
    embedding: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 512,
    vocab: int = VOCABULARY,
    context: int = 2048,
    dtype: str = "F32",
    template: str | None = None,
    tied: bool = False,
    experts: int = 0,
    experts_used: int = 2,
    seed: int = 0,
    sparse: bool = False,
) -> Path:
    """A llama, dense or a mixture of experts."""
    facts = _attention_facts(layers, embedding, heads, kv_heads, ffn, context)
    if experts:
        facts |= {"expert_count": experts, "expert_used_count": experts_used, "expert_feed_forward_length": ffn}
    shapes = _ends(embedding, vocab, tied=tied)
    for layer in range(layers):
        shapes |= _attention(layer, embedding, embedding // heads, heads, kv_heads)
        shapes |= _mixture(layer, embedding, ffn, experts) if experts else _feed_forward(layer, embedding, ffn)
    return _write(path, "llama", facts, shapes, vocab, dtype, template, seed, sparse=sparse)


def tiny_qwen2(
    path: Path,
    *,
    layers: int = 2,
    embedding: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 512,
    vocab: int = VOCABULARY,
    context: int = 2048,
    dtype: str = "F32",
    template: str | None = CHATML,
    seed: int = 0,
    sparse: bool = False,
) -> Path:
    """A qwen2: biases on queries, keys and values, NeoX rotation, tied embeddings."""
    facts = _attention_facts(layers, embedding, heads, kv_heads, ffn, context)
    shapes = _ends(embedding, vocab, tied=True)
    head = embedding // heads
    for layer in range(layers):
        shapes |= _attention(layer, embedding, head, heads, kv_heads) | _feed_forward(layer, embedding, ffn)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            shapes[f"blk.{layer}.attn_{name}.bias"] = (head * count,)
    return _write(path, "qwen2", facts, shapes, vocab, dtype, template, seed, sparse=sparse)


def tiny_gemma3(
    path: Path,
    *,
    layers: int = 6,
    embedding: int = 256,
    heads: int = 4,
    kv_heads: int = 1,
    ffn: int = 512,
    window: int = 64,
    vocab: int = VOCABULARY,
    context: int = 2048,
    dtype: str = "F32",
    template: str | None = None,
    seed: int = 0,
    sparse: bool = False,
) -> Path:
    """A gemma3: five sliding-window layers to each global one, norms around both halves, tied embeddings."""
    head = embedding // heads
    facts = _attention_facts(layers, embedding, heads, kv_heads, ffn, context)
    facts |= {"attention.sliding_window": window, "attention.key_length": head, "attention.value_length": head}
    shapes = _ends(embedding, vocab, tied=True)
    for layer in range(layers):
        shapes |= _attention(layer, embedding, head, heads, kv_heads) | _feed_forward(layer, embedding, ffn)
        norms = {"attn_q_norm": head, "attn_k_norm": head, "post_attention_norm": embedding, "post_ffw_norm": embedding}
        shapes |= {f"blk.{layer}.{name}.weight": (width,) for name, width in norms.items()}
    return _write(path, "gemma3", facts, shapes, vocab, dtype, template, seed, sparse=sparse)


def tiny_mamba(
    path: Path,
    *,
    layers: int = 2,
    embedding: int = 256,
    state: int = 16,
    vocab: int = VOCABULARY,
    dtype: str = "F32",
    seed: int = 0,
    sparse: bool = False,
) -> Path:
    """A mamba: recurrent, no attention, a state of fixed size instead of a KV cache."""
    inner, rank, taps = 2 * embedding, max(1, embedding // 16), 4
    facts: dict[str, int | float] = {"block_count": layers, "context_length": 1 << 20, "embedding_length": embedding}
    facts |= {"feed_forward_length": 0, "attention.head_count": 0, "attention.layer_norm_rms_epsilon": 1e-5}
    facts |= {"ssm.conv_kernel": taps, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank}
    shapes = _ends(embedding, vocab, tied=True)
    for layer in range(layers):
        block: Shapes = {
            "attn_norm.weight": (embedding,),
            "ssm_in.weight": (embedding, 2 * inner),
            "ssm_conv1d.weight": (taps, inner),
            "ssm_conv1d.bias": (inner,),
            "ssm_x.weight": (inner, rank + 2 * state),
            "ssm_dt.weight": (rank, inner),
            "ssm_dt.bias": (inner,),
            "ssm_a": (state, inner),
            "ssm_d": (inner,),
            "ssm_out.weight": (inner, embedding),
        }
        shapes |= {f"blk.{layer}.{name}": dims for name, dims in block.items()}
    return _write(path, "mamba", facts, shapes, vocab, dtype, None, seed, sparse=sparse)


def tiny_bert(
    path: Path, *, layers: int = 2, embedding: int = 256, heads: int = 4, ffn: int = 512, seed: int = 0
) -> Path:
    """A BERT for embeddings: sees both ways, pools by mean, word-piece vocabulary of single letters."""
    facts: dict[str, bool | int | float] = {"block_count": layers, "context_length": 512}
    facts |= {"embedding_length": embedding, "feed_forward_length": ffn, "attention.head_count": heads}
    facts |= {"attention.layer_norm_epsilon": 1e-12, "attention.causal": False, "pooling_type": 1}
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"\u2581{c}" for c in letters), *letters]
    shapes: Shapes = {
        "token_embd.weight": (embedding, len(pieces)),
        "token_types.weight": (embedding, 2),
        "position_embd.weight": (embedding, 512),
        "token_embd_norm.weight": (embedding,),
        "token_embd_norm.bias": (embedding,),
    }
    for layer in range(layers):
        square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (embedding, embedding))
        for name, dims in {**square, "ffn_up": (embedding, ffn), "ffn_down": (ffn, embedding)}.items():
            shapes |= {f"blk.{layer}.{name}.weight": dims, f"blk.{layer}.{name}.bias": dims[1:]}
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.{layer}.{name}.weight": (embedding,), f"blk.{layer}.{name}.bias": (embedding,)}
    writer = _begin(path, "bert", facts, None)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL] * 5 + [NORMAL] * (len(pieces) - 5))
    writer.add_uint32("tokenizer.ggml.token_type_count", 2)
    for number, role in enumerate(("padding", "unknown", "cls", "seperator", "mask")):
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", number)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 2)
    return _finish(writer, path, _weights(shapes, seed), "F32")


def tiny_lora(path: Path, base: Path, *, rank: int = 4, alpha: float | None = None, seed: int = 1) -> Path:
    """A LoRA adapter for a model of this file, on queries and values: loud enough to change what it says."""
    header = read_header(base)
    writer = GGUFWriter(path, header.architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(alpha if alpha is not None else 2 * rank))
    shapes: Shapes = {}
    for tensor in header.tensors:
        if tensor.name.endswith((".attn_q.weight", ".attn_v.weight")):
            shapes[f"{tensor.name}.lora_a"] = (tensor.dims[0], rank)
            shapes[f"{tensor.name}.lora_b"] = (rank, tensor.dims[1])
    return _finish(writer, path, _weights(shapes, seed), "F32")


def _attention_facts(
    layers: int, embedding: int, heads: int, kv_heads: int, ffn: int, context: int
) -> dict[str, int | float]:
    return {
        "block_count": layers,
        "context_length": context,
        "embedding_length": embedding,
        "feed_forward_length": ffn,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": embedding // heads,
        "rope.freq_base": 10000.0,
    }


def _ends(embedding: int, vocab: int, *, tied: bool) -> Shapes:
    output: Shapes = {} if tied else {"output.weight": (embedding, vocab)}
    return {"token_embd.weight": (embedding, vocab), "output_norm.weight": (embedding,)} | output


def _attention(layer: int, embedding: int, head: int, heads: int, kv_heads: int) -> Shapes:
    return {
        f"blk.{layer}.attn_norm.weight": (embedding,),
        f"blk.{layer}.attn_q.weight": (embedding, heads * head),
        f"blk.{layer}.attn_k.weight": (embedding, kv_heads * head),
        f"blk.{layer}.attn_v.weight": (embedding, kv_heads * head),
        f"blk.{layer}.attn_output.weight": (heads * head, embedding),
    }


def _feed_forward(layer: int, embedding: int, ffn: int) -> Shapes:
    return {
        f"blk.{layer}.ffn_norm.weight": (embedding,),
        f"blk.{layer}.ffn_gate.weight": (embedding, ffn),
        f"blk.{layer}.ffn_up.weight": (embedding, ffn),
        f"blk.{layer}.ffn_down.weight": (ffn, embedding),
    }


def _mixture(layer: int, embedding: int, ffn: int, experts: int) -> Shapes:
    return {
        f"blk.{layer}.ffn_norm.weight": (embedding,),
        f"blk.{layer}.ffn_gate_inp.weight": (embedding, experts),
        f"blk.{layer}.ffn_gate_exps.weight": (embedding, ffn, experts),
        f"blk.{layer}.ffn_up_exps.weight": (embedding, ffn, experts),
        f"blk.{layer}.ffn_down_exps.weight": (ffn, embedding, experts),
    }


def _weights(shapes: Shapes, seed: int) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """Values that keep a signal alive through the layers: norms near one, matrices scaled by their row's length.

    The last norm is of both signs, or a model with tied embeddings would repeat its last token for ever.
    """
    random = np.random.default_rng(seed)
    for name, dims in shapes.items():
        noise = random.standard_normal(tuple(reversed(dims)), np.float32)
        if name.endswith("ssm_a"):
            values = -np.exp(noise)
        elif name == "output_norm.weight":
            values = 3 * noise
        elif name.endswith("norm.weight"):
            values = 1 + noise / 10
        else:
            values = noise / (10 if len(dims) == 1 else math.sqrt(dims[0]))
        yield name, values.astype(np.float32)


def _write(
    path: Path,
    architecture: str,
    facts: Facts,
    shapes: Shapes,
    vocab: int,
    dtype: str,
    template: str | None,
    seed: int,
    *,
    sparse: bool,
) -> Path:
    writer = _begin(path, architecture, facts, template)
    if sparse:
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(vocab)
        return _leave_hole(writer, path, shapes, dtype)
    _byte_vocabulary(writer, vocab)
    return _finish(writer, path, _weights(shapes, seed), dtype)


def _begin(path: Path, architecture: str, facts: Facts, template: str | None) -> GGUFWriter:
    writer = GGUFWriter(path, architecture)
    writer.add_type(GGUFType.MODEL)
    writer.add_name(path.stem)
    for key, value in facts.items():
        name = f"{architecture}.{key}"
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case list():
                writer.add_array(name, value)
    if template:
        writer.add_chat_template(template)
    return writer


def _byte_vocabulary(writer: GGUFWriter, vocab: int) -> None:
    """A byte-level BPE as GPT-2's: 256 bytes, one merge, the ChatML specials, filled up with unused tokens."""
    bytes_ = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in bytes_]
    letters = [chr(byte) for byte in bytes_] + [chr(256 + i) for i in range(len(others))]
    tokens = [*letters, "\u0120t", *SPECIALS]
    types = [NORMAL] * (len(tokens) - len(SPECIALS)) + [CONTROL] * len(SPECIALS)
    tokens += [f"[unused{i}]" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types + [UNUSED] * (len(tokens) - len(types)))
    writer.add_token_merges(["\u0120 t"])
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)


def _kind(name: str, dims: tuple[int, ...], dtype: str) -> GGMLQuantizationType:
    """Vectors, norms, routers and recurrences stay F32, and so does what does not fill a block."""
    kind = GGMLQuantizationType[dtype]
    small = len(dims) == 1 or "norm" in name or "ffn_gate_inp" in name or "ssm_" in name or "lora_" in name
    return GGMLQuantizationType.F32 if small or dims[0] % GGML_QUANT_SIZES[kind][0] else kind


def _finish(writer: GGUFWriter, path: Path, weights: Iterable[tuple[str, NDArray[np.float32]]], dtype: str) -> Path:
    for name, values in weights:
        kind = _kind(name, tuple(reversed(values.shape)), dtype)
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _leave_hole(writer: GGUFWriter, path: Path, shapes: Shapes, dtype: str) -> Path:
    data = 0
    for name, dims in shapes.items():
        kind = _kind(name, dims, dtype)
        block, size = GGML_QUANT_SIZES[kind]
        row = dims[0] // block * size
        nbytes = row * math.prod(dims[1:])
        writer.add_tensor_info(name, (*reversed(dims[1:]), row), np.dtype(np.uint8), nbytes, raw_dtype=kind)
        data += -(-nbytes // writer.data_alignment) * writer.data_alignment
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // writer.data_alignment) * writer.data_alignment + data)
    return path
