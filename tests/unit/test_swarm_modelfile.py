from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pares.errors import BadRequest, TooLarge
from pares.swarm.modelfile import MAX_CHARACTERS, parse

FULL = '''# a comment
FROM smollm2
PARAMETER temperature 0.7
parameter NUM_CTX 4096
PARAMETER stop "<|im_end|>"
PARAMETER stop User:
PARAMETER mirostat 2
ADAPTER ./pirate.gguf
SYSTEM """You are a pirate.

Say "Arr".
"""
TEMPLATE """{{ .Prompt }}
FROM inside a template
"""
'''


def test_what_means_something_here_is_read_and_the_rest_is_named() -> None:
    parsed = parse(FULL)
    assert (parsed.base, parsed.adapter) == ("smollm2", "./pirate.gguf")
    assert parsed.system == 'You are a pirate.\n\nSay "Arr".\n'
    assert parsed.defaults == {"temperature": 0.7, "num_ctx": 4096, "stop": ["<|im_end|>", "User:"]}
    assert [warning.split(":")[0] for warning in parsed.warnings] == ["Line 7", "Line 13"]
    assert "mirostat" in parsed.warnings[0]
    assert "TEMPLATE" in parsed.warnings[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no FROM"),
        ("SYSTEM x", "no FROM"),
        ("FROM", "Line 1"),
        ("FROM a\nPARAMETER seed 1.5", "Line 2.*whole number"),
        ("FROM a\nPARAMETER temperature hot", "Line 2.*a number"),
        ('FROM a\nSYSTEM """never ends', "Line 2.*no end"),
        ('FROM a\nSYSTEM """x""" y', "more after"),
        ('FROM a\nSYSTEM "x', "quote"),
        ("FROM a\nFORM b", "'form'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        parse(text)


def test_a_file_without_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        parse("x" * (MAX_CHARACTERS + 1))


word = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
prose = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=40)


@given(
    base=word, system=prose, temperature=st.floats(0, 5), seed=st.integers(-1, 2**31), stops=st.lists(word, max_size=3)
)
def test_what_is_written_is_read(base: str, system: str, temperature: float, seed: int, stops: list[str]) -> None:
    system = system.replace('"', "'")
    lines = [f"From {base}", f'SYSTEM """{system}"""', f"PARAMETER temperature {temperature}", f"PARAMETER seed {seed}"]
    parsed = parse("\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]))
    assert (parsed.base, parsed.system, parsed.warnings) == (base, system, ())
    assert parsed.defaults == {"temperature": temperature, "seed": seed, **({"stop": stops} if stops else {})}


pieces = st.sampled_from(
    ["FROM ", "PARAMETER ", "stop ", "seed ", '"""', '"', "\n", "#", "SYSTEM ", "a", "1", "\\n", "\r", " "]
)


@given(text=st.text() | st.lists(pieces).map("".join))
@example("FROM a\nPARAMETER temperature nan")
@example("FROM a\nPARAMETER seed " + "9" * 5000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except BadRequest:
        return
    assert parsed.base
