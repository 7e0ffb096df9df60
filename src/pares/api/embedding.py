"""Texts as vectors, for every surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pares.errors import BadRequest
from pares.inference.generation import Model, TokenId

Vectors = NDArray[np.float32]


async def embed(
    model: Model, inputs: Sequence[str | Sequence[TokenId]], dimensions: int | None, *, param: str
) -> tuple[Vectors, int]:
    """One unit vector per input, and the number of tokens read. Raises BadRequest, ContextOverflow.

    Fewer `dimensions` than the model has are the first ones, made unit vectors again: exact for models trained so
    (Matryoshka, Kusupati et al. 2022), an approximation for others.
    """
    length = model.facts.embedding_length
    if dimensions is not None and dimensions > length:
        raise BadRequest(f"This model has {length} dimensions, not {dimensions}.", param="dimensions")
    tokens = [await _tokens(model, item, param) for item in inputs]
    vectors = np.asarray(await model.embed(tokens), np.float32).reshape(len(tokens), -1)
    if dimensions is not None and dimensions < length:
        vectors = vectors[:, :dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return vectors, sum(map(len, tokens))


async def _tokens(model: Model, given: str | Sequence[TokenId], param: str) -> Sequence[TokenId]:
    if isinstance(given, str):
        if not given:
            raise BadRequest("An empty text has no embedding.", param=param)
        return await model.tokenize(given, special=False, bos=True)
    check_tokens(given, model, param)
    return given


def check_tokens(tokens: Sequence[TokenId], model: Model, param: str) -> None:
    """Raises BadRequest for no tokens, and for one that the model does not have."""
    size = model.vocabulary.size
    if not tokens:
        raise BadRequest("There are no tokens.", param=param)
    if min(tokens) < 0 or max(tokens) >= size:
        raise BadRequest(f"A token is a number from 0 to {size - 1} for this model.", param=param)
