"""POST /api/chat and /api/generate"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.failures import OLLAMA, encode
from pares.api.ollama.inputs import (
    Held,
    arguments_of,
    hold,
    keep_alive_s,
    messages_of,
    model_name,
    refuse_images,
    schema_of,
    thinking_of,
    tools_of,
)
from pares.api.ollama.schemas import ChatBody, GenerateBody
from pares.api.openai.chat import SERVED_BY
from pares.api.openai.inputs import effort_of, with_system
from pares.api.streams import NDJSON, Stream
from pares.chat.completion import chat, complete
from pares.chat.messages import (
    CallArguments,
    CallBegun,
    ChatRequest,
    CompletionRequest,
    Finished,
    Message,
    Piece,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
)
from pares.errors import NotFound


async def chat_route(call: Call[ChatBody]) -> Response | Stream:
    """A conversation; without messages: load, or with keep_alive 0 unload."""
    body = call.body
    messages_of(body.messages or ())
    if not body.messages:
        return await _load_or_unload(call, {"message": {"role": "assistant", "content": ""}})
    return await _answer(call, Lines(time.perf_counter(), chat=True))


async def generate_route(call: Call[GenerateBody]) -> Response | Stream:
    """One prompt; an empty one: load, or with keep_alive 0 unload."""
    body = call.body
    refuse_images(body.images, "images")
    if not body.prompt and not body.suffix:
        return await _load_or_unload(call, {"response": ""})
    return await _answer(call, Lines(time.perf_counter(), chat=False))


async def _load_or_unload(call: Call[ChatBody | GenerateBody], empty: dict[str, object]) -> Response:
    name, keep = model_name(call.body), keep_alive_s(call.body.keep_alive)
    reason = "load"
    if keep == 0:
        reason = "unload"
        try:
            await call.services.unload(name)
        except NotFound:
            await call.services.library.resolve(name)  # unloaded already, or unknown
    else:
        async with call.services.use(name, keep_alive_s=keep):
            pass
    return reply({"model": name, "created_at": _now(), **empty, "done": True, "done_reason": reason})


async def _answer(call: Call[ChatBody | GenerateBody], lines: Lines) -> Response | Stream:
    schema_of(call.body.format)  # refuses nonsense before a model is loaded for it
    events = _lines(call, lines)
    if call.body.stream is not False:
        return Stream(events, NDJSON, OLLAMA, SERVED_BY)
    async with aclosing(events):
        async for _ in events:
            pass
    return reply(lines.whole, headers=SERVED_BY)


async def _lines(call: Call[ChatBody | GenerateBody], lines: Lines) -> AsyncGenerator[bytes, None]:
    async with hold(call) as held:
        lines.begin(held)
        pieces = call.metrics.watch(held.used.name, _pieces(call.body, held))
        async with aclosing(pieces):
            async for piece in pieces:
                if line := lines.take(piece):
                    yield line


def _pieces(body: ChatBody | GenerateBody, held: Held) -> AsyncGenerator[Piece, None]:
    options, model, system = held.options, held.used.model, held.used.system
    if isinstance(body, ChatBody):
        messages = messages_of(body.messages or ())
        tools = tools_of(body.tools or ())
        prefilled = messages[-1].role == "assistant" and not messages[-1].tool_calls
    elif body.raw or body.suffix or not model.facts.templates:
        system = body.system or system
        prompt = body.prompt or ""
        request = CompletionRequest(
            prompt=prompt if body.raw or not system else f"{system}\n\n{prompt}",
            suffix=body.suffix or "",
            sampling=options.sampling,
            max_tokens=options.max_tokens,
            stop=options.stop,
            schema=schema_of(body.format),
        )
        return complete(model, request)
    else:
        messages = (Message("user", body.prompt or ""),)
        system = body.system or system
        tools, prefilled = (), False
    return chat(
        model,
        ChatRequest(
            messages=with_system(messages, system),
            sampling=options.sampling,
            max_tokens=options.max_tokens,
            stop=options.stop,
            tools=tools,
            schema=schema_of(body.format),
            thinking=thinking_of(body.think),
            reasoning_effort=effort_of(body.think if isinstance(body.think, str) else None),
            continue_last=prefilled,
        ),
    )


class Lines:
    """The lines of one answer, and the whole of them as one. Of a line of text only the text is encoded."""

    def __init__(self, begun: float, *, chat: bool) -> None:
        self.whole: dict[str, object] = {}
        self._begun = begun
        self._chat = chat
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._logprobs: list[dict[str, object]] = []
        self._calls: list[dict[str, object]] = []
        self._call: ToolCall | None = None
        self._arguments: list[str] = []

    def begin(self, held: Held) -> None:
        """Once the model is there."""
        self._held = held
        self._head = {"model": held.used.name, "created_at": _now()}
        start = encode(self._head)[:-1]
        if self._chat:
            self._start = start + b',"message":{"role":"assistant","content":'
            self._end = b'},"done":false}\n'
        else:
            self._start = start + b',"response":'
            self._end = b',"done":false}\n'

    def take(self, piece: Piece) -> bytes:
        """The line of one more piece; empty if it needs none of its own."""
        match piece:
            case Text(text, logprobs):
                self._text.append(text)
                if not logprobs:
                    return self._start + encode(text) + self._end
                told = [_logprob(item) for item in logprobs]
                self._logprobs += told
                return self._line(text, logprobs=told)
            case Reasoning(text):
                self._thinking.append(text)
                return self._line("", thinking=text)
            case CallBegun(_, id_, name):
                line = self._end_call()
                self._call, self._arguments = ToolCall(id_, name, ""), []
                return line
            case CallArguments(_, text):
                self._arguments.append(text)
                return b""
            case Finished():
                return self._end_call() + self._finish(piece)

    def _line(self, text: str, *, thinking: str = "", calls: object = None, logprobs: object = None) -> bytes:
        return encode({**self._head, **self._part(text, thinking, calls, logprobs), "done": False}) + b"\n"

    def _part(self, text: str, thinking: str, calls: object, logprobs: object) -> dict[str, object]:
        extra = {"logprobs": logprobs} if logprobs else {}
        if not self._chat:
            return {"response": text, **({"thinking": thinking} if thinking else {}), **extra}
        message: dict[str, object] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message, **extra}

    def _end_call(self) -> bytes:
        """A call is told when it is complete: its arguments are an object here."""
        if self._call is None:
            return b""
        call = ToolCall(self._call.id, self._call.name, "".join(self._arguments))
        function = {"index": len(self._calls), "name": call.name, "arguments": arguments_of(call)}
        told: dict[str, object] = {"id": call.id, "function": function}
        self._calls.append(told)
        self._call = None
        return self._line("", calls=[told])

    def _finish(self, finished: Finished) -> bytes:
        usage, held = finished.usage, self._held
        end: dict[str, object] = {
            "done": True,
            "done_reason": "length" if finished.reason == "length" else "stop",
            "total_duration": _ns(time.perf_counter() - self._begun),
            "load_duration": _ns(held.used.load_s),
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": _ns(usage.prefill_s),
            "eval_count": usage.generated_tokens,
            "eval_duration": _ns(usage.decode_s),
        }
        if held.warnings:
            end["warnings"] = held.warnings
        part = self._part("".join(self._text), "".join(self._thinking), self._calls, self._logprobs)
        self.whole = {**self._head, **part, **end}
        return encode({**self._head, **self._part("", "", None, None), **end}) + b"\n"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _logprob(item: TokenLogprob) -> dict[str, object]:
    def told(piece: bytes, logprob: float) -> dict[str, object]:
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}

    return {
        **told(item.piece, item.logprob),
        "top_logprobs": [told(piece, logprob) for _, piece, logprob in item.top],
    }
