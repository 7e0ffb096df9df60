"""What the chat layer costs per token: a real vocabulary's tokens of a real text through `chat`, without computing.

    python bench/chat_overhead.py [--tokens 4000] [--streams 8] [--rounds 5]

Prints microseconds of one core per token, over a bare loop that only draws the same steps from the same generator, for
one stream, and for one token of each of several.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import cycle, islice
from pathlib import Path

import msgspec

from node import models
from pares.chat.completion import chat
from pares.chat.messages import ChatRequest, Message, Tool
from pares.inference.generation import ModelFacts, Sampling, Step, TokenId, Usage, Vocabulary
from pares.inference.llama import Weights

PROSE = Path(__file__).read_text() + "Grüße aus Köln: 你好，世界 🌍. " * 20
CALL = '<tool_call>\n{"name": "write", "arguments": {"text": "' + "All work and no play, \\n" * 4000
TOOL = Tool("write", "Write a file", {"type": "object", "properties": {"text": {"type": "string"}}})
TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{% if enable_thinking %}<think>{% endif %}"
)
ASKED = ChatRequest([Message("user", "Go.")])
CASES = {
    "text": (PROSE, ASKED),
    "text, four stop strings": (PROSE, msgspec.structs.replace(ASKED, stop=["\n" * 9, "<" * 9, "User" + ":", "." * 9])),
    "text, five log-probabilities": (PROSE, msgspec.structs.replace(ASKED, sampling=Sampling(logprobs=5))),
    "text, tools offered": (PROSE, msgspec.structs.replace(ASKED, tools=[TOOL])),
    "arguments of a call": (CALL, msgspec.structs.replace(ASKED, tools=[TOOL])),
    "reasoning": (PROSE, msgspec.structs.replace(ASKED, thinking=True)),
}


class Replay:
    """A model whose answer is known before it is asked."""

    def __init__(self, vocabulary: Vocabulary, tokens: Sequence[int], *, logprobs: int) -> None:
        self.vocabulary = vocabulary
        self.facts = ModelFacts("replay", "", 1 << 24, 0, 0, 0, 0, 0, {"default": TEMPLATE})
        top = tuple((TokenId(token), -1.0) for token in range(logprobs))
        self._steps = [Step(TokenId(token), -1.0 if top else None, top) for token in tokens]

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        return [TokenId(1)]

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        return ""

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        return []

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int
    ) -> AsyncGenerator[Step, None]:
        for step in self._steps:
            yield step
        yield Step(finish="end", usage=Usage(1, 0, len(self._steps)))


async def bare(model: Replay) -> None:
    async for step in model.generate([], Sampling(), max_tokens=0):
        assert step is not None


async def answered(model: Replay, request: ChatRequest) -> None:
    async with aclosing(chat(model, request)) as pieces:
        async for piece in pieces:
            assert piece is not None


async def timed(model: Replay, request: ChatRequest | None, streams: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(answered(model, request) if request else bare(model) for _ in range(streams)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    weights = Weights(models()["smollm2"], vocabulary_only=True)
    vocabulary = weights.vocabulary()
    print(f"{'microseconds per token':32}{'1 stream':>10}{f'{options.streams} streams':>12}")
    for name, (text, request) in CASES.items():
        tokens = islice(cycle(map(int, weights.tokenize(text.encode(), special=True, bos=False))), options.tokens)
        model = Replay(vocabulary, list(tokens), logprobs=max(request.sampling.logprobs, 0))
        row = []
        for streams in (1, options.streams):
            rounds = [
                asyncio.run(timed(model, request, streams)) - asyncio.run(timed(model, None, streams))
                for _ in range(options.rounds)
            ]
            row.append(1e6 * statistics.median(rounds) / options.tokens)
        print(f"{name:32}{row[0]:10.1f}{row[1]:12.1f}")
    weights.close()


if __name__ == "__main__":
    main()
