"""Slices of models: where every tensor and fact goes, and that the files are those tensors or not there at all."""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.errors import BadRequest, BrokenModelFile, DiskFull, NotFound, NotSupported
from pares.inference.gguf import GGUFArray, Header, check_loadable, parse_header, read_header
from pares.inference.slices import DUMMY_VOCABULARY, SHARED_BLOCK, Slice, parts_of, plan_head, plan_stage
from pares.inference.slicing import write_slice
from raw_gguf import BOOL, F32, FLOAT32, STRING, UINT32, array, pair, table, tensor, text, u32, whole
from tiny import tiny_gemma3, tiny_llama, tiny_lora, tiny_mamba


def sparse(make: Callable[..., Path], **shape: object) -> Header:
    """The header of a model without its weights."""
    with TemporaryDirectory() as folder:
        return read_header(make(Path(folder, "m.gguf"), sparse=True, **shape))


layers = st.integers(1, 14)
models = st.one_of(
    st.builds(lambda n, tied: sparse(tiny_llama, layers=n, tied=tied), layers, st.booleans()),
    st.builds(lambda n: sparse(tiny_llama, layers=n, experts=8, dtype="Q8_0"), layers),
    st.builds(lambda n: sparse(tiny_gemma3, layers=n, dtype="Q4_0"), layers),
)


def written(plan: Slice) -> Header:
    header = parse_header(plan.front, plan.file_bytes)
    assert isinstance(header, Header)
    assert header.data_start == len(plan.front)
    check_loadable(header)
    return header


def raw_model(*rows: bytes, architecture: str = "llama", blocks: int = 1, facts: tuple[bytes, ...] = ()) -> Header:
    """A model of exactly these tensors of 32 numbers each, and of these facts."""
    pairs = [
        pair("general.architecture", STRING, text(architecture)),
        *(
            pair(f"{architecture}.{key}", UINT32, u32(n))
            for key, n in (("block_count", blocks), ("embedding_length", 32))
        ),
        pair(f"{architecture}.vocab_size", UINT32, u32(1)),
        *facts,
    ]
    content = whole(table(pairs, rows), 128 * len(rows))
    header = parse_header(content, len(content))
    assert isinstance(header, Header)
    return header


def rows(*names: str) -> list[bytes]:
    return [tensor(name, (32,), F32, 128 * number) for number, name in enumerate(names)]


ENDS = ("token_embd.weight", "output_norm.weight")


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=models)
def test_every_tensor_goes_to_one_stage_or_the_head_wherever_the_model_is_cut(
    data: st.DataObject, header: Header
) -> None:
    cuts = data.draw(st.sets(st.integers(1, max(1, header.block_count - 1)), max_size=4))
    edges = sorted({0, *cuts, header.block_count})
    plans = [plan_head(header), *(plan_stage(header, *edge) for edge in pairwise(edges))]
    copied = [each for plan in plans for each in plan.tensors]
    assert sorted((each.name, each.source, each.nbytes) for each in copied) == sorted(
        (each.name, each.offset, each.nbytes) for each in header.tensors
    )
    for plan in plans:
        places = {each.offset: each for each in written(plan).tensors}
        of = {each.name: each for each in header.tensors}
        for each in plan.tensors:
            assert places[each.target][1:3] == of[each.name][1:3], "type and shape"
            assert places[each.target].nbytes == each.nbytes
        assert (plan.tensors[0].source - plan.tensors[0].target) % SHARED_BLOCK == 0


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=models)
def test_a_stage_says_of_itself_what_the_model_says_but_for_its_layers(data: st.DataObject, header: Header) -> None:
    last = data.draw(st.integers(1, header.block_count))
    first = data.draw(st.integers(0, last - 1))
    stage = written(plan_stage(header, first, last))
    added = stage.block_count - (last - first)
    assert added in (0, 1)
    names = {name for names in list(stage.layer_tensors.values())[added:] for name in names}
    assert names == {name for number in range(first, last) for name in header.layer_tensors[number]}
    assert stage.vocab_size == DUMMY_VOCABULARY
    assert stage.text("tokenizer.ggml.model") == "none"
    changed = {f"{header.architecture}.{key}" for key in ("block_count", "vocab_size")}
    for key in header.metadata:
        if key not in changed and not key.startswith("tokenizer."):
            assert stage.raw_field(key) == header.raw_field(key)


