"""From Ollama's words for a question to ours."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from pares.api.calls import Call
from pares.api.failures import encode, unsupported
from pares.api.ollama.schemas import CalledTool, ChatBody, GenerateBody, Json, Named, OllamaMessage, ToolSpec
from pares.api.options import OLLAMA_DEFAULTS, Options, settle
from pares.api.services import InUse
from pares.chat.messages import Message, Role, Tool, ToolCall
from pares.errors import BadRequest
from pares.inference.generation import Sampling

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Held:
    """A model, held for one request, and the options that hold for it."""

    used: InUse
    options: Options
    warnings: tuple[str, ...]


def model_name(body: Named) -> str:
    """The model that a body names. Raises BadRequest."""
    name = body.model or body.name
    if not name:
        raise BadRequest("model is required.", param="model")
    return name


@asynccontextmanager
async def hold(call: Call[ChatBody | GenerateBody]) -> AsyncIterator[Held]:
    """Find and hold the model that a body names."""
    body = call.body
    given = body.options or {}
    asked = settle(given)  # refuses nonsense before a model is loaded for it
    keep = keep_alive_s(body.keep_alive)
    async with call.services.use(model_name(body), context=asked.context, keep_alive_s=keep) as used:
        sampling = Sampling(logprobs=(body.top_logprobs or 0) if body.logprobs else -1)
        options = settle(OLLAMA_DEFAULTS, used.defaults, given, sampling=sampling)
        ignored = tuple(f"{name!r} is not used here" for name in ("template", "context") if getattr(body, name, None))
        yield Held(used, options, call.warnings + options.warnings + ignored)


def keep_alive_s(given: float | str | None) -> float | None:
    """Ollama's keep_alive: seconds, or a Go duration such as `1h30m`; negative is for ever. Raises BadRequest."""
    if given is None or isinstance(given, int | float):
        return given
    text = given.strip()
    sign, text = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch(r"\d{1,12}(\.\d*)?", text):
        return sign * float(text)
    if not text or len(text) > 40 or _DURATION.sub("", text):
        raise BadRequest(f"{given[:40]!r} is no duration.", param="keep_alive", hint="Say 5m, 1h30m, 300 or -1.")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
    return sign * (seconds if math.isfinite(seconds) else 0.0)


def schema_of(given: str | Json | None) -> Json | None:
    """The schema an answer must have; `{}` is any JSON object. Raises BadRequest."""
    if given is None or given == "":
        return None
    if isinstance(given, str):
        if given != "json":
            raise BadRequest("format must be json or a JSON schema.", param="format")
        return {}
    return given


def thinking_of(think: bool | str | None) -> bool | None:
    """`think` may also be an effort: low, medium, high."""
    return think not in ("", "none", "false") if isinstance(think, str) else think


def messages_of(given: Sequence[OllamaMessage]) -> tuple[Message, ...]:
    """Raises BadRequest, NotSupported for pictures."""
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(given))


def _message(message: OllamaMessage, where: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise BadRequest(f"{message.role[:100]!r} is no role; there are {', '.join(_ROLES)}.", param=f"{where}.role")
    refuse_images(message.images, where)
    return Message(
        role,
        message.content or "",
        message.thinking or "",
        tuple(_call(call) for call in message.tool_calls or ()),
        message.tool_call_id or "",
        message.tool_name or "",
    )


def _call(call: CalledTool) -> ToolCall:
    given = call.function.arguments
    return ToolCall(call.id, call.function.name, given if isinstance(given, str) else encode(given).decode())


def refuse_images(images: Sequence[str] | None, where: str) -> None:
    if images:
        raise unsupported("A picture", where, "The models here read text only.")


def tools_of(given: Sequence[ToolSpec]) -> tuple[Tool, ...]:
    return tuple(
        Tool(tool.function.name, tool.function.description or "", tool.function.parameters or {}) for tool in given
    )


def arguments_of(call: ToolCall) -> object:
    """Ollama gives the arguments as an object; what is none stays as the text it is, under one key."""
    try:
        arguments: object = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return {"_text": call.arguments}
    return arguments if isinstance(arguments, dict) else {"_value": arguments}
