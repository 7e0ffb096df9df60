from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from door import Door, scripted_door
from pares.errors import WorkerDied
from scripted import ScriptedModel, say

HERE = "/pares/v1/conversations"
ANSWER = "Hello, dear wörld! 🌍"


async def begin(door: Door, **fields: object) -> str:
    made = await door.admin.post(HERE, json={"model": "tiny", **fields})
    assert made.status_code == 201
    return str(made.json()["row"]["id"])


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for part in text.removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def reply(door: Door, conversation: str, **fields: object) -> list[tuple[str, Any]]:
    answer = await door.admin.post(f"{HERE}/{conversation}/reply", json=fields)
    assert answer.status_code == 200, answer.text
    return events(answer.text)


async def whole(door: Door, conversation: str) -> dict[str, Any]:
    found: dict[str, Any] = (await door.admin.get(f"{HERE}/{conversation}")).json()
    return found


async def test_a_reply_is_streamed_and_kept_as_it_was_streamed(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        conversation = await begin(door)
        told = await reply(door, conversation, content="How are you,\nmy dear   friend?")
        kinds = [kind for kind, _ in told]
        assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("begun", "finished", {"text"})
        begun, finished = told[0][1], told[-1][1]
        assert begun["user"]["content"] == "How are you,\nmy dear   friend?"
        assert begun["assistant_id"] == finished["id"]
        assert "".join(data["text"] for kind, data in told if kind == "text") == finished["content"] == ANSWER
        assert (finished["state"], finished["model"], finished["generated_tokens"]) == ("complete", "tiny", 24)
        assert finished["parent_id"] == begun["user"]["id"]
        assert finished["tokens_per_s"] > 0
        assert isinstance(finished["seed"], int)
        kept = await whole(door, conversation)
        assert kept["row"]["title"] == "How are you, my dear friend?"
        assert kept["messages"] == [begun["user"], finished]
        assert kept["leaf"] == finished["id"]


async def test_settings_and_system_prompt_of_the_conversation_hold(tmp_path: Path) -> None:
    model = ScriptedModel(say("{}"))
    async with scripted_door(tmp_path, model) as door:
        settings = {"temperature": 0.1, "seed": 7, "max_tokens": 5, "stop": ["x"], "schema": {"type": "object"}}
        conversation = await begin(door, system="Be kind.", settings=settings)
        told = await reply(door, conversation, content="hi")
        asked = model.asked[0]
        assert (asked.sampling.temperature, asked.sampling.seed, asked.max_tokens) == (0.1, 7, 5)
        assert asked.sampling.top_k == 40
        assert model.schemas == [{"type": "object"}]
        assert asked.prompt.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi")
        assert told[-1][1]["seed"] == 7


async def test_edits_and_retries_are_branches(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        conversation = await begin(door)
        first = await reply(door, conversation, content="one")
        question, answer = first[0][1]["user"], first[-1][1]
        retried = await reply(door, conversation, parent_id=question["id"])
        assert retried[0][1]["user"] is None
        assert retried[-1][1]["parent_id"] == question["id"]
        edited = await reply(door, conversation, content="uno", parent_id=None)
        assert edited[0][1]["user"]["parent_id"] is None
        await reply(door, conversation, content="two", parent_id=answer["id"])
        assert "uno" not in model.asked[-1].prompt
        assert model.asked[-1].prompt.count("<|im_start|>") == 4
        kept = await whole(door, conversation)
        assert len(kept["messages"]) == 7
        to_itself = await door.admin.post(f"{HERE}/{conversation}/reply", json={"parent_id": answer["id"]})
        assert to_itself.status_code == 400
        changed = await door.admin.patch(f"{HERE}/{conversation}", json={"leaf": answer["id"]})
        assert changed.json()["leaf"] == answer["id"]


async def test_a_client_that_leaves_keeps_what_there_is_and_can_go_on(tmp_path: Path) -> None:
    model = ScriptedModel(say("0123456789"), hold_after=4)
    async with scripted_door(tmp_path, model) as door, asyncio.timeout(10):
        conversation = await begin(door)
        door.node.events.publish("mark", {})
        mark = door.node.events.last_id
        async with door.admin.stream("POST", f"{HERE}/{conversation}/reply", json={"content": "count"}) as answer:
            await model.held.wait()
            assert answer.status_code == 200
        await model.closed.wait()
        changes = 0
        async for event in door.node.events.subscribe(mark):
            changes += event.kind == "conversations"
            if changes == 2:
                break
        stopped = (await whole(door, conversation))["messages"][-1]
        assert (stopped["state"], stopped["content"]) == ("stopped", "0123")

        model.hold_after, model.answer = None, say("456789")
        told = await reply(door, conversation, parent_id=stopped["id"], go_on=True)
        assert told[0][1]["assistant_id"] == stopped["id"]
        assert model.asked[-1].prompt.endswith("assistant\n0123")
        assert (told[-1][1]["content"], told[-1][1]["state"]) == ("0123456789", "complete")
        assert len((await whole(door, conversation))["messages"]) == 2


async def test_a_failure_is_told_and_kept(tmp_path: Path) -> None:
    model = ScriptedModel(say("0123456789"), fail_after=4, failure=WorkerDied("It ended.", hint="Ask again."))
    async with scripted_door(tmp_path, model) as door:
        conversation = await begin(door)
        told = await reply(door, conversation, content="count")
        assert told[-1][0] == "error"
        assert (told[-1][1]["code"], told[-1][1]["message"], told[-1][1]["hint"]) == (
            "worker_died",
            "It ended.",
            "Ask again.",
        )
        failed = (await whole(door, conversation))["messages"][-1]
        assert (failed["state"], failed["content"], failed["error"]) == ("failed", "0123", "It ended. Ask again.")


async def test_loading_is_told_while_it_lasts(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door, asyncio.timeout(10):
        conversation = await begin(door)
        door.node.loading.clear()
        seen = ""
        async with door.admin.stream("POST", f"{HERE}/{conversation}/reply", json={"content": "hi"}) as answer:
            async for text in answer.aiter_text():
                seen += text
                if "event: loading" in seen:
                    door.node.loading.set()
        kinds = [kind for kind, _ in events(seen)]
        assert kinds[:2] == ["begun", "loading"]
        assert kinds[-1] == "finished"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"content": "x", "model": "no-such"}, 404),
        ({"content": "x", "parent_id": "no-such"}, 404),
        ({"go_on": True}, 400),
        ({"content": 1}, 400),
    ],
    ids=str,
)
async def test_what_cannot_be_answered_is_refused_and_nothing_is_kept(
    tmp_path: Path, fields: dict[str, object], status: int
) -> None:
    async with scripted_door(tmp_path) as door:
        conversation = await begin(door)
        answer = await door.admin.post(f"{HERE}/{conversation}/reply", json=fields)
        assert answer.status_code == status
        assert (await whole(door, conversation))["messages"] == []