def test_windows_slide_in_a_slice_where_they_slide_in_the_model(tmp_path: Path) -> None:
    header = read_header(tiny_gemma3(tmp_path / "m.gguf", layers=14, sparse=True))

    def pattern(plan: Slice) -> list[object]:
        value = written(plan).metadata["gemma3.attention.sliding_window_pattern"]
        assert isinstance(value, GGUFArray)
        return list(value)

    assert pattern(plan_stage(header, 0, 14)) == [layer % 6 != 5 for layer in range(14)]
    assert pattern(plan_stage(header, 4, 8)) == [True, False, True, True]
    assert pattern(plan_stage(header, 6, 8)) == [True, True]
    assert pattern(plan_head(header)) == [True]
    alone = plan_stage(header, 5, 6)
    assert pattern(alone) == [True, False], "llama.cpp wants a sliding layer: an identity comes first"
    assert {each.name.split(".")[1] for each in alone.tensors} == {"5"}


def test_arrays_with_an_entry_for_each_layer_are_cut() -> None:
    facts = (
        pair("llama.attention.head_count", 9, array(UINT32, 3, u32(1) + u32(2) + u32(4))),
        pair("llama.rope.dimension_sections", 9, array(UINT32, 3, u32(7) * 3)),
    )
    header = raw_model(*rows(*ENDS, "blk.0.a", "blk.1.a", "blk.2.a"), blocks=3, facts=facts)
    stage = written(plan_stage(header, 1, 3))
    assert stage.head_counts == (2, 4)
    assert stage.raw_field("llama.rope.dimension_sections") == facts[1]


def test_what_every_layer_reads_comes_with_every_stage() -> None:
    header = raw_model(*rows("rope_freqs.weight", *ENDS, "blk.0.a", "blk.1.a"), blocks=2)
    for first in (0, 1):
        assert [t.name for t in plan_stage(header, first, first + 1).tensors] == ["rope_freqs.weight", f"blk.{first}.a"]
    assert {t.name for t in plan_head(header).tensors} == set(ENDS)


def test_the_heads_identity_layer_is_small(tmp_path: Path) -> None:
    header = read_header(tiny_llama(tmp_path / "m.gguf", layers=4, embedding=4096, heads=32, ffn=14336, sparse=True))
    head = written(plan_head(header))
    identity = sum(each.nbytes for each in head.tensors if each.name.startswith("blk."))
    assert identity < sum(t.nbytes for t in parts_of(header).layers[0]) / 50
    assert (head.head_counts, head.key_length, head.vocab_size) == ((1,), 128, header.vocab_size)
    assert any(key.startswith("tokenizer.") for key in head.metadata)


def test_architectures_that_are_not_proven_are_refused_by_name(tmp_path: Path) -> None:
    header = read_header(tiny_mamba(tmp_path / "m.gguf", sparse=True))
    for plan in (plan_head, lambda header: plan_stage(header, 0, 1)):
        with pytest.raises(NotSupported, match="'mamba' are not pooled"):
            plan(header)
    base = tiny_llama(tmp_path / "base.gguf")
    with pytest.raises(NotSupported, match="an adapter"):
        plan_head(read_header(tiny_lora(tmp_path / "adapter.gguf", base)))


def test_a_number_of_layers_that_decides_how_to_compute_is_never_changed(tmp_path: Path) -> None:
    header = read_header(tiny_gemma3(tmp_path / "m.gguf", layers=62, sparse=True))
    with pytest.raises(NotSupported, match="a gemma3 of 62 layers otherwise than one of 31"):
        plan_stage(header, 0, 31)
    assert written(plan_stage(header, 0, 62)).block_count == 62
    deeper = read_header(tiny_gemma3(tmp_path / "deeper.gguf", layers=64, sparse=True))
    with pytest.raises(NotSupported, match="62"):
        plan_stage(deeper, 0, 62)


