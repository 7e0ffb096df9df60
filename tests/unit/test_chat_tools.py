"""Calls are recognised by family, written for models that know no tools, and described for grammars."""

from __future__ import annotations

import json

import pytest
from chat_scripts import TEMPLATES
from hypothesis import given
from hypothesis import strategies as st

from pares.chat.messages import Message, Tool, ToolCall
from pares.chat.template import PLAIN
from pares.chat.tools import (
    HERMES,
    LLAMA,
    MISTRAL,
    PHI,
    Family,
    call_schema,
    family_of,
    header_begins,
    header_in,
    in_plain_text,
    loose_calls,
)

WEATHER = Tool("get_weather", "Weather now", {"type": "object", "properties": {"city": {"type": "string"}}})
HEADERS = [
    '{"name": "f", "arguments": {',
    '\n [ {"name":"f","parameters":{',
    '{"type": "function", "name": "get_weather", "parameters": {',
    "f[ARGS]{",
    "get_weather[CALL_ID]a1B2[ARGS]{",
]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("qwen", HERMES),
        ("hermes", HERMES),
        ("llama3", LLAMA),
        ("mistral", MISTRAL),
        ("chatml", None),
        ("gemma", None),
        (PLAIN, None),
        ("{{ tools | tojson }}<|tool_call|>", PHI),
        ("{{ tools | tojson }}<tool_call>{name}<arg_key>", None),
        ("{{ tools | tojson }}<tool_call><function={name}>", None),
        ("{{ tools | tojson }} Action:", None),
    ],
)
def test_family_is_recognised_from_the_template(name: str, family: Family | None) -> None:
    assert family_of(TEMPLATES.get(name, name)) == family


@pytest.mark.parametrize("text", HEADERS)
def test_every_beginning_of_a_header_is_one(text: str) -> None:
    header = header_in(text + "}", 100)
    assert header is not None
    assert text[header.length :] == "{"
    assert all(header_begins(text[:end]) for end in range(len(text)))
    assert header_in(text, len(text) - 1) is None


@given(st.text('{"name:fx,[]ARGS \n}', max_size=30))
def test_text_with_a_header_begins_one(text: str) -> None:
    header = header_in(text, 100)
    if header is not None:
        assert all(header_begins(text[:end]) for end in range(header.length + 1))
    for end in range(len(text)):
        assert header_begins(text[:end]) or not header_begins(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{}",
        "[]x",
        '{"name": 7}',
        '{"name": "f", "arguments": "x"}',
        '{"name": "f", "arguments": [1]}',
        "7",
        "[" * 9999,
    ],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert loose_calls(text, {"f"}) == []


def test_several_calls_in_a_list_are_read() -> None:
    text = '[{"arguments": {"a": "é"}, "name": "f"}, {"name": "f", "parameters": null}]'
    assert loose_calls(text, {"f"}) == [("f", '{"a": "é"}'), ("f", "{}")]


def test_model_that_knows_no_tools_is_told_of_them_in_text() -> None:
    call = ToolCall("call_1", "get_weather", '{"city": "Rome"}')
    conversation = [
        Message("system", "Be brief."),
        Message("user", "Weather?"),
        Message("assistant", "Let me see.", tool_calls=(call,)),
        Message("tool", "Sunny", tool_call_id="call_1"),
    ]
    system, user, assistant, result = in_plain_text(conversation, [WEATHER])
    assert system.content.startswith("Be brief.\n\nYou can call these functions:")
    assert json.dumps(WEATHER.parameters) in system.content
    assert user == conversation[1]
    expected = 'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert (assistant.content, assistant.tool_calls) == (expected, ())
    assert result == Message("user", "<tool_response>\nSunny\n</tool_response>")
    assert in_plain_text(conversation[1:2], [WEATHER])[0].role == "system"
    assert in_plain_text(conversation[:2], []) == conversation[:2]


def test_schema_of_a_call_names_the_tool_and_its_arguments() -> None:
    one = call_schema([WEATHER])
    assert one["properties"] == {"name": {"const": "get_weather"}, "arguments": WEATHER.parameters}
    assert one["required"] == ["name", "arguments"]
    assert call_schema([WEATHER, Tool("noop")])["anyOf"] == [one, call_schema([Tool("noop")])]
