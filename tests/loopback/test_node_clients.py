"""The real clients against a real node with a real model."""

from __future__ import annotations

from typing import Any

import ollama
import openai
import pytest

from api_clients import *  # noqa: F403
from api_clients import Server
from live import Live


@pytest.fixture
def server(node: Live) -> Server:
    return Server(node.url, "smollm2")


def test_the_same_seed_gives_the_same_answer_through_both_apis(node: Live) -> None:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any") as chat:
        answers = [
            chat.chat.completions.create(
                model="smollm2",
                messages=[{"role": "user", "content": "Tell me of the sea."}],
                seed=7,
                temperature=0.7,
                max_tokens=24,
            )
            .choices[0]
            .message.content
            for _ in range(2)
        ]
    assert answers[0] == answers[1]
    options = {"seed": 7, "temperature": 0.7, "num_predict": 24, "top_k": 0, "top_p": 1.0, "repeat_penalty": 1.0}
    messages = [{"role": "user", "content": "Tell me of the sea."}]
    with ollama.Client(host=node.url) as client:
        reply = client.chat(model="smollm2", messages=messages, options=options)
    assert reply.message.content == answers[0]


def test_a_required_tool_is_called_with_arguments_of_its_schema(node: Live) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    tool: Any = {"type": "function", "function": {"name": "forecast", "parameters": parameters}}
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any") as client:
        reply = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Weather in Oslo for 3 days?"}],
            tools=[tool],
            tool_choice="required",
            temperature=0,
            max_tokens=200,
        ).choices[0]
    assert reply.finish_reason == "tool_calls"
    assert reply.message.tool_calls
    call = reply.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "forecast"
    assert '"days"' in call.function.arguments
