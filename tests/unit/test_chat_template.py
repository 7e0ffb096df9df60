"""Conversations are written as each family of models learned them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from chat_scripts import TEMPLATES

from pares.chat.messages import Message, Tool, ToolCall
from pares.chat.template import MAX_SOURCE, PLAIN, choose, folded, render
from pares.errors import BadRequest, BrokenModelFile
from pares.inference.gguf import read_header

NOW = datetime(2026, 11, 22, 12, 0)
SYSTEM, USER, ASSISTANT = Message("system", "Be brief."), Message("user", " Hi "), Message("assistant", "Hello.")
CALL = ToolCall("call_abcdefghijklmnop12345678", "get_weather", '{"city": "Rome"}')
CALLED = [
    Message("user", "Weather?"),
    Message("assistant", tool_calls=(CALL,)),
    Message("tool", "Sun", tool_call_id=CALL.id),
]
WEATHER = Tool("get_weather", "Weather now", {"type": "object", "properties": {"city": {"type": "string"}}})
TOOL_JSON = (
    '{"type": "function", "function": {"name": "get_weather", "description": "Weather now", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}'
)


def written(name: str, messages: list[Message], tools: list[Tool] | None = None, **variables: object) -> str:
    source = TEMPLATES.get(name, name)
    defaults = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    return render(source, messages, tools or [], now=NOW, **{**defaults, **variables})


def test_smollm2_speaks_chatml(smollm2: Path) -> None:
    source = str(read_header(smollm2).metadata["tokenizer.chat_template"])
    assert written(source, [SYSTEM, USER]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"
    )
    assert written(source, [USER]).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    )


def test_qwen_thinks_and_calls() -> None:
    assert written("qwen", [SYSTEM, USER], enable_thinking=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    thought = Message("assistant", tool_calls=(CALL,), reasoning="Look it up.")
    assert written("qwen", [CALLED[0], thought, CALLED[2]], [WEATHER]) == (
        f"<|im_start|>system\n# Tools\n\n<tools>\n{TOOL_JSON}\n</tools>\n\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nWeather?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nLook it up.\n</think>\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nSun\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama3_gets_the_date_it_is_told() -> None:
    head = "<s><|start_header_id|>system<|end_header_id|>\n\n"
    assert written("llama3", [SYSTEM, USER]) == (
        f"{head}Today Date: 22 Nov 2026\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    with_tools = written("llama3", CALLED, [WEATHER])
    assert with_tools.startswith(f"{head}Environment: ipython\nToday Date: 22 Nov 2026\n\n<|eot_id|>")
    assert '{\n    "type": "function",\n    "function": {\n        "name": "get_weather",' in with_tools
    assert '{"name": "get_weather", "parameters": {"city": "Rome"}}<|eot_id|>' in with_tools


def test_mistral_gets_ids_of_nine_letters() -> None:
    assert written("mistral", [SYSTEM, USER, ASSISTANT, USER]) == (
        "<s>[INST] Hi [/INST]Hello.</s>[INST]Be brief.\n\n Hi [/INST]"
    )
    with_tools = written("mistral", CALLED, [WEATHER])
    assert with_tools.startswith(f"<s>[AVAILABLE_TOOLS][{TOOL_JSON}][/AVAILABLE_TOOLS][INST]Weather?[/INST]")
    assert '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "p12345678"}]</s>' in with_tools
    assert with_tools.endswith('[TOOL_RESULTS]{"content": Sun, "call_id": "p12345678"}[/TOOL_RESULTS]')


def test_gemma_has_the_system_message_folded_into_the_first_turn() -> None:
    expected = "<s><start_of_turn>user\nBe brief.\n\n Hi<end_of_turn>\n<start_of_turn>model\n"
    assert written("gemma", [SYSTEM, USER]) == expected
    joined = written("gemma", [USER, USER, ASSISTANT, USER])
    assert joined.count("<start_of_turn>user") == 2


def test_gpt_oss_gets_its_reasoning_back_while_it_calls() -> None:
    thought = Message("assistant", tool_calls=(CALL,), reasoning="Look it up.")
    text = written("harmony", [SYSTEM, CALLED[0], thought, CALLED[2]], [WEATHER], reasoning_effort="low")
    assert "Current date: 2026-11-22\n\nReasoning: low" in text
    assert text.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant to=functions.get_weather"
        '<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
        '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"Sun"<|end|><|start|>assistant'
    )


def test_hermes_describes_tools_with_macros() -> None:
    text = written("hermes", CALLED, [WEATHER])
    assert text.startswith("<s>get_weather(city: str) - Weather now<tool_call>\n<|im_start|>user\nWeather?<|im_end|>\n")
    assert "<|im_start|>tool\n<tool_response>\nSun\n</tool_response><|im_end|>" in text


def test_model_without_a_template_gets_the_plain_one() -> None:
    assert choose({}, tools=True) == PLAIN
    assert written(PLAIN, [SYSTEM, USER, ASSISTANT, USER]) == (
        "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Hi\n\nAssistant:"
    )


def test_template_for_tools_is_chosen_with_tools() -> None:
    templates = {"default": "a", "tool_use": TEMPLATES["hermes"]}
    assert [choose(templates, tools=tools) for tools in (True, False)] == [TEMPLATES["hermes"], "a"]
    assert choose({"default": "a", "tool_use": "{{ tools }} in a form of its own"}, tools=True) == "a"
    assert choose({"rag": "c"}, tools=False) == "c"
    assert choose({"default": ""}, tools=False) == PLAIN


def test_folding_keeps_all_that_was_said() -> None:
    late = [USER, ASSISTANT, SYSTEM]
    assert folded(late) == [USER, ASSISTANT, Message("user", "Be brief.")]
    assert folded([SYSTEM, SYSTEM, USER]) == [Message("user", "Be brief.\n\nBe brief.\n\n Hi ")]
    assert folded([SYSTEM]) == [Message("user", "Be brief.")]
    assert folded([USER, ASSISTANT]) == [USER, ASSISTANT]
    assert folded(CALLED) == CALLED
    assert folded([]) == []


def test_refusal_that_stands_comes_in_the_templates_words() -> None:
    with pytest.raises(BadRequest, match="Conversation roles must alternate") as caught:
        written("gemma", [ASSISTANT, USER])
    assert caught.value.param == "messages"


def test_conversation_that_a_template_cannot_express_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="cannot express this conversation: 'x' is undefined"):
        written("{{ x.y }}", [USER])


def test_arguments_that_are_not_json_stay_text() -> None:
    odd = Message("assistant", tool_calls=(ToolCall("1", "f", "{oops"), ToolCall("2", "f", "[" * 99_999)))
    assert '"arguments": {oops}' in written("qwen", [USER, odd])


def test_schema_nested_without_end_is_a_bad_request() -> None:
    parameters: dict[str, object] = {}
    for _ in range(500):
        parameters = {"properties": parameters}
    with pytest.raises(BadRequest, match="nested too deeply"):
        written("qwen", [USER], [Tool("f", "", parameters)])


def test_too_long_a_template_is_not_compiled() -> None:
    with pytest.raises(BrokenModelFile, match=f"at most {MAX_SOURCE}"):
        written("x" * (MAX_SOURCE + 1), [USER])


def test_long_conversation_stays_within_the_budget() -> None:
    conversation = [SYSTEM, *[Message("user", "Go on. " * 50), Message("assistant", "So. " * 200)] * 500, USER]
    for name in ("qwen", "llama3", "mistral", "gemma", "chatml", "harmony"):
        assert len(written(name, conversation)) > 500_000


def test_ten_megabytes_are_written_too() -> None:
    long = Message("user", "word " * 2_000_000)
    for name in ("qwen", "llama3", "mistral", "gemma", "chatml", "harmony"):
        assert len(written(name, [long])) > 9_999_990
