from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

from door import scripted_door
from pares.errors import WorkerDied
from scripted import ScriptedModel, say

THINKER = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> #}"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
CALL = say('{"name": "look", "arguments": {"at": "the sea"}}')


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    found = []
    for part in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def body(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "input": "hi", **fields}


async def test_thinking_and_text_are_two_items_and_thoughts_are_counted(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(say("Hm.</think>\n\nYes."), template=THINKER)) as door:
        whole = (await door.http.post("/v1/responses", json=body())).json()
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
        assert whole["output"][0]["content"][0]["text"].strip() == "Hm."
        assert whole["output"][1]["content"][0]["text"].strip() == "Yes."
        assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] == len(
            whole["output"][0]["content"][0]["text"]
        )
        assert whole["status"] == "completed"
        assert whole["store"] is False
        streamed = events(await door.http.post("/v1/responses", json=body(stream=True)))
        kinds = [e["type"].removeprefix("response.") for e in streamed if not e["type"].endswith("delta")]
        item = ["output_item.added", "content_part.added", "...", "content_part.done", "output_item.done"]
        assert kinds == [
            *("created", "in_progress"),
            *("reasoning_text.done" if kind == "..." else kind for kind in item),
            *("output_text.done" if kind == "..." else kind for kind in item),
            "completed",
        ]
        final = streamed[-1]["response"]
        assert [item["content"] for item in final["output"]] == [item["content"] for item in whole["output"]]


async def test_a_call_is_an_item_of_its_own(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(CALL)) as door:
        asked = body(tools=[TOOL], tool_choice="required")
        whole = (await door.http.post("/v1/responses", json=asked)).json()
        item = whole["output"][0]
        assert (item["type"], item["name"], item["status"]) == ("function_call", "look", "completed")
        assert json.loads(item["arguments"]) == {"at": "the sea"}
        streamed = events(await door.http.post("/v1/responses", json={**asked, "stream": True}))
        deltas = [e["delta"] for e in streamed if e["type"] == "response.function_call_arguments.delta"]
        done = next(e for e in streamed if e["type"] == "response.function_call_arguments.done")
        assert "".join(deltas) == done["arguments"] == item["arguments"]


async def test_items_become_the_conversation(tmp_path: Path) -> None:
    model = ScriptedModel()
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a boat"},
    ]
    async with scripted_door(tmp_path, model) as door:
        answer = await door.http.post("/v1/responses", json=body(input=items, instructions="Short."))
        assert answer.status_code == 200
        for text in ("system\nShort.", "user\nLook", "a boat"):
            assert text in model.asked[0].prompt


async def test_an_answer_cut_short_is_incomplete(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        whole = (await door.http.post("/v1/responses", json=body(max_output_tokens=3))).json()
        assert whole["status"] == "incomplete"
        assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
        streamed = events(await door.http.post("/v1/responses", json=body(max_output_tokens=3, stream=True)))
        assert streamed[-1]["type"] == "response.incomplete"


async def test_an_empty_answer_is_an_empty_message(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(say(""))) as door:
        whole = (await door.http.post("/v1/responses", json=body())).json()
        assert whole["output"][0]["content"][0]["text"] == ""


async def test_a_schema_is_enforced_and_logprobs_come_along(tmp_path: Path) -> None:
    model = ScriptedModel(say('{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    async with scripted_door(tmp_path, model) as door:
        asked = body(text=text, include=["message.output_text.logprobs"], top_logprobs=1)
        whole = (await door.http.post("/v1/responses", json=asked)).json()
        assert model.schemas == [schema]
        assert whole["output"][0]["content"][0]["logprobs"][0]["top_logprobs"]
        assert whole["text"]["format"]["schema"] == schema


async def test_a_break_in_the_stream_is_an_error_event(tmp_path: Path) -> None:
    model = ScriptedModel(fail_after=3, failure=WorkerDied("It ended."))
    async with scripted_door(tmp_path, model) as door:
        streamed = events(await door.http.post("/v1/responses", json=body(stream=True)))
        assert streamed[-1]["type"] == "error"
        assert streamed[-1]["code"] == "worker_died"


async def test_what_needs_a_memory_or_makes_no_sense_is_refused(tmp_path: Path) -> None:
    model = ScriptedModel()
    refused: list[dict[str, object]] = [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"input": []},
        {"input": [{"role": "zork", "content": "x"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]},
        {"tools": [{"type": "web_search"}]},
        {"text": {"format": {"type": "zork"}}},
    ]
    async with scripted_door(tmp_path, model) as door:
        for fields in refused:
            for stream in (False, True):
                answer = await door.http.post("/v1/responses", json=body(**fields, stream=stream))
                assert answer.status_code == 400, fields
                assert answer.json()["error"]["type"] == "invalid_request_error"
        assert model.asked == []
