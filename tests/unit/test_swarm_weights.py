"""Looking into weights: what is said of tensors and differences is what numpy and the reference reader say."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import raw_gguf as raw
from pares.errors import NotFound, NotSupported
from pares.inference.llama import dequantize
from pares.inference.tensor_types import TENSOR_TYPES
from pares.swarm import weights
from pares.swarm.weights import Compare, Diff, Refusal, Sample, TensorSample
from pares.swarm.weights_reader import Comparison, WeightsFile, answer, sample, spans
from tiny import tiny_llama, tiny_lora

Floats = NDArray[np.float32]
KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}
REFERENCE = sorted({kind.name for kind in quants._type_traits} | {"F32", "F16"})
UNREADABLE = ["Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"]


def write(path: Path, tensors: Mapping[str, tuple[str, Floats | bytes]]) -> Path:
    """A GGUF of tensors of one row: type and values, or the bytes of its blocks."""
    writer = GGUFWriter(path, "llama")
    for name, (kind, values) in tensors.items():
        number = GGMLQuantizationType[kind]
        data = quants.quantize(values, number) if isinstance(values, np.ndarray) else np.frombuffer(values, np.uint8)
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def noise(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(count, np.float32)


def compared(left: Path, right: Path, *, most: int = weights.MOST_COMPARED) -> Diff:
    with WeightsFile(left) as a, WeightsFile(right) as b:
        return Comparison(a, b, most=most).run()


def sampled(path: Path, name: str, *, most: int = weights.SAMPLE) -> TensorSample:
    with WeightsFile(path) as file:
        return sample(file, name, most=most)


# Reading blocks


@pytest.mark.parametrize("kind", REFERENCE)
def test_ggml_reads_any_bytes_as_the_reference_reader_does(kind: str) -> None:
    block, nbytes = KINDS[kind].block, KINDS[kind].nbytes
    data = np.random.default_rng(1).bytes(4096 // block * nbytes)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(np.frombuffer(data, np.uint8), GGMLQuantizationType[kind])
    np.testing.assert_array_equal(dequantize(kind, data, 4096), expected.astype(np.float32))
    np.testing.assert_array_equal(dequantize(kind, memoryview(data), 4096), expected.astype(np.float32))


def test_all_types_are_read_but_those_that_ggml_only_computes_with() -> None:
    for name, kind in KINDS.items():
        data = bytes(256 // kind.block * kind.nbytes)
        if name in UNREADABLE:
            with pytest.raises(NotSupported, match=name):
                dequantize(name, data, 256)
        else:
            assert dequantize(name, data, 256).shape == (256,)


@pytest.mark.parametrize("kind", ["F32", "Q4_1", "Q6_K"])
def test_only_whole_blocks_are_given_to_ggml(kind: str) -> None:
    block, nbytes = KINDS[kind].block, KINDS[kind].nbytes
    for size, count in [(nbytes, 2 * block), (2 * nbytes, block), (nbytes - 1, block), (0, block), (0, -block)]:
        with pytest.raises(ValueError, match=kind):
            dequantize(kind, bytes(size), count)
    if block > 1:
        with pytest.raises(ValueError, match=kind):
            dequantize(kind, bytes(nbytes), block - 1)
    assert dequantize(kind, b"", 0).size == 0


@given(st.integers(1, 1 << 20), st.integers(0, 20), st.integers(0, 6))
def test_a_sample_takes_whole_runs_in_order_from_all_over_the_tensor(blocks: int, most: int, run: int) -> None:
    elements, limit, size = blocks * 32, 256 << most, 256 << run
    taken: list[tuple[int, int]] = []
    for first, count in spans(elements, limit, size):
        assert count == size or (elements <= limit and first + count == elements)
        assert not taken or first >= sum(taken[-1])
        taken.append((first, count))
        if len(taken) > 300:
            return
    total = sum(count for _, count in taken)
    assert total == elements if elements <= limit else total == limit // size * size
    assert not taken or sum(taken[-1]) <= elements
    for part, (first, _) in enumerate(taken if elements > limit else ()):
        places = elements // size
        assert part * places // len(taken) <= first // size < (part + 1) * places // len(taken)


# One tensor


def test_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    values = noise(4096)
    values[:100] = 0
    found = sampled(write(tmp_path / "a.gguf", {"w": ("F32", values)}), "w")
    counts, _ = np.histogram(values, 32)
    assert (found.name, found.type, found.shape, found.size, found.sampled) == ("w", "F32", (4096,), 16384, 4096)
    assert (found.least, found.most, found.odd) == (values.min(), values.max(), 0)
    assert found.mean == pytest.approx(values.mean(dtype=np.float64))
    assert found.deviation == pytest.approx(values.std(dtype=np.float64))
    assert found.zeros == 100 / 4096
    assert sum(found.histogram) == 4096
    assert np.abs(np.array(found.histogram) - counts).max() <= 1


def test_a_large_tensor_is_sampled_the_same_way_each_time(tmp_path: Path) -> None:
    values = noise(1 << 20)
    path = write(tmp_path / "a.gguf", {"w": ("Q8_0", values)})
    found = sampled(path, "w")
    assert found == sampled(path, "w")
    assert found.sampled == weights.SAMPLE
    assert abs(found.mean) < 0.02
    assert found.deviation == pytest.approx(1, rel=0.02)


def test_weights_that_are_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1, 1, 1, 3, 0], np.float32)
    found = sampled(write(tmp_path / "a.gguf", {"w": ("F32", values)}), "w")
    assert (found.odd, found.least, found.most, found.zeros) == (3, 0, 3, 1 / 8)
    assert sum(found.histogram) == 5
    none = sampled(write(tmp_path / "b.gguf", {"w": ("F32", np.full(4, np.nan, np.float32))}), "w")
    assert (none.odd, none.least, none.most, none.mean, none.deviation) == (4, 0, 0, 0, 0)
    assert sum(none.histogram) == 0
    same = sampled(write(tmp_path / "c.gguf", {"w": ("F32", np.full(4, 3e38, np.float32))}), "w")
    assert same.least == same.most == float(np.float32(3e38))
    assert same.histogram == (4,) + (0,) * 31


def test_an_unknown_tensor_is_told_with_the_nearest_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"blk.0.attn_q.weight": ("F32", noise(4)), "x": ("I32", bytes(16))})
    with pytest.raises(NotFound, match=r"blk\.0\.attn_q\.weight"):
        sampled(path, "blk.0.attn_qq.weight")
    with pytest.raises(NotSupported, match="I32"):
        sampled(path, "x")


# Two files


def test_each_tensor_is_told_as_what_it_is(tmp_path: Path) -> None:
    base = noise(512)
    other = base + np.float32(0.1) * noise(512, 1)
    left = {
        "token_embd.weight": ("F32", noise(64)),
        "blk.0.a": ("F32", base),
        "blk.0.b": ("F32", base),
        "blk.1.a": ("Q8_0", base),
        "blk.1.b": ("F32", base),
        "blk.1.gone": ("F32", base),
        "blk.2.a": ("Q4_0", base),
        "blk.3.a": ("F32", base),
    }
    right = {
        "token_embd.weight": ("F32", noise(96)),
        "blk.0.a": ("F32", other),
        "blk.0.b": ("F32", base),
        "blk.1.a": ("Q4_1", base),
        "blk.1.b": ("F32", other),
        "blk.1.new": ("F32", base),
        "blk.2.a": ("Q4_0", base),
        "blk.3.a": ("F32", noise(64)),
    }
    found = compared(write(tmp_path / "l.gguf", left), write(tmp_path / "r.gguf", right))
    tensors = {tensor.name: tensor for tensor in found.tensors}
    assert list(tensors) == [*left, "blk.1.new"]
    states = "reshaped,changed,equal,retyped,changed,only left,equal,reshaped,only right"
    assert [tensor.state for tensor in found.tensors] == states.split(",")
    assert [tensor.layer for tensor in found.tensors] == [-1, 0, 0, 1, 1, 1, 2, 3, 1]
    assert (found.equal, found.changed) == (2, 7)
    assert tensors["token_embd.weight"].relative is tensors["blk.1.gone"].relative is None
    assert tensors["blk.0.b"].relative == 0

    def read(kind: str, values: Floats) -> NDArray[np.float64]:
        number = GGMLQuantizationType[kind]
        return np.asarray(quants.dequantize(quants.quantize(values, number), number), np.float64)

    norm = np.linalg.norm
    a, b = base.astype(np.float64), other.astype(np.float64)
    assert tensors["blk.0.a"].relative == pytest.approx(norm(a - b) / norm(a))
    eight, four = read("Q8_0", base), read("Q4_1", base)
    assert tensors["blk.1.a"].relative == pytest.approx(norm(eight - four) / norm(eight))
    layers = {layer.layer: layer for layer in found.layers}
    assert layers[0].relative == pytest.approx(norm(a - b) / norm(np.concatenate([a, a])))
    both = norm(np.concatenate([eight - four, a - b])) / norm(np.concatenate([eight, a]))
    assert layers[1].relative == pytest.approx(both)
    assert [(layer.layer, layer.changed, layer.tensors) for layer in found.layers] == [
        *((0, 1, 2), (1, 4, 4), (2, 0, 1), (3, 1, 1))
    ]
    assert (layers[2].relative, layers[3].relative) == (0, None)


def test_what_cannot_be_computed_is_not_made_up(tmp_path: Path) -> None:
    zero, one, odd = np.zeros(8, np.float32), np.ones(8, np.float32), np.full(8, np.inf, np.float32)
    left: dict[str, tuple[str, Floats | bytes]] = {
        "zero": ("F32", zero),
        "sign": ("F32", zero),
        "odd": ("F32", odd),
        "odd too": ("F32", one),
        "blk.0.integers": ("I32", bytes(16)),
        "blk.1.integers": ("I32", bytes(16)),
        "blk.1.weights": ("F32", one),
        "blk.99999999999999999999.x": ("F32", one),
    }
    right = left | {
        "zero": ("F32", one),
        "sign": ("F32", -zero),
        "odd": ("F32", -odd),
        "odd too": ("F32", odd),
        "blk.0.integers": ("I32", b"\1" * 16),
        "blk.1.weights": ("F32", 2 * one),
    }
    found = compared(write(tmp_path / "l.gguf", left), write(tmp_path / "r.gguf", right))
    relative = {tensor.name: tensor.relative for tensor in found.tensors}
    assert relative == {
        "zero": None,
        "sign": 0.0,
        "odd": None,
        "odd too": None,
        "blk.0.integers": None,
        "blk.1.integers": 0.0,
        "blk.1.weights": 1.0,
        "blk.99999999999999999999.x": 0.0,
    }
    assert [(layer.layer, layer.relative) for layer in found.layers] == [(0, None), (1, 1.0)]


def test_large_tensors_are_compared_by_a_sample_of_the_right_weight(tmp_path: Path) -> None:
    """The small tensor is measured whole, the large one in part: together they count by their sizes."""
    large, small = noise(1 << 20), noise(1 << 18, 1)
    left = {"blk.0.large": ("F16", large), "blk.0.small": ("F16", small)}
    right = {"blk.0.large": ("F16", large * np.float32(1.1)), "blk.0.small": ("F16", small)}
    found = compared(write(tmp_path / "l.gguf", left), write(tmp_path / "r.gguf", right), most=1 << 18)
    assert found.tensors[0].relative == pytest.approx(0.1, rel=0.01)
    assert found.layers[0].relative == pytest.approx(0.1 * math.sqrt(4 / 5), rel=0.01)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_1", "TQ2_0"])
def test_another_quantization_of_a_model_is_the_same_model_less_its_rounding(kind: str, tmp_path: Path) -> None:
    whole = tiny_llama(tmp_path / "whole.gguf")
    found = compared(whole, tiny_llama(tmp_path / "small.gguf", dtype=kind))
    assert {tensor.state for tensor in found.tensors} == {"equal", "retyped"}
    most = {"F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2, "Q5_1": 0.1, "TQ2_0": 1}[kind]
    for layer in found.layers:
        assert layer.relative is not None
        assert 0 < layer.relative < most


def test_models_of_other_vocabulary_and_depth_and_adapters_can_be_compared(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "a.gguf")
    other = compared(base, tiny_llama(tmp_path / "b.gguf", vocab=384, layers=3))
    states = {tensor.name: tensor.state for tensor in other.tensors}
    assert states["token_embd.weight"] == states["output.weight"] == "reshaped"
    assert [layer.relative is None for layer in other.layers] == [False, False, True]
    adapter = tiny_lora(tmp_path / "lora.gguf", base)
    assert {tensor.state for tensor in compared(base, adapter).tensors} == {"only left", "only right"}
    assert {tensor.state for tensor in compared(adapter, adapter).tensors} == {"equal"}


def test_progress_reaches_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pares.swarm.weights_reader.PROGRESS_S", 0)
    left, right = tiny_llama(tmp_path / "a.gguf"), tiny_llama(tmp_path / "b.gguf", dtype="Q8_0", layers=3)
    for other in (left, right):
        told: list[float] = []
        with WeightsFile(left) as a, WeightsFile(other) as b:
            Comparison(a, b, told.append).run()
        assert told == sorted(told)
        assert told[-1] == 1


# Bytes from outside

SOUND = raw.sample()
EDGES = [0, 1, 2, 255, 2**22, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]
EDITS = st.tuples(
    st.integers(0, len(SOUND)),
    st.binary(max_size=12) | st.sampled_from(EDGES).map(raw.u64) | st.integers(0, 50).map(raw.u32),
    st.integers(0, 12),
)


def mutated(edits: list[tuple[int, bytes, int]]) -> bytes:
    blob = SOUND
    for at, piece, removed in edits:
        blob = blob[:at] + piece + blob[at + removed :]
    return blob


@settings(max_examples=300, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_mutated_files_give_figures_or_a_named_refusal(edits: list[tuple[int, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sound, broken = Path(folder) / "sound.gguf", Path(folder) / "broken.gguf"
        sound.write_bytes(SOUND)
        broken.write_bytes(mutated(edits))
        for name in ("token_embd.weight", "blk.0.attn_norm.weight"):
            said = answer(Sample(os.fsencode(broken), name), lambda _: None)
            assert isinstance(said, TensorSample | Refusal)
            if isinstance(said, TensorSample):
                assert math.isfinite(said.mean + said.deviation + said.least + said.most)
        for left, right in ((sound, broken), (broken, sound), (broken, broken)):
            told = answer(Compare(os.fsencode(left), os.fsencode(right)), lambda _: None)
            assert isinstance(told, Diff | Refusal)


def test_a_file_that_is_cut_off_or_no_gguf_is_named(tmp_path: Path) -> None:
    sound = write(tmp_path / "sound.gguf", {"w": ("F32", noise(64))})
    for name, blob in {"cut.gguf": sound.read_bytes()[:-1], "empty.gguf": b"", "text.gguf": b"{}" * 500}.items():
        broken = tmp_path / name
        broken.write_bytes(blob)
        said = answer(Compare(os.fsencode(sound), os.fsencode(broken)), lambda _: None)
        assert isinstance(said, Refusal)
        assert said.code == "broken_model_file"
        assert said.message.startswith(name)


def test_the_node_does_not_load_llama_cpp_for_it() -> None:
    check = "import sys, pares.swarm.weights; sys.exit('llama_cpp' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)