async def test_a_conversation_without_a_model_asks_for_one(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        conversation = (await door.admin.post(HERE)).json()["row"]["id"]
        assert (await door.admin.post(f"{HERE}/{conversation}/reply", json={"content": "x"})).status_code == 400
        await reply(door, conversation, content="x", model="tiny")
        assert (await whole(door, conversation))["row"]["model"] == "tiny"
        await reply(door, conversation, content="y")


async def test_conversations_are_found_changed_and_deleted(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        one, two = await begin(door, title="Rome"), await begin(door)
        await reply(door, two, content="Where is Paris?")
        listed = (await door.admin.get(HERE)).json()["conversations"]
        assert [row["id"] for row in listed] == [two, one]
        found = (await door.admin.get(f"{HERE}?search=PARIS")).json()["conversations"]
        assert [row["id"] for row in found] == [two]
        changed = await door.admin.patch(
            f"{HERE}/{one}", json={"title": "Roma", "settings": {"top_k": 3}, "system": "S"}
        )
        assert (changed.json()["row"]["title"], changed.json()["settings"], changed.json()["system"]) == (
            "Roma",
            {"top_k": 3},
            "S",
        )
        assert (await door.admin.patch(f"{HERE}/{one}", json={"settings": {"top_k": "x"}})).status_code == 400
        assert (await door.admin.delete(f"{HERE}/{one}")).status_code == 204
        for answer in (
            await door.admin.delete(f"{HERE}/{one}"),
            await door.admin.get(f"{HERE}/{one}"),
            await door.admin.patch(f"{HERE}/{one}", json={}),
            await door.admin.post(f"{HERE}/{one}/reply", json={"content": "x"}),
        ):
            assert answer.status_code == 404


async def test_a_conversation_goes_out_and_comes_back(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        conversation = await begin(door, title="Röm/../x")
        await reply(door, conversation, content="hi")
        exported = await door.admin.get(f"{HERE}/{conversation}/export?format=json")
        assert "attachment" in exported.headers["Content-Disposition"]
        back = await door.admin.post(
            f"{HERE}/import", content=exported.content, headers={"Content-Type": "application/json"}
        )
        assert back.status_code == 201
        old, new = (await whole(door, conversation))["messages"], back.json()["messages"]
        assert [message["content"] for message in new] == [message["content"] for message in old]
        text = await door.admin.get(f"{HERE}/{conversation}/export?format=md")
        assert ANSWER in text.text
        assert (await door.admin.get(f"{HERE}/{conversation}/export?format=pdf")).status_code == 400
        rubbish: httpx2.Response = await door.admin.post(f"{HERE}/import", json={"format": "zork"})
        assert rubbish.status_code == 400
