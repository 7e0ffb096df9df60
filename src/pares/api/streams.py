"""Answers that take a while: stop the work when the client leaves, write while it runs, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar, cast

from starlette.types import Receive, Scope, Send

from pares.api.failures import Surface

T = TypeVar("T")

SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"
HEARTBEAT_S = 15.0
"""Silence after which a client of an event stream is told that we are still at it."""


async def while_connected(receive: Receive, work: Coroutine[object, object, None]) -> bool:
    """Run `work` to its end; cancel it as soon as the client goes away, and say so with False."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))
    if not task.cancelled() and (problem := task.exception()):
        raise problem
    return finished


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Stream:
    """An answer that is written while it is made.

    The status is decided by the first event: an error before it is an ordinary error reply. A client that waits long
    for the first event (the model loads, the prompt is long) gets the headers and comments meanwhile, where the format
    has comments.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        media_type: bytes,
        surface: Surface,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.surface = surface
        self._events = events
        self._beats = media_type == SSE
        self._start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", media_type),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
            ],
        }
        self._started = False
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heart = asyncio.create_task(self._beat(send)) if self._beats else None
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._quiet = False
                    if not self._started:
                        await self._begin(send)
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        finally:
            if heart is not None:
                heart.cancel()
        if not self._started:
            await self._begin(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        self._started = True
        await send(self._start)

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._quiet:
                if not self._started:
                    await self._begin(send)
                await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
            self._quiet = True


async def interleave(streams: Sequence[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T], None]:
    """Items of several streams as they come, each with the number of its stream; the first error ends all.

    Several streams run ahead of a slow reader: an answer is no longer than a context.
    """
    if len(streams) == 1:
        async with closing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    ready: asyncio.Queue[tuple[int, T] | asyncio.Task[None]] = asyncio.Queue()

    async def pump(index: int, stream: AsyncIterator[T]) -> None:
        async with closing(stream) as items:
            async for item in items:
                ready.put_nowait((index, item))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    for task in tasks:
        task.add_done_callback(ready.put_nowait)
    try:
        running = len(tasks)
        while running:
            arrived = await ready.get()
            if isinstance(arrived, asyncio.Task):
                arrived.result()
                running -= 1
            else:
                yield arrived
    finally:
        await _end(tasks)


async def at_once(work: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """The results of all, in order; the first error ends all."""
    tasks = [asyncio.create_task(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def of_lines(lines: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """What is there already, as a stream."""
    for line in lines:
        yield line


def closing(items: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """`aclosing` for a generator whose type says only that it is an iterator."""
    return aclosing(cast("AsyncGenerator[T, None]", items))
