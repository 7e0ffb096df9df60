"""POST /v1/chat/completions"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.failures import OPENAI
from pares.api.openai.chunks import DONE, ChatChunks, call_of, logprob_of, usage_chunk, usage_of
from pares.api.openai.inputs import Held, hold, question_of
from pares.api.openai.schemas import ChatBody
from pares.api.options import with_seed_of
from pares.api.streams import SSE, Stream, at_once, interleave
from pares.chat.completion import chat, gather
from pares.chat.messages import Answer, ChatRequest, Finished, Piece
from pares.errors import BadRequest
from pares.inference.generation import Usage

SERVED_BY = {"X-Served-By": "local"}


async def create(call: Call[ChatBody]) -> Response | Stream:
    """Answer a conversation, at once or in pieces."""
    body = call.body
    question = question_of(body)
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    if body.stream:
        return Stream(_events(call, question), SSE, OPENAI, SERVED_BY)
    return reply(await _whole(call, question), headers=SERVED_BY)


def _logprobs(body: ChatBody) -> int:
    return (body.top_logprobs or 0) if body.logprobs else -1


def _answers(call: Call[ChatBody], held: Held, question: ChatRequest) -> list[AsyncGenerator[Piece, None]]:
    """One stream of pieces per choice; each draws with its own seed."""
    request, model = held.ask(question), held.used.model
    seeded = (with_seed_of(request.sampling, index) for index in range(call.body.n or 1))
    return [
        call.metrics.watch(held.used.name, chat(model, msgspec.structs.replace(request, sampling=sampling)))
        for sampling in seeded
    ]


async def _whole(call: Call[ChatBody], question: ChatRequest) -> dict[str, object]:
    async with hold(call, logprobs=_logprobs(call.body)) as held:
        answers = await at_once([gather(pieces) for pieces in _answers(call, held, question)])
        return {
            **held.head("chatcmpl", "chat.completion"),
            "choices": [_choice(index, answer, call.body) for index, answer in enumerate(answers)],
            "usage": usage_of([answer.usage for answer in answers]),
            **held.note,
        }


def _choice(index: int, answer: Answer, body: ChatBody) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer.message.content, "refusal": None}
    if answer.message.reasoning:
        message["reasoning_content"] = answer.message.reasoning
    if answer.message.tool_calls:
        message["content"] = answer.message.content or None
        message["tool_calls"] = [call_of(call) for call in answer.message.tool_calls]
    logprobs = {"content": [logprob_of(item) for item in answer.logprobs], "refusal": None} if body.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.reason}


async def _events(call: Call[ChatBody], question: ChatRequest) -> AsyncGenerator[bytes, None]:
    body = call.body
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    async with hold(call, logprobs=_logprobs(body)) as held:
        answers = _answers(call, held, question)
        head = held.head("chatcmpl", "chat.completion.chunk")
        chunks = [ChatChunks(head, index, usage=with_usage) for index in range(len(answers))]
        begun: set[int] = set()
        usages: list[Usage] = []
        async for index, piece in interleave(answers):
            event = chunks[index].chunk(piece)
            if index not in begun:
                noted = chunks[index] if begun else ChatChunks(head | held.note, index, usage=with_usage)
                event = noted.first() + event
                begun.add(index)
            yield event
            if isinstance(piece, Finished):
                usages.append(piece.usage)
        if with_usage:
            yield usage_chunk(head, usage_of(usages))
    yield DONE
