from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from pares.api import streams
from pares.api.failures import OPENAI
from pares.api.streams import SSE, Stream, at_once, interleave, of_lines, while_connected
from pares.errors import BadRequest, Conflict


class Client:
    """The other end: `leave` hangs up, `sent` is what it got."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Message] = []
        self.heard = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.heard.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_work_that_ends_before_the_client_leaves_is_finished() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert await while_connected(Client().receive, work())
    assert done == [1]


async def test_work_is_cancelled_and_cleans_up_as_soon_as_the_client_leaves() -> None:
    client, started, cleaned = Client(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may wait, too
            cleaned.set()

    running = asyncio.create_task(while_connected(client.receive, work()))
    async with asyncio.timeout(5):
        await started.wait()
        client.gone.set()
        assert not await running
    assert cleaned.is_set()


async def test_errors_of_the_work_come_through() -> None:
    async def work() -> None:
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await while_connected(Client().receive, work())


async def test_cancelling_from_outside_cancels_the_work() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = asyncio.create_task(while_connected(Client().receive, work()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


async def numbers(count: int, *, fail: bool = False) -> AsyncGenerator[int, None]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    if fail:
        raise BadRequest("enough")


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_interleaved_streams_keep_their_order_and_lose_nothing(counts: list[int]) -> None:
    async def run() -> list[tuple[int, int]]:
        return [item async for item in interleave([numbers(count) for count in counts])]

    found = asyncio.run(run())
    for index, count in enumerate(counts):
        assert [value for number, value in found if number == index] == list(range(count))


@pytest.mark.parametrize("others", [0, 2])
async def test_the_first_error_ends_all_interleaved_streams(others: int) -> None:
    closed = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield 1
        finally:
            closed.append(1)

    with pytest.raises(BadRequest, match="enough"):
        async for _ in interleave([numbers(3, fail=True), *(endless() for _ in range(others))]):
            pass
    assert len(closed) == others


async def test_leaving_interleaved_streams_closes_all() -> None:
    closed = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield 1
        finally:
            closed.append(1)

    merged = interleave([endless(), endless(), endless()])
    async for _ in merged:
        break
    await merged.aclose()
    assert len(closed) == 3


async def test_the_first_failure_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def fails() -> int:
        raise BadRequest("no")

    async def lasts() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 1

    with pytest.raises(BadRequest):
        await at_once([lasts(), fails()])
    assert cancelled.is_set()


def stream(events: AsyncGenerator[bytes, None]) -> Stream:
    return Stream(events, SSE, OPENAI)


async def test_an_error_before_the_first_event_leaves_the_status_open() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        async for number in numbers(0, fail=True):
            yield b"%d" % number

    client = Client()
    with pytest.raises(BadRequest):
        await stream(events())({}, client.receive, client.send)
    assert client.sent == []


async def test_a_long_wait_is_bridged_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    go = asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        await go.wait()
        yield b"data: 1\n\n"

    client = Client()
    running = asyncio.create_task(stream(events())({}, client.receive, client.send))
    async with asyncio.timeout(5):
        while b": waiting\n\n" not in client.body:
            client.heard.clear()
            await client.heard.wait()
        go.set()
        await running
    assert client.sent[0]["status"] == 200
    assert client.body.endswith(b": waiting\n\ndata: 1\n\n")
    assert [message["type"] for message in client.sent].count("http.response.start") == 1
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_stream_without_events_is_an_empty_answer() -> None:
    client = Client()
    await stream(of_lines(()))({}, client.receive, client.send)
    assert client.sent[0]["status"] == 200
    assert client.body == b""
