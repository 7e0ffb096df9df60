"""What must not bring a node down: killed workers, readers that leave, crowds, huge prompts, hostile templates."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from live import Live, live
from tiny import tiny_llama

LONG = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 4000, "temperature": 0, "stream": True}
SHORT = {"model": "smollm2", "prompt": "One two three four", "max_tokens": 4, "temperature": 0}
DEADLINE_S = 20


@pytest.fixture
async def client(node: Live) -> AsyncIterator[httpx2.AsyncClient]:
    async with node.client() as client:
        yield client


async def loaded(client: httpx2.AsyncClient) -> dict[str, Any]:
    models = (await client.get("/pares/v1/status")).json()["loaded"]
    return models[0] if models else {}


async def until_nothing_runs(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(DEADLINE_S), client.stream("GET", "/pares/v1/events") as events:
        lines = events.aiter_lines()
        while (await loaded(client)).get("running"):
            await anext(lines)


async def test_a_killed_worker_ends_its_answer_with_an_error_and_the_next_request_works(
    client: httpx2.AsyncClient,
) -> None:
    async with client.stream("POST", "/v1/completions", json=LONG) as answer:
        lines = [line async for line in _killing(answer, client)]
    assert any('"error"' in line and "killed" in line for line in lines)
    assert not any("[DONE]" in line for line in lines)
    again = await client.post("/v1/completions", json=SHORT)
    assert again.status_code == 200
    assert again.json()["choices"][0]["text"]


async def _killing(answer: httpx2.Response, client: httpx2.AsyncClient) -> AsyncIterator[str]:
    count = 0
    async for line in answer.aiter_lines():
        yield line
        count += 1
        if count == 6:
            os.kill((await loaded(client))["pid"], signal.SIGKILL)


async def test_a_reader_who_leaves_frees_the_sequence(client: httpx2.AsyncClient) -> None:
    async with client.stream("POST", "/v1/completions", json=LONG) as answer:
        await anext(answer.aiter_lines())
        assert (await loaded(client))["running"] == 1
    await until_nothing_runs(client)


async def test_a_request_without_stream_that_is_given_up_frees_the_sequence_too(client: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.TimeoutException):
        await client.post("/v1/completions", json=LONG | {"stream": False}, timeout=1)
    await until_nothing_runs(client)


async def test_a_crowd_of_200_gets_answers_or_429_and_leaves_no_memory_behind(node: Live) -> None:
    async with node.client() as client:
        await client.post("/v1/completions", json=SHORT)

        async def ask() -> httpx2.Response:
            return await client.post("/v1/completions", json=SHORT)

        await asyncio.gather(*(ask() for _ in range(100)))
        before = psutil.Process(node.pid).memory_info().rss
        answers = await asyncio.gather(*(ask() for _ in range(200)))
    counts = {status: sum(a.status_code == status for a in answers) for status in (200, 429)}
    assert sum(counts.values()) == 200
    assert counts[200] >= 72, "eight running and a queue of 64"
    assert counts[429] > 0
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "queue_full"
    assert psutil.Process(node.pid).memory_info().rss - before < 20e6


async def test_a_prompt_of_ten_megabytes_is_refused_with_both_numbers(client: httpx2.AsyncClient) -> None:
    for path, body in (
        ("/v1/completions", {"model": "smollm2", "prompt": "word " * 2_000_000}),
        ("/v1/chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": "word " * 2_000_000}]}),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "8192" in error["message"]


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ",
        b"GET /",
    ],
    ids=["header", "trailer", "address"],
)
async def test_headers_without_end_are_cut_off_and_not_kept(node: Live, begin: bytes) -> None:
    before = psutil.Process(node.pid).memory_info().rss
    host, _, port = node.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(begin)
    with suppress(ConnectionError):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
    writer.close()
    assert psutil.Process(node.pid).memory_info().rss - before < 10e6


async def test_an_unknown_model_is_404_with_the_nearest_names(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json=SHORT | {"model": "smolm2"})
    assert answer.status_code == 404
    assert "smollm2" in answer.json()["error"]["message"]


HOSTILE = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "huge": "{{ 'x' * 10 ** 10 }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "broken": "{% if %}",
}


async def test_a_hostile_template_is_a_named_error_and_the_node_goes_on(tmp_path: Path) -> None:
    models = [(name, tiny_llama(tmp_path / f"{name}.gguf", template=text)) for name, text in HOSTILE.items()]
    with live(tmp_path / "home", *models) as node:
        async with node.client() as client:
            for name in HOSTILE:
                body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                answer = await client.post("/v1/chat/completions", json=body)
                assert 400 <= answer.status_code < 500, name
                assert "template" in answer.json()["error"]["message"], name
            assert (await client.get("/pares/v1/status")).json()["ready"]
