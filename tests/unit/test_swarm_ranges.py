from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.errors import BadRequest
from pares.inference.gguf import Header, parse_header, read_header
from pares.swarm.coverage import (
    bytes_in,
    count,
    covers,
    difference,
    everything,
    intersection,
    pieces_over,
    runs,
    runs_of,
    union,
)
from pares.swarm.merkle import piece_length, pieces
from pares.swarm.ranges import (
    HEAD,
    HEADER,
    Part,
    header_pieces,
    held_layers,
    parse_part,
    part_bytes,
    part_pieces,
)
from raw_gguf import F32, STRING, UINT32, pair, table, tensor, text, u32, whole
from tiny import tiny_gemma3, tiny_llama, tiny_lora


def large(layers: int, embedding: int, *, tied: bool = False) -> Header:
    """The header of a model of many pieces, without its weights."""
    with TemporaryDirectory() as folder:
        path = tiny_llama(
            Path(folder, "m.gguf"), layers=layers, embedding=embedding, ffn=2 * embedding, tied=tied, sparse=True
        )
        return read_header(path)


models = st.builds(large, st.integers(1, 8), st.sampled_from([64, 512, 768]), tied=st.booleans())


def parts(header: Header) -> st.SearchStrategy[Part]:
    layer = st.integers(0, header.block_count)
    return st.builds(lambda a, b, head: Part(min(a, b), max(a, b), head), layer, layer, st.booleans())


def tensor_runs(header: Header, part: Part) -> list[tuple[int, int]]:
    """Where the tensors of a part lie, told from their names alone."""
    layers = tuple(f"blk.{number}." for number in range(part.first, part.last))
    return [
        (each.offset, each.offset + each.nbytes)
        for each in header.tensors
        if each.name.startswith(layers) or (part.head and not each.name.startswith("blk."))
    ]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=models)
def test_a_part_takes_its_tensors_the_header_and_a_piece_at_each_edge(data: st.DataObject, header: Header) -> None:
    part = data.draw(parts(header))
    fetched = part_pieces(header, part)
    wanted = runs([(0, header.data_start), *tensor_runs(header, part)])
    assert covers(fetched, pieces_over(wanted, header.file_bytes))
    apart = runs((first, after + header.alignment - 1) for first, after in wanted)  # padding is no edge
    size, piece = header.file_bytes, piece_length(header.file_bytes)
    assert bytes_in(fetched, size) <= count(apart) + 2 * piece * len(apart)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=models)
def test_what_was_fetched_for_a_part_holds_it(data: st.DataObject, header: Header) -> None:
    part = data.draw(parts(header))
    held = held_layers(header, part_pieces(header, part))
    assert held is not None
    assert held.last - held.first >= part.last - part.first
    assert held.head >= part.head
    if part.first < part.last and held.last - held.first == part.last - part.first:
        assert (held.first, held.last) <= (part.first, part.last)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=models)
def test_what_is_said_to_be_held_is(data: st.DataObject, header: Header) -> None:
    have = runs_of(data.draw(st.frozensets(st.integers(0, pieces(header.file_bytes) - 1))))
    have = union(have, header_pieces(header.data_start, header.file_bytes)) if data.draw(st.booleans()) else have
    held = held_layers(header, have)
    if held is None:
        assert not covers(have, part_pieces(header, HEADER))
    else:
        assert covers(have, part_pieces(header, held))
        longer = (held.last - held.first + 1, held.head)
        for first in range(header.block_count - longer[0] + 1):
            assert not covers(have, part_pieces(header, Part(first, first + longer[0], False)))
        assert held.head == covers(have, part_pieces(header, HEAD))


@settings(deadline=None, max_examples=30)
@given(header=models)
def test_all_layers_with_the_head_are_all_tensors(header: Header) -> None:
    everywhere = everything(header.file_bytes)
    assert held_layers(header, everywhere) == Part(0, header.block_count, True)
    assert part_pieces(header, None) == everywhere
    assert count(part_bytes(header, Part(0, header.block_count, True))) >= header.data_start + header.tensor_bytes
    assert held_layers(header, ()) is None
    assert not intersection(part_pieces(header, HEADER), difference(everywhere, ((0, 1),)))


