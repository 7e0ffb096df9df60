"""Who may come in, and how much may pass: a relay's pace and door. Pure: `now` in seconds, monotonic."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

from pares.transport.bucket import Bucket

Refusal = Literal["full", "address_full", "address_rate"]

_REMEMBERED = 4096
"""Addresses that are remembered because they knocked lately, at most."""


class Pace:
    """How fast one client may send, or be sent to: frames and bytes, with a burst of a quarter of a second."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self, frames_per_s: float, bytes_per_s: float, now: float) -> None:
        self._frames = Bucket(frames_per_s, frames_per_s / 4, now)
        self._bytes = Bucket(bytes_per_s, bytes_per_s / 4, now)

    def take(self, size: int, now: float) -> float:
        """Seconds to wait after this frame."""
        return max(self._frames.take(1, now), self._bytes.take(size, now))


class Door:
    """Counts connections by where they come from, before anything is read from them."""

    def __init__(self, *, total: int, per_address: int, per_second: float) -> None:
        self._total, self._per_address, self._per_second = total, per_address, per_second
        self._inside: Counter[str] = Counter()
        self._knocks: dict[str, Bucket] = {}

    @property
    def inside(self) -> int:
        """Connections that came in and have not left."""
        return self._inside.total()

    def admit(self, address: str, now: float) -> Refusal | None:
        """Let one more connection in, or say why not. Who was let in has to `leave`."""
        house = _house(address)
        if not self._knock(house, now):
            return "address_rate"
        if self._inside[house] >= self._per_address:
            return "address_full"
        if self.inside >= self._total:
            return "full"
        self._inside[house] += 1
        return None

    def leave(self, address: str) -> None:
        """One of those that were let in is gone."""
        house = _house(address)
        self._inside[house] -= 1
        if not self._inside[house]:
            del self._inside[house]

    def _knock(self, house: str, now: float) -> bool:
        if house not in self._knocks and len(self._knocks) >= _REMEMBERED:
            self._knocks = {known: bucket for known, bucket in self._knocks.items() if not bucket.full(now)}
            if len(self._knocks) >= _REMEMBERED:
                return False
        burst = 4 * self._per_second
        return self._knocks.setdefault(house, Bucket(self._per_second, burst, now)).try_take(1, now)


def _house(address: str) -> str:
    """What one owner is likely to have: an IPv4 address, or a /64 network of IPv6."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
    return str(ip)
