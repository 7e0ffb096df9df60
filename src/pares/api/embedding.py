"""Texts as vectors, for every surface."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pares.errors import BadRequest
from pares.inference.generation import Model, TokenId


async def embed(
    model: Model, inputs: Sequence[str | Sequence[TokenId]], dimensions: int | None, *, param: str
) -> tuple[list[list[float]], int]:
    """One unit vector per input, and the number of tokens read. Raises BadRequest, ContextOverflow.

    Fewer `dimensions` than the model has are the first ones, made unit vectors again: exact for models trained so
    (Matryoshka, Kusupati et al. 2022), an approximation for others.
    """
    length = model.facts.embedding_length
    if dimensions is not None and dimensions > length:
        raise BadRequest(f"This model has {length} dimensions, not {dimensions}.", param="dimensions")
    tokens = [await _tokens(model, item, param) for item in inputs]
    vectors = await model.embed(tokens)
    if dimensions is not None and dimensions < length:
        vectors = [_unit(vector[:dimensions]) for vector in vectors]
    return vectors, sum(map(len, tokens))


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]


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