def test_a_factor_on_what_comes_in_is_applied_by_the_first_stage_alone() -> None:
    fact = pair("granite.embedding_scale", FLOAT32, struct.pack("<f", 12))
    header = raw_model(*rows(*ENDS, "blk.0.a", "blk.1.a"), architecture="granite", blocks=2, facts=(fact,))
    plans = (plan_head(header), plan_stage(header, 0, 1), plan_stage(header, 1, 2))
    assert ["granite.embedding_scale" in written(plan).metadata for plan in plans] == [False, True, False]


@pytest.mark.parametrize(("first", "last", "dense"), [(0, 4, 3), (0, 2, 2), (2, 4, 1), (3, 4, 0)])
def test_dense_layers_are_counted_anew(first: int, last: int, dense: int) -> None:
    fact = pair("deepseek2.leading_dense_block_count", UINT32, u32(3))
    names = [f"blk.{number}.a" for number in range(4)]
    header = raw_model(*rows(*ENDS, *names), architecture="deepseek2", blocks=4, facts=(fact,))
    assert written(plan_stage(header, first, last)).fact("leading_dense_block_count") == dense


@pytest.mark.parametrize(
    ("architecture", "facts", "complaint"),
    [
        ("glm4", (), r"without `glm4\.rope\.dimension_sections`"),
        ("qwen35", (pair("qwen35.nextn_predict_layers", UINT32, u32(1)),), "predict several tokens"),
    ],
)
def test_what_llama_cpp_would_not_compute_in_parts_is_refused_before_it_is_cut(
    architecture: str, facts: tuple[bytes, ...], complaint: str
) -> None:
    header = raw_model(*rows(*ENDS, "blk.0.a"), architecture=architecture, facts=facts)
    for plan in (plan_head, lambda header: plan_stage(header, 0, 1)):
        with pytest.raises(NotSupported, match=complaint):
            plan(header)


@pytest.mark.parametrize(("first", "last"), [(-1, 1), (0, 0), (1, 1), (2, 1), (0, 3), (2, 3)])
def test_layers_that_the_model_has_not_are_refused(first: int, last: int) -> None:
    header = raw_model(*rows(*ENDS, "blk.0.a", "blk.1.a"), blocks=2)
    with pytest.raises(BadRequest, match="the model has 2"):
        plan_stage(header, first, last)


@pytest.mark.parametrize("stray", ["blk.1.a", "blk.01.a", "blk.٠.a", "blk.-1.a", "blk.0", "position_embd.weight"])
def test_tensors_of_unknown_use_are_refused_by_name(stray: str) -> None:
    with pytest.raises(NotSupported, match=f"`{stray}`"):
        plan_stage(raw_model(*rows(*ENDS, "blk.0.a", stray)), 0, 1)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (lambda: raw_model(*rows(*ENDS, "blk.0.a"), blocks=2), "layer 1 has no tensors"),
        (lambda: raw_model(*rows(ENDS[0], "blk.0.a")), "no tensor `output_norm.weight`"),
        (lambda: raw_model(*rows(*ENDS, "blk.0.a"), tensor(ENDS[0] + "x", (32,), F32, 384)), "token_embd.weightx"),
        (
            lambda: raw_model(*rows(ENDS[1], "blk.0.a"), tensor(ENDS[0], (16, 2), F32, 256)),
            "rows of another length than the hidden state",
        ),
        (
            lambda: raw_model(
                *rows(*ENDS, "blk.0.a"), facts=(pair("llama.attention.key_length", UINT32, u32(1 << 31)),)
            ),
            "too large",
        ),
        (
            lambda: raw_model(
                *rows(*ENDS, "blk.0.a"),
                architecture="gemma3",
                facts=(
                    pair("gemma3.attention.sliding_window", UINT32, u32(8)),
                    pair("gemma3.attention.sliding_window_pattern", 9, array(BOOL, 2, b"\1\1")),
                ),
            ),
            "does not fit its layers",
        ),
    ],
)
def test_broken_headers_are_named(header: Callable[[], Header], complaint: str) -> None:
    with pytest.raises((BrokenModelFile, NotSupported), match=complaint):
        plan_head(header())


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_damaged_headers_give_a_plan_of_sound_files_or_a_named_error(data: st.DataObject) -> None:
    facts = (
        pair("gemma3.attention.sliding_window", UINT32, u32(8)),
        pair("gemma3.attention.sliding_window_pattern", 9, array(BOOL, 2, b"\1\0")),
        pair("gemma3.attention.head_count", UINT32, u32(2)),
        pair("gemma3.expert_used_count", UINT32, u32(2)),
    )
    names = (*ENDS, "blk.0.attn_q.weight", "blk.1.ffn_gate_exps.weight", "blk.1.attn_q.bias")
    content = bytearray(raw_model(*rows(*names), architecture="gemma3", blocks=2, facts=facts).raw)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(whole(bytes(content), 4096), len(content) + 4096)
        if not isinstance(header, Header):
            return
        plans = [plan_head(header), plan_stage(header, 0, 1)]
    except (BrokenModelFile, NotSupported, BadRequest):
        return
    for plan in plans:
        written(plan)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "m.gguf", layers=3, embedding=64, ffn=96, vocab=400)


