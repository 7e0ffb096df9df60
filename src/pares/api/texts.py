"""Small questions about a model's tokens and template, in the words of llama.cpp's server."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.embedding import check_tokens
from pares.api.openai.inputs import messages_of, tools_of
from pares.api.openai.schemas import ChatMessage, Name, Token, ToolSpec
from pares.chat.completion import prompt_of
from pares.chat.messages import ChatRequest
from pares.inference.generation import TokenId


class TokenizeBody(msgspec.Struct, frozen=True):
    """POST /tokenize"""

    model: Name
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(msgspec.Struct, frozen=True):
    """POST /detokenize"""

    model: Name
    tokens: Annotated[tuple[Token, ...], msgspec.Meta(max_length=1_000_000)]


class TemplateBody(msgspec.Struct, frozen=True):
    """POST /apply-template"""

    model: Name
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] | None = None


async def tokenize(call: Call[TokenizeBody]) -> Response:
    body = call.body
    async with call.services.use(body.model) as used:
        tokens = await used.model.tokenize(body.content, special=body.parse_special, bos=body.add_special)
        if not body.with_pieces:
            return reply({"tokens": tokens})
        return reply({"tokens": [{"id": each, "piece": _piece(used.model.vocabulary.piece(each))} for each in tokens]})


async def detokenize(call: Call[DetokenizeBody]) -> Response:
    async with call.services.use(call.body.model) as used:
        vocabulary = used.model.vocabulary
        tokens = [TokenId(token) for token in call.body.tokens]
        if tokens:
            check_tokens(tokens, used.model, "tokens")
        return reply({"content": b"".join(map(vocabulary.piece, tokens)).decode("utf-8", "replace")})


async def apply_template(call: Call[TemplateBody]) -> Response:
    messages = messages_of(call.body.messages)
    async with call.services.use(call.body.model) as used:
        request = ChatRequest(messages, tools=tools_of(call.body.tools or ()))
        _, prompt = await prompt_of(used.model, request)
        return reply({"prompt": prompt})


def _piece(piece: bytes) -> str | list[int]:
    """Text, or bytes where it is none."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
