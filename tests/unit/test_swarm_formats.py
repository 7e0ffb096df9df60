from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pares.errors import BrokenModelFile, NotFound, NotSupported
from pares.swarm.formats import describe, require_shareable
from pares.swarm.safetensors import MAX_FIELDS, MAX_HEADER_BYTES, parse_tensors, read_tensors
from tiny import tiny_llama, tiny_lora

Table = dict[str, dict[str, object]]


def row(dtype: str, shape: list[int], first: int, after: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, after]}


def safetensors(table: object, data: int) -> bytes:
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data)


SOUND = {"__metadata__": {"format": "pt"}, "b": row("F32", [2, 3], 4, 28), "a": row("BF16", [2], 0, 4)}


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


def test_a_sound_file_gives_its_tensors_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(SOUND, 28))
    start = path.stat().st_size - 28
    one, two = read_tensors(path)
    assert one == ("a", "BF16", (2,), start, 4)
    assert two == ("b", "F32", (2, 3), start + 4, 24)
    assert parse_tensors(b"{}", 10) == ()


@pytest.mark.parametrize(
    ("table", "data"),
    [
        ({"a": row("F32", [1], 0, 4)}, 3),
        ({"a": row("F32", [1], 0, 4)}, 5),
        ({"a": row("F32", [2], 0, 4)}, 4),
        ({"a": row("F32", [1], 4, 8)}, 8),
        ({"a": row("F32", [1], 0, 4), "b": row("F32", [1], 0, 4)}, 4),
        ({"a": row("F32", [1], 0, 4), "b": row("F32", [1], 3, 7)}, 7),
        ({"a": row("F32", [1], 4, 0)}, 4),
        ({"a": row("F32", [-1], 0, 4)}, 4),
        ({"a": row("F32", [1 << 63], 0, 4)}, 4),
        ({"a": row("F32", [(1 << 62), 1 << 62, 1 << 62], 0, 4)}, 4),
        ({"a": row("F4", [1], 0, 1)}, 1),
        ({"a": row("OBJECT", [1], 0, 1)}, 1),
        ({"a": row("F32", [1] * 17, 0, 4)}, 4),
        ({"a": row("F32", [1], 0, 4) | {"code": "x"}}, 4),
        ({"a": {"dtype": "F32"}}, 0),
        ({"a": None}, 0),
        ({"__metadata__": {"a": 1}}, 0),
        ({"__metadata__": []}, 0),
        ([], 0),
    ],
)
def test_what_does_not_add_up_is_refused(tmp_path: Path, table: object, data: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(table, data))
    with pytest.raises(BrokenModelFile):
        read_tensors(path)


@pytest.mark.parametrize("length", [0, 1, 3, 1000, MAX_HEADER_BYTES + 1, (1 << 64) - 1])
def test_a_header_of_an_impossible_length_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}  ")
    with pytest.raises(BrokenModelFile):
        read_tensors(path)


def test_a_header_of_millions_of_fields_is_not_decoded() -> None:
    many = b"{" + b'"":0,' * MAX_FIELDS + b'"":0}'
    with pytest.raises(BrokenModelFile, match="fields"):
        parse_tensors(many, len(many) + 8)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(BrokenModelFile):
        parse_tensors(deep, len(deep) + 8)


pieces = st.one_of(
    st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "F32", "BOOL", ""]), st.text(max_size=4)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 65) | st.floats() | pieces,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(pieces, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(header=st.one_of(st.binary(max_size=80), values.map(lambda v: json.dumps(v).encode())), data=st.integers(0, 64))
@example(header=b'{"\xff":0}', data=0)
def test_any_header_is_read_or_refused(header: bytes, data: int) -> None:
    try:
        tensors = parse_tensors(header, 8 + len(header) + data)
    except BrokenModelFile:
        return
    assert sum(tensor.nbytes for tensor in tensors) == data


@settings(deadline=None)
@given(at=st.integers(0, 2000), bit=st.integers(0, 7), cut=st.integers(0, 200))
def test_a_damaged_file_is_read_or_refused(at: int, bit: int, cut: int) -> None:
    content = bytearray(safetensors(SOUND, 28))
    content[at % len(content)] ^= 1 << bit
    content = content[: len(content) - cut]
    length = int.from_bytes(content[:8], "little")
    try:
        parse_tensors(bytes(content[8 : 8 + length]), len(content))
    except BrokenModelFile:
        return
    assert cut == 0


def test_what_a_file_may_do_depends_on_its_content_not_on_its_name(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model.pickle", embedding=64, ffn=64)
    assert require_shareable(model) == "gguf"
    assert require_shareable(tiny_lora(tmp_path / "lora.pt", model)) == "gguf"
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(safetensors(SOUND, 28))
    assert require_shareable(weights) == "safetensors"
    with pytest.raises(NotSupported, match="safetensors") as refused:
        describe(weights)
    assert "convert_hf_to_gguf" in refused.value.hint


@pytest.mark.parametrize("name", ["m.gguf", "m.safetensors", "m.bin"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_refused_under_any_name(tmp_path: Path, name: str, protocol: int) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"weights": [1.0] * 100}, protocol))
    with pytest.raises((NotSupported, BrokenModelFile)):
        require_shareable(path)
    path.write_bytes(zipped())
    with pytest.raises(NotSupported, match="zip"):
        require_shareable(path)


def test_a_zip_behind_sound_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(SOUND, 28) + zipped())
    with pytest.raises(BrokenModelFile, match="the file has"):
        require_shareable(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        require_shareable(tmp_path / "nothing")
    with pytest.raises(BrokenModelFile, match="not a file"):
        require_shareable(tmp_path)
