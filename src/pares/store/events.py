"""What happens in the node, as a stream that a client can take up again where it lost it.

The newest events are kept in memory. Their ids never repeat, also over restarts (the high part counts the node's
starts), so that a client's last id always says truthfully whether it missed something that is gone: then it gets one
event of the kind `reset` and asks again for everything it shows.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Mapping

import msgspec

from pares.store.database import Database, now

RESET = "reset"
KEPT = 1024
IDS_PER_START = 10**10


class Event(msgspec.Struct, frozen=True):
    """`data` is JSON-ready. Ids grow."""

    id: int
    kind: str
    data: Mapping[str, object]
    at: str


class Events:
    """Publish and subscribe, in the event loop's thread. A slow subscriber costs no memory: it gets a reset."""

    def __init__(self, start: int = 0, kept: int = KEPT) -> None:
        self._last = start * IDS_PER_START
        self._kept: deque[Event] = deque(maxlen=kept)
        self._news = asyncio.Event()
        self._closed = False

    @classmethod
    async def open(cls, database: Database) -> Events:
        """With ids greater than those of all starts before."""

        def work(connection: sqlite3.Connection) -> int:
            return int(connection.execute("UPDATE starts SET count = count + 1 RETURNING count").fetchone()[0])

        return cls(await database.run(work))

    @property
    def last_id(self) -> int:
        """Of the newest event; what a client that reads the state now has seen."""
        return self._last

    def publish(self, kind: str, data: Mapping[str, object]) -> Event:
        """Tell all subscribers."""
        self._last += 1
        event = Event(self._last, kind, data, now())
        self._kept.append(event)
        self._wake()
        return event

    async def subscribe(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events with ids above `after` (None: from now on), until `close`."""
        position = self._last if after is None else after
        while True:
            news = self._news
            oldest = self._last - len(self._kept)
            if not oldest <= position <= self._last:
                position = self._last
                yield Event(position, RESET, {}, now())
            elif position < self._last:
                for event in tuple(itertools.islice(self._kept, position - oldest, None)):
                    position = event.id
                    yield event
            elif self._closed:
                return
            else:
                await news.wait()

    def close(self) -> None:
        """End all subscriptions after what was published so far."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
