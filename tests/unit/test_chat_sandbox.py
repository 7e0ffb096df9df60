"""A template from a stranger ends soon, takes little memory, reaches nothing, and else says what it always said."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from datetime import datetime
from time import perf_counter
from typing import Any

import pytest
from chat_scripts import TEMPLATES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pares.chat.metering import TooCostly
from pares.chat.sandbox import Generation, Sandbox
from pares.chat.template import BASE_BUDGET, render
from pares.errors import BadRequest, BrokenModelFile, ParesError

SANDBOX = Sandbox()
NOW = datetime(2026, 11, 22, 12, 0)
LOOP = "{% for a in range(100000) %}"
DOUBLING = "{% set n = namespace(x=VALUE, y=VALUE) %}{% for i in range(90) %}{% set n.x = TWICE %}{% endfor %}"
DEEP = "{% set n = namespace(x=(1,)) %}{% for i in range(60000) %}{% set n.x = (n.x,) %}{% endfor %}"

TOO_COSTLY = [
    f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}",
    f"{LOOP}{{% for b in range(100000) if false %}}{{% endfor %}}{{% endfor %}}",
    f"{LOOP}{{{{ ('a' * 9999).find('b') }}}}{{% endfor %}}",
    f"{{% set s = 'a' * 999999 %}}{LOOP}{{{{ 'b' in s }}}}{{% endfor %}}",
    f"{{% set s = range(50000) | list %}}{LOOP}{{% set t = s[1:] %}}{{% endfor %}}",
    f"{{% set s = range(50000) | list %}}{LOOP}{{% set t = s | sort | first %}}{{% endfor %}}",
    f"{{% set n = namespace(g=[1]) %}}{LOOP}{{% set n.g = n.g | map('string') %}}{{% endfor %}}{{{{ n.g | list }}}}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro c() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call c() %}" * 18 + "x" + "{% endcall %}" * 18,
    "{% for a in [[]] recursive %}{{ loop([[], []]) }}{{ loop([[], []]) }}{% endfor %}",
    "{{ 'a' * 1000000000 }}",
    "{{ ('a' * 99999) | replace('a', ['b' * 99999]) }}",
    "{{ range(9999) | join(['x' * 99999]) }}",
    "{{ ('a' * 999999).rsplit(sep='a' * 499999 ~ 'b' ~ 'a' * 499999) }}",
    "{{ ('a' * 999999).strip('b' * 499999 ~ 'a') }}",
    "{{ ('a' * 999999) | trim('b' * 499999 ~ 'a') }}",
    f"{{% set s = '9' * 999999 %}}{LOOP}{{{{ s | int }}}}{{{{ s | float }}}}{{% endfor %}}",
    "{{ (['x'] * 9999) | map(attribute='0.' * 99999) | list }}",
    "{{ (['x'] * 9999) | sort(attribute='0.' * 99999) }}",
    "{{ [0] * 1000000000 }}",
    "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{{ ('a\n' * 9999) | indent('x' * 99999) }}",
    "{{ 'a' | indent(1000000000, true) }}",
    "{{ 'a' | indent(-1000000000) }}",
    "{{ range(9999) | list | join('x' * 99999) }}",
    "{{ ('x' * 99999).join('y' * 99999) }}",
    "{{ ('{0}' * 999).format('a' * 99999) }}",
    "{{ ('%(a)s' * 999) % {'a': 'a' * 99999} }}",
    "{{ ('a' * 999999).rfind('a' * 499999 ~ 'b' ~ 'a' * 499999) }}",
    "{{ range(9999) | list | tojson(separators=['x' * 99999, 'y']) }}",
    *(
        DOUBLING.replace("VALUE", value).replace("TWICE", twice) + use
        for value, twice, use in [
            ("'ab'", "n.x ~ n.x", ""),
            ("'ab'", "n.x + n.x", ""),
            ("[1]", "n.x + n.x", ""),
            ("'ab'", "'%s%s' % (n.x, n.x)", ""),
            ("[1]", "[n.x, n.x]", "{{ n.x }}"),
            ("[1]", "[n.x, n.x]", "{{ n.x ~ '' }}"),
            ("[1]", "[n.x, n.x]", "{{ n.x | tojson }}"),
            ("[1]", "[n.x, n.x]", "{{ n.x == n.y }}"),
            ("[1]", "[n.x, n.x]", "{{ raise_exception(n.x) }}"),
            ("(1,)", "(n.x, n.x)", "{{ {n.x: 1} }}"),
        ]
    ),
    # Hashing a tuple overflows the C stack where Python has no limit of its own.
    *(f"{DEEP}{{{{ {use} }}}}" for use in ("{n.x: 1}", "{}[n.x]", "{}.get(n.x)", "n.x in {}", "[n.x] | unique | list")),
    f"{DEEP}{{{{ dict([(n.x, 1)]) }}}}",
]
FORBIDDEN = [
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%(a)1000000000d' % {'a': 1} }}",
    "{{ '%(a(b)c)1000000000d' % {'a(b)c': 1} }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ 3 | round(100000000) }}",
    "{{ 3 | round(precision=100000000) }}",
    "{{ 'ab' | round(9, 'ceil') }}",
    "{{ [-99999999] | map('charge ') | list }}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ [1] | tojson(indent=1000000) }}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{% include 'x' %}",
    "{% import 'os' as x %}",
    "{% extends 'x' %}",
]
BROKEN = [
    "{% for %}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 9999999999 * 9999999999 * 9999999999 }}",
    "{{ range(1000000000) }}",
    "{{ messages.append(1) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ '' | attr('__class__') }}",
    "{{ lipsum(n=100000) }}",
    "{{ [1] | map('nosuchfilter') | list }}",
    "{{ namespace() }}",
    "{{ '%999999999d' is even }}",
    "{{ '%999999999d' is divisibleby 3 }}",
    "{{ ['%999999999d'] | select('odd') | list }}",
    "{{ " + "(a < " * 60 + "b < c" + " < d)" * 60 + " }}",
    "{{ 1 / 0 }}",
    "{{ 1e999 }}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ a" + ".b" * 30000 + " }}",
    "{{ " + "not " * 30000 + "a }}",
    "{{ " + "1 + " * 30000 + "1 }}",
    "{% if a %}" * 5000 + "{% endif %}" * 5000,
    "{% for a in b %}" * 50 + "{% endfor %}" * 50,
    "{% if a %}" + "{% elif b %}" * 9000 + "{% endif %}",
    "x" * 200_000,
    "{% if a %}{% set x = 1 %}{% endif %}" * 1800 + "{{",
    "".join(f"{{% if a %}}{{% set x{n} = 1 %}}{{% endif %}}" for n in range(1500)) + "{{ x.y }}",
    "".join(f"{{% macro m{n}() %}}{{{{ m{n - 1}() }}}}{{% endmacro %}}" for n in range(1, 1200)) + "{{ x.y }}",
]
OUT_OF_REACH = [
    "''.__class__",
    "''['__class__']",
    "messages.__class__",
    "messages[0].__init__",
    "namespace.__init__",
    "namespace()._Namespace__attrs",
    "self._TemplateReference__context",
    "range.__self__",
    "raise_exception.__globals__",
    "strftime_now.__closure__",
    "'{0.__class__}'.format(1)",
    "[''] | map(attribute='__class__') | first",
    "[''] | sort(attribute='__class__') | map(attribute='__class__') | first",
]


def run(source: str) -> str:
    SANDBOX.meter.left = BASE_BUDGET
    return SANDBOX.from_string(source).render(messages=[{"role": "user"}], raise_exception=str, strftime_now=str)


@pytest.mark.parametrize("source", TOO_COSTLY, ids=range(len(TOO_COSTLY)))
def test_costly_template_is_stopped_in_bounded_time_and_memory(source: str) -> None:
    SANDBOX.from_string(source)
    began = perf_counter()
    with pytest.raises((TooCostly, RecursionError)):
        run(source)
    # Some 0.2 s on an idle machine: what must not be is minutes.
    assert perf_counter() - began < 10


@pytest.mark.parametrize("source", [source for source in TOO_COSTLY if "range(90)" in source])
def test_costly_template_takes_little_memory(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((TooCostly, RecursionError)):
            run(source)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", FORBIDDEN)
def test_forbidden_thing_is_named(source: str) -> None:
    with pytest.raises(SecurityError):
        run(source)
    with pytest.raises(BrokenModelFile, match="may not"):
        render(source, [], now=NOW)


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_broken_template_gives_a_named_error(source: str) -> None:
    began = perf_counter()
    with pytest.raises((BadRequest, BrokenModelFile)):
        render(source, [], now=NOW)
    assert perf_counter() - began < 10


@pytest.mark.parametrize("expression", OUT_OF_REACH)
def test_internals_are_out_of_reach(expression: str) -> None:
    assert run(f"{{{{ {expression} }}}}") == ""


def test_lazy_filter_is_true_even_when_it_gives_nothing() -> None:
    assert run("{{ 'yes' if [] | select('string') else 'no' }}") == "yes"
    assert run("{% for x in ['a', 'b'] | reverse %}{{ x }}{% endfor %}") == "ba"


def test_comparisons_chain() -> None:
    assert run("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'abc' != 'd' }}") == "True False True"


def test_json_is_not_escaped_for_html_and_keeps_letters() -> None:
    assert run("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert run("{{ {'a': [1]} | tojson(indent=2) }}") == json.dumps({"a": [1]}, indent=2)


def test_loops_can_be_left_and_generation_blocks_are_content() -> None:
    odd = "{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}"
    assert run("{% for i in range(9) %}" + odd + "{{ i }}{% endfor %}") == "02"
    assert run("{% generation %}{{ 1 }}a{% endgeneration %}b") == "1ab"


def stock() -> ImmutableSandboxedEnvironment:
    """The environment that templates are written for, as it is in the library their authors use."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment


