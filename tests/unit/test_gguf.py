"""The header parser: what it reads, what it refuses, and what it says when more bytes have to come."""

from __future__ import annotations

import ctypes
import math
import re
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp._ggml import libggml

import raw_gguf as raw
from pares.errors import BrokenModelFile, NotSupported
from pares.inference import gguf
from pares.inference.gguf import GGUFArray, Header, Incomplete, check_loadable, parse_header, read_header
from pares.inference.tensor_types import FILE_TYPES, TENSOR_TYPES


def parse(blob: bytes, file_bytes: int | None = None) -> Header:
    header = parse_header(blob, len(blob) if file_bytes is None else file_bytes)
    assert isinstance(header, Header)
    return header


def refusal(blob: bytes, file_bytes: int | None = None) -> str:
    with pytest.raises(BrokenModelFile) as error:
        parse(blob, file_bytes)
    assert error.value.hint
    return error.value.message


def test_smollm2_reads_as_the_reference_reader_reads_it(smollm2: Path) -> None:
    header, reference = read_header(smollm2), GGUFReader(smollm2)
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, field in fields.items():
        value = header.metadata[key]
        assert (list(value) if isinstance(value, GGUFArray) else value) == field.contents(), key
    assert header.data_start == reference.data_offset
    assert [(t.name, t.type, t.dims, t.offset, t.nbytes, t.elements) for t in header.tensors] == [
        (t.name, t.tensor_type.name, tuple(t.shape.tolist()), t.data_offset, t.n_bytes, t.n_elements)
        for t in reference.tensors
    ]


def test_facts_of_smollm2(smollm2: Path) -> None:
    header = read_header(smollm2)
    check_loadable(header)
    assert (header.architecture, header.kind, header.is_adapter) == ("llama", "model", False)
    assert (header.block_count, header.context_length, header.embedding_length) == (30, 8192, 576)
    assert (header.head_counts, header.head_counts_kv) == ((9,) * 30, (3,) * 30)
    assert (header.key_length, header.value_length, header.sliding_window, header.expert_count) == (64, 64, 0, 0)
    assert (header.vocab_size, header.parameters, header.quantization) == (49152, 134_515_008, "Q4_1")
    assert (header.licence, header.pooling, header.is_causal, header.split_count) == ("apache-2.0", "", True, 1)
    assert header.templates.keys() == {"default"}
    assert header.templates["default"].startswith("{% for message in messages %}")


def test_facts_of_gemma(gemma: Path) -> None:
    header = read_header(gemma)
    check_loadable(header)
    assert (header.architecture, header.name) == ("gemma3", "Gemma 3 270m")
    assert (header.block_count, header.context_length, header.embedding_length) == (18, 32768, 640)
    assert (header.head_counts[0], header.head_counts_kv[0], header.key_length) == (4, 1, 256)
    assert (header.vocab_size, header.parameters, header.sliding_window) == (262144, 268_098_176, 512)
    assert (header.quantization, header.licence, header.templates) == ("Q4_K_M", "gemma", {})
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, GGUFArray)
    assert (tokens[0], tokens[2], tokens[-1]) == ("<pad>", "<bos>", "<unused6241>")
    assert header.file_bytes == gemma.stat().st_size
    assert header.tensors[-1].offset + header.tensors[-1].nbytes <= header.file_bytes


def test_a_vocabulary_of_262144_tokens_costs_its_bytes_and_no_objects(gemma: Path) -> None:
    tracemalloc.start()
    try:
        header = read_header(gemma)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * len(header.raw)
    assert peak < 40_000_000


def test_tensor_types_are_those_of_the_ggml_that_runs_here() -> None:
    libggml.ggml_blck_size.restype = ctypes.c_int64
    libggml.ggml_type_size.restype = ctypes.c_size_t
    libggml.ggml_type_name.restype = ctypes.c_char_p
    ours = {number: (kind.name.lower(), kind.block, kind.nbytes) for number, kind in TENSOR_TYPES.items()}
    theirs = {
        number: (libggml.ggml_type_name(number).decode().lower(), block, libggml.ggml_type_size(number))
        for number in range(llama.GGML_TYPE_COUNT)
        if (block := libggml.ggml_blck_size(number))
    }
    assert ours == theirs


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    sizes = {kind.name: size for kind, size in GGML_QUANT_SIZES.items()}
    assert sizes.pop("Q8_1") == (32, 40), "the package kept the size that ggml had before its sums became F16"
    for number, kind in TENSOR_TYPES.items():
        if kind.name in sizes:
            assert GGMLQuantizationType(number).name == kind.name
            assert sizes.pop(kind.name) == (kind.block, kind.nbytes)
    assert not sizes


