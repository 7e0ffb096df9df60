"""POST /v1/embeddings"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import cast

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.embedding import embed
from pares.api.openai.chat import SERVED_BY
from pares.api.openai.schemas import MAX_INPUTS, EmbeddingBody
from pares.errors import BadRequest
from pares.inference.generation import TokenId


async def create(call: Call[EmbeddingBody]) -> Response:
    """A vector for each input."""
    body = call.body
    if body.encoding_format not in (None, "float", "base64"):
        raise BadRequest("encoding_format must be float or base64.", param="encoding_format")
    inputs = texts_or_tokens(body.input, "input")
    async with call.services.use(body.model) as used:
        vectors, tokens = await embed(used.model, inputs, body.dimensions, param="input")
        name = used.name
    as_text = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector) if as_text else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer: dict[str, object] = {"object": "list", "data": data, "model": name, "usage": usage}
    if call.warnings:
        answer["warnings"] = call.warnings
    return reply(answer, headers=SERVED_BY)


def _packed(vector: Sequence[float]) -> str:
    """Float32, little-endian, as base64: what OpenAI's own client asks for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def texts_or_tokens(given: object, param: str) -> list[str | tuple[TokenId, ...]]:
    """A text, tokens, or a list of either, as a list. Raises BadRequest."""
    if isinstance(given, str):
        return [given]
    items = cast("tuple[str | TokenId | tuple[TokenId, ...], ...]", given)
    if items and all(isinstance(item, int) for item in items):
        return [cast("tuple[TokenId, ...]", items)]
    if not items or any(isinstance(item, int) for item in items):
        raise BadRequest(f"{param} must be a text, tokens, or a list of either, and not empty.", param=param)
    if len(items) > MAX_INPUTS:
        raise BadRequest(f"{param} has {len(items)} entries; {MAX_INPUTS} are possible at a time.", param=param)
    return cast("list[str | tuple[TokenId, ...]]", list(items))
