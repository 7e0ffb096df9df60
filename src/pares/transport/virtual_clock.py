"""An event loop whose clock jumps: when nothing is ready, it is at once the time of the next timer.

Code that uses asyncio.sleep and asyncio.timeout runs unchanged; hours pass in milliseconds, and in the same order every
time. Not for sockets and threads: they live in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Stuck(RuntimeError):
    """Every task waits for something that nobody will do: there is no timer left."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the clock."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits, and no timer is set")
        if timeout > 0:
            self._pass_time(timeout)
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and counts simulated seconds."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jump(self._pass_time))
        # Sums of floats miss a timer by less than this.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._now

    def _pass_time(self, seconds: float) -> None:
        self._now += seconds


def simulate(main: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end in virtual time. Raises Stuck if it would wait forever."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