def test_file_types_are_those_of_llama_cpp() -> None:
    names = {name: value for name, value in vars(llama).items() if name.startswith("LLAMA_FTYPE_")}
    prefix = re.compile("LLAMA_FTYPE_(ALL|MOSTLY)_")
    assert dict(FILE_TYPES) == {
        value: prefix.sub("", name).removesuffix("_MOE") for name, value in names.items() if prefix.match(name)
    }


def test_every_kind_of_value_is_read() -> None:
    header = parse(raw.sample())
    scalars = {key: value for key, value in header.metadata.items() if key.startswith("x.")}
    arrays = {key: list(value) for key, value in scalars.items() if isinstance(value, GGUFArray)}
    assert scalars | arrays == {
        **{"x.u8": 255, "x.i8": -1, "x.u16": 65535, "x.i16": -2, "x.i32": -1, "x.i64": -1},
        **{"x.f32": 0.5, "x.f64": 0.1, "x.bool": True, "x.empty": [], "x.flags": [False, True, True]},
    }
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, GGUFArray)
    assert list(tokens) == [tokens[i] for i in range(4)] == ["a", "", "\ufffd", "ü"]
    with pytest.raises(IndexError):
        tokens[4]
    assert header.name == "Größe"
    assert header.head_counts_kv == (2, 0)
    assert header.templates == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    assert header.layer_tensors == {0: {"attn_norm.weight"}, 1: {"attn_norm.weight"}}
    assert [(t.offset - header.data_start, t.nbytes) for t in header.tensors] == [(0, 144), (192, 256), (448, 256)]
    assert (header.alignment, header.data_start % 64) == (64, 0)


def test_versions_2_and_3_are_read() -> None:
    assert [parse(raw.table(version=version)).version for version in (2, 3)] == [2, 3]


def test_raw_fields_put_together_are_the_metadata_again() -> None:
    header = parse(raw.sample())
    copied = raw.table([header.raw_field(key) for key in header.metadata])
    again = parse(copied)
    assert bytes(again.raw) == copied
    assert list(again.metadata) == list(header.metadata)
    assert again.name == header.name


