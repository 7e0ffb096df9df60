"""Models computed in parts: bit for bit what the whole model gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pares.errors import NotFound
from pares.inference.architectures import ARCHITECTURES
from pares.inference.gguf import Header, read_header
from pares.inference.llama import Context, Weights
from pares.inference.slices import plan_head, plan_stage
from pares.inference.slicing import write_slice
from pares.swarm.coverage import Runs, bytes_in, runs
from pares.swarm.merkle import piece_length
from pares.swarm.ranges import Part, part_pieces
from tiny_architectures import MODELS

Floats = NDArray[np.float32]

PROMPT, ANSWER = 40, 40


def tokens(header: Header) -> NDArray[np.int32]:
    return np.array([(37 * n) % (min(header.vocab_size, 40_000) - 10) + 5 for n in range(PROMPT + ANSWER)], np.int32)


def computed(path: Path, rows: NDArray[np.int32] | Floats, *, capture: bool) -> Floats:
    """Logits, or with `capture` hidden states, of the rows: a prompt at once, then one after the other."""
    weights = Weights(path)
    context = Context(weights, cells=256, slots=1, batch=64, threads=1, capture=capture)
    out: list[Floats] = []
    at = 0
    for count in (PROMPT, *[1] * ANSWER):
        positions = np.arange(at, at + count, dtype=np.int32)
        context.compute(rows[at : at + count], positions, np.zeros(count, np.int32), np.ones(count, np.int8))
        out.append(context.hidden() if capture else context.logits(count).copy())
        at += count
    context.close()
    weights.close()
    return np.concatenate(out)


def chained(model: Path, cuts: Sequence[int], folder: Path) -> Floats:
    """The logits that head and stages give together."""
    header = read_header(model)
    head = folder / "head.gguf"
    write_slice(model, plan_head(header), head)
    states = computed(head, tokens(header), capture=True)
    for first, last in pairwise((0, *cuts, header.block_count)):
        stage = folder / f"{first}-{last}.gguf"
        write_slice(model, plan_stage(header, first, last), stage)
        states = computed(stage, states, capture=True)
    return computed(head, states, capture=False)


def same_bits(left: Floats, right: Floats) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def assert_the_whole_in_parts(model: Path, several_cuts: Sequence[Sequence[int]], folder: Path) -> None:
    whole = computed(model, tokens(read_header(model)), capture=False)
    assert np.isfinite(whole).all()
    assert len(set(whole.argmax(axis=1).tolist())) > 3, "a model that says always the same proves little"
    for cuts in several_cuts:
        assert same_bits(chained(model, cuts, folder), whole), f"cut at {cuts}"


def test_smollm2_in_stages_gives_the_whole_models_logits(smollm2: Path, tmp_path: Path) -> None:
    assert_the_whole_in_parts(smollm2, [(15,), (1, 10, 29)], tmp_path)


def test_gemma_in_stages_gives_the_whole_models_logits(gemma: Path, tmp_path: Path) -> None:
    """Its sixth layers see the whole context: a stage that begins in between, and one that is such a layer alone."""
    assert_the_whole_in_parts(gemma, [(9,), (5, 6, 14)], tmp_path)


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_random_weights_in_stages_give_the_whole_models_logits(kind: str, tmp_path: Path) -> None:
    """Cut in the middle, and into single layers of every kind."""
    model = MODELS[kind](tmp_path / "model.gguf")
    layers = read_header(model).block_count
    assert_the_whole_in_parts(model, [(layers // 2,), (1, *range(layers - 3, layers))], tmp_path)


def test_no_architecture_is_called_proven_without_a_proof_here() -> None:
    assert {kind.split(",")[0] for kind in MODELS} == set(ARCHITECTURES)


def only(model: Path, pieces: Runs, target: Path) -> Runs:
    """A sparse file with these pieces of a model; returns the bytes that are in it."""
    length, size = piece_length(model.stat().st_size), model.stat().st_size
    present = tuple((first * length, min(after * length, size)) for first, after in pieces)
    with model.open("rb") as source, target.open("wb") as partial:
        os.truncate(target, size)
        for first, after in present:
            source.seek(first)
            partial.seek(first)
            partial.write(source.read(after - first))
    return present


def test_a_stage_made_of_only_the_pieces_of_its_layers_computes_the_same(smollm2: Path, tmp_path: Path) -> None:
    header, part = read_header(smollm2), Part(10, 20, head=False)
    pieces = part_pieces(header, part)
    partial = tmp_path / "partial.gguf"
    have = only(smollm2, pieces, partial)
    plan = plan_stage(read_header(partial), part.first, part.last)

    edges = runs([(0, header.data_start), *((t.source, t.source + t.nbytes + header.alignment) for t in plan.tensors)])
    needed = header.data_start + sum(each.nbytes for each in plan.tensors)
    piece = piece_length(header.file_bytes)
    assert piece == 1 << 18
    assert bytes_in(pieces, header.file_bytes) <= needed + 2 * piece * len(edges)

    write_slice(smollm2, plan_stage(header, part.first, part.last), tmp_path / "of_whole.gguf")
    write_slice(partial, plan, tmp_path / "of_part.gguf", have=have)
    width = header.embedding_length
    states = np.random.default_rng(5).standard_normal((PROMPT + ANSWER, width), np.float32)
    hidden = [computed(tmp_path / name, states, capture=True) for name in ("of_whole.gguf", "of_part.gguf")]
    assert np.isfinite(hidden[0]).all()
    assert np.abs(hidden[0] - states).max() > 1
    assert same_bits(*hidden)
    for first, last in ((9, 20), (10, 21)):
        with pytest.raises(NotFound, match="were not fetched"):
            write_slice(partial, plan_stage(header, first, last), tmp_path / "more.gguf", have=have)
    with pytest.raises(NotFound, match=r"token_embd\.weight"):
        write_slice(partial, plan_head(header), tmp_path / "more.gguf", have=have)
