from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from door import scripted_door
from pares.api import calls
from pares.api.calls import decode
from pares.api.openai.schemas import ChatBody
from pares.api.routes import ROUTES
from pares.api.settings import Settings
from pares.errors import BadRequest, TooLarge

DEEP = b"[" * 100_000 + b"]" * 100_000
RUBBISH = [
    b"",
    b"null",
    b"[]",
    b"1",
    b'"x"',
    b"{",
    b"{}",
    b'{"model": 1}',
    b'{"model": null}',
    b"\xff\xfe\x00",
    b'{"model": "\xff"}',
    b'{"model": "\\ud800"}',
    b'{"model": "tiny", "messages": ' + DEEP + b"}",
    b'{"zork": ' + DEEP + b"}",
    b'{"model": "tiny", "options": {"a": ' + DEEP + b"}}",
    b'{"model": "tiny", "seed": 1e999, "options": {"seed": 1e999}}',
    b'{"model": "tiny", "seed": ' + b"9" * 5000 + b', "options": {"seed": ' + b"9" * 5000 + b"}}",
    b'{"model": "tiny", "messages": [], "prompt": [], "input": []}',
    b'{"model": "tiny", "messages": [{}], "prompt": [[]], "input": [[]]}',
    b'{"model": "tiny", "messages": [{"role": "zork", "content": 1}], "prompt": {}, "input": {}}',
    b'{"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url"}]}], "images": ["x"]}',
    b'{"model": "..", "name": "../../etc/passwd", "source": "\\u0000", "path": "\\u0000", "from": "\\u0000"}',
    b'{"model": "' + b"x" * 100_000 + b'"}',
]


def addresses() -> list[tuple[str, str]]:
    """Every address that takes a body, with something in its blanks."""
    blanks = {"{name:path}": "tiny", "{id:path}": "tiny", "{id}": "zork", "{name}": "zork"}
    found: list[tuple[str, str]] = []
    for route in ROUTES:
        path = route.path
        for blank, filling in blanks.items():
            path = path.replace(blank, filling)
        found.append((route.method, path))
    return found


async def test_rubbish_is_refused_in_shape_everywhere(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        for method, path in addresses():
            if path == "/pares/v1/events":
                continue
            for body in RUBBISH:
                answer = await door.admin.request(
                    method, path, content=body, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code < 500, (method, path, body[:80], answer.text)
                if answer.status_code >= 400:
                    error = answer.json()["error"]
                    assert isinstance(error, str) if path.startswith("/api") else error["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing/here",
        "/api/nothing",
        "/pares/v1/nothing",
        "/x.html",
        "/%00",
        "/pares/v1/models/a%0Ab",
        "/app/%ff",
        "/__init__.py",
        "/vendor/%2e%2e/__init__.py",
    ],
)
async def test_addresses_that_are_none_are_404_in_shape(tmp_path: Path, path: str) -> None:
    async with scripted_door(tmp_path) as door:
        answer = await door.admin.get(path)
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert isinstance(error, str) if path.startswith("/api") else error["code"] == "not_found"


async def test_a_wrong_method_is_405_and_tells_the_right_ones(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        answer = await door.http.get("/v1/chat/completions")
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "POST"
        assert answer.json()["error"]["code"] == "method_not_allowed"
        assert (await door.admin.put("/pares/v1/models/tiny")).headers["Allow"] == "DELETE, GET, HEAD"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(sorted(ChatBody.__struct_encode_fields__))


@given(
    st.binary(max_size=200)
    | st.dictionaries(fields | st.text(max_size=3), json_values, max_size=6).map(msgspec.json.encode)
)
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(decode(data, ChatBody)[0], ChatBody)


def test_the_offending_field_is_named() -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\]\.role: Expected str, got int") as caught:
        decode(b'{"model":"a","messages":[{"role":"user"},{"role":1}]}', ChatBody)
    assert caught.value.param == "messages[1].role"


def test_unknown_fields_are_told_not_refused() -> None:
    _, warnings = decode(b'{"model":"a","messages":[],"zork":1,"num_ctx":5}', ChatBody)
    assert warnings == ("'zork' is not known here and was ignored",)


async def test_a_body_over_the_limit_is_refused_however_it_is_sent(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b" " * (1 << 16)

    async with scripted_door(tmp_path, settings=Settings(max_body_bytes=1 << 20)) as door:
        for content in (b" " * (2 << 20), chunks()):
            answer = await door.http.post("/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
        assert (await door.http.post("/v1/completions", json={"model": "tiny", "prompt": "x"})).status_code == 200


@pytest.mark.parametrize("declared", [b"999999", b"9" * 50, b"nonsense", b""])
async def test_a_body_over_the_limit_is_not_read_to_its_end(declared: bytes) -> None:
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    request = Request({"type": "http", "headers": [(b"content-length", declared)]}, receive)
    with pytest.raises(TooLarge):
        await calls.read_body(request, 100)
    assert read <= 11


async def test_a_client_that_stops_sending_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BODY_DEADLINE_S", 0.05)
    async with scripted_door(tmp_path) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rsplit(":", 1)[1]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n")
        assert b"400" in head
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("kind", "v1", "api"), [
    ("application/json", 200, 200),
    ("application/json; charset=utf-8", 200, 200),
    ("application/x-www-form-urlencoded", 400, 200),
    ("text/plain", 400, 200),
    ("", 200, 200),
])  # fmt: skip
async def test_content_types(tmp_path: Path, kind: str, v1: int, api: int) -> None:
    body = json.dumps({"model": "tiny", "stream": False, "messages": [{"role": "user", "content": "hi"}]})
    async with scripted_door(tmp_path) as door:
        for path, status in (("/v1/chat/completions", v1), ("/api/chat", api)):
            answer = await door.http.post(path, content=body.encode(), headers={"Content-Type": kind} if kind else {})
            assert answer.status_code == status


async def test_a_prompt_of_ten_megabytes_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        prompt = "x" * 10_000_000
        for path, body in (
            ("/v1/completions", {"model": "tiny", "prompt": prompt}),
            ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": prompt}]}),
            ("/api/generate", {"model": "tiny", "prompt": prompt}),
        ):
            answer = await door.http.post(path, json=body)
            assert answer.status_code == 400
            text = json.dumps(answer.json())
            assert "4096" in text
            assert "25000" in text
