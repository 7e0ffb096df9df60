"""POST /api/embed, and /api/embeddings of old"""

from __future__ import annotations

import time

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.embedding import embed
from pares.api.ollama.inputs import keep_alive_s, model_name
from pares.api.ollama.schemas import EmbedBody, EmbeddingsBody
from pares.api.openai.embeddings import texts_or_tokens
from pares.api.options import settle


async def embed_route(call: Call[EmbedBody]) -> Response:
    """A unit vector for each input."""
    body, begun = call.body, time.perf_counter()
    inputs = texts_or_tokens(body.input, "input") if body.input else []
    context = settle(body.options or {}).context
    async with call.services.use(model_name(body), context=context, keep_alive_s=keep_alive_s(body.keep_alive)) as used:
        vectors, tokens = await embed(used.model, inputs, body.dimensions or None, param="input")
        return reply(
            {
                "model": used.name,
                "embeddings": vectors,
                "total_duration": int((time.perf_counter() - begun) * 1e9),
                "load_duration": int(used.load_s * 1e9),
                "prompt_eval_count": tokens,
            }
        )


async def embeddings_route(call: Call[EmbeddingsBody]) -> Response:
    """The vector of one text; none for an empty one, which loads the model."""
    body = call.body
    async with call.services.use(model_name(body), keep_alive_s=keep_alive_s(body.keep_alive)) as used:
        if not body.prompt:
            return reply({"embedding": []})
        vectors, _ = await embed(used.model, [body.prompt], None, param="prompt")
        return reply({"embedding": vectors[0]})
