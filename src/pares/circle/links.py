"""Connections with members for protocols beside the circles' own, while this node is online."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TypeVar

import msgspec

from pares.circle.book import Book
from pares.circle.neighbours import Neighbours
from pares.errors import RemoteError
from pares.transport.link import Connection, Unreachable, Where, ip_of, may_dial
from pares.transport.switchboard import Switchboard, ask
from pares.wire.framing import ProtocolError
from pares.wire.messages import Refused
from pares.wire.signing import PeerId

Reply = TypeVar("Reply", bound=msgspec.Struct)

HOSTS = 8
"""Of one peer, at most."""
ELSEWHERE = 64
"""Members who may be connected for one further protocol though they have no link for the circles' sake."""
IDLE_S = 600.0
"""A connection that `ask` opened is closed when nothing was asked for so long; longer than any request takes."""


class Links:
    """Who may speak the further protocols, and the way to a member for them."""

    def __init__(self, book: Book, network: Neighbours, switchboard: Switchboard, protocols: Collection[str]) -> None:
        self._book = book
        self._network = network
        self._switchboard = switchboard
        self._protocols = frozenset(protocols)
        self._asked: dict[Connection, float] = {}

    def allowed(self, link: Connection) -> bool:
        """Members only; those who have no link for the circles' sake only up to a bound."""
        peer = link.peer
        if self._book.blocked(peer) or not any(self._book.with_peer(peer)):
            return False
        if link.outgoing or self._network.is_connected(peer):
            return True
        there = self._switchboard.connected(link.protocol)
        return sum(not self._network.is_connected(other) for other in there) < ELSEWHERE

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        """A connection with a member for a further protocol, dialled where it is known to be. Raises Unreachable."""
        if protocol not in self._protocols:
            raise Unreachable(f"This node does not speak {protocol}.")
        if self._book.blocked(peer) or not any(self._book.with_peer(peer)):
            raise Unreachable(f"{peer.hex()[:8]} is in no circle with this node.")
        return await self._switchboard.connect(self._where(peer), protocol, timeout_s=timeout_s)

    async def ask(
        self, peer: PeerId, protocol: str, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float
    ) -> Reply:
        """One request and its answer, in `timeout_s` together. Raises RemoteError: not reached, refused, no answer.

        Who answers what no correct peer does is dropped.
        """
        try:
            async with asyncio.timeout(timeout_s):
                link = await self.link(peer, protocol, timeout_s=timeout_s)
                if link.outgoing:
                    self._asked[link] = asyncio.get_running_loop().time()
                reply: Reply | Refused
                reply = await ask(link, request, kind | Refused, timeout_s=timeout_s)  # type: ignore[arg-type]
        except TimeoutError:
            raise Unreachable(f"{self._book.name_of(peer)} did not answer within {timeout_s:.0f} s.") from None
        except ProtocolError as error:
            self._network.punish(peer, error)
            raise
        if isinstance(reply, Refused):
            raise RemoteError(f"{self._book.name_of(peer)} refused: {reply.reason}", refusal=reply.code)
        return reply

    def hosts(self, peer: PeerId) -> tuple[str, ...]:
        """IP addresses where a member's machine may be, the likeliest first: of its connection, then of its contact.

        What a contact says is its word: only what may be dialled is among them, this machine itself only if all of
        this node's network is on it.
        """
        where = self._where(peer)
        local = self._is_local()
        found = [str(ip_of(each)) for each in where.addresses if may_dial(each, local=local)]
        return tuple(dict.fromkeys(found))[:HOSTS]

    def close_idle(self) -> None:
        """Call it now and then."""
        now = asyncio.get_running_loop().time()
        for link, asked in list(self._asked.items()):
            if now - asked > IDLE_S or self._switchboard.link(link.peer, link.protocol) is not link:
                del self._asked[link]
                link.close("not used")

    def _where(self, peer: PeerId) -> Where:
        path, contact = self._network.path(peer), self._book.contact(peer)
        relay = self._network.usable(contact.relay) if contact else ""
        found = [*contact.observed, *contact.addresses] if contact else []
        if path is not None and path.kind == "relayed":
            relay = path.address
        elif path is not None:
            found.insert(0, path.address)
        relay = relay or next(iter(self._network.relays()), "")
        return Where(peer, tuple(dict.fromkeys(found)), relay)

    def _is_local(self) -> bool:
        return any(ip_of(address).is_loopback for address in self._switchboard.transport.addresses())
