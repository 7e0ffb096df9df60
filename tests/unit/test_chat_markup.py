"""Answers are taken apart into text, reasoning and calls, however they are cut on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.chat.harmony import Harmony
from pares.chat.markup import MAX_ARGUMENTS, MAX_HEADER, MAX_NESTING, Calls, Item, Markup, Parser, Said
from pares.chat.messages import CallArguments, CallBegun, Reasoning
from pares.chat.reasoning import Tags, tags_of
from pares.chat.tools import BARE, HERMES, LLAMA, MISTRAL, PHI, Family

THINK = Tags("<think>", "</think>")
Make = Callable[[], Parser]


def calls(*, parallel: bool = True) -> Calls:
    numbers = count()
    return Calls({"f", "get_weather"}, lambda: f"call_{next(numbers)}", parallel=parallel)


def markup(
    family: Family | None = None,
    *,
    stop: Sequence[str] = (),
    tags: Tags | None = None,
    thinking: bool = False,
    strip: bool = False,
    parallel: bool = True,
) -> Make:
    return lambda: Markup(stop, calls(parallel=parallel), tags=tags, family=family, thinking=thinking, strip=strip)


def parse(make: Make, pieces: Sequence[str]) -> tuple[list[Item], Parser]:
    """All that comes out, neighbours of one kind joined."""
    parser, items = make(), list[Item]()
    for piece in pieces:
        if not parser.done:
            items += parser.feed(piece)
    items += parser.close()
    joined: list[Item] = []
    for item in items:
        match joined[-1] if joined else None, item:
            case Said(before, start), Said(text):
                joined[-1] = Said(before + text, start)
            case Reasoning(before), Reasoning(text):
                joined[-1] = Reasoning(before + text)
            case CallArguments(index, before), CallArguments(same, text) if index == same:
                joined[-1] = CallArguments(index, before + text)
            case _:
                joined.append(item)
    return joined, parser


def told(make: Make, text: str) -> list[str]:
    """A short form of what comes out; the same whole and letter by letter."""
    items, _ = parse(make, [text])
    assert parse(make, list(text))[0] == items
    result = []
    for item in items:
        match item:
            case Said(text=said):
                result.append(said)
            case Reasoning(text=thought):
                result.append(f"({thought})")
            case CallBegun(index=index, name=name):
                result.append(f"{index}:{name}")
            case CallArguments(text=arguments):
                result[-1] += arguments
    return result


CALL = '{"name": "f", "arguments": {"a": "}\\"{"}}'
ARGUMENTS = '{"a": "}\\"{"}'


@pytest.mark.parametrize(
    ("family", "text", "expected"),
    [
        (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", [f"0:f{ARGUMENTS}"]),
        (HERMES, f"Wait.\n<tool_call>{CALL}</tool_call>", ["Wait.\n", f"0:f{ARGUMENTS}"]),
        (
            HERMES,
            f"\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>",
            [f"0:f{ARGUMENTS}", f"1:f{ARGUMENTS}"],
        ),
        (HERMES, f"<tool_call>{CALL}</tool_call>\n\nDone.", [f"0:f{ARGUMENTS}", "Done."]),
        (HERMES, f"<tool_call>{CALL}", [f"0:f{ARGUMENTS}"]),
        (HERMES, f"<tool_call>{CALL[:-1]}</tool_call>x", [f"0:f{ARGUMENTS}", "x"]),
        (HERMES, CALL, [f"0:f{ARGUMENTS}"]),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', ['0:f{"a": 1}']),
        (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', ['0:f{"a": 1}']),
        (HERMES, '<tool_call>{"name": "f"}</tool_call>', ["0:f{}"]),
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": [1, ', ['0:f{"a": [1, ']),
        (LLAMA, '{"name": "f", "parameters": {"a": 1}}', ['0:f{"a": 1}']),
        (LLAMA, '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', ["0:f{}"]),
        (
            LLAMA,
            '{"name": "f", "parameters": {}}; {"name": "get_weather", "parameters": {}}',
            ["0:f{}", "1:get_weather{}"],
        ),
        (MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]', ['0:f{"a": 1}']),
        (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]', ["0:f{}", "1:f{}"]),
        (
            MISTRAL,
            '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{}',
            ['0:f{"a": 1}', "1:get_weather{}"],
        ),
        (PHI, f"<|tool_call|>[{CALL}, {CALL}]<|/tool_call|>", [f"0:f{ARGUMENTS}", f"1:f{ARGUMENTS}"]),
        (PHI, f"<|tool_call|> [{CALL}]", [f"0:f{ARGUMENTS}"]),
        (BARE, CALL, [f"0:f{ARGUMENTS}"]),
    ],
)
def test_calls_of_each_family_are_read(family: Family, text: str, expected: list[str]) -> None:
    assert told(markup(family), text) == expected


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (HERMES, "<tool_call>not json</tool_call>"),
        (HERMES, "<tool_call>not json"),
        (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> and on'),
        (HERMES, '<tool_call>{"name": "f", "arguments": 7}</tool_call>'),
        (HERMES, "<tool_call>" + "[" * 9000 + "</tool_call>"),
        (HERMES, "a <tool_cal b <tool"),
        (HERMES, "<tool_call>"),
        (HERMES, '{"name": "unknown", "arguments": {}}'),
        (LLAMA, '{"name": "Alice", "age": 7}'),
        (LLAMA, '  {"answer": [1, 2]}\n'),
        (LLAMA, "[1, 2]"),
        (LLAMA, "<|python_tag|>print(1)"),
        (LLAMA, 'So: {"name": "f", "parameters": {}}'),
        (MISTRAL, "[TOOL_CALLS]unknown[ARGS]{}"),
        (MISTRAL, "[1] is a citation [TOOL"),
        (BARE, "{"),
    ],
)
def test_what_is_no_call_comes_back_as_text(family: Family, text: str) -> None:
    assert told(markup(family), text) == [text]


def test_markup_inside_of_what_was_no_call_is_still_read() -> None:
    text = f"<tool_call>oops <tool_call>{CALL}</tool_call>"
    assert told(markup(HERMES), text) == ["<tool_call>oops ", f"0:f{ARGUMENTS}"]


def test_arguments_arrive_as_they_are_written() -> None:
    parser = markup(HERMES)()
    begun = parser.feed('<tool_call>{"name": "f", "arguments": {"te')
    assert begun == [CallBegun(0, "call_0", "f"), CallArguments(0, '{"te')]
    assert parser.feed('xt": "on') == [CallArguments(0, 'xt": "on')]


def test_json_answer_is_let_go_as_soon_as_it_cannot_be_a_call() -> None:
    parser = markup(LLAMA)()
    assert parser.feed('{"na') == []
    assert parser.feed('tion"') == [Said('{"nation"', 0)]


def test_one_call_only_where_parallel_calls_are_off() -> None:
    text = f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>"
    items, parser = parse(markup(HERMES, parallel=False), [text])
    assert items == [CallBegun(0, "call_0", "f"), CallArguments(0, ARGUMENTS)]
    assert parser.done


def test_reasoning_is_split_off_and_trimmed() -> None:
    think = markup(tags=THINK)
    assert told(think, "<think>\nHm.\n\nYes.\n</think>\n\nIt is 4.\n") == ["(Hm.\n\nYes.)", "It is 4.\n"]
    assert told(think, "\n<think>\n\n</think>\n\nIt is 4.") == ["It is 4."]
    assert told(think, "<think>never ends\n") == ["(never ends)"]
    assert told(think, "The tag <think> opens </think> it") == ["The tag <think> opens </think> it"]
    assert told(think, "  plain") == ["  plain"]
    assert told(think, "<thin") == ["<thin"]


def test_reasoning_that_the_prompt_began() -> None:
    assert told(markup(tags=THINK, thinking=True), "\n Hm.</think>\n4") == ["(Hm.)", "4"]
    both = markup(HERMES, tags=THINK, thinking=True)
    assert told(both, f"Hm.</think>\n\n<tool_call>{CALL}</tool_call>") == ["(Hm.)", f"0:f{ARGUMENTS}"]
    again = f"<think>A</think><tool_call>{CALL}</tool_call><think>B</think>c"
    assert told(markup(HERMES, tags=THINK), again) == ["(A)", f"0:f{ARGUMENTS}", "(B)", "c"]


def test_tags_of_other_families() -> None:
    gemma = markup(tags=tags_of("{{ '<|channel>thought\\n<channel|>' }}"))
    assert told(gemma, "<|channel>thought\nHm.<channel|>4") == ["(Hm.)", "4"]
    mistral = markup(MISTRAL, tags=tags_of("[THINK]"))
    assert told(mistral, "[THINK]Hm.[/THINK][TOOL_CALLS]f[ARGS]{}") == ["(Hm.)", "0:f{}"]
    assert tags_of("<|im_start|>") is None


def test_stop_strings_end_the_text_but_not_the_reasoning_or_a_call() -> None:
    make = markup(HERMES, tags=THINK, stop=["\n\n", "END"])
    items, parser = parse(make, ["<think>a\n\nEND</think>\n\nb EN", "D c"])
    assert (items, parser.stopped_by, parser.done) == ([Reasoning("a\n\nEND"), Said("b ", 23)], "END", True)
    items, parser = parse(make, ['{"name": "f", "arguments": {"a": "END"}}'])
    assert (items[1:], parser.stopped_by) == ([CallArguments(0, '{"a": "END"}')], "")
    assert parse(make, ["\n", "\nb"])[1].stopped_by == "\n\n"


def test_white_space_in_front_is_the_prompts_where_asked() -> None:
    assert told(markup(strip=True), " \n Hello there ") == ["Hello there "]


def test_arguments_are_bounded_in_length_and_nesting() -> None:
    head = '<tool_call>{"name": "f", "arguments": '
    long = f'{head}{{"a": "{"x" * MAX_ARGUMENTS}"}}}}</tool_call>'
    items, parser = parse(markup(HERMES), [long[at : at + 7777] for at in range(0, len(long), 7777)])
    assert isinstance(items[1], CallArguments)
    assert (len(items[1].text), parser.cut, parser.done) == (MAX_ARGUMENTS, True, True)
    deep = f'{head}{{"a": {"[" * 5000}'
    items, parser = parse(markup(HERMES), [deep])
    assert items == parse(markup(HERMES), list(deep))[0]
    assert isinstance(items[1], CallArguments)
    assert (items[1].text.count("["), parser.cut) == (MAX_NESTING, True)


def test_call_without_an_end_is_held_back_for_so_long_only() -> None:
    text = "<tool_call>" + "x" * (2 * MAX_HEADER)
    parser = markup(HERMES)()
    held = sum(len(item.text) for piece in text for item in parser.feed(piece) if isinstance(item, Said))
    assert held == len(text)


HARMONY: Make = lambda: Harmony(["STOP"], calls())  # noqa: E731


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|channel|>final<|message|>Hi.<|return|>", ["Hi."]),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.",
            ["(Hm.)", "Hi."],
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            '<|constrain|>json<|message|>{"a": 1}<|call|>',
            ["(Hm.)", '0:f{"a": 1}'],
        ),
        ('to=functions.f<|channel|>commentary json<|message|>{"a": 1}', ['0:f{"a": 1}']),
        (
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.f<|message|>{}",
            ["I look.", "0:f{}"],
        ),
        ("<|channel|>commentary to=functions.unknown<|message|>{}", ["{}"]),
        ("No channels at all", ["No channels at all"]),
        ("<|channel|>final<|message|>a STOP b", ["a "]),
        ("<|channel|>" + "x" * 600, ["<|channel|>" + "x" * 600]),
    ],
)
def test_harmony_channels_are_told_apart(text: str, expected: list[str]) -> None:
    assert told(HARMONY, text) == expected


fragments = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<tool_",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]abc",
            "<|python_tag|>",
            "<think>",
        ),
        *(
            "</think>",
            "STOP",
            "ST",
            "\n",
            " ",
            "a",
            "é😀",
            "{",
            "}",
            "[",
            "]",
            '"',
            "\\",
            ",",
            ";",
            ":",
            "f",
            "<",
            "<|",
        ),
        *(CALL, '{"name": "f", "parameters": {}}', '{"name": "f", ', '"arguments": ', '{"name": "g"}', "f[ARGS]{}"),
        *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "analysis", "final", "commentary to=functions.f"),
    ]
)
parsers = st.one_of(
    st.builds(
        markup,
        st.sampled_from([None, HERMES, LLAMA, MISTRAL, PHI, BARE]),
        stop=st.sampled_from([(), ("STOP",), ("\n", "STOP"), ("}",)]),
        tags=st.sampled_from([None, THINK]),
        thinking=st.booleans(),
        strip=st.booleans(),
        parallel=st.booleans(),
    ),
    st.just(HARMONY),
)


@settings(max_examples=400, deadline=None)
@given(parsers, st.lists(fragments, max_size=14).map("".join), st.data())
def test_any_cut_gives_what_the_whole_text_gives(make: Make, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, parser = parse(make, [text])
    for cut in (pieces, list(text)):
        items, other = parse(make, cut)
        assert items == whole
        assert (other.stopped_by, other.calls.begun) == (parser.stopped_by, parser.calls.begun)


@settings(max_examples=200, deadline=None)
@given(parsers, st.lists(fragments, max_size=8))
def test_text_to_show_is_where_it_says_it_was(make: Make, pieces: list[str]) -> None:
    parser, text = make(), "".join(pieces)
    items = [item for piece in pieces if not parser.done for item in parser.feed(piece)] + parser.close()
    for item in items:
        if isinstance(item, Said):
            assert text[item.start : item.start + len(item.text)] == item.text


@settings(max_examples=100, deadline=None)
@given(parsers, st.lists(st.text(max_size=40), max_size=5))
def test_rubbish_breaks_no_parser(make: Make, pieces: list[str]) -> None:
    items, _ = parse(make, pieces)
    assert all(isinstance(item, (Said, Reasoning, CallBegun, CallArguments)) for item in items)