STOCK = stock()
text = st.text(st.sampled_from("ab \n<>/think{}\"'é😀"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | text,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3),
    max_leaves=6,
)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": text,
            "function": st.fixed_dictionaries({"name": text, "arguments": st.dictionaries(text, values, max_size=2)}),
        }
    ),
    min_size=1,
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": text},
        optional={"tool_calls": calls, "reasoning_content": text, "thinking": text, "tool_call_id": text},
    ),
    min_size=1,
    max_size=5,
)
tools = st.none() | st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {
                    "name": text,
                    "description": text,
                    "parameters": st.fixed_dictionaries(
                        {
                            "properties": st.dictionaries(
                                text, st.fixed_dictionaries({"type": st.sampled_from(["string", "number"])}), max_size=2
                            )
                        }
                    ),
                }
            ),
        }
    ),
    max_size=2,
)


COMPILED = {name: (SANDBOX.from_string(source), STOCK.from_string(source)) for name, source in TEMPLATES.items()}


def outcome(template: Template, variables: dict[str, Any]) -> str:
    try:
        return template.render(**variables)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=30, deadline=None)
@given(messages=messages, tools=tools)
def test_real_templates_say_what_they_say_without_a_meter(
    name: str, messages: list[object], tools: list[object] | None
) -> None:
    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    variables = {
        "messages": messages,
        "tools": tools,
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "raise_exception": raise_exception,
        "strftime_now": NOW.strftime,
    }
    SANDBOX.meter.left = BASE_BUDGET * 10
    metered, plain = COMPILED[name]
    assert outcome(metered, variables) == outcome(plain, variables)


