"""A model that says what a test tells it to: `Model` without a computation behind it.

One token per byte, so that characters of several bytes arrive in pieces, and ChatML's control tokens.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from pares.errors import ContextOverflow, ParesError
from pares.inference.generation import ModelFacts, Sampling, Step, TokenId, Usage, Vocabulary

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}<tools>{{ tools }}</tools><tool_call>{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROLS = (b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>", b"<|fim_prefix|>", b"<|fim_suffix|>", b"<|fim_middle|>")
_CONTROL = re.compile(b"(" + b"|".join(map(re.escape, CONTROLS)) + b")")
END = TokenId(258)
DIMENSIONS = 8


class Asked(NamedTuple):
    """One call of `generate`."""

    prompt: str
    sampling: Sampling
    max_tokens: int


def vocabulary() -> Vocabulary:
    """256 bytes, then the control tokens."""
    attributes = bytes(256) + bytes([Vocabulary.CONTROL | Vocabulary.END, Vocabulary.CONTROL])
    attributes += bytes([Vocabulary.CONTROL | Vocabulary.END]) + bytes([Vocabulary.CONTROL] * 3)
    return Vocabulary.of([bytes([byte]) for byte in range(256)] + list(CONTROLS), attributes, eos=END)


def say(text: str) -> Callable[[Asked], str]:
    """Always the same."""
    return lambda asked: text


@dataclass
class ScriptedModel:
    """`answer` makes the text; `hold_after` tokens it waits for `go`; `fail_after` tokens it raises `failure`."""

    answer: Callable[[Asked], str] = field(default_factory=lambda: say("Hello, dear wörld! 🌍"))
    name: str = "scripted"
    template: str = CHATML
    context: int = 4096
    hold_after: int | None = None
    fail_after: int | None = None
    failure: ParesError | None = None
    asked: list[Asked] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a generation has come to where it waits."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a generation was left before its end."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing is being generated."""
    active: int = 0
    schemas: list[Mapping[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._vocabulary = vocabulary()

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            name=self.name,
            architecture="scripted",
            context=self.context,
            context_trained=self.context,
            layers=1,
            embedding_length=DIMENSIONS,
            parameters=1000,
            file_bytes=1000,
            templates={"default": self.template} if self.template else {},
            fingerprint="f1" * 32,
        )

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        if len(text) > 64 * self.context:
            raise ContextOverflow(len(text) // 4, self.context)
        parts = _CONTROL.split(text.encode()) if special else [text.encode()]
        tokens: list[TokenId] = []
        for part in parts:
            tokens += [TokenId(256 + CONTROLS.index(part))] if special and part in CONTROLS else map(TokenId, part)
        return tokens

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        self.schemas.append(schema)
        return 'root ::= "{}"'

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        vectors = []
        for tokens in inputs:
            raw = [1.0 + sum(tokens) % (7 + i) for i in range(DIMENSIONS)]
            length = math.hypot(*raw)
            vectors.append([value / length for value in raw])
        return vectors

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int
    ) -> AsyncGenerator[Step, None]:
        if len(prompt) + 1 > self.context:
            raise ContextOverflow(len(prompt) + 1, self.context)
        if self.fail_after == 0 and self.failure:
            raise self.failure
        text = b"".join(map(self._vocabulary.piece, prompt)).decode(errors="replace")
        asked = Asked(text, sampling, max_tokens)
        self.asked.append(asked)
        self.active += 1
        self.idle.clear()
        try:
            tokens = (await self.tokenize(self.answer(asked), special=True, bos=False))[:max_tokens]
            for number, token in enumerate(tokens):
                if number == self.hold_after:
                    self.held.set()
                    await self.go.wait()
                if number == self.fail_after and self.failure:
                    raise self.failure
                yield self._step(token, sampling)
            finish = "length" if len(tokens) == max_tokens else "end"
            usage = Usage(len(prompt), min(4, len(prompt)), len(tokens), prefill_s=0.01, decode_s=0.02)
            yield Step(finish="length" if finish == "length" else "end", usage=usage)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed.set()
            raise
        finally:
            self.active -= 1
            if not self.active:
                self.idle.set()

    def _step(self, token: TokenId, sampling: Sampling) -> Step:
        if sampling.logprobs < 0:
            return Step(token)
        top = tuple((TokenId(token ^ n), -0.5 - n) for n in range(sampling.logprobs))
        return msgspec.structs.replace(Step(token), logprob=-0.5, top=top)