def weights(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    return {t.name: content[t.offset : t.offset + t.nbytes] for t in read_header(path).tensors}


@pytest.mark.parametrize("by", ["the kernel", "hand"])
def test_a_slice_has_the_bytes_of_its_tensors_and_zeros_elsewhere(
    model: Path, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "hand":
        monkeypatch.delattr(os, "copy_file_range")
    header, source = read_header(model), weights(model)
    told: list[int] = []
    plan = plan_stage(header, 1, 3)
    write_slice(model, plan, tmp_path / "stage.gguf", progress=told.append)
    write_slice(model, plan_head(header), tmp_path / "head.gguf")
    for name, content in weights(tmp_path / "stage.gguf").items():
        match name.split(".", 2):
            case ["blk", number, rest]:
                assert content == source[f"blk.{int(number) + 1}.{rest}"]
            case _:
                assert not any(content)
    for name, content in weights(tmp_path / "head.gguf").items():
        assert content == source[name] if name in source and not name.startswith("blk.") else not any(content)
    assert told[-1] >= sum(each.nbytes for each in plan.tensors)
    assert told == sorted(told)
    assert {path.name for path in tmp_path.iterdir()} == {"m.gguf", "stage.gguf", "head.gguf"}


def test_weights_that_were_not_fetched_are_refused_and_never_copied_as_zeros(model: Path, tmp_path: Path) -> None:
    header = read_header(model)
    plan = plan_stage(header, 1, 2)
    first, after = plan.tensors[0].source, plan.tensors[-1].source + plan.tensors[-1].nbytes
    middle = plan.tensors[3]
    target = tmp_path / "stage.gguf"
    for have in ((), ((0, first),), ((first + 1, after),), ((first, after - 1),)):
        with pytest.raises(NotFound, match=r"`blk\.1\."):
            write_slice(model, plan, target, have=have)
    with pytest.raises(NotFound, match=middle.name):
        write_slice(model, plan, target, have=((first, middle.source + 9), (middle.source + 10, after)))
    assert not target.exists()
    write_slice(model, plan, target, have=((0, 4), (first, after)))
    assert len(weights(target)) == len(header.tensors) - 2 * len(header.layer_tensors[0])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_slice_is_written_whole_or_not_at_all(model: Path, tmp_path: Path) -> None:
    plan = plan_head(read_header(model))
    target = tmp_path / "head.gguf"
    target.write_bytes(b"an earlier one")

    def give_up(copied: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_slice(model, plan, target, progress=give_up)
    with pytest.raises(DiskFull, match=r"head\.gguf needs up to") as full, largest_file(plan.file_bytes - 1):
        write_slice(model, plan, target)
    assert isinstance(full.value.__cause__, OSError)
    assert full.value.__cause__.errno == errno.EFBIG
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BrokenModelFile, match="not the file that was read before"):
        write_slice(model, plan, target)
    assert target.read_bytes() == b"an earlier one"
    assert {path.name for path in tmp_path.iterdir()} == {"m.gguf", "head.gguf"}


def test_a_source_that_shrinks_under_our_hands_is_noticed(model: Path, tmp_path: Path) -> None:
    plan = plan_head(read_header(model))
    with pytest.raises(BrokenModelFile, match="became shorter"):
        write_slice(model, plan, tmp_path / "head.gguf", progress=lambda _: os.truncate(model, 10))
    assert not (tmp_path / "head.gguf").exists()
