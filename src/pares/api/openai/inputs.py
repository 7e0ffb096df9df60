"""From OpenAI's words for a question to ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from pares.api.calls import Call
from pares.api.failures import unsupported
from pares.api.openai.schemas import (
    KNOBS,
    ChatBody,
    ChatMessage,
    CompletionBody,
    Json,
    Part,
    ResponseBody,
    ResponseFormat,
    ToolChoice,
    ToolSpec,
)
from pares.api.options import OPENAI_DEFAULTS, Options, biases, settle
from pares.api.services import InUse
from pares.chat.messages import ChatRequest, Message, Role, Tool, ToolCall
from pares.errors import BadRequest
from pares.inference.generation import Sampling
from pares.store.database import new_id

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Held:
    """A model, held for one request, and the options that hold for it."""

    used: InUse
    options: Options
    warnings: tuple[str, ...]

    def head(self, prefix: str, kind: str) -> dict[str, object]:
        """The fields that an answer and each chunk of it begin with."""
        facts = self.used.model.facts
        return {
            "id": f"{prefix}-{new_id()}",
            "object": kind,
            "created": now_s(),
            "model": self.used.name,
            "system_fingerprint": f"fp_{facts.fingerprint[:12] or facts.profile}",
        }

    @property
    def note(self) -> dict[str, object]:
        """Our own fields, which clients may pass over: how the answer was made, enough to make it again; warnings."""
        facts = self.used.model.facts
        served = {
            "where": "local",
            "model": self.used.name,
            "profile": facts.profile,
            "fingerprint": facts.fingerprint,
            "seed": self.options.sampling.seed,
        }
        return {"x_served": served} | ({"warnings": self.warnings} if self.warnings else {})

    def ask(self, question: ChatRequest) -> ChatRequest:
        """A question of this model: with its system prompt, and with the options."""
        return msgspec.structs.replace(
            question,
            messages=with_system(question.messages, self.used.system),
            sampling=self.options.sampling,
            max_tokens=question.max_tokens or self.options.max_tokens,
            stop=self.options.stop,
        )


@asynccontextmanager
async def hold(call: Call[ChatBody | CompletionBody | ResponseBody], *, logprobs: int) -> AsyncIterator[Held]:
    """Find and hold the model that a body names. `logprobs` as in `Sampling`."""
    body = call.body
    own = {name: getattr(body, name) for name in KNOBS}
    given = {**(body.options or {}), **{name: value for name, value in own.items() if value is not None}}
    asked = settle(given)  # refuses nonsense before a model is loaded for it
    async with call.services.use(body.model, context=asked.context) as used:
        sampling = Sampling(logprobs=logprobs, logit_bias=biases(body.logit_bias, used.model.vocabulary.size))
        options = settle(OPENAI_DEFAULTS, used.defaults, given, sampling=sampling)
        yield Held(used, options, call.warnings + options.warnings)


def question_of(body: ChatBody) -> ChatRequest:
    """All of a question that does not depend on the model. Raises BadRequest, NotSupported."""
    messages = messages_of(body.messages)
    if body.continue_final_message and messages[-1].role != "assistant":
        raise BadRequest("Only an assistant's message can be continued.", param="messages")
    tools = tools_of(body.tools or ())
    return ChatRequest(
        messages=messages,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        tools=tools,
        tool_choice=tool_choice_of(body.tool_choice, tools),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        schema=schema_of(body.response_format),
        thinking=_thinking(body),
        reasoning_effort=effort_of(body.reasoning_effort),
        continue_last=bool(body.continue_final_message),
    )


def messages_of(given: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Raises BadRequest without messages, NotSupported for pictures."""
    if not given:
        raise BadRequest("messages must have at least one message.", param="messages")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(given))


def with_system(messages: Sequence[Message], system: str) -> Sequence[Message]:
    """The system prompt of a `create`d model holds where the request has none of its own."""
    if not system or any(message.role == "system" for message in messages):
        return messages
    return (Message("system", system), *messages)


def _message(message: ChatMessage, where: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise BadRequest(f"{message.role[:100]!r} is no role; there are {', '.join(_ROLES)}.", param=f"{where}.role")
    return Message(
        role,
        text_of(message.content, f"{where}.content"),
        message.reasoning_content or "",
        tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ()),
        message.tool_call_id or "",
        message.name or "",
    )


def text_of(content: str | Iterable[Part] | None, where: str) -> str:
    """The text of a message's content. Raises NotSupported for what is no text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        text = part.text if part.text is not None else part.refusal
        if text is None:
            raise unsupported(f"Content of the type {part.type[:100]!r}", where, "The models here read text only.")
        texts.append(text)
    return "".join(texts)


def tools_of(given: Sequence[ToolSpec]) -> tuple[Tool, ...]:
    tools = []
    for tool in given:
        if tool.type != "function" or tool.function is None:
            raise unsupported(f"A tool of the type {tool.type[:100]!r}", "tools", "Describe it as a function.")
        function = tool.function
        tools.append(Tool(function.name, function.description or "", function.parameters or {}))
    return tuple(tools)


def tool_choice_of(choice: str | ToolChoice | None, tools: Sequence[Tool]) -> str:
    """Raises BadRequest for a tool that is not there, and for a demand without tools."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise BadRequest(f"tool_choice must be one of {', '.join(_CHOICES)}, or a function.", param="tool_choice")
        if choice == "required" and not tools:
            raise BadRequest("tool_choice is required, but there are no tools.", param="tool_choice")
        return choice
    name = choice.function.name if choice.function else choice.name
    if choice.type != "function" or name is None:
        raise unsupported(f"A tool_choice of the type {choice.type[:100]!r}", "tool_choice")
    if all(tool.name != name for tool in tools):
        raise BadRequest(f"tool_choice names {name[:100]!r}, which is not among the tools.", param="tool_choice")
    return f"tool:{name}"


def schema_of(wanted: ResponseFormat | None) -> Json | None:
    """The schema an answer must have; `{}` is any JSON object. Raises BadRequest."""
    match wanted:
        case None | ResponseFormat(type="text"):
            return None
        case ResponseFormat(type="json_object"):
            return wanted.schema or {}
        case ResponseFormat(type="json_schema", json_schema=None):
            raise BadRequest("response_format needs a json_schema.", param="response_format")
        case ResponseFormat(type="json_schema", json_schema=named):
            return named.schema or {} if named else {}
    raise BadRequest("response_format must be text, json_object or json_schema.", param="response_format.type")


def thinking_of(effort: str | None) -> bool | None:
    """OpenAI's reasoning effort as on, off, or the model's own choice."""
    return None if effort is None else effort != "none"


def now_s() -> int:
    """Unix time, whole seconds."""
    return int(time.time())


def effort_of(effort: str | None) -> str:
    """For the templates that know degrees of it."""
    return effort if effort in ("low", "medium", "high") else ""


def _thinking(body: ChatBody) -> bool | None:
    if body.thinking is not None:
        return body.thinking
    asked = (body.chat_template_kwargs or {}).get("enable_thinking")
    return asked if isinstance(asked, bool) else thinking_of(body.reasoning_effort)