NUMBER_TYPES = {
    GGUFValueType.UINT8: st.integers(0, 2**8 - 1),
    GGUFValueType.INT8: st.integers(-(2**7), 2**7 - 1),
    GGUFValueType.UINT16: st.integers(0, 2**16 - 1),
    GGUFValueType.INT16: st.integers(-(2**15), 2**15 - 1),
    GGUFValueType.UINT32: st.integers(0, 2**32 - 1),
    GGUFValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    GGUFValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    GGUFValueType.BOOL: st.booleans(),
    GGUFValueType.UINT64: st.integers(0, 2**64 - 1),
    GGUFValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    GGUFValueType.FLOAT64: st.floats(allow_nan=False),
    GGUFValueType.STRING: st.text(st.characters(codec="utf-8"), max_size=40),
}
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40).map(lambda key: f"k.{key}")
SCALARS = st.sampled_from(sorted(NUMBER_TYPES)).flatmap(lambda t: st.tuples(st.just(t), NUMBER_TYPES[t]))
ARRAYS = st.sampled_from(sorted(NUMBER_TYPES)).flatmap(
    lambda t: st.tuples(st.just(t), st.lists(NUMBER_TYPES[t], min_size=1, max_size=5))
)
KINDS = st.sampled_from(sorted(TENSOR_TYPES.keys() - {42}))  # the package does not know Q2_0 yet
SHAPES = st.tuples(KINDS, st.lists(st.integers(1, 3), max_size=4))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, SCALARS | ARRAYS, max_size=8), st.lists(SHAPES, max_size=6), st.sampled_from([8, 32, 256]))
def test_what_the_reference_writer_writes_is_read_back(
    metadata: dict[str, tuple[GGUFValueType, Any]], shapes: list[tuple[int, list[int]]], alignment: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_custom_alignment(alignment)
        for key, (kind, value) in metadata.items():
            if isinstance(value, list):
                writer.add_key_value(key, value, GGUFValueType.ARRAY, sub_type=kind)
            else:
                writer.add_key_value(key, value, kind)
        offset, expected = 0, []
        for i, (number, dims) in enumerate(shapes):
            kind = TENSOR_TYPES[number]
            rows = [kind.nbytes * dims[0], *dims[1:]] if dims else [kind.nbytes]
            dims = [kind.block * dims[0], *dims[1:]] if dims else [kind.block]
            nbytes = math.prod(rows)
            raw_type = GGMLQuantizationType(number)
            if raw_type.name == "Q8_1":
                continue  # the package's size of it is not ggml's
            writer.add_tensor_info(f"t{i}", rows[::-1], np.dtype(np.uint8), nbytes, raw_dtype=raw_type)
            expected.append((f"t{i}", kind.name, tuple(dims), offset, nbytes))
            offset += -(-nbytes // alignment) * alignment
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        front = path.read_bytes()
    front += bytes(-len(front) % alignment + offset)
    header = parse(front)
    assert header.alignment == alignment
    for key, (_, value) in metadata.items():
        read = header.metadata[key]
        assert (list(read) if isinstance(read, GGUFArray) else read) == value
    assert [t._replace(offset=t.offset - header.data_start) for t in header.tensors] == expected


def test_a_header_that_is_still_arriving_names_the_bytes_it_needs() -> None:
    blob = raw.sample()
    table_end = len(parse(blob).raw)
    for there in range(table_end):
        short = parse_header(blob[:there], len(blob))
        assert isinstance(short, Incomplete)
        assert there < short.at_least <= table_end
    assert isinstance(parse_header(blob[:table_end], len(blob)), Header)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    blob = raw.sample()
    for there in range(len(blob)):
        assert refusal(blob[:there])


def test_a_file_is_read_in_growing_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sample.gguf"
    path.write_bytes(raw.sample())
    monkeypatch.setattr(gguf, "FIRST_READ_BYTES", 5)
    assert read_header(path).name == "Größe"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenModelFile, match="is not a file"):
        read_header(tmp_path)
    with pytest.raises(BrokenModelFile, match="is not a file"):
        read_header(tmp_path / "absent.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(BrokenModelFile, match="the file ends inside the file's magic"):
        read_header(tmp_path / "empty.gguf")


ARCHITECTURE = raw.pair("general.architecture", raw.STRING, raw.text("llama"))
HUGE = 2**64 - 1


@pytest.mark.parametrize(
    ("blob", "complaint"),
    [
        (raw.table(magic=b"GGML"), "begins with b'GGML'"),
        (raw.table(version=1), "its version is 1"),
        (raw.table(version=0x03000000), "big endian"),
        (raw.table(version=0), "its version is 0"),
        (raw.table(version=4), "its version is 4"),
        (raw.table(pair_count=gguf.MAX_KEY_VALUES + 1), "number of metadata keys is 4097"),
        (raw.table(pair_count=HUGE), "number of metadata keys"),
        (raw.table(tensor_count=HUGE), "number of tensors"),
        (raw.table([raw.u64(HUGE)]), "length of metadata key 0"),
        (raw.table([raw.u64(gguf.MAX_KEY_BYTES + 1) + b"k" * 300]), "length of metadata key 0 is 257"),
        (raw.table([raw.pair("", raw.UINT8, b"0")]), "metadata key 0 is ''"),
        (raw.table([raw.pair("a\0b", raw.UINT8, b"0")]), "metadata key 0 is"),
        (raw.table([raw.pair(b"\xff", raw.UINT8, b"0")]), "metadata key 0 is not UTF-8"),
        (raw.table([raw.pair("k", 13, b"0")]), "the type of `k` is 13"),
        (raw.table([raw.pair("k", HUGE & 0xFFFFFFFF, b"0")]), "the type of `k`"),
        (raw.table([ARCHITECTURE, ARCHITECTURE]), "`general.architecture` is there twice"),
        (raw.table([raw.pair("k", raw.STRING, raw.u64(HUGE))]), "length of `k`"),
        (raw.table([raw.pair("k", raw.STRING, raw.u64(gguf.MAX_STRING_BYTES + 1))]), "length of `k`"),
        (raw.table([raw.pair("k", raw.STRING, raw.text(b"\xc3"))]), "`k` is not UTF-8"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.ARRAY, 1, raw.array(0, 0, b"")))]), "array of arrays"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(99, 1, b"0"))]), "element type of `k` is 99"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.UINT64, HUGE, b""))]), "length of `k`"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.UINT64, 1 << 22, b""))]), "the file ends inside `k`"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.STRING, 1 << 22, b""))]), "the file ends inside `k`"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.STRING, 1, raw.u64(HUGE)))]), "a string of `k` has"),
        (raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.STRING, 2, raw.u64(9) + raw.u64(0)))]), "file ends inside"),
        (raw.table([raw.pair("general.alignment", raw.UINT32, raw.u32(0))]), "`general.alignment` is 0"),
        (raw.table([raw.pair("general.alignment", raw.UINT32, raw.u32(48))]), "`general.alignment` is 48"),
        (raw.table([raw.pair("general.alignment", raw.UINT32, raw.u32(1 << 31))]), "`general.alignment` is"),
        (raw.table([raw.pair("general.alignment", raw.UINT64, raw.u64(32))]), "`general.alignment` is 32"),
        (raw.table([raw.pair("general.alignment", raw.STRING, raw.text("32"))]), "`general.alignment` is '32'"),
        (raw.table(tensors=[raw.tensor("t" * 64, (1,), 0, 0)]), "length of the name of tensor 0 is 64"),
        (raw.table(tensors=[raw.tensor("", (1,), 0, 0)]), "the name of tensor 0 is ''"),
        (raw.table(tensors=[raw.tensor("a\0", (1,), 0, 0)]), "the name of tensor 0 is"),
        (raw.table(tensors=[raw.tensor("t", (1,) * 5, 0, 0)]), "tensor `t` has 5 dimensions"),
        (raw.table(tensors=[raw.tensor("t", (), 0, 0, dimensions=0xFFFFFFFF)]), "tensor `t` has 4294967295 dimensions"),
        (raw.table(tensors=[raw.tensor("t", (0,), 0, 0)]), "tensor `t` has the shape"),
        (raw.table(tensors=[raw.tensor("t", (HUGE,), 0, 0)]), "tensor `t` has the shape"),
        (raw.table(tensors=[raw.tensor("t", (1 << 32, 1 << 32), 0, 0)]), "tensor `t` has the shape"),
        (raw.table(tensors=[raw.tensor("t", (1 << 40,), 0, 0)]), "tensor `t` ends at"),
        (raw.table(tensors=[raw.tensor("t", (1,), 4, 0)]), "tensor `t` has the type 4"),
        (raw.table(tensors=[raw.tensor("t", (1,), 43, 0)]), "tensor `t` has the type 43"),
        (raw.table(tensors=[raw.tensor("t", (33,), raw.Q4_0, 0)]), "rows of 33, not a multiple of Q4_0's 32"),
        (raw.table(tensors=[raw.tensor("t", (), raw.Q4_0, 0)]), "rows of 1, not a multiple"),
        (raw.table(tensors=[raw.tensor("t", (1,), 0, 32)]), "tensor `t` lies at 32 of the data instead of 0"),
        (raw.table(tensors=[raw.tensor("t", (1,), 0, HUGE)]), "tensor `t` lies at"),
        (raw.table(tensors=[raw.tensor("t", (1,), 0, 0), raw.tensor("t", (1,), 0, 32)]), "tensor `t` is there twice"),
        (raw.table(tensors=[raw.tensor("t", (1,), 0, 0), raw.tensor("s", (1,), 0, 0)]), "tensor `s` lies at 0"),
        (raw.table(tensors=[raw.tensor("t", (1,), 0, 0), raw.tensor("s", (1,), 0, 4)]), "tensor `s` lies at 4"),
    ],
)
def test_a_hostile_header_is_refused_with_what_is_wrong(blob: bytes, complaint: str) -> None:
    assert complaint in refusal(raw.whole(blob, 64) if "ends" not in complaint else blob)


