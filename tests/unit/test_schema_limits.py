"""A schema that would take too much is refused before llama.cpp sees it; what people write is not."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import BadRequest
from pares.inference.llama import grammar_of
from pares.inference.schema_limits import check

BOMBS = {
    "a count that takes all memory": {"type": "string", "minLength": 10**9},
    "a count whose brackets overflow the stack": {"type": "string", "maxLength": 30_000},
    "many items": {"type": "array", "minItems": 10**9, "items": {"type": "string"}},
    "less than none": {"type": "array", "minItems": -5, "items": {}},
    "a repeat": {"type": "string", "pattern": "^a{1000000000}$"},
    "a repeat in odd writing": {"type": "string", "pattern": "^a{ +1_000_000_000 , }$"},
    "a repeat that nobody can count": {"type": "string", "pattern": f"^a{{{'9' * 5000}}}$"},
    "ways through a pattern": {"type": "string", "pattern": f"^{'[a-z]*' * 20}$"},
    "ways through a repeat": {"type": "string", "pattern": "^([a-z]*){20}$"},
    "ways through repeats of repeats": {"type": "string", "pattern": "^((a?){0,900}){0,900}$"},
    "repeats of any length in repeats": {"type": "string", "pattern": "^(.{0,900}){0,900}$"},
    "empty alternatives": {"type": "string", "pattern": f"^{'(|a|b)' * 3000}$"},
    "patterns of many fields": {"anyOf": [{"type": "string", "pattern": "^.*.*$"}] * 300},
    "deep inside": {"$defs": {"a": {"items": [{"properties": {"b": {"maxLength": 10**6}}}]}}, "$ref": "#/$defs/a"},
    "many values": {"enum": [str(number) for number in range(30_000)]},
}

ORDINARY = (
    {"type": "string", "minLength": 1, "maxLength": 1000},
    {"type": "string", "pattern": r"^[A-Z]{2,3}-\d{4}(-[a-z]+)*$"},
    {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"},
    {"type": "string", "pattern": "^.{1,500}$"},
    {"type": "string", "pattern": "^[*+?|{}()]{900}$"},
    {"type": "object", "properties": {"maxLength": {"type": "integer"}, "pattern": {"type": "string"}}},
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(150)}},
    {"enum": [f"value {number}" for number in range(1000)]},
)


@pytest.mark.parametrize("schema", BOMBS.values(), ids=BOMBS)
def test_a_schema_that_would_take_too_much_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match="cannot be enforced") as refused:
        grammar_of(schema)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("schema", ORDINARY, ids=str)
def test_what_people_write_is_not_refused(schema: dict[str, object]) -> None:
    check(schema)


@given(st.text("ab()[]{}*+?|\\,0123456789. _^", max_size=60))
def test_any_pattern_is_taken_or_refused(pattern: str) -> None:
    with suppress(BadRequest):
        check({"pattern": pattern})