def test_layers_of_real_models_lie_together(smollm2: Path) -> None:
    header = read_header(smollm2)
    part = Part(10, 20, False)
    fetched, wanted = part_pieces(header, part), tensor_runs(header, part)
    piece = piece_length(header.file_bytes)
    tensors = sum(after - first for first, after in wanted)
    together = runs((first, after + header.alignment - 1) for first, after in [(0, header.data_start), *wanted])
    assert bytes_in(fetched, header.file_bytes) <= tensors + header.data_start + 2 * piece * len(together)
    assert held_layers(header, fetched) == part
    assert len(fetched) <= 3


def test_models_of_other_kinds_have_parts_too(tmp_path: Path) -> None:
    gemma = read_header(tiny_gemma3(tmp_path / "gemma.gguf"))
    assert held_layers(gemma, everything(gemma.file_bytes)) == Part(0, 6, True)
    adapter = read_header(tiny_lora(tmp_path / "adapter.gguf", tiny_llama(tmp_path / "base.gguf")))
    assert held_layers(adapter, everything(adapter.file_bytes)) == Part(0, adapter.block_count, True)


def test_a_layer_that_is_none_belongs_to_the_head() -> None:
    names = ["blk.0.a", "blk.7.a", "blk.999999999999999999999.a", "blk.x.a", "blk.", "output.weight"]
    facts = [pair("general.architecture", STRING, text("llama")), pair("llama.block_count", UINT32, u32(1))]
    rows = [tensor(name, (1 << 18,), F32, number << 20) for number, name in enumerate(names)]
    content = whole(table(facts, rows), len(names) << 20)
    header = parse_header(content, len(content))
    assert isinstance(header, Header)
    first = header.tensors[0].offset
    assert part_bytes(header, Part(0, 1, False)) == ((0, first + (1 << 20)),)
    assert part_bytes(header, HEAD)[-1] == (first + (1 << 20), len(content))


def test_what_every_layer_reads_comes_with_every_layer_and_not_with_the_head() -> None:
    names = ["blk.0.a", "blk.1.a", "output.weight", "rope_freqs.weight"]
    facts = [pair("general.architecture", STRING, text("llama")), pair("llama.block_count", UINT32, u32(2))]
    rows = [tensor(name, (1 << 18,), F32, number << 20) for number, name in enumerate(names)]
    content = whole(table(facts, rows), len(names) << 20)
    header = parse_header(content, len(content))
    assert isinstance(header, Header)
    at = [each.offset for each in header.tensors]
    assert part_bytes(header, Part(1, 2, False))[1:] == ((at[1], at[2]), (at[3], len(content)))
    assert part_bytes(header, HEAD)[-1] == (at[2], at[3])


@given(first=st.integers(0, 99998), length=st.integers(1, 10), head=st.booleans())
def test_parts_are_read_as_they_are_written(first: int, length: int, head: bool) -> None:
    part = Part(first, min(first + length, 99999), head)
    assert parse_part(str(part)) == part
    assert [parse_part(str(each)) for each in (HEADER, HEAD)] == [HEADER, HEAD]
    assert parse_part("") is None


@pytest.mark.parametrize("said", ["all", "5", "5-5", "6-5", "1-2+", "1-2+tail", "-1-2", "1-2 ", "1-1000000", "١-٢"])
def test_what_is_no_part_is_refused(said: str) -> None:
    with pytest.raises(BadRequest, match="names no part"):
        parse_part(said)


def test_layers_that_the_model_has_not_are_refused() -> None:
    with pytest.raises(BadRequest, match="has 2 layers"):
        part_pieces(large(2, 64), Part(1, 3, False))
