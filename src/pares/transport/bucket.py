"""Token buckets: how much of something a peer may use. Pure: `now` in seconds, of any clock that only rises."""

from __future__ import annotations


class Bucket:
    """A token bucket that may go into debt: what was taken is paid for by waiting afterwards."""

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._then = burst, now

    def take(self, amount: float, now: float) -> float:
        """Take it in any case; seconds to wait until the debt is paid, 0 if there is none."""
        self._refill(now)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def try_take(self, amount: float, now: float) -> bool:
        """Take it if it is there."""
        self._refill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def full(self, now: float) -> bool:
        """Whether it is as if nothing had ever been taken."""
        self._refill(now)
        return self._level >= self._burst

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self._rate)
        self._then = now