fragments = st.sampled_from(
    [
        *(
            "{% for m in messages %}",
            "{% endfor %}",
            "{% if m.role == 'user' %}",
            "{% endif %}",
            "{% else %}",
            "{{ m }}",
        ),
        *("{{ m['role'] | trim | upper }}", "{% set x = m %}", "{{ x ~ x }}", "{% macro f(a) %}", "{% endmacro %}"),
        *("{{ f(f(x)) }}", "{{ x * 99999 }}", "{% set x %}", "{% endset %}", "{{ loop.index }}", "{{ 1 // 0 }}"),
        *("{{ messages | map(attribute='role') | join(x) }}", "{{ x.format(x) }}", "{{ x % x }}", "{{ '\\x00é😀' }}"),
        *(
            "{{ namespace(a=x).a }}",
            "{{ x.items() | list }}",
            "{{ x[::-1] }}",
            "{%- raw -%}",
            "{% endraw %}",
            "{#",
            "#}",
        ),
        *("{{", "}}", "{%", "%}", "x", "\n", "("),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(fragments, max_size=12).map("".join) | st.text(max_size=60))
@example("{{ x }}")
def test_any_source_renders_or_gives_a_named_error(source: str) -> None:
    with suppress(ParesError):
        assert isinstance(render(source, [], now=NOW, x="ab"), str)
