"""The tiny models are real ones: our parser reads them, llama.cpp loads them, and they say something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tiny
from pares.inference.gguf import check_loadable, read_header
from pares.inference.llama import Context, Weights, embed, quantize

PROMPT = b"<|im_start|>user\nthe sum of two and three<|im_end|>\n"


def generate(model: Path, *, adapter: Path | None = None, tokens: int = 16) -> list[int]:
    """The most likely tokens, one after the other."""
    weights = Weights(model, gpu_layers=0)
    context = Context(weights, cells=256, slots=1, batch=64, threads=1)
    context.use_adapter(weights.adapter(adapter) if adapter else None)
    rows, at, answer = weights.tokenize(PROMPT, special=True, bos=False), 0, list[int]()
    while len(answer) < tokens:
        wanted = np.zeros(len(rows), np.int8)
        wanted[-1] = 1
        context.compute(rows, np.arange(at, at + len(rows), dtype=np.int32), np.zeros(len(rows), np.int32), wanted)
        at += len(rows)
        answer.append(int(context.logits(1)[0].argmax()))
        rows = np.array(answer[-1:], np.int32)
    context.close()
    weights.close()
    return answer


@pytest.mark.parametrize("build", [tiny.tiny_llama, tiny.tiny_qwen2, tiny.tiny_gemma3, tiny.tiny_mamba])
def test_a_tiny_model_loads_and_says_the_same_each_time(build: Callable[..., Path], tmp_path: Path) -> None:
    first, second, other = (build(tmp_path / f"{i}.gguf", seed=seed) for i, seed in enumerate((0, 0, 7)))
    check_loadable(read_header(first))
    said = generate(first)
    assert len(set(said)) > 3, "it goes in circles"
    assert said == generate(second)
    assert said != generate(other)


@pytest.mark.parametrize("dtype", ["F16", "Q8_0", "Q4_0"])
def test_tiny_models_come_in_other_types(dtype: str, tmp_path: Path) -> None:
    model = tiny.tiny_llama(tmp_path / "model.gguf", dtype=dtype, experts=4, template=tiny.CHATML)
    header = read_header(model)
    assert (header.quantization, header.expert_count) == (dtype, 4)
    assert header.templates == {"default": tiny.CHATML}
    assert generate(model)


def test_a_tiny_model_can_be_quantized_by_llama_cpp(tmp_path: Path) -> None:
    model = tiny.tiny_llama(tmp_path / "model.gguf")
    quantize(model, tmp_path / "small.gguf")
    header = read_header(tmp_path / "small.gguf")
    assert header.quantization == "Q4_K_M"
    assert {"Q4_K", "Q6_K"} <= {tensor.type for tensor in header.tensors}
    assert generate(tmp_path / "small.gguf")


def test_a_tiny_adapter_changes_what_its_base_says(tmp_path: Path) -> None:
    base = tiny.tiny_llama(tmp_path / "base.gguf")
    adapter = tiny.tiny_lora(tmp_path / "lora.gguf", base)
    header = read_header(adapter)
    assert header.is_adapter
    assert header.architecture == "llama"
    assert generate(base, adapter=adapter) != generate(base)


def test_a_tiny_bert_embeds(tmp_path: Path) -> None:
    model = tiny.tiny_bert(tmp_path / "bert.gguf")
    header = read_header(model)
    assert (header.pooling, header.is_causal) == ("mean", False)
    weights = Weights(model, gpu_layers=0)
    context = Context(weights, cells=256, slots=1, batch=64, threads=1, embeddings=True)
    texts = [weights.tokenize(text, special=False, bos=True) for text in (b"hello world", b"hello world", b"other")]
    same, again, other = (v for v in embed(weights, context, texts, header.pooling) if v is not None)
    assert same @ again == pytest.approx(1)
    assert same @ other < 0.99
    context.close()
    weights.close()
