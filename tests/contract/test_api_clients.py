"""The real clients against the real HTTP server, with a scripted model behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_clients import *  # noqa: F403
from api_clients import Server
from door import scripted_door
from scripted import Asked, ScriptedModel


def answer(asked: Asked) -> str:
    """What a model under a grammar would say, or something to look at."""
    if not asked.sampling.grammar:
        return "Hello, dear wörld! 🌍"
    if "weather" in asked.prompt:
        return json.dumps({"name": "weather", "arguments": {"place": "Rome"}})
    return '{"ok": true}'


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with scripted_door(tmp_path, ScriptedModel(answer)) as door:
        yield Server(door.url, "tiny")
