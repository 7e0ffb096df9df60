"""What a stranger may take from this node: handshakes, decided before any work is done for them; memory. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from typing import Literal

from pares.transport.link import ip_of
from pares.transport.settings import Settings

Verdict = Literal["admit", "prove", "refuse"]

ADDRESSES = 4096
"""Addresses whose rate is remembered; the one that was quiet for longest is forgotten first."""


class Admission:
    """Decides about each incoming connection. What it admits counts until `done` (handshake) and `ended`.

    An address that has not been proven may be forged. Those have rates of their own and half of the handshakes under
    way; over that, they have to prove themselves first (QUIC Retry: one small packet, no memory). Thus nobody can use
    up with forged packets what is meant for somebody else.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits = settings
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._half_done: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Connections that were admitted and have not ended, with those whose handshake is under way."""
        return self._open.total()

    @property
    def half_done(self) -> int:
        """Handshakes under way."""
        return self._half_done.total()

    def ask(self, source: str, *, proven: bool, now: float) -> Verdict:
        """One connection from `source` (see `source_of`) wants in."""
        limits = self._limits
        if self._open.total() >= limits.connections or self._open[source] >= limits.connections_per_address:
            return "refuse"
        share = 1 if proven else 2
        crowded = (
            share * self._half_done.total() >= limits.half_done
            or share * self._half_done[source] >= limits.half_done_per_address
        )
        if crowded or not self._take(f"{source} proven" if proven else source, now):
            return "refuse" if proven else "prove"
        self._half_done[source] += 1
        self._open[source] += 1
        return "admit"

    def done(self, source: str) -> None:
        """A handshake that was admitted is over, well or not."""
        _decrease(self._half_done, source)

    def ended(self, source: str) -> None:
        """A connection that was admitted is no more."""
        _decrease(self._open, source)

    def _take(self, key: str, now: float) -> bool:
        """A token from the bucket of one address."""
        tokens, since = self._rates.pop(key, (float(self._limits.handshake_burst), now))
        tokens = min(self._limits.handshake_burst, tokens + (now - since) * self._limits.handshakes_per_s)
        enough = tokens >= 1
        self._rates[key] = (tokens - enough, now)
        if len(self._rates) > ADDRESSES:
            self._rates.popitem(last=False)
        return enough


class Meter:
    """About how many bytes of a connection lie unread in this process: iroh bounds them per stream only.

    Counted from what came over the wire less what was handed on, with allowance for headers, acknowledgements and
    keeping the connection alive; good enough to tell a peer that fills memory from one that is read slowly.
    """

    def __init__(self) -> None:
        self.credit = 0.0

    def read(self, size: int) -> None:
        self.credit += 1.25 * size + 256

    def sent(self, size: int) -> None:
        self.credit += 0.25 * size + 256

    def unread(self, arrived: int) -> float:
        return arrived - self.credit


def source_of(address: str) -> str:
    """What counts as one address: an IPv4 address, a /64 of IPv6. `address` is numeric, with a port."""
    ip = ip_of(address)
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