def test_a_file_shorter_than_its_weights_is_refused() -> None:
    blob = raw.sample()
    parse(blob)
    assert "it is cut off" in refusal(blob[:-1])


def test_claims_of_gigabytes_take_no_memory() -> None:
    """A peer sends the front of what it says is a huge file: only what is there is looked at."""
    claims = [
        raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.UINT64, gguf.MAX_ARRAY_LENGTH, b""))]),
        raw.table([raw.pair("k", raw.ARRAY, raw.array(raw.STRING, gguf.MAX_ARRAY_LENGTH, b""))]),
        raw.table([raw.pair("k", raw.STRING, raw.u64(gguf.MAX_STRING_BYTES))]),
        raw.table(pair_count=gguf.MAX_KEY_VALUES, tensor_count=gguf.MAX_TENSORS),
    ]
    tracemalloc.start()
    try:
        for claim in claims:
            short = parse_header(claim, 1 << 50)
            assert isinstance(short, Incomplete)
            assert short.at_least <= gguf.MAX_HEADER_BYTES
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_header_larger_than_the_limit_is_refused_whatever_it_holds() -> None:
    arrays = [
        raw.pair(f"k{i}", raw.ARRAY, raw.array(raw.STRING, 1 << 20, bytes(8 << 20)))
        for i in range(gguf.MAX_HEADER_BYTES // (8 << 20))
    ]
    blob = raw.table(arrays)
    assert f"larger than {gguf.MAX_HEADER_BYTES} bytes" in refusal(blob)


@pytest.mark.parametrize(
    ("key", "kind", "value", "property_name"),
    [
        ("general.name", raw.UINT32, raw.u32(1), "name"),
        ("general.license", raw.ARRAY, raw.array(raw.STRING, 1, raw.text("mit")), "licence"),
        ("llama.block_count", raw.STRING, raw.text("two"), "block_count"),
        ("llama.block_count", raw.INT32, b"\xff" * 4, "block_count"),
        ("llama.block_count", raw.UINT32, raw.u32(1025), "block_count"),
        ("llama.context_length", raw.BOOL, b"\1", "context_length"),
        ("llama.attention.head_count", raw.ARRAY, raw.array(raw.UINT32, 1, raw.u32(4)), "head_counts"),
        ("llama.attention.head_count", raw.ARRAY, raw.array(raw.FLOAT32, 2, bytes(8)), "head_counts"),
        ("llama.pooling_type", raw.UINT32, raw.u32(5), "pooling"),
        ("tokenizer.chat_template", raw.UINT8, b"0", "templates"),
        ("split.count", raw.STRING, raw.text("3"), "split_count"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_where_it_is_used(
    key: str, kind: int, value: bytes, property_name: str
) -> None:
    pairs = {"general.architecture": ARCHITECTURE, "llama.block_count": raw.pair("llama.block_count", 4, raw.u32(2))}
    pairs["llama.embedding_length"] = raw.pair("llama.embedding_length", 4, raw.u32(64))
    header = parse(raw.table([*(pairs | {key: raw.pair(key, kind, value)}).values()]))
    with pytest.raises(BrokenModelFile):
        getattr(header, property_name)


def test_only_a_whole_model_is_loadable() -> None:
    def header(*pairs: bytes) -> Header:
        return parse(raw.whole(raw.table([ARCHITECTURE, *pairs], [raw.tensor("t", (8,), 0, 0)]), 32))

    with pytest.raises(NotSupported, match="one of 3 parts") as error:
        check_loadable(header(raw.pair("split.count", raw.UINT16, b"\3\0")))
    assert "llama-gguf-split --merge" in error.value.hint
    with pytest.raises(NotSupported, match="an adapter"):
        check_loadable(header(raw.pair("general.type", raw.STRING, raw.text("adapter"))))
    with pytest.raises(NotSupported, match="'mmproj'"):
        check_loadable(header(raw.pair("general.type", raw.STRING, raw.text("mmproj"))))
    with pytest.raises(BrokenModelFile, match="no layers"):
        check_loadable(header())


def test_the_quantization_without_a_label_is_the_type_of_most_bytes() -> None:
    tensors = [raw.tensor("a", (8,), raw.F32, 0), raw.tensor("b", (64, 4), raw.Q4_0, 32)]
    assert parse(raw.whole(raw.table([ARCHITECTURE], tensors), 32 + 144)).quantization == "Q4_0"
    assert parse(raw.table([ARCHITECTURE])).quantization == ""


def test_base_models_are_named() -> None:
    stem = "general.base_model"
    pairs = [
        raw.pair(f"{stem}.count", raw.UINT32, raw.u32(1)),
        raw.pair(f"{stem}.0.name", raw.STRING, raw.text("SmolLM2 135M")),
        raw.pair(f"{stem}.0.repo_url", raw.STRING, raw.text("https://example.org/smol")),
    ]
    assert parse(raw.table(pairs)).base_models == (("SmolLM2 135M", "", "https://example.org/smol"),)
