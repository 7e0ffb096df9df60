"""POST /v1/chat/completions"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, now_s, reply
from pares.api.failures import OPENAI
from pares.api.openai.chunks import DONE, ChatChunks, call_of, logprob_of, usage_chunk, usage_of
from pares.api.openai.inputs import Held, chat_request, hold, messages_of
from pares.api.openai.schemas import ChatBody
from pares.api.options import with_seed_of
from pares.api.streams import SSE, Stream, at_once, interleave
from pares.chat.completion import chat, gather
from pares.chat.messages import Answer, ChatRequest, Finished, Piece
from pares.errors import BadRequest
from pares.inference.generation import Usage
from pares.store.database import new_id

SERVED_BY = {"X-Served-By": "local"}


async def create(call: Call[ChatBody]) -> Response | Stream:
    """Answer a conversation, at once or in pieces."""
    messages_of(call.body.messages)  # refuses nonsense before the headers of a stream
    if call.body.stream:
        return Stream(_events(call), SSE, OPENAI, SERVED_BY)
    return reply(await _whole(call), headers=SERVED_BY)


def _logprobs(body: ChatBody) -> int:
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else -1


def _head(held: Held, kind: str) -> dict[str, object]:
    facts = held.used.model.facts
    return {
        "id": f"chatcmpl-{new_id()}",
        "object": kind,
        "created": now_s(),
        "model": held.used.name,
        "system_fingerprint": f"fp_{facts.fingerprint[:12] or facts.profile}",
    }


def _answers(call: Call[ChatBody], held: Held, request: ChatRequest) -> list[AsyncGenerator[Piece, None]]:
    """One stream of pieces per choice; each draws with its own seed."""
    requests = (
        msgspec.structs.replace(request, sampling=with_seed_of(request.sampling, index))
        for index in range(call.body.n or 1)
    )
    model = held.used.model
    return [call.metrics.watch(held.used.name, chat(model, each)) for each in requests]


async def _whole(call: Call[ChatBody]) -> dict[str, object]:
    async with hold(call, logprobs=_logprobs(call.body)) as held:
        request = chat_request(call.body, held)
        answers = await at_once([gather(pieces) for pieces in _answers(call, held, request)])
        whole = {
            **_head(held, "chat.completion"),
            "choices": [_choice(index, answer, call.body) for index, answer in enumerate(answers)],
            "usage": usage_of([answer.usage for answer in answers]),
            "x_served": held.served,
        }
        if held.warnings:
            whole["warnings"] = held.warnings
        return whole


def _choice(index: int, answer: Answer, body: ChatBody) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer.message.content, "refusal": None}
    if answer.message.reasoning:
        message["reasoning_content"] = answer.message.reasoning
    if answer.message.tool_calls:
        message["content"] = answer.message.content or None
        message["tool_calls"] = [call_of(call) for call in answer.message.tool_calls]
    logprobs = {"content": [logprob_of(item) for item in answer.logprobs], "refusal": None} if body.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.reason}


async def _events(call: Call[ChatBody]) -> AsyncGenerator[bytes, None]:
    body = call.body
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    async with hold(call, logprobs=_logprobs(body)) as held:
        answers = _answers(call, held, chat_request(body, held))
        head = _head(held, "chat.completion.chunk")
        chunks = [ChatChunks(head, index, usage=with_usage) for index in range(len(answers))]
        usages: list[Usage] = []
        begun: set[int] = set()
        note = {"x_served": held.served} | ({"warnings": held.warnings} if held.warnings else {})
        async for index, piece in interleave(answers):
            event = chunks[index].chunk(piece)
            if index not in begun:
                first = ChatChunks(head | note, index, usage=with_usage) if not begun else chunks[index]
                event = first.first() + event
                begun.add(index)
            yield event
            if isinstance(piece, Finished):
                usages.append(piece.usage)
        if with_usage:
            yield usage_chunk(head, usage_of(usages))
    yield DONE
