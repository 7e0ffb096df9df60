"""Streams of the simulated network: flow control and endings as in QUIC."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from pares.transport.link import Disconnected

Item = TypeVar("Item")

WINDOW = 1_250_000
"""Bytes of one stream that may be under way or unread, as the real transport has it."""
PIECE = 64 * 1024


class Lane:
    """What is sent in one lane arrives in that order."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0.0


class Inbox(Generic[Item]):
    """A queue that can be closed; what is in it then is lost."""

    __slots__ = ("_items", "_reason", "_waiting")

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._reason = ""

    def put(self, item: Item) -> None:
        if not self._reason:
            self._items.append(item)
            self._wake()

    def close(self, reason: str) -> None:
        """Raise Disconnected with this reason from now on."""
        self._items.clear()
        self._reason = reason
        self._wake()

    async def get(self) -> Item:
        while not self._items:
            if self._reason:
                raise Disconnected(self._reason)
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                self._waiting.remove(waiter)
        return self._items.popleft()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class Carrier(Protocol):
    """The side of a connection that a stream belongs to."""

    @property
    def streams(self) -> dict[MemoryStream, None]: ...

    def carry(self, size: int, deliver: Callable[[], None], lane: Lane) -> None: ...

    def announce(self, stream: MemoryStream) -> None: ...


class MemoryStream:
    """One side of a stream. See `link.Stream`."""

    __slots__ = (
        "_acknowledged",
        "_arrived",
        "_carrier",
        "_ended",
        "_finished",
        "_lane",
        "_read_failure",
        "_room",
        "_taken",
        "_wakers",
        "_write_failure",
        "announced",
        "other",
    )

    other: MemoryStream

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._lane = Lane()
        self._arrived = bytearray()
        self._room = WINDOW
        self._taken = 0
        self._read_failure = self._write_failure = ""
        self._ended = self._finished = self._acknowledged = self.announced = False
        self._wakers: list[asyncio.Future[None]] = []

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        start = 0
        while start < len(view):
            await self._until(lambda: self._room > 0 or bool(self._write_failure))
            self._check(self._write_failure)
            if self._finished:
                raise Disconnected("The stream ended.")
            piece = bytes(view[start : start + min(PIECE, self._room)])
            self._room -= len(piece)
            start += len(piece)
            self._tell(len(piece), partial(self.other._on_data, piece))

    async def receive(self, size: int) -> bytes:
        taken = bytearray()
        while True:
            self._check(self._read_failure)
            piece = self._arrived[: size - len(taken)]
            if piece:
                del self._arrived[: len(piece)]
                taken += piece
                self._make_room(len(piece))
            if len(taken) == size:
                return bytes(taken)
            if self._ended:
                missing = size - len(taken)
                raise Disconnected(f"The stream ended {missing} bytes before the {size} that were to come.")
            await self._until(lambda: bool(self._arrived) or self._ended or bool(self._read_failure))

    async def read(self, most: int) -> bytes:
        await self._until(lambda: bool(self._arrived) or self._ended or bool(self._read_failure))
        return await self.receive(min(most, len(self._arrived)))

    async def finish(self) -> None:
        self._check(self._write_failure)
        if self._finished:
            raise Disconnected("The stream ended.")
        self._finished = True
        self._tell(0, self.other._on_finish)

    async def sent(self) -> None:
        await self._until(lambda: self._acknowledged or bool(self._write_failure))
        if not self._acknowledged:
            self._check(self._write_failure)

    def abort(self) -> None:
        if not (self._read_failure and self._write_failure):
            self.fail("The stream was given up here.")
            self._tell(0, self.other._on_abort)

    def fail(self, reason: str) -> None:
        """Nothing goes in either direction any more."""
        self._read_failure = self._read_failure or reason
        self._write_failure = self._write_failure or reason
        self._arrived.clear()
        self._carrier.streams.pop(self, None)
        self._wake()

    def _on_data(self, piece: bytes) -> None:
        self._announce()
        if not self._read_failure:
            self._arrived += piece
            self._wake()

    def _on_finish(self) -> None:
        self._announce()
        self._ended = True
        self._wake()
        self._tell(0, self.other._on_acknowledged)
        self._retire()

    def _on_acknowledged(self) -> None:
        self._acknowledged = True
        self._wake()
        self._retire()

    def _on_abort(self) -> None:
        self._announce()
        self.fail("The peer gave the stream up.")

    def _on_room(self, size: int) -> None:
        self._room += size
        self._wake()

    def _announce(self) -> None:
        if not self.announced:
            self.announced = True
            self._carrier.announce(self)

    def _retire(self) -> None:
        """Both directions are through: the connection need not know this stream any more."""
        if self._ended and self._acknowledged:
            self._carrier.streams.pop(self, None)

    def _make_room(self, size: int) -> None:
        """Let the other side send more, with a packet for every quarter of the window."""
        self._taken += size
        if self._taken >= WINDOW // 4:
            room, self._taken = self._taken, 0
            self._tell(0, partial(self.other._on_room, room))

    def _tell(self, size: int, deliver: Callable[[], None]) -> None:
        self._carrier.carry(size, deliver, self._lane)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            waker = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            await waker

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def _check(self, failure: str) -> None:
        if failure:
            raise Disconnected(failure)
