"""As what addresses others see this node, and what that says of the network between. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pares.transport.link import ip_of, is_lan, may_dial
from pares.wire.signing import PeerId

Nat = Literal["none", "friendly", "symmetric", "unknown"]

AGREEING = 2
"""So many peers have to see the same address before it is told to others."""
KEPT = 64
TOLD = 4


class Observations:
    """The newest word of every peer that is connected. A single liar decides nothing."""

    def __init__(self) -> None:
        self._seen: dict[PeerId, str] = {}

    def note(self, peer: PeerId, address: str) -> None:
        """A peer sees this node at an address. What cannot be one is not noted."""
        if not may_dial(address, local=True):
            return
        if peer in self._seen or len(self._seen) < KEPT:
            self._seen[peer] = address

    def forget(self, peer: PeerId) -> None:
        self._seen.pop(peer, None)

    def agreed(self) -> tuple[str, ...]:
        """Public addresses on which at least two peers agree, the most seen first."""
        return tuple(address for address, count in self._votes() if count >= AGREEING)

    def seen(self) -> tuple[str, ...]:
        """Public addresses that anybody sees, the most seen first."""
        return tuple(address for address, _ in self._votes())

    def _votes(self) -> list[tuple[str, int]]:
        return Counter(address for address in self._seen.values() if not is_lan(address)).most_common(TOLD)

    def nat(self, own: Iterable[str]) -> Nat:
        """What stands between: nothing, a NAT that keeps its port for all (peers can dial in), or one that does not."""
        public = [address for address in self._seen.values() if not is_lan(address)]
        if not public:
            return "unknown"
        if set(public) & set(own):
            return "none"
        by_host: dict[str, set[str]] = {}
        for address in public:
            by_host.setdefault(str(ip_of(address)), set()).add(address)
        if any(len(ports) > 1 for ports in by_host.values()):
            return "symmetric"
        return "friendly" if self.agreed() else "unknown"
