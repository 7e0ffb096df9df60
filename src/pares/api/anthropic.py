"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API, for the tools that speak only it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.failures import ANTHROPIC, encode, unsupported
from pares.api.openai.chat import SERVED_BY
from pares.api.openai.inputs import with_system
from pares.api.openai.schemas import Count, Json, Name
from pares.api.options import OPENAI_DEFAULTS, Options, settle
from pares.api.services import InUse
from pares.api.streams import SSE, Stream
from pares.chat.completion import chat, prompt_of
from pares.chat.messages import (
    CallArguments,
    CallBegun,
    ChatRequest,
    Finished,
    Message,
    Piece,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolCall,
)
from pares.errors import BadRequest
from pares.store.database import new_id

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Block(msgspec.Struct, frozen=True):
    """Part of a message: text, thinking, a call, or the result of one."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Json | None = None
    tool_use_id: str | None = None
    content: str | tuple[Json, ...] | None = None


class Turn(msgspec.Struct, frozen=True):
    role: str
    content: str | tuple[Block, ...]


class ToolSpec(msgspec.Struct, frozen=True):
    name: Name
    description: str | None = None
    input_schema: Json | None = None
    type: str | None = None


class Choice(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, frozen=True):
    type: str
    budget_tokens: int | None = None


class MessagesBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/messages"""

    model: Name
    messages: Annotated[tuple[Turn, ...], msgspec.Meta(min_length=1)]
    max_tokens: Count | None = None
    system: str | tuple[Block, ...] | None = None
    tools: tuple[ToolSpec, ...] | None = None
    tool_choice: Choice | None = None
    stop_sequences: tuple[str, ...] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    thinking: Thinking | None = None
    stream: bool | None = None
    metadata: Json | None = None
    service_tier: str | None = None


async def create(call: Call[MessagesBody]) -> Response | Stream:
    """Answer, at once or as events."""
    events = MessageEvents()
    running = _events(call, question_of(call.body), events)
    if call.body.stream:
        return Stream(running, SSE, ANTHROPIC, SERVED_BY)
    async with aclosing(running):
        async for _ in running:
            pass
    return reply(events.message, headers=SERVED_BY)


async def count(call: Call[MessagesBody]) -> Response:
    """How many tokens the conversation has, template and tools included."""
    question = question_of(call.body)
    async with call.services.use(call.body.model) as used:
        tokens, _ = await prompt_of(used.model, _asked_of(used, call.body, question))
        return reply({"input_tokens": len(tokens)})


async def _events(
    call: Call[MessagesBody], question: ChatRequest, events: MessageEvents
) -> AsyncGenerator[bytes, None]:
    async with call.services.use(call.body.model) as used:
        request = _asked_of(used, call.body, question)
        begun = False
        async with aclosing(call.metrics.watch(used.name, chat(used.model, request))) as pieces:
            async for piece in pieces:
                begin = () if begun else (events.begin(used.name),)
                begun = True
                yield b"".join((*begin, *events.take(piece)))


def _options(body: MessagesBody, defaults: Mapping[str, object]) -> Options:
    given = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k, "stop": body.stop_sequences}
    return settle(OPENAI_DEFAULTS, defaults, given)


def _asked_of(used: InUse, body: MessagesBody, question: ChatRequest) -> ChatRequest:
    """The question, with what the model's entry in the library adds."""
    options = _options(body, used.defaults)
    return msgspec.structs.replace(
        question,
        messages=with_system(question.messages, used.system),
        sampling=options.sampling,
        max_tokens=body.max_tokens or options.max_tokens,
        stop=options.stop,
    )


def question_of(body: MessagesBody) -> ChatRequest:
    """All of a question that does not depend on the model. Raises BadRequest, NotSupported."""
    _options(body, {})
    for tool in body.tools or ():
        if tool.type not in (None, "custom"):
            raise unsupported(f"A tool of the type {tool.type!r:.100}", "tools", "Describe it by an input_schema.")
    choice = body.tool_choice
    return ChatRequest(
        messages=messages_of(body),
        tools=[Tool(tool.name, tool.description or "", tool.input_schema or {}) for tool in body.tools or ()],
        tool_choice=_choice(choice),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        thinking=None if body.thinking is None else body.thinking.type != "disabled",
    )


