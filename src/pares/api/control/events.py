"""GET /pares/v1/events: what happens in the node, as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pares.api.calls import Call
from pares.api.failures import CONTROL, encode
from pares.api.streams import SSE, Stream, closing


async def events(call: Call[None]) -> Stream:
    """From now on, or after the event that the client has seen last."""
    last = call.request.headers.get("last-event-id", "") or call.query("after")
    after = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else None
    return Stream(_stream(call, after), SSE, CONTROL)


async def _stream(call: Call[None], after: int | None) -> AsyncGenerator[bytes, None]:
    # At once, so that a client knows it is connected, and (with the id) from where to go on if it is cut off now.
    after = call.services.events.last_id if after is None else after
    yield b"retry: 1000\nid: %d\n: connected\n\n" % after
    async with closing(call.services.events.subscribe(after)) as news:
        async for event in news:
            yield b"id: %d\nevent: %b\ndata: %b\n\n" % (event.id, event.kind.encode(), encode(event.data))
