"""Tiny models of random weights, one of each architecture that can be cut: a tiny llama with other tensors and facts.

Each has several periods of its kinds of layers, and what real models of it have beside the layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from numpy.typing import NDArray

from pares.inference.gguf import read_header
from tiny import Shapes, tiny_gemma3, tiny_llama, tiny_qwen2

Facts = dict[str, bool | int | float | str | list[int]]
Layer = Callable[[int], Shapes]

_TYPES = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
    list: GGUFValueType.ARRAY,
}

HEADS: Facts = {"attention.key_length": 64, "attention.value_length": 64}
LONG: Facts = {
    "rope.scaling.type": "longrope",
    "rope.scaling.original_context_length": 64,
    "rope.scaling.attn_factor": 1.19,
}
ATTENTION = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
FEED_FORWARD = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")


def remade(
    source: Path,
    architecture: str,
    facts: Facts | None = None,
    layer: Layer = lambda number: {},
    *,
    without: tuple[str, ...] = (),
    renamed: Mapping[str, str] | None = None,
    factors: tuple[str, ...] = (),
) -> Path:
    """The model in `source` as another: its layers with these tensors more, those fewer, and rotary factors beside."""
    target = source.with_name(f"{architecture}-{source.name}")
    header, reader = read_header(source), GGUFReader(source)
    writer = GGUFWriter(target, architecture)
    facts = facts or {}
    for key, field in reader.fields.items():
        name = key.removeprefix(f"{header.architecture}.")
        if not key.startswith("GGUF.") and key != "general.architecture" and name not in facts:
            kinds = field.types
            name = key if name == key else f"{architecture}.{name}"
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    for name, value in facts.items():
        writer.add_key_value(f"{architecture}.{name}", value, _TYPES[type(value)], GGUFValueType.UINT32)
    for name in factors:
        values = np.linspace(1, 4 + 10 * len(name), header.fact("rope.dimension_count") // 2, dtype=np.float32)
        writer.add_tensor(name, values)
    for each in reader.tensors:
        stem, _, rest = each.name.rpartition(".weight")[0].rpartition(".")
        if f"{rest}.weight" not in without:
            name = f"{stem}.{(renamed or {}).get(rest, rest)}.weight" if stem else each.name
            writer.add_tensor(name, each.data, raw_dtype=each.tensor_type)
    random = np.random.default_rng(3)
    for number in range(header.block_count):
        for rest, dims in layer(number).items():
            writer.add_tensor(f"blk.{number}.{rest}", _values(random, rest, dims))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _values(random: np.random.Generator, name: str, dims: tuple[int, ...]) -> NDArray[np.float32]:
    noise = random.standard_normal(tuple(reversed(dims)), np.float32)
    if name == "ssm_a":
        return np.asarray(-np.exp(noise), np.float32)
    if name.endswith("norm.weight"):
        return np.asarray(1 + noise / 10, np.float32)
    return np.asarray(noise / (10 if len(dims) == 1 else math.sqrt(dims[0])), np.float32)


def fused_qkv(number: int) -> Shapes:
    return {"attn_qkv.weight": (256, 512)}


def qk_norms(number: int) -> Shapes:
    return {"attn_q_norm.weight": (64,), "attn_k_norm.weight": (64,)}


def phi3(number: int) -> Shapes:
    return {"attn_qkv.weight": (256, 768), "ffn_up.weight": (256, 1024)}


def glm4(number: int) -> Shapes:
    return {"ffn_up.weight": (256, 1024), "post_attention_norm.weight": (256,), "post_ffw_norm.weight": (256,)}


def gpt_oss(number: int) -> Shapes:
    attention: Shapes = {"attn_sinks.weight": (4,), "attn_q.bias": (256,), "attn_output.bias": (256,)}
    attention |= {"attn_k.bias": (128,), "attn_v.bias": (128,), "ffn_gate_inp.bias": (4,)}
    return attention | {"ffn_gate_exps.bias": (512, 4), "ffn_up_exps.bias": (512, 4), "ffn_down_exps.bias": (256, 4)}


DEEPSEEK2: Facts = {
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 128,
    "attention.key_length": 160,
    "attention.value_length": 128,
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 64,
    "attention.head_count_kv": 1,
    "rope.dimension_count": 32,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 512,
    "rope.scaling.yarn_log_multiplier": 0.1,
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_group_count": 2,
    "expert_group_used_count": 1,
    "expert_shared_count": 2,
    "expert_feed_forward_length": 64,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 2.5,
}


def deepseek2(number: int, dense: int) -> Shapes:
    attention: Shapes = {
        "attn_q_a_norm.weight": (64,),
        "attn_kv_a_norm.weight": (128,),
        "attn_q_a.weight": (256, 64),
        "attn_q_b.weight": (64, 256),
        "attn_kv_a_mqa.weight": (256, 160),
        "attn_k_b.weight": (32, 128, 4),
        "attn_v_b.weight": (128, 64, 4),
        "attn_output.weight": (256, 256),
    }
    if number < dense:
        return attention | {"ffn_gate.weight": (256, 512), "ffn_up.weight": (256, 512), "ffn_down.weight": (512, 256)}
    mixture: Shapes = {
        "ffn_gate_inp.weight": (256, 8),
        "exp_probs_b.bias": (8,),
        "ffn_gate_exps.weight": (256, 64, 8),
        "ffn_up_exps.weight": (256, 64, 8),
        "ffn_down_exps.weight": (64, 256, 8),
        "ffn_gate_shexp.weight": (256, 128),
        "ffn_up_shexp.weight": (256, 128),
        "ffn_down_shexp.weight": (128, 256),
    }
    return attention | mixture


def tiny_deepseek2(path: Path, dense: int) -> Path:
    facts = {**DEEPSEEK2, "leading_dense_block_count": dense}
    without = (*ATTENTION, "attn_output.weight", *FEED_FORWARD)
    return remade(tiny_llama(path, layers=6), "deepseek2", facts, lambda n: deepseek2(n, dense), without=without)


def qwen35(number: int) -> Shapes:
    """Three layers of linear attention to each full one."""
    both: Shapes = {"post_attention_norm.weight": (256,)}
    if number % 4 == 3:
        full: Shapes = {"attn_q.weight": (256, 512), "attn_k.weight": (256, 128), "attn_v.weight": (256, 128)}
        return both | full | {"attn_output.weight": (256, 256)} | qk_norms(number)
    return both | {
        "attn_qkv.weight": (256, 256),
        "attn_gate.weight": (256, 128),
        "ssm_conv1d.weight": (4, 256),
        "ssm_dt.bias": (4,),
        "ssm_a": (4,),
        "ssm_beta.weight": (256, 4),
        "ssm_alpha.weight": (256, 4),
        "ssm_norm.weight": (32,),
        "ssm_out.weight": (128, 256),
    }


def tiny_qwen35(path: Path) -> Path:
    facts: Facts = {
        **HEADS,
        "rope.dimension_sections": [8, 12, 12, 0],
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 128,
        "ssm.state_size": 32,
        "ssm.time_step_rank": 4,
        "ssm.group_count": 2,
    }
    without = (*ATTENTION, "attn_output.weight", "ffn_norm.weight")
    return remade(tiny_llama(path, layers=12), "qwen35", facts, qwen35, without=without)


def _llama(path: Path) -> Path:
    return tiny_llama(path, layers=5)


MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": _llama,
    "llama, tied, Q4_0": lambda path: tiny_llama(path, layers=5, tied=True, dtype="Q4_0"),
    "llama, experts": lambda path: tiny_llama(path, layers=5, experts=8, dtype="Q8_0"),
    "llama, fused": lambda path: remade(_llama(path), "llama", None, fused_qkv, without=ATTENTION),
    "llama, rotary factors": lambda path: remade(_llama(path), "llama", factors=("rope_freqs.weight",)),
    "mistral3": lambda path: remade(
        _llama(path),
        "mistral3",
        {
            **HEADS,
            "attention.temperature_scale": 0.1,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "qwen2": lambda path: tiny_qwen2(path, layers=5),
    "qwen3": lambda path: remade(_llama(path), "qwen3", HEADS, qk_norms),
    "qwen3moe": lambda path: remade(tiny_llama(path, layers=5, experts=8), "qwen3moe", HEADS, qk_norms),
    "qwen35": tiny_qwen35,
    "gemma3": lambda path: tiny_gemma3(path, layers=14, window=24),
    "gpt-oss": lambda path: remade(
        tiny_llama(path, layers=8, experts=4),
        "gpt-oss",
        {**HEADS, "attention.sliding_window": 24},
        gpt_oss,
        renamed={"ffn_norm": "post_attention_norm"},
    ),
    "phi3": lambda path: remade(
        tiny_llama(path, layers=5, kv_heads=4),
        "phi3",
        LONG,
        phi3,
        without=(*ATTENTION, "ffn_gate.weight", "ffn_up.weight"),
        factors=("rope_factors_long.weight", "rope_factors_short.weight"),
    ),
    "granite": lambda path: remade(
        _llama(path),
        "granite",
        {"logit_scale": 8.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0156},
    ),
    "glm4": lambda path: remade(
        _llama(path),
        "glm4",
        {"rope.dimension_sections": [8, 12, 12, 0]},
        glm4,
        without=("ffn_gate.weight", "ffn_up.weight"),
    ),
    "deepseek2": lambda path: tiny_deepseek2(path, dense=2),
    "deepseek2, experts everywhere": lambda path: tiny_deepseek2(path, dense=0),
}
