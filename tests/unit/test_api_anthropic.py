from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

from door import scripted_door
from pares.api.settings import Settings
from pares.errors import WorkerDied
from scripted import ScriptedModel, say

USER = [{"role": "user", "content": "hi"}]
TOOL = {"name": "look", "input_schema": {"type": "object"}}


def body(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "max_tokens": 100, "messages": USER, **fields}


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    found = []
    for part in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


async def test_a_message_streams_to_what_it_is_as_a_whole(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> #}"
    async with scripted_door(tmp_path, ScriptedModel(say("Hm.</think>\n\nYes."), template=template)) as door:
        whole = (await door.http.post("/v1/messages", json=body())).json()
        assert [block["type"] for block in whole["content"]] == ["thinking", "text"]
        assert whole["content"][0]["thinking"].strip() == "Hm."
        assert whole["stop_reason"] == "end_turn"
        assert whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"] > 0
        streamed = events(await door.http.post("/v1/messages", json=body(stream=True)))
        assert (streamed[0]["type"], streamed[-1]["type"]) == ("message_start", "message_stop")
        blocks = [event["content_block"] for event in streamed if event["type"] == "content_block_start"]
        for event in streamed:
            if event["type"] == "content_block_delta":
                kind = event["delta"]["type"].removesuffix("_delta")
                blocks[event["index"]][kind] += event["delta"][kind]
        assert blocks == whole["content"]
        assert streamed[-2]["delta"]["stop_reason"] == "end_turn"


async def test_a_tool_is_used_with_input_as_an_object(tmp_path: Path) -> None:
    model = ScriptedModel(say('{"name": "look", "arguments": {"at": "the sea"}}'))
    async with scripted_door(tmp_path, model) as door:
        whole = (await door.http.post("/v1/messages", json=body(tools=[TOOL], tool_choice={"type": "any"}))).json()
        assert whole["stop_reason"] == "tool_use"
        assert (whole["content"][0]["name"], whole["content"][0]["input"]) == ("look", {"at": "the sea"})


async def test_blocks_become_the_conversation(tmp_path: Path) -> None:
    model = ScriptedModel()
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Look"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sea"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a boat"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    async with scripted_door(tmp_path, model) as door:
        answer = await door.http.post(
            "/v1/messages", json=body(messages=messages, system=[{"type": "text", "text": "Short."}])
        )
        assert answer.status_code == 200
        for text in ("system\nShort.", "user\nLook", "a boat", "user\nSo?"):
            assert text in model.asked[0].prompt
        counted = await door.http.post("/v1/messages/count_tokens", json={"model": "tiny", "messages": USER})
        assert counted.json() == {"input_tokens": 21}


async def test_stop_sequences_are_told(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel(say("one two three"))) as door:
        whole = (await door.http.post("/v1/messages", json=body(stop_sequences=["two"]))).json()
        assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "two")
        short = (await door.http.post("/v1/messages", json=body(max_tokens=2))).json()
        assert short["stop_reason"] == "max_tokens"


async def test_errors_have_anthropics_shape_and_its_key_header_is_taken(tmp_path: Path) -> None:
    model = ScriptedModel(fail_after=3, failure=WorkerDied("It ended."))
    async with scripted_door(tmp_path, model, Settings(require_key=True)) as door:
        refused = await door.http.post("/v1/messages", json=body())
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
        key, _ = await door.node.keys.create("claude")
        headers = {"X-Api-Key": key}
        missing = await door.http.post("/v1/messages", json=body(model="no"), headers=headers)
        assert missing.json()["type"] == "error"
        broken = events(await door.http.post("/v1/messages", json=body(stream=True), headers=headers))
        assert broken[-1] == {"type": "error", "error": {"type": "api_error", "message": "It ended."}}


async def test_what_makes_no_sense_is_400(tmp_path: Path) -> None:
    refused: list[dict[str, object]] = [
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
        {"tools": [{"name": "x", "type": "bash_20250124"}]},
        {"tool_choice": {"type": "zork"}},
        {"temperature": -1},
        {"max_tokens": 0},
    ]
    async with scripted_door(tmp_path) as door:
        for fields in refused:
            for stream in (False, True):
                answer = await door.http.post("/v1/messages", json=body(**fields, stream=stream))
                assert answer.status_code == 400, fields
                assert answer.json()["error"]["type"] == "invalid_request_error"
