from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from door import scripted_door
from pares.errors import QueueFull, WorkerDied
from scripted import Asked, ScriptedModel, say

USER = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def body(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "messages": USER, **fields}


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The data of a stream, which has to end as such streams do."""
    parts = answer.text.removesuffix("\n\n").split("\n\n")
    assert parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


async def test_sampling_comes_from_request_over_model_over_default(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        await door.node.library.create(
            "made", "FROM tiny\nPARAMETER temperature 0.3\nPARAMETER top_k 7\nSYSTEM Be kind."
        )
        chat = "/v1/chat/completions"
        await door.http.post(chat, json=body())
        await door.http.post(chat, json=body(model="made"))
        await door.http.post(chat, json=body(model="made", temperature=0, min_p=0.1, seed=9, stop="x", max_tokens=3))
        await door.http.post(chat, json=body(options={"num_ctx": 99, "top_k": 5}, num_ctx=100))
        plain, made, asked, tolerated = model.asked
        assert plain.sampling.temperature == 1.0
        assert made.sampling.temperature == 0.3
        assert made.sampling.top_k == 7
        assert "Be kind." in made.prompt
        assert "Be kind." not in plain.prompt
        assert (asked.sampling.temperature, asked.sampling.min_p, asked.sampling.seed) == (0, 0.1, 9)
        assert asked.max_tokens == 3
        assert tolerated.sampling.top_k == 5
        assert door.node.contexts[-1] == 100


async def test_without_a_seed_the_one_drawn_is_told_and_choices_count_up_from_it(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        answer = (await door.http.post("/v1/chat/completions", json=body(n=3))).json()
        first = answer["x_served"]["seed"]
        assert sorted(asked.sampling.seed for asked in model.asked) == [first, first + 1, first + 2]
        assert answer["usage"]["prompt_tokens"] == 21  # three times the same, counted once
        assert answer["usage"]["completion_tokens"] == 3 * 24


async def test_chunks_have_one_role_per_choice_and_the_note_once(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        chunks = events(await door.http.post("/v1/chat/completions", json=body(stream=True, n=2, zork=1)))
        assert chunks[0]["warnings"] == ["'zork' is not known here and was ignored"]
        assert sum("x_served" in chunk for chunk in chunks) == 1
        for index in range(2):
            deltas = [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
            assert deltas[0] == {"role": "assistant", "content": ""}
            assert "".join(delta.get("content", "") for delta in deltas) == "Hello, dear wörld! 🌍"
            assert sum("role" in delta for delta in deltas) == 1
        assert all("usage" not in chunk for chunk in chunks)


async def test_reasoning_has_its_own_field(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> #}"
    model = ScriptedModel(say("Hm, well.</think>\n\nYes."), template=template)
    async with scripted_door(tmp_path, model) as door:
        whole = (await door.http.post("/v1/chat/completions", json=body())).json()["choices"][0]["message"]
        assert whole["reasoning_content"].strip() == "Hm, well."
        assert whole["content"].strip() == "Yes."
        chunks = events(await door.http.post("/v1/chat/completions", json=body(stream=True)))
        thought = "".join(c["delta"].get("reasoning_content", "") for chunk in chunks for c in chunk["choices"])
        assert thought == whole["reasoning_content"]


async def test_tool_calls_stream_in_pieces_that_join_to_the_whole(tmp_path: Path) -> None:
    def answer(asked: Asked) -> str:
        return '{"name": "look", "arguments": {"at": "the sea"}}'

    async with scripted_door(tmp_path, ScriptedModel(answer)) as door:
        asked = body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "look"}})
        whole = (await door.http.post("/v1/chat/completions", json=asked)).json()["choices"][0]
        assert whole["finish_reason"] == "tool_calls"
        assert whole["message"]["content"] is None
        call = whole["message"]["tool_calls"][0]
        assert call["function"]["name"] == "look"
        assert json.loads(call["function"]["arguments"]) == {"at": "the sea"}
        chunks = events(await door.http.post("/v1/chat/completions", json={**asked, "stream": True}))
        parts = [t for chunk in chunks for c in chunk["choices"] for t in c["delta"].get("tool_calls", ())]
        assert parts[0]["id"]
        assert parts[0]["function"]["name"] == "look"
        assert "".join(part["function"]["arguments"] for part in parts) == call["function"]["arguments"]
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tool_conversation_reaches_the_model(tmp_path: Path) -> None:
    model = ScriptedModel()
    messages = [
        {"role": "developer", "content": "Short."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "text", "text": " there"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a boat"},
    ]
    async with scripted_door(tmp_path, model) as door:
        assert (await door.http.post("/v1/chat/completions", json=body(messages=messages))).status_code == 200
        prompt = model.asked[0].prompt
        for text in ("system\nShort.", "user\nLook there", "a boat"):
            assert text in prompt


async def test_an_unfinished_answer_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel()
    messages = [*USER, {"role": "assistant", "content": "Well, I"}]
    async with scripted_door(tmp_path, model) as door:
        await door.http.post("/v1/chat/completions", json=body(messages=messages, continue_final_message=True))
        assert model.asked[0].prompt.endswith("<|im_start|>assistant\nWell, I")


NONSENSE: list[tuple[dict[str, object], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "zork"}]}, "messages[0].role"),
    ({"temperature": -1}, "temperature"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "zork"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "zork"}}}, "tool_choice"),
    ({"tools": [{"type": "code_interpreter"}]}, "tools"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "zork"}}, "response_format.type"),
    ({"continue_final_message": True}, "messages"),
    ({"model": ""}, "model"),
]


async def test_what_makes_no_sense_is_400_and_named(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        for fields, param in NONSENSE:
            for stream in (False, True):
                answer = await door.http.post("/v1/chat/completions", json=body(**fields, stream=stream))
                assert answer.status_code == 400, fields
                error = answer.json()["error"]
                assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert model.asked == []


async def test_an_unknown_model_is_404_with_its_neighbours_and_never_another_model(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"):
            asked = {"model": "tinny", "messages": USER, "prompt": "x", "input": "x"}
            error = (await door.http.post(path, json=asked)).json()["error"]
            assert error["code"] == "model_not_found"
            assert "tiny" in error["message"]
            assert error["fields"]["nearest"] == ["tiny"]
        pullable = (await door.http.get("/v1/models/smollm2")).json()["error"]
        assert "pares pull smollm2" in pullable["message"]
        assert model.asked == []


async def test_models_are_found_by_every_name_they_have(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        await door.node.library.copy("tiny", "org/team/gpt-3.5-turbo:8k")
        for name in ("tiny", "TINY", "tiny:latest", "org/team/gpt-3.5-turbo:8k", "org%2Fteam%2Fgpt-3.5-turbo:8k"):
            answer = await door.http.get(f"/v1/models/{name}")
            assert answer.status_code == 200, name
        assert (await door.http.get("/v1/models/tiny+nothing")).status_code == 404


async def test_a_full_queue_is_429_with_the_time_to_wait(tmp_path: Path) -> None:
    model = ScriptedModel(fail_after=0, failure=QueueFull(64, 64, retry_after_s=7))
    async with scripted_door(tmp_path, model) as door:
        for stream in (False, True):
            answer = await door.http.post("/v1/chat/completions", json=body(stream=stream))
            assert answer.status_code == 429
            assert answer.headers["Retry-After"] == "7"
            assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_a_stream_that_breaks_says_so_and_does_not_pretend_to_be_done(tmp_path: Path) -> None:
    model = ScriptedModel(fail_after=3, failure=WorkerDied("The model's process ended."))
    async with scripted_door(tmp_path, model) as door:
        answer = await door.http.post("/v1/chat/completions", json=body(stream=True))
        assert answer.status_code == 200
        last = answer.text.removesuffix("\n\n").split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "worker_died"
        assert "[DONE]" not in answer.text
        whole = await door.http.post("/v1/chat/completions", json=body())
        assert whole.status_code == 500


async def test_a_bug_is_500_in_shape_and_quotes_no_prompt_not_even_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(asked: Asked) -> str:
        raise ZeroDivisionError(asked.prompt)

    messages = [{"role": "user", "content": "my secret"}]
    async with scripted_door(tmp_path, ScriptedModel(broken)) as door:
        for path in ("/v1/chat/completions", "/api/chat"):
            answer = await door.http.post(path, json=body(messages=messages, stream=False))
            assert answer.status_code == 500
            assert "my secret" not in answer.text
    crashed = [record for record in caplog.records if record.message == "request.crashed"]
    assert len(crashed) == 2
    assert "my secret" not in str([vars(record) for record in crashed])


async def test_prompts_of_all_four_forms_get_their_answers_in_order(tmp_path: Path) -> None:
    model = ScriptedModel(lambda asked: asked.prompt.upper())
    async with scripted_door(tmp_path, model) as door:
        for prompt, texts in (
            ("ab", ["AB"]),
            (["ab", "cd"], ["AB", "CD"]),
            ([97, 98], ["AB"]),
            ([[97, 98], [99]], ["AB", "C"]),
        ):
            asked = {"model": "tiny", "prompt": prompt}
            answer = (await door.http.post("/v1/completions", json=asked)).json()
            assert [choice["text"] for choice in answer["choices"]] == texts
            chunks = events(await door.http.post("/v1/completions", json={**asked, "stream": True}))
            for index, text in enumerate(texts):
                parts = [c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
                assert "".join(parts) == text


async def test_completions_echo_count_and_stop_where_told(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(say(" there was a stop sign"))) as door:
        asked = {"model": "tiny", "prompt": "Once", "echo": True, "stop": ["stop"], "max_tokens": 99, "n": 2}
        answer = (await door.http.post("/v1/completions", json=asked)).json()
        assert [choice["text"] for choice in answer["choices"]] == ["Once there was a "] * 2
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["prompt_tokens"] == 4
        nothing = (await door.http.post("/v1/completions", json={**asked, "max_tokens": 0, "n": 1})).json()
        assert nothing["choices"][0]["text"] == "Once"
        short = (await door.http.post("/v1/completions", json={"model": "tiny", "prompt": "Once"})).json()
        assert short["usage"]["completion_tokens"] == 16
        tokens = (await door.http.post("/v1/completions", json={**asked, "prompt": [79, 110]})).json()
        assert tokens["choices"][0]["text"].startswith("On there")
        assert len(events(await door.http.post("/v1/completions", json={**asked, "stream": True}))) > 3


async def test_a_suffix_asks_for_the_middle(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        await door.http.post("/v1/completions", json={"model": "tiny", "prompt": "def f(", "suffix": "return"})
        assert model.asked[0].prompt == "<|fim_prefix|>def f(<|fim_suffix|>return<|fim_middle|>"


async def test_completions_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    refused: list[dict[str, object]] = [
        {"prompt": []},
        {"prompt": None},
        {"prompt": [""] * 200},
        {"best_of": 3},
        {"echo": True, "logprobs": 1},
        {"prompt": [1, "a"]},
        {"prompt": [99999]},
    ]
    async with scripted_door(tmp_path) as door:
        for fields in refused:
            answer = await door.http.post("/v1/completions", json={"model": "tiny", "prompt": "a", **fields})
            assert answer.status_code == 400, fields


async def test_legacy_logprobs_are_parallel_lists_over_the_whole_stream(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(say("abc"))) as door:
        asked = {"model": "tiny", "prompt": "x", "logprobs": 2}
        whole = (await door.http.post("/v1/completions", json=asked)).json()["choices"][0]["logprobs"]
        assert whole["tokens"] == ["a", "b", "c"]
        assert whole["text_offset"] == [0, 1, 2]
        assert whole["token_logprobs"] == [-0.5] * 3
        assert all(len(top) == 2 for top in whole["top_logprobs"])
        chunks = events(await door.http.post("/v1/completions", json={**asked, "stream": True}))
        told = [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
        assert [offset for part in told for offset in part["text_offset"]] == [0, 1, 2]


async def test_embeddings_are_unit_vectors_in_either_encoding_and_any_length(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        asked: dict[str, object] = {"model": "tiny", "input": ["one", "two words"]}
        plain = (await door.http.post("/v1/embeddings", json=asked)).json()
        packed = (await door.http.post("/v1/embeddings", json={**asked, "encoding_format": "base64"})).json()
        short = (await door.http.post("/v1/embeddings", json={**asked, "dimensions": 3})).json()
        tokens = (await door.http.post("/v1/embeddings", json={**asked, "input": [[111, 110, 101]]})).json()
        first = plain["data"][0]["embedding"]
        assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4") == pytest.approx(first)
        assert np.linalg.norm(short["data"][0]["embedding"]) == pytest.approx(1, abs=1e-6)
        assert np.array(first[:3]) / np.linalg.norm(first[:3]) == pytest.approx(short["data"][0]["embedding"])
        assert tokens["data"][0]["embedding"] == first
        assert plain["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


async def test_embeddings_refuse_nonsense(tmp_path: Path) -> None:
    refused: list[dict[str, object]] = [
        {"input": ""},
        {"input": []},
        {"input": [[]]},
        {"input": [99999]},
        {"dimensions": 9},
        {"encoding_format": "x"},
        {"input": ["a"] * 3000},
    ]
    async with scripted_door(tmp_path) as door:
        for fields in refused:
            answer = await door.http.post("/v1/embeddings", json={"model": "tiny", "input": "a", **fields})
            assert answer.status_code == 400, str(fields)[:40]


async def test_texts_turn_to_tokens_and_back_and_through_the_template(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        asked = {"model": "tiny", "content": "hé<|im_end|>"}
        tokens = (await door.http.post("/tokenize", json=asked)).json()["tokens"]
        assert tokens == [104, 0xC3, 0xA9, 258]
        back = await door.http.post("/detokenize", json={"model": "tiny", "tokens": tokens})
        assert back.json() == {"content": "hé<|im_end|>"}
        pieces = (await door.http.post("/tokenize", json={**asked, "with_pieces": True})).json()["tokens"]
        assert pieces[1] == {"id": 0xC3, "piece": [0xC3]}
        prompt = (await door.http.post("/apply-template", json={"model": "tiny", "messages": USER})).json()["prompt"]
        assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
