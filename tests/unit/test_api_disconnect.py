from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from door import Door, scripted_door
from scripted import ScriptedModel, say

MESSAGES = [{"role": "user", "content": "hi"}]
CALLS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "choices": ("/v1/chat/completions", {"messages": MESSAGES, "n": 3}),
    "completions": ("/v1/completions", {"prompt": "x", "max_tokens": 100}),
    "prompts": ("/v1/completions", {"prompt": ["x", "y"], "max_tokens": 100}),
    "responses": ("/v1/responses", {"input": "x"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 100}),
    "ollama chat": ("/api/chat", {"messages": MESSAGES}),
    "ollama generate": ("/api/generate", {"prompt": "x"}),
}


async def connect(door: Door, path: str, body: dict[str, object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request by hand, so that hanging up is nothing but hanging up."""
    data = json.dumps({"model": "tiny", **body}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rsplit(":", 1)[1]))
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (path.encode(), door.node.admin_token.encode(), len(data), data)
    )
    return reader, writer


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("kind", CALLS)
async def test_hanging_up_ends_the_generation_at_once(tmp_path: Path, kind: str, stream: bool) -> None:
    model = ScriptedModel(say("0123456789"), hold_after=4)
    path, body = CALLS[kind]
    async with scripted_door(tmp_path, model) as door, asyncio.timeout(10):
        reader, writer = await connect(door, path, {**body, "stream": stream})
        await model.held.wait()
        if stream:
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert model.active >= 1
        writer.close()
        await model.closed.wait()
        await model.idle.wait()
        await writer.wait_closed()


async def test_hanging_up_while_the_model_loads_gives_it_up(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door, asyncio.timeout(10):
        door.node.loading.clear()
        _, writer = await connect(door, "/v1/chat/completions", {"messages": MESSAGES})
        await door.node.asked_to_load.wait()
        writer.close()
        await writer.wait_closed()
        await door.node.load_given_up.wait()
        assert model.asked == []


async def test_a_slow_reader_holds_nobody_else_up(tmp_path: Path) -> None:
    model = ScriptedModel(say("x" * 3000))
    async with scripted_door(tmp_path, model) as door, asyncio.timeout(20):
        _, slow = await connect(door, "/v1/chat/completions", {"messages": MESSAGES, "stream": True})
        answer = await door.http.post("/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES})
        assert answer.json()["usage"]["completion_tokens"] == 3000
        slow.close()
        await slow.wait_closed()