def _choice(choice: Choice | None) -> str:
    if choice is None:
        return "auto"
    if choice.type == "tool" and choice.name:
        return f"tool:{choice.name}"
    if choice.type not in _CHOICES:
        raise BadRequest("tool_choice must be auto, any, none or a tool.", param="tool_choice")
    return _CHOICES[choice.type]


def messages_of(body: MessagesBody) -> list[Message]:
    """Blocks as messages: results of calls become messages of their own. Raises BadRequest, NotSupported."""
    system = body.system if isinstance(body.system, str) else "".join(b.text or "" for b in body.system or ())
    messages = [Message("system", system)] if system else []
    for index, turn in enumerate(body.messages):
        if turn.role not in ("user", "assistant"):
            raise BadRequest("A role is user or assistant.", param=f"messages[{index}].role")
        messages += _turn(turn, f"messages[{index}]")
    return messages


def _turn(turn: Turn, where: str) -> Iterator[Message]:
    role: Role = "assistant" if turn.role == "assistant" else "user"
    if isinstance(turn.content, str):
        yield Message(role, turn.content)
        return
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in turn.content:
        match block.type:
            case "text":
                texts.append(block.text or "")
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                pass
            case "tool_use":
                calls.append(ToolCall(block.id or "", block.name or "", encode(block.input or {}).decode()))
            case "tool_result":
                yield Message("tool", _result(block.content, where), tool_call_id=block.tool_use_id or "")
            case other:
                raise unsupported(f"Content of the type {other[:100]!r}", where, "The models here read text only.")
    if texts or thoughts or calls:
        yield Message(role, "".join(texts), "".join(thoughts), tuple(calls))


def _result(content: str | Sequence[Json] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if any(block.get("type") != "text" for block in content):
        raise unsupported("A result that is no text", where, "The models here read text only.")
    return "".join(str(block.get("text", "")) for block in content)


class MessageEvents:
    """Grows a message block by block; what every step means to a streaming client comes back as events."""

    def __init__(self) -> None:
        self.message: dict[str, object] = {}
        self._content: list[dict[str, object]] = []
        self._written: list[str] = []

    def begin(self, model: str) -> bytes:
        """Before the first piece."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        self.message = {
            "id": f"msg_{new_id()}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", message=self.message)

    def take(self, piece: Piece) -> Iterator[bytes]:
        """The events of one more piece."""
        match piece:
            case Text(text):
                yield from self._block("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": text}, text)
            case Reasoning(text):
                yield from self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                yield self._delta({"type": "thinking_delta", "thinking": text}, text)
            case CallBegun(_, id_, name):
                yield from self._end_block()
                yield from self._block("tool_use", {"type": "tool_use", "id": id_, "name": name, "input": {}})
            case CallArguments(_, text):
                yield self._delta({"type": "input_json_delta", "partial_json": text}, text)
            case Finished():
                yield from self._end_block()
                yield from self._end(piece)

    def _block(self, kind: str, block: dict[str, object]) -> Iterator[bytes]:
        """Begin a block, unless one of its kind is being written."""
        if self._written and self._content[-1]["type"] == kind:
            return
        yield from self._end_block()
        self._content.append(block)
        self._written = [""]
        yield _event("content_block_start", index=len(self._content) - 1, content_block=block)

    def _delta(self, delta: dict[str, object], text: str) -> bytes:
        self._written.append(text)
        return _event("content_block_delta", index=len(self._content) - 1, delta=delta)

    def _end_block(self) -> Iterator[bytes]:
        if not self._written:
            return
        block, text = self._content[-1], "".join(self._written)
        self._written = []
        if block["type"] == "tool_use":
            try:
                block["input"] = msgspec.json.decode(text or "{}")
            except (msgspec.DecodeError, RecursionError):
                block["input"] = {"_text": text}  # cut off in the middle
        else:
            block[str(block["type"])] = text
        yield _event("content_block_stop", index=len(self._content) - 1)

    def _end(self, finished: Finished) -> Iterator[bytes]:
        usage = finished.usage
        reason = "stop_sequence" if finished.stopped_by else _REASONS[finished.reason]
        stop = {"stop_reason": reason, "stop_sequence": finished.stopped_by or None}
        told = {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": usage.generated_tokens,
        }
        self.message |= {"content": self._content, "usage": told, **stop}
        yield _event("message_delta", delta=stop, usage=told)
        yield _event("message_stop")


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))
