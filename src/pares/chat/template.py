"""Chat templates: the little programs in a model's file that write a conversation the way the model learned it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec
from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError

from pares.chat.messages import Message, Tool, ToolCall
from pares.chat.metering import TooCostly
from pares.chat.sandbox import Sandbox
from pares.chat.tools import MISTRAL, described, family_of
from pares.errors import BadRequest, BrokenModelFile

PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models that bring no template: `User: ...`, `Assistant: ...`, each followed by an empty line."""
PLAIN_STOP = ("\n\nUser:", "\nUser:", "\n\nSystem:", "\nSystem:")
"""Where an answer after `PLAIN` ends: a model without a template does not know when its turn is over."""

MAX_SOURCE = 65_536
"""Characters of a template; the longest in use have about 20,000."""
BASE_BUDGET = 200_000
"""Units of work for any conversation (about 0.2 s at worst; an ordinary one takes hundreds), see `metering`."""
BUDGET_PER_WEIGHT = 32
MAX_BUDGET = 10_000_000

# Whatever Python raises for the code that a template is compiled to, beside what jinja2 raises itself.
_RAISED = (
    *(TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError),
    *(TypeError, ValueError),
)

_sandbox = Sandbox()


class Refusal(TemplateError):
    """The template called `raise_exception`: it cannot express this conversation, and says why."""


def choose(templates: Mapping[str, str], *, tools: bool) -> str:
    """The source to use: with tools the one made for them, if what it makes of them can be read; `PLAIN` for none."""
    named = templates.get("tool_use", "") if tools else ""
    if named and family_of(named):
        return named
    return templates.get("default") or next(filter(None, templates.values()), PLAIN)


def render(
    source: str, messages: Sequence[Message], tools: Sequence[Tool] = (), *, now: datetime, **variables: object
) -> str:
    """Write a conversation, up to where the answer begins.

    A template that refuses it (no system role, turns that do not alternate) gets it once more with system messages
    folded into the user's turns and neighbours joined. Raises BadRequest, with the template's own words, for one that
    it cannot express; BrokenModelFile for a template that is none, that does what it may not, or that takes too long.
    """
    try:
        return _render(source, messages, tools, now, variables)
    except Refusal as refusal:
        plain = folded(messages)
        if plain == list(messages):
            raise _refused(refusal) from refusal
    try:
        return _render(source, plain, tools, now, variables)
    except Refusal as refusal:
        raise _refused(refusal) from refusal


def folded(messages: Sequence[Message]) -> list[Message]:
    """The same conversation without system messages, and with turns of one role after the other joined."""
    result: list[Message] = []
    waiting: list[str] = []
    for message in [*messages, Message("user")]:
        if message.role == "system":
            waiting.append(message.content)
            continue
        content, previous = message.content, result[-1] if result else None
        if message.role == "user":
            content = "\n\n".join(filter(None, [*waiting, content]))
            waiting = []
        if previous and previous.role == message.role and not (previous.tool_calls or message.role == "tool"):
            content = "\n\n".join(filter(None, [previous.content, content]))
            result[-1] = msgspec.structs.replace(message, content=content)
        else:
            result.append(msgspec.structs.replace(message, content=content))
    return result if result[-1].content else result[:-1]


def _render(
    source: str, messages: Sequence[Message], tools: Sequence[Tool], now: datetime, variables: Mapping[str, object]
) -> str:
    template = _compiled(source)
    nine = MISTRAL.open in source
    shared: dict[str, object] = {
        "messages": [_entry(message, nine_letter_ids=nine) for message in messages],
        "tools": [described(tool) for tool in tools] or None,
        "documents": None,
    }
    meter = _sandbox.meter
    meter.left = MAX_BUDGET
    try:
        weight = meter.weigh(list(shared.values()))
    except TooCostly as error:
        raise BadRequest("The messages or tools are too large, or nested too deeply.", param="messages") from error
    meter.left = min(BASE_BUDGET + BUDGET_PER_WEIGHT * weight, MAX_BUDGET)
    functions = {"raise_exception": _refuse, "strftime_now": lambda form: _date(now, form)}
    try:
        return template.render(**shared, **functions, **variables)
    except Refusal:
        raise
    except (TooCostly, RecursionError) as error:
        raise BrokenModelFile(
            "The chat template of this model does far more work than such a conversation needs; it was stopped.",
            hint="Use another build of this model.",
        ) from error
    except SecurityError as error:
        raise _forbidden(error) from error
    except _RAISED as error:
        message = f"The chat template of this model cannot express this conversation: {_short(error)}"
        raise BadRequest(message, param="messages") from error


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    if len(source) > MAX_SOURCE:
        raise BrokenModelFile(
            f"The chat template of this model has {len(source)} characters; at most {MAX_SOURCE} are read."
        )
    _sandbox.meter.left = 0
    try:
        return _sandbox.from_string(source)
    except SecurityError as error:
        raise _forbidden(error) from error
    except (*_RAISED, SyntaxError, RecursionError, MemoryError) as error:
        raise BrokenModelFile(f"The chat template of this model is not one: {_short(error)}") from error


def _forbidden(error: SecurityError) -> BrokenModelFile:
    return BrokenModelFile(f"The chat template of this model does what a template may not: {_short(error)}")


def _refused(refusal: Refusal) -> BadRequest:
    return BadRequest(f"This model cannot take such a conversation: {_short(refusal)}", param="messages")


def _short(error: BaseException) -> str:
    return str(error)[:500]


def _refuse(message: object) -> str:
    raise Refusal(str(message))


def _date(now: datetime, form: str) -> str:
    if len(form) > 100:
        raise ValueError("a date format has over 100 characters")
    return now.strftime(form)


def _entry(message: Message, *, nine_letter_ids: bool) -> dict[str, object]:
    """A message as templates expect it: what is not there is not a key, because some only look at the keys."""
    entry: dict[str, object] = {"role": message.role, "content": message.content}
    if message.reasoning:
        entry["reasoning_content"] = message.reasoning
        if not (message.tool_calls and message.content):
            entry["thinking"] = message.reasoning
    if message.tool_calls:
        entry["tool_calls"] = [_call(call, nine_letter_ids) for call in message.tool_calls]
    if message.role == "tool":
        entry["tool_call_id"] = _nine(message.tool_call_id) if nine_letter_ids else message.tool_call_id
    if message.name:
        entry["name"] = message.name
    return entry


def _call(call: ToolCall, nine_letter_ids: bool) -> dict[str, object]:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    function = {"name": call.name, "arguments": arguments if isinstance(arguments, dict) else call.arguments}
    return {"id": _nine(call.id) if nine_letter_ids else call.id, "type": "function", "function": function}


def _nine(call_id: str) -> str:
    """Mistral's templates refuse any id that is not nine letters or digits."""
    return "".join(filter(str.isalnum, call_id))[-9:].rjust(9, "0")
