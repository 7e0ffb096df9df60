"""What clients people really use must be able to do. Needs a fixture `server`; says nothing about what models answer.

Imported by the tests of the API with scripted models, and by those with a real engine.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import ollama
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionMessageParam


@dataclass(frozen=True)
class Server:
    """A node that answers: `model` chats."""

    url: str
    model: str
    key: str = "sk-any"


MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
TOOL: Any = {"type": "function", "function": WEATHER}


@asynccontextmanager
async def openai_client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
        yield client


@asynccontextmanager
async def ollama_client(server: Server) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=server.url, headers={"Authorization": f"Bearer {server.key}"})
    async with client:
        yield client


async def test_openai_lists_and_retrieves_models(server: Server) -> None:
    async with openai_client(server) as client:
        ids = [model.id async for model in client.models.list()]
        assert server.model in ids
        model = await client.models.retrieve(server.model)
        assert model.id == server.model
        assert model.object == "model"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("no/such+model")
        assert caught.value.code == "model_not_found"


async def test_openai_chats(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.chat.completions.create(model=server.model, messages=MESSAGES, max_tokens=8, seed=1)
        choice = answer.choices[0]
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert 0 < answer.usage.completion_tokens <= 8
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        extra = answer.model_extra or {}
        assert extra["x_served"]["where"] == "local"
        assert extra["x_served"]["seed"] == 1


async def test_openai_streams_what_it_answers_at_once(server: Server) -> None:
    async with openai_client(server) as client:
        options: dict[str, Any] = {"model": server.model, "messages": MESSAGES, "max_tokens": 8, "seed": 3}
        whole = await client.chat.completions.create(**options)
        stream = await client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        assert reasons[-1] == whole.choices[0].finish_reason
        assert set(reasons[:-1]) == {None}
        assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_openai_gives_several_choices(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.chat.completions.create(model=server.model, messages=MESSAGES, n=3, max_tokens=4)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        stream = await client.chat.completions.create(
            model=server.model, messages=MESSAGES, n=3, max_tokens=4, stream=True
        )
        finished = [choice.index async for chunk in stream for choice in chunk.choices if choice.finish_reason]
        assert sorted(finished) == [0, 1, 2]


async def test_openai_tells_logprobs(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.chat.completions.create(
            model=server.model, messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=2
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content
        for item in logprobs.content:
            assert item.logprob <= 0
            assert item.bytes is not None
            assert len(item.top_logprobs) == 2


async def test_openai_forces_a_tool_call(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.chat.completions.create(
            model=server.model,
            messages=MESSAGES,
            tools=[TOOL],
            tool_choice="required",
            max_tokens=200,
            temperature=0,
        )
        choice = answer.choices[0]
        assert choice.message.tool_calls
        call = choice.message.tool_calls[0]
        assert call.type == "function"
        assert call.id
        assert call.function.name == "weather"
        if choice.finish_reason == "tool_calls":
            assert isinstance(json.loads(call.function.arguments)["place"], str)


async def test_openai_enforces_a_schema(server: Server) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    async with openai_client(server) as client:
        answer = await client.chat.completions.create(
            model=server.model,
            messages=MESSAGES,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
            max_tokens=100,
            temperature=0,
        )
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content or "")["ok"], bool)


async def test_openai_completes_text(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.completions.create(
            model=server.model, prompt=["Once", "upon"], max_tokens=4, n=2, echo=True
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text.split()[0][:4] for choice in answer.choices] == ["Once", "Once", "upon", "upon"]
        stream = await client.completions.create(model=server.model, prompt="Once", max_tokens=4, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")


async def test_openai_tells_legacy_logprobs(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.completions.create(model=server.model, prompt="Once", max_tokens=4, logprobs=2)
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens
        assert logprobs.token_logprobs
        assert logprobs.top_logprobs
        assert logprobs.text_offset
        assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
        assert logprobs.text_offset[0] == 0


async def test_openai_embeds(server: Server) -> None:
    async with openai_client(server) as client:
        plain = await client.embeddings.create(model=server.model, input=["a", "b"], encoding_format="float")
        packed = await client.embeddings.create(model=server.model, input=["a", "b"])  # base64 on the wire
        short = await client.embeddings.create(model=server.model, input="a", dimensions=4, encoding_format="float")
        assert [item.index for item in plain.data] == [0, 1]
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
        assert len(short.data[0].embedding) == 4
        assert sum(value**2 for value in short.data[0].embedding) == pytest.approx(1, abs=1e-4)
        assert plain.usage.prompt_tokens >= 2


async def test_openai_responds(server: Server) -> None:
    async with openai_client(server) as client:
        answer = await client.responses.create(model=server.model, input="Say hello.", max_output_tokens=8)
        assert answer.status in ("completed", "incomplete")
        assert answer.output_text
        assert answer.usage is not None
        assert answer.usage.output_tokens_details.reasoning_tokens == 0
        for refused in ({"store": True}, {"previous_response_id": "resp_1"}):
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model=server.model, input="x", **refused)


async def test_openai_streams_a_response_in_order(server: Server) -> None:
    async with (
        openai_client(server) as client,
        client.responses.stream(
            model=server.model, input=[{"role": "user", "content": "Say hello."}], max_output_tokens=8
        ) as stream,
    ):
        events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert text == last.response.output_text


async def test_openai_names_what_is_wrong(server: Server) -> None:
    async with openai_client(server) as client:
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            await client.chat.completions.create(model="no-such-model", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=server.model, messages=[])
        assert caught.value.param == "messages"
        assert caught.value.type == "invalid_request_error"
        long = [{"role": "user", "content": "long " * 300_000}]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=server.model, messages=long)  # type: ignore[arg-type]
        assert caught.value.code == "context_length_exceeded"
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        seen = [{"role": "user", "content": [picture]}]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=server.model, messages=seen)  # type: ignore[arg-type]
        assert caught.value.code == "not_supported"


async def test_ollama_chats_and_streams(server: Server) -> None:
    async with ollama_client(server) as client:
        options = {"num_predict": 8, "seed": 1, "temperature": 0}
        message = {"role": "user", "content": "Say hello."}
        whole = await client.chat(model=server.model, messages=[message], options=options)
        assert whole.message.role == "assistant"
        assert whole.message.content
        assert whole.done_reason in ("stop", "length")
        assert 0 < (whole.eval_count or 0) <= 8
        assert (whole.total_duration or 0) > 0
        parts = [
            part
            async for part in await client.chat(model=server.model, messages=[message], options=options, stream=True)
        ]
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_ollama_generates(server: Server) -> None:
    async with ollama_client(server) as client:
        options = {"num_predict": 4}
        for kind in ({}, {"raw": True}, {"system": "Be brief."}):
            answer = await client.generate(model=server.model, prompt="Hello", options=options, **kind)
            assert answer.response
        loaded = await client.generate(model=server.model)
        assert loaded.done_reason == "load"
        running = await client.ps()
        assert server.model in [model.name for model in running.models]
        gone = await client.generate(model=server.model, keep_alive=0)
        assert gone.done_reason == "unload"


async def test_ollama_lists_shows_copies_and_deletes(server: Server) -> None:
    async with ollama_client(server) as client:
        listed = await client.list()
        assert server.model in [model.model for model in listed.models]
        shown = await client.show(server.model)
        assert "completion" in (shown.capabilities or [])
        architecture = (shown.modelinfo or {})["general.architecture"]
        assert (shown.modelinfo or {})[f"{architecture}.context_length"] > 0
        await client.copy(server.model, "my-copy")
        assert "my-copy" in [model.model for model in (await client.list()).models]
        assert (await client.delete("my-copy")).status == "success"
        for action in (client.delete("my-copy"), client.show("my-copy")):
            with pytest.raises(ollama.ResponseError) as caught:
                await action
            assert caught.value.status_code == 404


async def test_ollama_creates_a_model_with_its_own_manners(server: Server) -> None:
    async with ollama_client(server) as client:
        made = await client.create(
            model="polite",
            from_=server.model,
            system="You are polite.",
            parameters={"temperature": 0.1, "stop": ["\n"]},
        )
        assert made.status == "success"
        shown = await client.show("polite")
        assert "temperature" in (shown.parameters or "")
        assert "You are polite." in (shown.modelfile or "")
        assert (
            await client.chat(model="polite", messages=[{"role": "user", "content": "Hi"}], options={"num_predict": 4})
        ).done
        await client.delete("polite")


async def test_ollama_embeds(server: Server) -> None:
    async with ollama_client(server) as client:
        answer = await client.embed(model=server.model, input=["a", "b"])
        assert len(answer.embeddings) == 2
        old = await client.embeddings(model=server.model, prompt="a")
        assert list(old.embedding) == pytest.approx(list(answer.embeddings[0]), abs=1e-6)


async def test_langchain_chats_streams_binds_tools_and_embeds(server: Server) -> None:
    async with httpx2.AsyncClient(verify=False) as http:
        chat = ChatOpenAI(
            base_url=f"{server.url}/v1",
            api_key=server.key,  # type: ignore[arg-type]
            model=server.model,
            max_tokens=100,  # type: ignore[call-arg]
            stream_usage=True,
            http_async_client=http,
        )
        answer = await chat.ainvoke("Say hello.")
        assert answer.content
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] > 0
        parts = [part async for part in chat.astream("Say hello.")]
        assert "".join(str(part.content) for part in parts)
        assert sum(bool(part.usage_metadata) for part in parts) == 1
        forced = await chat.bind_tools([TOOL], tool_choice="weather").ainvoke("Hi")
        assert [call["name"] for call in (*forced.tool_calls, *forced.invalid_tool_calls)] == ["weather"]
        embeddings = OpenAIEmbeddings(
            base_url=f"{server.url}/v1",
            api_key=server.key,  # type: ignore[arg-type]
            model=server.model,
            check_embedding_ctx_length=False,
            http_async_client=http,
        )
        assert len(await embeddings.aembed_query("a")) > 0
