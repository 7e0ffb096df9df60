"""The estimate against what llama.cpp allocates, and what is said when memory is short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raw_gguf as raw
import tiny
from llama_sizes import llama_sizes
from pares.errors import NotEnoughMemory
from pares.inference.gguf import Header, parse_header, read_header
from pares.inference.memory import KeyType, Load, estimate, fit, largest_context, require

GB = 10**9

SHAPE_8B: dict[str, Any] = {
    **{"layers": 32, "embedding": 4096, "heads": 32, "kv_heads": 8, "ffn": 14336, "vocab": 128256, "context": 131072},
    "dtype": "Q4_0",
}
SHAPE_70B = SHAPE_8B | {"layers": 80, "embedding": 8192, "heads": 64, "ffn": 28672}
SHAPE_MOE = SHAPE_8B | {"vocab": 32000, "experts": 8, "experts_used": 2}
SHAPE_GEMMA: dict[str, Any] = {
    "layers": 34,
    "embedding": 2560,
    "heads": 10,
    "kv_heads": 5,
    "ffn": 10240,
    "vocab": 262208,
}
SHAPE_QWEN: dict[str, Any] = {"layers": 24, "embedding": 896, "heads": 14, "kv_heads": 2, "ffn": 4864, "vocab": 151936}
SHAPE_MAMBA: dict[str, Any] = {"layers": 64, "embedding": 2560, "vocab": 50280}


@pytest.fixture(scope="module")
def header_8b(tmp_path_factory: pytest.TempPathFactory) -> Header:
    """Llama-3.1-8B in Q4_0: 4.5 GB of weights, 0.13 MB of KV cache for each token in f16."""
    path = tmp_path_factory.mktemp("shapes") / "8b.gguf"
    return read_header(tiny.tiny_llama(path, **SHAPE_8B, sparse=True))


def test_the_estimate_is_what_llama_cpp_allocates(smollm2: Path, gemma: Path, tmp_path: Path) -> None:
    models = [
        smollm2,
        gemma,
        tiny.tiny_llama(tmp_path / "8b.gguf", **SHAPE_8B, sparse=True),
        tiny.tiny_llama(tmp_path / "70b.gguf", **SHAPE_70B, sparse=True),
        tiny.tiny_llama(tmp_path / "moe.gguf", **SHAPE_MOE, sparse=True),
        tiny.tiny_gemma3(tmp_path / "gemma.gguf", **SHAPE_GEMMA, dtype="Q8_0", sparse=True),
        tiny.tiny_qwen2(tmp_path / "qwen.gguf", **SHAPE_QWEN, dtype="Q8_0", sparse=True),
        tiny.tiny_mamba(tmp_path / "mamba.gguf", **SHAPE_MAMBA, dtype="Q4_0", sparse=True),
    ]
    loads: list[dict[str, Any]] = [
        {"cells": 4096, "sequences": 1, "key_type": "f16", "ubatch": 512, "outputs": 8},
        {"cells": 2000, "sequences": 1, "key_type": "f16", "ubatch": 512, "outputs": 512},
        {"cells": 32768, "sequences": 8, "key_type": "q8_0", "ubatch": 256, "outputs": 16},
    ]
    cases = [(model, load) for model in models for load in loads]
    for (model, load), actual in zip(cases, llama_sizes(cases), strict=True):
        header = read_header(model)
        told = estimate(header, **load)
        logits = load["outputs"] * header.vocab_size * 4
        assert told.kv == pytest.approx(actual["kv"], rel=1e-3), (model.name, load)
        assert 0.97 < (told.compute - logits) / actual["compute"] < 1.2, (model.name, load)
        assert actual["logits"] <= 1.01 * logits


RESIDENT = """
import json, sys, numpy, psutil
from pathlib import Path
from pares.inference.llama import Context, Weights
weights = Weights(Path(sys.argv[1]), gpu_layers=0)
context = Context(weights, cells=8192, slots=2, batch=64, threads=1, outputs=4)
rows, slots, wanted = numpy.arange(64, dtype="i4"), numpy.zeros(64, "i4"), numpy.zeros(64, "i1")
wanted[-4:] = 1
context.compute(rows, rows, slots, wanted)
print(json.dumps(psutil.Process().memory_info().rss))
"""


def test_the_total_is_what_a_loaded_process_has_resident(smollm2: Path, gemma: Path) -> None:
    for model in (smollm2, gemma):
        output = subprocess.run([sys.executable, "-c", RESIDENT, model], capture_output=True, timeout=50, check=True)
        resident = json.loads(output.stdout)
        told = estimate(read_header(model), cells=8192, sequences=2, ubatch=64, outputs=4)
        assert told.total > 0.95 * (resident - told.copies), model.name
        assert told.total < 1.15 * resident, model.name


def test_the_sum_is_said_in_words(smollm2: Path) -> None:
    told = estimate(read_header(smollm2), cells=8192, sequences=4, outputs=8)
    said = "0.10 GB weights + 0.19 GB KV cache for 8192 tokens + 0.09 GB buffers = 0.38 GB"
    assert told.sum_text() == said
    assert told.total == told.weights + told.kv + told.buffers


def test_q8_0_keys_take_34_bytes_for_32_values(header_8b: Header) -> None:
    f16, q8_0 = (estimate(header_8b, cells=1024, key_type=kind) for kind in ("f16", "q8_0"))
    assert f16.kv == 1024 * 32 * 2 * 8 * 128 * 2
    assert q8_0.kv * 128 == f16.kv * (34 + 64), "the values, which are as many, stay f16"


def test_layers_without_attention_take_no_cache() -> None:
    """The sample has two key/value heads in its first layer and none in its second."""
    header = parse_header(raw.sample(), len(raw.sample()))
    assert isinstance(header, Header)
    assert estimate(header, cells=256).kv == 256 * 2 * (16 + 16) * 2


def test_a_recurrent_state_is_taken_by_each_sequence_and_not_by_tokens(tmp_path: Path) -> None:
    header = read_header(tiny.tiny_mamba(tmp_path / "mamba.gguf"))
    one, eight = (estimate(header, cells=4096, sequences=n) for n in (1, 8))
    assert one.kv == 2 * (3 + 16) * 512 * 4
    assert eight.kv == 8 * one.kv
    assert estimate(header, cells=256).total == one.total


def test_an_encoder_keeps_no_cache(tmp_path: Path) -> None:
    header = read_header(tiny.tiny_bert(tmp_path / "bert.gguf"))
    assert estimate(header, cells=512).kv == 0


def test_adapters_are_counted(tmp_path: Path) -> None:
    base = tiny.tiny_llama(tmp_path / "base.gguf")
    adapter = read_header(tiny.tiny_lora(tmp_path / "lora.gguf", base))
    alone = estimate(read_header(base), cells=256)
    both = estimate(read_header(base), cells=256, adapters=[adapter])
    assert both.weights - alone.weights == adapter.tensor_bytes > 0


@given(
    free=st.integers(4 * GB, 40 * GB),
    sequences=st.integers(1, 16),
    key_type=st.sampled_from(["f16", "q8_0"]),
    ubatch=st.sampled_from([64, 512]),
)
def test_the_largest_context_fits_and_a_larger_one_does_not(
    header_8b: Header, free: int, sequences: int, key_type: KeyType, ubatch: int
) -> None:
    load: Load = {"sequences": sequences, "key_type": key_type, "ubatch": ubatch}
    cells = largest_context(header_8b, free, **load)
    assert cells % 256 == 0
    assert 0 <= cells <= header_8b.context_length
    if cells:
        assert estimate(header_8b, cells=cells, **load).total <= free
    if cells < header_8b.context_length:
        assert estimate(header_8b, cells=cells + 256, **load).total > free


def test_a_limit_holds(header_8b: Header) -> None:
    assert largest_context(header_8b, 100 * GB) == 131072
    assert largest_context(header_8b, 100 * GB, limit=5000) == 4864
    assert largest_context(header_8b, GB) == 0


def test_too_large_a_context_is_refused_with_the_one_that_fits(header_8b: Header) -> None:
    load: Load = {"outputs": 8}
    with pytest.raises(NotEnoughMemory) as error:
        require(header_8b, 8 * GB, 131072, **load)
    fields = error.value.fields
    assert fields["context_that_fits"] == largest_context(header_8b, 8 * GB, **load)
    assert f"A context of {fields['context_that_fits']} tokens would fit." in str(error.value)
    assert "17.18 GB KV cache for 131072 tokens" in error.value.message
    assert "8.00 GB are free" in error.value.message
    assert require(header_8b, 8 * GB, int(str(fields["context_that_fits"])), **load).total <= 8 * GB


def test_too_large_a_model_is_refused_with_advice(header_8b: Header) -> None:
    with pytest.raises(NotEnoughMemory) as error:
        require(header_8b, GB, 4096)
    assert error.value.fields["context_that_fits"] == 0
    assert "smaller model or quantization" in error.value.hint


@pytest.mark.parametrize(
    ("free", "machine", "label"),
    [
        (16, 16, "runs well"),
        (6, 16, "tight"),
        (4, 16, "will not run"),
        (4, 5, "needs more machines"),
    ],
)
def test_labels(header_8b: Header, free: int, machine: int, label: str) -> None:
    assert fit(header_8b, free * GB, machine * GB, context=4096, outputs=8) == label


def test_what_is_no_model_will_not_run(tmp_path: Path) -> None:
    base = tiny.tiny_llama(tmp_path / "base.gguf")
    adapter = read_header(tiny.tiny_lora(tmp_path / "lora.gguf", base))
    assert fit(adapter, 100 * GB, 100 * GB, context=256) == "will not run"
