"""How families of models write tool calls: reading them, writing them into a prompt, and enforcing them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pares.chat.messages import Message, Tool, ToolCall


class Family(NamedTuple):
    """The markers around a call. A bare JSON object with a tool's name is a call in every family."""

    open: str = ""
    close: str = ""


HERMES = Family("<tool_call>", "</tool_call>")
"""Hermes, Qwen and many others: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""
LLAMA = Family("<|python_tag|>")
"""Llama 3: `{"name": ..., "parameters": {...}}`, sometimes behind a marker."""
MISTRAL = Family("[TOOL_CALLS]")
"""Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, or `[TOOL_CALLS]name[ARGS]{...}` in newer ones."""
PHI = Family("<|tool_call|>", "<|/tool_call|>")
"""Phi 4 and Granite: `<|tool_call|>[{"name": ..., "arguments": {...}}]`, and a closing marker in Phi."""
BARE = Family()
"""JSON alone: what a grammar enforces."""

MARKERS = frozenset({"[ARGS]", "[CALL_ID]", *HERMES, *LLAMA, *MISTRAL, *PHI} - {""})
"""All markers; in some vocabularies they are control tokens."""


def family_of(source: str) -> Family | None:
    """The family whose calls a template writes; None if it knows no tools, or writes calls that nothing here reads."""
    if not re.search(r"\btools\b", source):
        return None
    if MISTRAL.open in source:
        return MISTRAL
    if HERMES.open in source:
        return None if "<arg_key>" in source or "<function=" in source else HERMES
    if PHI.open in source:
        return PHI
    if LLAMA.open in source or ('"name"' in source and '"parameters"' in source):
        return LLAMA
    return None


# Reading.


class Header(NamedTuple):
    """The part of a call in front of its arguments."""

    name: str
    length: int
    inside_object: bool
    """The arguments are a member of the call's object, which goes on after them."""


_NAME = r'[^"\\\s]{1,128}'
_TYPE = ['"', *"type", '"', r"\s*", ":", r"\s*", '"', *"function", '"', r"\s*", ",", r"\s*"]
_CALL = [
    *('"', *"name", '"', r"\s*", ":", r"\s*", '"', f"(?P<name>{_NAME})", '"', r"\s*", ",", r"\s*"),
    *('"', "(?:arguments|parameters)", '"', r"\s*", ":", r"\s*", r"(?=\{)"),
]
_OBJECT = [r"\s*", r"(?:\[\s*)?", r"\{", r"\s*"]
_NAMED = [
    r"\s*",
    r"(?P<name>[\w.:/-]{1,128})",
    r"(?:\[CALL_ID\]\w{1,64})?",
    *map(re.escape, "[ARGS]"),
    r"\s*",
    r"(?=\{)",
]


def _beginnings(atoms: Sequence[str]) -> str:
    """A pattern for everything that may become a match of these atoms."""
    pattern = ""
    for atom in reversed(atoms):
        atom = atom.replace("(?P<name>", "(?:").replace("(?:arguments|parameters)", "[a-z]{1,10}")
        pattern = "" if atom.startswith("(?=") else f"(?:{atom}{pattern})?"
    return pattern


_FULL = [
    (re.compile("".join([*_OBJECT, f"(?:{''.join(_TYPE)})?", *_CALL])), True),
    (re.compile("".join(_NAMED)), False),
]
_BEGUN = re.compile(
    "|".join(
        [
            *map(_beginnings, ([*_OBJECT, *_CALL], [*_OBJECT, *_TYPE, *_CALL], _NAMED)),
            r"\s*[\w.:/-]{1,128}\[(?:C(?:A(?:L(?:L(?:_(?:I(?:D(?:\]\w{0,64})?)?)?)?)?)?)?)?",
        ]
    )
)


def header_in(text: str, limit: int) -> Header | None:
    """The header at the beginning of `text`, if it is complete within `limit` characters."""
    for pattern, inside_object in _FULL:
        if found := pattern.match(text, 0, limit):
            return Header(found["name"], found.end(), inside_object)
    return None


def header_begins(text: str) -> bool:
    """Whether `text` is the beginning of a header."""
    return _BEGUN.fullmatch(text) is not None


def loose_calls(text: str, names: Collection[str]) -> list[tuple[str, str]]:
    """Names and arguments of calls written in another order, or with the arguments as a string; empty if any is not."""
    try:
        value = json.loads(text)
        calls = [_loose_call(item) for item in (value if isinstance(value, list) else [value])]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return calls if all(name in names for name, _ in calls) else []


def _loose_call(item: object) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise TypeError("not a call")
    arguments = item.get("arguments", item.get("parameters")) or {}
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    name = item["name"]
    if not isinstance(value, dict) or not isinstance(name, str):
        raise TypeError("not a call")
    return name, arguments if isinstance(arguments, str) else json.dumps(value, ensure_ascii=False)


# Writing.

INSTRUCTION = """\
You can call these functions:
<tools>
{tools}
</tools>
To call one, write a JSON object with its name and arguments between tags, and nothing after it:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>"""


def described(tool: Tool) -> dict[str, object]:
    """A tool as templates expect it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters or EMPTY}
    return {"type": "function", "function": function}


EMPTY: Mapping[str, object] = {"type": "object", "properties": {}}


def in_plain_text(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The same conversation for a template that knows no tools: they, their calls and results as text, Hermes's way."""
    result = [_in_plain_text(message) for message in messages]
    if tools:
        listed = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
        instruction = INSTRUCTION.format(tools=listed)
        if result and result[0].role == "system":
            result[0] = msgspec.structs.replace(result[0], content=f"{result[0].content}\n\n{instruction}")
        else:
            result.insert(0, Message("system", instruction))
    return result


def _in_plain_text(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.tool_calls:
        return message
    parts = [message.content] if message.content else []
    parts += [f"{HERMES.open}\n{_written(call)}\n{HERMES.close}" for call in message.tool_calls]
    return Message("assistant", "\n".join(parts), reasoning=message.reasoning)


def _written(call: ToolCall) -> str:
    return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}'


# Enforcing.


def call_schema(tools: Sequence[Tool]) -> dict[str, object]:
    """A JSON schema of one call of one of these tools: what a grammar is made of."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": tool.parameters or EMPTY},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}
