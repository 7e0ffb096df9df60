"""POST /v1/completions: text goes on, without a template."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import cast

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.embedding import check_tokens
from pares.api.failures import OPENAI, unsupported
from pares.api.openai.chat import SERVED_BY
from pares.api.openai.chunks import DONE, CompletionChunks, usage_chunk, usage_of
from pares.api.openai.embeddings import texts_or_tokens
from pares.api.openai.inputs import Held, hold, schema_of
from pares.api.openai.schemas import CompletionBody
from pares.api.options import with_seed_of
from pares.api.streams import SSE, Stream, interleave
from pares.chat.completion import complete
from pares.chat.messages import CompletionRequest, Finished, Piece, Text, TokenLogprob
from pares.errors import BadRequest
from pares.inference.generation import TokenId, Usage

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_ANSWERS = 128

Prompt = str | Sequence[TokenId]


async def create(call: Call[CompletionBody]) -> Response | Stream:
    """Go on with one prompt or several."""
    body = call.body
    if body.best_of not in (None, body.n or 1):
        raise unsupported("best_of other than n", "best_of", "Ask for n answers and choose one.")
    if body.echo and body.logprobs is not None:
        raise unsupported("echo together with logprobs", "echo", "Probabilities of the prompt are not computed.")
    prompts = texts_or_tokens(() if body.prompt is None else body.prompt, "prompt")
    if len(prompts) * (body.n or 1) > MAX_ANSWERS:
        raise BadRequest(f"One request can ask for {MAX_ANSWERS} answers.", param="prompt")
    if body.stream:
        return Stream(_events(call, prompts), SSE, OPENAI, SERVED_BY)
    return reply(await _whole(call, prompts), headers=SERVED_BY)


def _answers(call: Call[CompletionBody], held: Held, prompts: Sequence[Prompt]) -> list[AsyncGenerator[Piece, None]]:
    """n streams of pieces for the first prompt, then n for the second, ...; none if no tokens are wanted."""
    body, model = call.body, held.used.model
    answers = []
    for prompt in prompts if body.max_tokens != 0 else ():
        if not isinstance(prompt, str):
            check_tokens(prompt, model, "prompt")
        request = CompletionRequest(
            prompt=prompt,
            suffix=body.suffix or "",
            max_tokens=body.max_tokens or DEFAULT_MAX_TOKENS,
            stop=held.options.stop,
            schema=schema_of(body.response_format),
        )
        for index in range(body.n or 1):
            each = msgspec.structs.replace(request, sampling=with_seed_of(held.options.sampling, index))
            answers.append(call.metrics.watch(held.used.name, complete(model, each)))
    return answers


def _echoes(body: CompletionBody, prompts: Sequence[Prompt], held: Held) -> Iterator[tuple[int, str]]:
    """What each answer begins with, if the prompts are to be echoed."""
    vocabulary, choices = held.used.model.vocabulary, body.n or 1
    for index in range(len(prompts) * choices if body.echo else 0):
        prompt = prompts[index // choices]
        if not isinstance(prompt, str):
            prompt = b"".join(map(vocabulary.piece, prompt)).decode("utf-8", "replace")
        yield index, prompt


async def _whole(call: Call[CompletionBody], prompts: Sequence[Prompt]) -> dict[str, object]:
    body = call.body
    async with hold(call, logprobs=-1 if body.logprobs is None else body.logprobs) as held:
        choices = [_Choice(index, body) for index in range(len(prompts) * (body.n or 1))]
        for index, text in _echoes(body, prompts, held):
            choices[index].text.append(text)
        async for index, piece in interleave(_answers(call, held, prompts)):
            choices[index].take(piece)
        return {
            **held.head("cmpl", "text_completion"),
            "choices": [choice.told() for choice in choices],
            "usage": _usage([choice.usage for choice in choices if choice.usage], body.n or 1),
            **held.note,
        }


def _usage(usages: Sequence[Usage], choices: int) -> dict[str, object]:
    """Every prompt counts once, however many answers it got."""
    prompts = [usage_of(usages[start : start + choices]) for start in range(0, len(usages), choices)]
    total = {
        name: sum(cast("int", usage[name]) for usage in prompts) for name in ("prompt_tokens", "completion_tokens")
    }
    return {**total, "total_tokens": sum(total.values())}


class _Choice:
    """One answer while it is put together."""

    def __init__(self, index: int, body: CompletionBody) -> None:
        self.index = index
        self.text: list[str] = []
        self.usage: Usage | None = None
        self._reason = "length"
        self._logprobs = Logprobs() if body.logprobs is not None else None

    def take(self, piece: Piece) -> None:
        if isinstance(piece, Text):
            self.text.append(piece.text)
            if self._logprobs:
                self._logprobs.add(piece.logprobs)
        elif isinstance(piece, Finished):
            self.usage, self._reason = piece.usage, piece.reason

    def told(self) -> dict[str, object]:
        logprobs = self._logprobs.told() if self._logprobs else None
        return {"text": "".join(self.text), "index": self.index, "logprobs": logprobs, "finish_reason": self._reason}


class Logprobs:
    """The legacy shape: parallel lists. `text_offset` goes on from one chunk to the next."""

    def __init__(self) -> None:
        self._items: list[TokenLogprob] = []
        self._told = 0
        self._offset = 0

    def add(self, items: Sequence[TokenLogprob]) -> None:
        self._items += items

    def told(self) -> dict[str, object]:
        """What was not told yet."""
        new = self._items[self._told :]
        self._told = len(self._items)
        tokens = [item.piece.decode("utf-8", "replace") for item in new]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [item.logprob for item in new],
            "top_logprobs": [{piece.decode("utf-8", "replace"): lp for _, piece, lp in item.top} for item in new],
            "text_offset": offsets,
        }


async def _events(call: Call[CompletionBody], prompts: Sequence[Prompt]) -> AsyncGenerator[bytes, None]:
    body = call.body
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    async with hold(call, logprobs=-1 if body.logprobs is None else body.logprobs) as held:
        head = held.head("cmpl", "text_completion")
        chunks = CompletionChunks(head, held.note, usage=with_usage)
        told = [Logprobs() for _ in range(len(prompts) * (body.n or 1))]
        usages: dict[int, Usage] = {}
        for index, text in _echoes(body, prompts, held):
            yield chunks.chunk(index, text)
        async for index, piece in interleave(_answers(call, held, prompts)):
            if isinstance(piece, Text):
                told[index].add(piece.logprobs)
                logprobs = told[index].told() if body.logprobs is not None else None
                yield chunks.chunk(index, piece.text, logprobs=logprobs)
            elif isinstance(piece, Finished):
                usages[index] = piece.usage
                yield chunks.chunk(index, "", reason=piece.reason)
        if with_usage:
            in_order = [usages[index] for index in sorted(usages)]
            yield usage_chunk(head, _usage(in_order, body.n or 1))
    yield DONE
