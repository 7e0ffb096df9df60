"""A conversation that only this command knows: `pares run` and its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from pares.cli.answer import Answer
from pares.cli.client import ChatChunk, ChatMessage, Client, error_of
from pares.cli.figures import duration, facts
from pares.cli.terminal import Terminal


@dataclass
class Dialogue:
    """What was said so far, and how to go on. `options` are in Ollama's words: temperature, num_ctx, seed, …"""

    model: str
    system: str = ""
    options: dict[str, object | None] = field(default_factory=dict)
    json_only: bool = False
    think: bool | None = None
    show_reasoning: bool = True
    wrap: bool = True
    verbose: bool = False
    keep_alive_s: float | None = None
    messages: list[ChatMessage] = field(default_factory=list)

    def request(self) -> Mapping[str, object]:
        """The body for `/api/chat`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        wishes = {"format": "json" if self.json_only else None, "think": self.think, "keep_alive": self.keep_alive_s}
        return {
            "model": self.model,
            "messages": [*system, *self.messages],
            "options": {name: value for name, value in self.options.items() if value is not None},
            **{name: value for name, value in wishes.items() if value is not None},
        }


@dataclass(frozen=True)
class Reply:
    """An answer with what it took."""

    model: str
    text: str
    reasoning: str
    finish: str
    prompt_tokens: int
    generated_tokens: int
    total_s: float
    load_s: float
    prefill_s: float
    decode_s: float

    def timings(self) -> str:
        """For people."""
        return facts(
            [
                ("total", duration(self.total_s)),
                ("loading", duration(self.load_s)),
                ("prompt", _rate(self.prompt_tokens, self.prefill_s)),
                ("answer", _rate(self.generated_tokens, self.decode_s)),
            ]
        )


def _rate(tokens: int, seconds: float) -> str:
    pace = f", {tokens / seconds:.1f} tokens/s" if seconds > 0 else ""
    return f"{tokens} tokens in {duration(seconds)}{pace}"


async def speak(node: Client, out: Terminal, dialogue: Dialogue, text: str) -> Reply:
    """Say `text`, show the answer as it comes, and remember both. Cancelled: what was answered so far is remembered."""
    answer = Answer(out, wrap=dialogue.wrap, show_reasoning=dialogue.show_reasoning)
    dialogue.messages.append(ChatMessage("user", text))
    last = ChatChunk()
    try:
        async with aclosing(node.lines(f"{node.url}/api/chat", dialogue.request())) as lines:
            async for line in lines:
                last = msgspec.json.decode(line, type=ChatChunk)
                if last.error:
                    raise error_of("", last.error)
                if last.message is not None:
                    answer.think(last.message.thinking)
                    answer.say(last.message.content)
    finally:
        answer.end()
        if answer.text:
            dialogue.messages.append(ChatMessage("assistant", answer.text))
        else:
            dialogue.messages.pop()
    return _reply(dialogue.model, answer, last)


def _reply(model: str, answer: Answer, last: ChatChunk) -> Reply:
    return Reply(
        model,
        answer.text,
        answer.reasoning,
        last.done_reason,
        last.prompt_eval_count,
        last.eval_count,
        last.total_duration / 1e9,
        last.load_duration / 1e9,
        last.prompt_eval_duration / 1e9,
        last.eval_duration / 1e9,
    )
