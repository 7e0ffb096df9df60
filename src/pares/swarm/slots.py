"""Places that so many can have at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Slots:
    """Among those who wait, the one with the highest priority comes first, then the one who came first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[Callable[[], int], asyncio.Future[None]]] = []

    @asynccontextmanager
    async def taken(self, priority: Callable[[], int]) -> AsyncIterator[None]:
        """Have a place inside of this. `priority` is asked for whenever one becomes free."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(priority)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, priority: Callable[[], int]) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((priority, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # it was ours already
            else:
                self._waiting.remove((priority, turn))
            raise

    def _give(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        place = max(self._waiting, key=lambda each: each[0]())
        self._waiting.remove(place)
        place[1].set_result(None)
