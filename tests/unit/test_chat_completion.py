"""A request becomes a prompt, and the tokens that follow become pieces of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from itertools import count

import pytest
from chat_scripts import CONTROL, TEMPLATES, ScriptedModel

from pares.chat.completion import chat, complete, gather, new_call_id, prompt_of
from pares.chat.messages import (
    Answer,
    CallArguments,
    CallBegun,
    ChatRequest,
    CompletionRequest,
    Finished,
    Message,
    Piece,
    Reasoning,
    Text,
    Tool,
    ToolCall,
)
from pares.errors import BadRequest, ContextOverflow, NotSupported
from pares.inference.generation import Sampling, TokenId

NOW = datetime(2026, 11, 22, 12, 0)
USER = Message("user", "Hi")
WEATHER = Tool("get_weather", "Weather now", {"type": "object", "properties": {"city": {"type": "string"}}})
NOOP = Tool("noop")
CALL = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
WANTED = ToolCall("call_0", "get_weather", '{"city": "Rome"}')


def request(*messages: Message, **fields: object) -> ChatRequest:
    return ChatRequest(messages=messages or (USER,), **fields)  # type: ignore[arg-type]


async def answer(model: ScriptedModel, asked: ChatRequest | None = None) -> Answer:
    numbers = count()
    return await gather(chat(model, asked or request(), now=NOW, new_id=lambda: f"call_{next(numbers)}"))


async def pieces(model: ScriptedModel, asked: ChatRequest) -> list[Piece]:
    return [piece async for piece in chat(model, asked, now=NOW)]


async def test_answer_streams_as_it_is_generated() -> None:
    model = ScriptedModel("Né!", template=TEMPLATES["chatml"])
    *texts, finished = await pieces(model, request())
    assert texts == [Text("N"), Text("é"), Text("!")]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage.generated_tokens) == ("stop", len("Né!".encode()))
    assert model.text(model.prompt) == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert model.max_tokens == model.facts.context - len(model.prompt)


async def test_begin_token_is_given_once() -> None:
    for template in ("{{ bos_token }}x", "x"):
        model = ScriptedModel(template=template)
        await answer(model)
        assert model.text(model.prompt) == "<s>x"


async def test_reasoning_text_and_calls_are_gathered() -> None:
    script = f"<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{CALL}\n</tool_call>"
    got = await answer(ScriptedModel(script, template=TEMPLATES["qwen"]), request(tools=[WEATHER]))
    assert got.message == Message("assistant", "I look.\n", "Hm.", (WANTED,))
    assert got.reason == "tool_calls"


async def test_control_tokens_of_calls_are_read_in_each_family() -> None:
    for template, script in [
        ("mistral", "[TOOL_CALLS]get_weather[ARGS]" + '{"city": "Rome"}'),
        ("llama3", "<|python_tag|>" + CALL),
        (
            "harmony",
            '<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>{"city": "Rome"}<|call|>',
        ),
        ("chatml", f"<tool_call>{CALL}</tool_call>"),
    ]:
        got = await answer(ScriptedModel(script, template=TEMPLATES[template]), request(tools=[WEATHER]))
        assert (got.message.tool_calls, got.message.content, got.reason) == ((WANTED,), "", "tool_calls")


async def test_markup_is_text_where_no_tools_are_offered() -> None:
    plain = [marker for marker in CONTROL if "tool_call" not in marker]
    script = f"<tool_call>{CALL}</tool_call>"
    for asked in (request(), request(tools=[WEATHER], tool_choice="none")):
        model = ScriptedModel(script, template=TEMPLATES["qwen"], control=plain)
        assert (await answer(model, asked)).message.content == script
        assert "get_weather" not in model.text(model.prompt)


@pytest.mark.parametrize("choice", ["required", "tool:get_weather"])
@pytest.mark.parametrize("template", ["qwen", "llama3", "mistral", "harmony", "chatml", ""])
async def test_enforced_call_is_a_grammar_and_is_read_back(template: str, choice: str) -> None:
    model = ScriptedModel(CALL, template=TEMPLATES.get(template, ""))
    got = await answer(model, request(tools=[WEATHER, NOOP], tool_choice=choice))
    assert (got.message.tool_calls, got.reason) == ((WANTED,), "tool_calls")
    assert (model.sampling.grammar, model.sampling.grammar_trigger) == ("root ::= [a-z]", "")
    assert ("noop" in json.dumps(model.schemas)) == (choice == "required")


async def test_schema_leaves_no_room_for_reasoning_unless_asked() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    model = ScriptedModel('{"a": 1}', template=TEMPLATES["qwen"])
    got = await answer(model, request(schema=schema))
    assert (got.message.content, model.schemas) == ('{"a": 1}', [schema])
    assert model.text(model.prompt).endswith("<think>\n\n</think>\n\n")

    model.answer = 'Hm.</think>\n\n{"a": 1}'
    got = await answer(model, request(schema=schema, thinking=True))
    assert (got.message.reasoning, got.message.content) == ("Hm.", '{"a": 1}')
    assert model.text(model.prompt).endswith("assistant\n<think>\n")
    assert model.sampling.grammar_trigger == "</think>"
    assert model.sampling.grammar == 'root ::= "</think>" "\\n"? "\\n"? answer\nanswer ::= [a-z]'


async def test_empty_schema_is_any_object_and_tools_stay_possible_beside_one() -> None:
    model = ScriptedModel('{"a": 1}', template=TEMPLATES["qwen"])
    assert (await answer(model, request(schema={}, tools=[WEATHER]))).message.content == '{"a": 1}'
    assert model.schemas[0]["anyOf"][0] == {"type": "object"}  # type: ignore[index]
    model.answer = CALL
    assert (await answer(model, request(schema={}, tools=[WEATHER]))).message.tool_calls == (WANTED,)


async def test_prompt_that_opens_the_reasoning() -> None:
    template = TEMPLATES["chatml"] + "{{ '<think>\n' }}"
    got = await answer(ScriptedModel("Hm.</think>4", template=template))
    assert (got.message.reasoning, got.message.content) == ("Hm.", "4")
    model = ScriptedModel("4", template=template)
    assert (await answer(model, request(thinking=False))).message.content == "4"
    assert model.text(model.prompt).endswith("<think>\n</think>\n\n")


async def test_stop_string_ends_the_answer_and_the_sequence() -> None:
    model = ScriptedModel("One. Two. Three.", template=TEMPLATES["chatml"])
    got = await answer(model, request(stop=["wo", "xyz"]))
    assert (got.message.content, got.reason, got.stopped_by) == ("One. T", "stop", "wo")
    assert got.usage.generated_tokens == len("One. Two")
    assert got.usage.prompt_tokens == len(model.prompt)
    assert model.running == 0


async def test_limit_of_tokens_ends_the_answer() -> None:
    got = await answer(ScriptedModel("One. Two.", template=TEMPLATES["chatml"]), request(max_tokens=4, stop=["One.!"]))
    assert (got.message.content, got.reason) == ("One.", "length")


async def test_listener_who_leaves_frees_the_sequence() -> None:
    model = ScriptedModel("One. Two.", template=TEMPLATES["chatml"])
    async with aclosing(chat(model, request(), now=NOW)) as stream:
        async for piece in stream:
            assert (piece, model.running) == (Text("O"), 1)
            break
    assert model.running == 0


async def test_log_probabilities_stay_with_their_text() -> None:
    script = f"<think>ab</think>xé<tool_call>{CALL}</tool_call>"
    model = ScriptedModel(script, template=TEMPLATES["qwen"])
    asked = request(tools=[WEATHER], stop=["é!"], sampling=Sampling(logprobs=2))
    got = await gather(chat(model, asked, now=NOW))
    assert b"".join(entry.piece for entry in got.logprobs).decode() == got.message.content == "xé"
    assert [entry.logprob for entry in got.logprobs] == [-byte / 1000 for byte in "xé".encode()]
    assert got.logprobs[0].top == ((TokenId(0), b"\x00", -1.0), (TokenId(1), b"\x01", -1.0))


async def test_log_probabilities_of_broken_characters_are_all_there() -> None:
    model = ScriptedModel([b"a\xf0\x9f", b"b\xc3"], template=TEMPLATES["chatml"])
    got = await gather(chat(model, request(sampling=Sampling(logprobs=0)), now=NOW))
    assert (got.message.content, len(got.logprobs)) == ("a�b�", 5)


async def test_unfinished_answer_is_gone_on_with() -> None:
    last = Message("assistant", "It is")
    for template, end in [
        ("chatml", "<|im_start|>assistant\nIt is"),
        ("qwen", "<|im_start|>assistant\nIt is"),
        ("harmony", "<|start|>assistant<|channel|>final<|message|>It is"),
        ("", "User: Hi\n\nAssistant: It is"),
    ]:
        model = ScriptedModel(" 4", template=TEMPLATES.get(template, ""))
        assert (await answer(model, request(USER, last, continue_last=True))).message.content == " 4"
        assert model.text(model.prompt).endswith(end)
    model = ScriptedModel(" so.</think>4", template=TEMPLATES["qwen"])
    got = await answer(model, request(USER, Message("assistant", reasoning="Hm,"), continue_last=True))
    assert (got.message.reasoning, got.message.content) == ("so.", "4")
    assert model.text(model.prompt).endswith("<think>\nHm,")


async def test_model_without_a_template_stops_before_the_next_turn() -> None:
    got = await answer(ScriptedModel(" Hello.\n\nUser: And"))
    assert (got.message.content, got.reason, got.stopped_by) == ("Hello.", "stop", "")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("messages", {"messages": ()}),
        ("messages", {"continue_last": True}),
        ("max_tokens", {"max_tokens": 0}),
        ("stop", {"stop": ["x"] * 65}),
        ("stop", {"stop": ["x" * 1025]}),
        ("tools", {"tools": [WEATHER, WEATHER]}),
        ("tools", {"tools": [Tool('a"b')]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tool_choice": "tool:noop", "tools": [WEATHER]}),
        ("tool_choice", {"tool_choice": "tool:", "tools": [WEATHER]}),
        ("tool_choice", {"tool_choice": "auto:noop", "tools": [WEATHER]}),
        ("tool_choice", {"tool_choice": "any", "tools": [WEATHER]}),
        ("grammar", {"schema": {}, "sampling": Sampling(grammar="root ::= [a-z]")}),
    ],
)
async def test_wrong_request_names_its_field(param: str, fields: dict[str, object]) -> None:
    model = ScriptedModel("x", template=TEMPLATES["chatml"])
    with pytest.raises(BadRequest) as caught:
        await answer(model, ChatRequest(**{"messages": (USER,), **fields}))  # type: ignore[arg-type]
    assert caught.value.param == param
    assert model.prompt == []


async def test_prompt_longer_than_the_context_says_both_numbers() -> None:
    model = ScriptedModel(context=40)
    with pytest.raises(ContextOverflow, match="context of this model holds 40") as caught:
        await answer(model, request(Message("user", "x" * 100)))
    assert caught.value.param == "messages"
    with pytest.raises(ContextOverflow) as caught:
        await gather(complete(model, CompletionRequest("x" * 100)))
    assert (caught.value.param, caught.value.fields["needed"]) == ("prompt", 102)


async def test_long_conversation_is_written_beside_the_event_loop() -> None:
    model = ScriptedModel("ok", template=TEMPLATES["chatml"], context=2**20)
    assert (await answer(model, request(Message("user", "x" * 300_000)))).message.content == "ok"


async def test_text_is_completed_without_a_template() -> None:
    model = ScriptedModel(" upon a <think> time. END", template=TEMPLATES["qwen"])
    asked = CompletionRequest("Once", stop=["END"], sampling=Sampling(logprobs=0), max_tokens=40)
    got = await gather(complete(model, asked))
    assert (got.message.content, got.stopped_by) == (" upon a  time. ", "END")
    assert len(got.logprobs) == len(got.message.content)
    assert model.text(model.prompt) == "<s>Once"
    got = await gather(complete(model, CompletionRequest([TokenId(79)], schema={})))
    assert (model.prompt, model.schemas) == ([79], [{"type": "object"}])


@pytest.mark.parametrize(("prompt", "tokens"), [("", [256]), ([], [256])])
async def test_empty_prompt_is_the_begin_token(prompt: str | Sequence[TokenId], tokens: list[int]) -> None:
    assert (await prompt_of(ScriptedModel(), CompletionRequest(prompt)))[0] == tokens


async def test_prompt_that_is_none_is_a_bad_request() -> None:
    for prompt in ([TokenId(100_000)], [TokenId(-1)]):
        with pytest.raises(BadRequest, match="is not among the"):
            await gather(complete(ScriptedModel(), CompletionRequest(prompt)))
    with pytest.raises(BadRequest, match="no prompt"):
        await gather(complete(ScriptedModel(control=["x"]), CompletionRequest([])))


async def test_middle_is_filled_in_where_the_model_knows_how() -> None:
    model = ScriptedModel("b")
    await gather(complete(model, CompletionRequest("a<s>", suffix="c")))
    assert model.text(model.prompt) == "<s><|fim_prefix|>a<s><|fim_suffix|>c<|fim_middle|>"
    assert len(model.prompt) == 1 + 1 + 4 + 1 + 1 + 1
    with pytest.raises(NotSupported):
        await gather(complete(ScriptedModel(control=["<s>"]), CompletionRequest("a", suffix="c")))
    with pytest.raises(NotSupported):
        await gather(complete(model, CompletionRequest([TokenId(65)], suffix="c")))


async def test_prompt_can_be_looked_at() -> None:
    model = ScriptedModel(template=TEMPLATES["chatml"])
    tokens, text = await prompt_of(model, request(), now=NOW)
    assert (text, model.text(tokens)) == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>" + text)
    assert await prompt_of(model, CompletionRequest("Hi")) == ([256, 72, 105], "Hi")
    assert await prompt_of(model, CompletionRequest([TokenId(72)])) == ([72], "H")


def test_call_ids_are_long_and_differ() -> None:
    one, two = new_call_id(), new_call_id()
    assert one != two
    assert one.startswith("call_")
    assert (len(one), one[5:].isalnum()) == (29, True)


async def test_pieces_of_a_call_come_one_by_one() -> None:
    model = ScriptedModel(f"<tool_call>{CALL}</tool_call>", template=TEMPLATES["qwen"])
    got = await pieces(model, request(tools=[WEATHER]))
    begun = got[0]
    assert isinstance(begun, CallBegun)
    assert begun.name == "get_weather"
    assert all(isinstance(piece, CallArguments) and len(piece.text) == 1 for piece in got[1:-1])
    assert not any(isinstance(piece, (Text, Reasoning)) for piece in got)
