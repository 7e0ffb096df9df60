"""The main path: a request in, pieces of an answer out, with the model's sequence freed as soon as nobody listens."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import string
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from time import perf_counter
from typing import NamedTuple

import msgspec

from pares.chat.answer import Reader
from pares.chat.markup import Calls, Markup
from pares.chat.messages import (
    Answer,
    CallArguments,
    CallBegun,
    ChatRequest,
    CompletionRequest,
    Finished,
    Message,
    Piece,
    Reasoning,
    StopReason,
    Text,
    TokenLogprob,
    ToolCall,
)
from pares.chat.prompt import Prompt, check_stop, prompt_for
from pares.chat.text import text_of, token_of
from pares.errors import BadRequest, ContextOverflow, NotSupported
from pares.inference.generation import Model, Sampling, Step, TokenId, Usage, Vocabulary

FILL_IN = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    (" <PRE>", " <SUF>", " <MID>"),
)
"""The tokens around what is before the gap, what is after it, and where the middle begins, by family of models."""


def new_call_id() -> str:
    """An id for a tool call that nobody can guess."""
    return "call_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))


class _Task(NamedTuple):
    tokens: list[TokenId]
    sampling: Sampling
    max_tokens: int
    reader: Reader
    stop: Sequence[str]


async def chat(
    model: Model,
    request: ChatRequest,
    *,
    now: datetime | None = None,
    new_id: Callable[[], str] = new_call_id,
) -> AsyncGenerator[Piece, None]:
    """Answer a conversation; the last piece is Finished. Close the generator (`aclosing`) to stop early.

    Nothing happens, and nothing is raised, before the first piece is asked for. Then: BadRequest for a request that
    this model cannot take, ContextOverflow, BrokenModelFile for a template that may not be run, and whatever `model`
    raises.
    """
    prompt = await _prompt(model, request, now)
    tokens = await _tokenize(model, prompt.text)
    limit = _limit(model, tokens, request.max_tokens, "messages")
    sampling = await _constrained(model, request.sampling, prompt.schema, prompt.grammar_trigger)
    reader = Reader(model.vocabulary, prompt.parser(new_id), prompt.markers)
    async with aclosing(_answer(model, _Task(tokens, sampling, limit, reader, request.stop))) as pieces:
        async for piece in pieces:
            yield piece


async def complete(model: Model, request: CompletionRequest) -> AsyncGenerator[Piece, None]:
    """Go on with a text: Text pieces, then Finished. Otherwise as `chat`.

    Raises NotSupported for a suffix, where the model has not learned to fill in.
    """
    check_stop(request.stop)
    tokens = await _completion_tokens(model, request)
    limit = _limit(model, tokens, request.max_tokens, "prompt")
    schema = None if request.schema is None else dict(request.schema) or {"type": "object"}
    sampling = await _constrained(model, request.sampling, schema, "")
    parser = Markup(request.stop, Calls((), new_call_id, parallel=True))
    task = _Task(tokens, sampling, limit, Reader(model.vocabulary, parser), request.stop)
    async with aclosing(_answer(model, task)) as pieces:
        async for piece in pieces:
            yield piece


async def prompt_of(
    model: Model, request: ChatRequest | CompletionRequest, *, now: datetime | None = None
) -> tuple[list[TokenId], str]:
    """What the model would be given: tokens, and their text (without a begin token that the text does not spell)."""
    if isinstance(request, ChatRequest):
        text = (await _prompt(model, request, now)).text
        return await _tokenize(model, text), text
    tokens = await _completion_tokens(model, request)
    if isinstance(request.prompt, str) and not request.suffix:
        return tokens, request.prompt
    return tokens, b"".join(map(model.vocabulary.piece, tokens)).decode(errors="replace")


async def gather(pieces: AsyncIterable[Piece]) -> Answer:
    """Put all pieces of one answer together."""
    text: list[str] = []
    thought: list[str] = []
    logprobs: list[TokenLogprob] = []
    calls: list[tuple[CallBegun, list[str]]] = []
    finished: Finished | None = None
    async for piece in pieces:
        match piece:
            case Text():
                text.append(piece.text)
                logprobs += piece.logprobs
            case Reasoning():
                thought.append(piece.text)
            case CallBegun():
                calls.append((piece, []))
            case CallArguments():
                calls[piece.index][1].append(piece.text)
            case Finished():
                finished = piece
    assert finished is not None, "an answer ends with Finished"
    tool_calls = tuple(ToolCall(begun.id, begun.name, "".join(parts)) for begun, parts in calls)
    message = Message("assistant", "".join(text), "".join(thought), tool_calls)
    return Answer(message, finished.reason, finished.usage, tuple(logprobs), finished.stopped_by)


async def _answer(model: Model, task: _Task) -> AsyncGenerator[Piece, None]:
    reader, parser = task.reader, task.reader.parser
    generated, began, last = 0, perf_counter(), Step()
    begun = Usage(len(task.tokens), 0, 0)
    async with aclosing(model.generate(task.tokens, task.sampling, max_tokens=task.max_tokens)) as steps:
        async for step in steps:
            if step.token is None:
                last = step
                break
            if not generated:
                began, begun = perf_counter(), step.usage or begun
            generated += 1
            for piece in reader.feed(step):
                yield piece
            if parser.done:
                break
    for piece in reader.close():
        yield piece
    reason: StopReason = "stop"
    if last.finish == "length" or parser.cut:
        reason = "length"
    elif parser.calls.begun:
        reason = "tool_calls"
    # Ended from here, the engine has not said what it took in the end.
    so_far = msgspec.structs.replace(begun, generated_tokens=generated, decode_s=perf_counter() - began)
    usage = last.usage or so_far
    yield Finished(reason, usage, parser.stopped_by if parser.stopped_by in task.stop else "")


async def _prompt(model: Model, request: ChatRequest, now: datetime | None) -> Prompt:
    # A template of 64 kB may take seconds to compile, and a hostile one to be stopped.
    now = now or datetime.now().astimezone()
    return await asyncio.to_thread(prompt_for, model.facts, model.vocabulary, request, now)


async def _tokenize(model: Model, text: str) -> list[TokenId]:
    """Tokens of a prompt, with one begin token where the model wants one: templates differ in whether they write it."""
    begin = text_of(model.vocabulary, model.vocabulary.bos)
    return await model.tokenize(text, special=True, bos=not (begin and text.startswith(begin)))


def _limit(model: Model, tokens: Sequence[TokenId], max_tokens: int | None, param: str) -> int:
    left = model.facts.context - len(tokens)
    if left < 1:
        raise ContextOverflow(len(tokens) + 1, model.facts.context, param=param)
    if max_tokens is not None and max_tokens < 1:
        raise BadRequest(f"An answer of {max_tokens} tokens is none.", param="max_tokens")
    return left if max_tokens is None else min(max_tokens, left)


async def _constrained(model: Model, sampling: Sampling, schema: dict[str, object] | None, trigger: str) -> Sampling:
    if schema is None:
        return sampling
    if sampling.grammar:
        raise BadRequest("A grammar and a schema cannot both be enforced.", param="grammar")
    grammar = await model.grammar_for(schema)
    if trigger:
        # The trigger is the first thing that such a grammar sees.
        grammar = re.sub(r"(?m)^root ::=", "answer ::=", grammar)
        grammar = f'root ::= {json.dumps(trigger)} "\\n"? "\\n"? answer\n{grammar}'
    return msgspec.structs.replace(sampling, grammar=grammar, grammar_trigger=trigger)


async def _completion_tokens(model: Model, request: CompletionRequest) -> list[TokenId]:
    vocabulary, prompt = model.vocabulary, request.prompt
    if request.suffix:
        return await _fill_in(model, prompt, request.suffix)
    tokens = await _tokenize(model, prompt) if isinstance(prompt, str) else list(prompt)
    if any(not 0 <= token < vocabulary.size for token in tokens):
        raise BadRequest(f"A token is not among the {vocabulary.size} of this model.", param="prompt")
    if not tokens and vocabulary.bos < 0:
        raise BadRequest("There is no prompt to go on with.", param="prompt")
    return tokens or [TokenId(vocabulary.bos)]


async def _fill_in(model: Model, prompt: str | Sequence[TokenId], suffix: str) -> list[TokenId]:
    tokens = _fill_in_tokens(model.vocabulary)
    if tokens is None:
        raise NotSupported("This model has not learned to fill in the middle of a text.", param="suffix")
    if not isinstance(prompt, str):
        raise NotSupported("A suffix needs a prompt of text, not of tokens.", param="prompt")
    before = await model.tokenize(prompt, special=False, bos=False)
    after = await model.tokenize(suffix, special=False, bos=False)
    begin = [TokenId(model.vocabulary.bos)] if model.vocabulary.add_bos and model.vocabulary.bos >= 0 else []
    return [*begin, tokens[0], *before, tokens[1], *after, tokens[2]]


def _fill_in_tokens(vocabulary: Vocabulary) -> tuple[TokenId, TokenId, TokenId] | None:
    for names in FILL_IN:
        before, after, middle = (token_of(vocabulary, name) for name in names)
        if before is not None and after is not None and middle is not None:
            return before, after, middle
    return None
