"""The binding to llama.cpp: hidden states in and out, which pooling stands on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pares.inference.gguf import read_header
from pares.inference.llama import Context, NoRoom, Weights
from tiny import tiny_llama

TOKENS = np.array([5, 70, 200, 31, 8], np.int32)
POSITIONS = np.arange(5, dtype=np.int32)
FIRST_SLOT = np.zeros(5, np.int32)
ALL = np.ones(5, np.int8)


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[tuple[Weights, NDArray[np.float32]]]:
    """A model whose only layer adds nothing to the residual stream, and its embedding matrix."""
    path = tiny_llama(tmp_path / "identity.gguf", layers=1)
    tensors = {tensor.name: tensor for tensor in read_header(path).tensors}
    with path.open("r+b") as file:
        for name in ("blk.0.attn_output.weight", "blk.0.ffn_down.weight"):
            file.seek(tensors[name].offset)
            file.write(bytes(tensors[name].nbytes))
        embedding = tensors["token_embd.weight"]
        file.seek(embedding.offset)
        matrix = np.frombuffer(file.read(embedding.nbytes), np.float32).reshape(embedding.dims[::-1])
    weights = Weights(path)
    yield weights, matrix
    weights.close()


def test_the_captured_hidden_state_is_the_last_layers_output(
    identity: tuple[Weights, NDArray[np.float32]],
) -> None:
    weights, matrix = identity
    context = Context(weights, cells=256, slots=1, batch=64, threads=1, capture=True)
    context.compute(TOKENS, POSITIONS, FIRST_SLOT, ALL)
    hidden = context.hidden()
    context.close()
    assert hidden.dtype == np.float32
    assert (hidden == matrix[TOKENS]).all()


def test_hidden_states_fed_in_give_the_logits_of_their_tokens(
    identity: tuple[Weights, NDArray[np.float32]],
) -> None:
    weights, matrix = identity
    context = Context(weights, cells=256, slots=2, batch=64, threads=1)
    context.compute(TOKENS, POSITIONS, FIRST_SLOT, ALL)
    by_token = context.logits(5).copy()
    context.compute(matrix[TOKENS], POSITIONS, FIRST_SLOT + 1, ALL)
    by_state = context.logits(5).copy()
    context.close()
    assert (by_token == by_state).all()


def test_a_full_cache_computes_nothing_and_says_so(identity: tuple[Weights, NDArray[np.float32]]) -> None:
    weights, _ = identity
    context = Context(weights, cells=256, slots=2, batch=256, threads=1)
    full = np.arange(256, dtype=np.int32)
    wanted = np.zeros(256, np.int8)
    context.compute(full % 200, full, np.zeros(256, np.int32), wanted)
    with pytest.raises(NoRoom):
        context.compute(TOKENS, POSITIONS, FIRST_SLOT + 1, ALL)
    assert context.truncate(0, 200)
    context.compute(TOKENS, POSITIONS, FIRST_SLOT + 1, ALL)
    context.close()
