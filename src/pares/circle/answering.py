"""What this node answers on `pares/circle/1`.

Who is no member may say hello, prove to be one, and ask to be let in, slowly and in small messages; such a one learns
that a Pares node answers, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from pares.circle.book import Book, Circle
from pares.circle.gossip import unfinished
from pares.circle.neighbours import Neighbours
from pares.circle.statements import Entry
from pares.errors import RemoteError
from pares.transport.bucket import Bucket
from pares.transport.link import Connection, Disconnected, Stream, may_dial
from pares.transport.switchboard import answer, receive
from pares.wire.framing import MESSAGE_BYTES, ProtocolError
from pares.wire.messages import (
    Bye,
    CircleReply,
    CircleRequest,
    Delta,
    Digests,
    Done,
    Hello,
    Introduce,
    Introduced,
    Join,
    Joined,
    Observe,
    Observed,
    Ping,
    Record,
    Refused,
    Summaries,
)
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

REQUESTS_PER_S = 50.0
REQUESTS_BURST = 200.0
STRANGERS_REQUESTS_PER_S = 2.0
STRANGERS_REQUESTS_BURST = 20.0
WAIT_S = 5.0
"""Who asks faster waits so long at most, and is told that we are busy after that."""
STRANGERS_BYTES = 64 * 1024
"""The body of a message of somebody who is not known as a member."""
PROOFS = 33
"""Certificates from the founder down to a new member, at most."""
NAMELESS = "a node"
"""What a stranger is told for a name."""
INTRODUCTION_S = 3.0
INTRODUCTIONS_PER_S = 0.5
INTRODUCTIONS_BURST = 16.0
"""That one member may ask for or bring about: each makes somebody send packets where another says."""
INTRODUCED = 8
"""Addresses of an introduction that are dialled."""
ROUNDS = 64
COMPARISON_S = 60.0
"""Comparisons in a row with one peer, and their time, at most."""
PACES = 1024
"""Peers whose pace is remembered though they may have gone, so that reconnecting is no way around it."""


class Verbs(Protocol):
    """What answering asks of the circles as a whole."""

    def hello(self, observed: str) -> Hello: ...

    @property
    def admit(self) -> Callable[[Join], Awaitable[Joined | Refused]]:
        """For who wants in by an invite of this node, or into a commons."""
        ...

    async def news(self, circle: Circle, entries: list[Entry]) -> None:
        """A peer told something new."""


@dataclass(slots=True)
class _Pace:
    """What one peer may still ask for."""

    member: bool
    requests: Bucket
    introductions: Bucket


class Answering:
    """One request, one answer. A peer that asks too fast is made to wait, which holds up its connection only."""

    def __init__(self, book: Book, neighbours: Neighbours, verbs: Verbs) -> None:
        self._book = book
        self._neighbours = neighbours
        self._verbs = verbs
        self._paces: dict[PeerId, _Pace] = {}

    async def handle(self, link: Connection, stream: Stream) -> None:
        """Serve one stream. Raises ProtocolError for what no correct peer does."""
        pace, now = self._pace(link.peer), time.monotonic()
        wait = pace.requests.take(1, now)
        await asyncio.sleep(min(wait, WAIT_S))
        most = MESSAGE_BYTES if pace.member else STRANGERS_BYTES
        request: CircleRequest = await receive(stream, CircleRequest, most=most)  # type: ignore[arg-type]
        reply: CircleReply = Refused(code="busy", reason="You ask faster than this node can answer.")
        if wait <= WAIT_S:
            reply = await self._reply(link, request)
        await answer(stream, reply)

    def _pace(self, peer: PeerId) -> _Pace:
        member, now = any(self._book.with_peer(peer)), time.monotonic()
        pace = self._paces.get(peer)
        if pace is not None and pace.member == member:
            return pace
        if len(self._paces) >= PACES:
            self._paces = {known: pace for known, pace in self._paces.items() if not pace.requests.full(now)}
        rate, burst = (
            (REQUESTS_PER_S, REQUESTS_BURST) if member else (STRANGERS_REQUESTS_PER_S, STRANGERS_REQUESTS_BURST)
        )
        introductions = Bucket(INTRODUCTIONS_PER_S, INTRODUCTIONS_BURST, now)
        pace = self._paces[peer] = _Pace(member, Bucket(rate, burst, now), introductions)
        return pace

    async def _reply(self, link: Connection, request: CircleRequest) -> CircleReply:
        match request:
            case Hello():
                self._neighbours.greeted(link.peer, request)
                hello = self._verbs.hello(link.observed)
                known = any(self._book.with_peer(link.peer))
                return hello if known else replace(hello, name=NAMELESS, version="")
            case Ping():
                self._neighbours.heard_from(link.peer)
                return request
            case Observe():
                return Observed(address=link.observed)
            case Join():
                return await self._join(link.peer, request)
            case Digests():
                found = self._circle(request.circle, link.peer)
                return found if isinstance(found, Refused) else self._compare(found, link.peer, request)
            case Delta():
                return await self._delta(link.peer, request)
            case Introduce():
                return await self._introduce(link, request)
            case Introduced():
                return await self._introduced(link.peer, request)
            case Bye():
                self._neighbours.farewell(link.peer)
                return Done()

    def _circle(self, id_: bytes, peer: PeerId) -> Circle | Refused:
        """A circle that both belong to."""
        circle = self._book.circles.get(id_)
        if circle is None or not circle.has(peer):  # not told apart: who is no member learns nothing
            return Refused(code="not_a_member", reason="This node knows of no such circle with you in it.")
        return circle

    async def _join(self, peer: PeerId, join: Join) -> Joined | Refused:
        if join.joiner != peer:
            circle = self._book.circles.get(join.circle)
            if circle is None or not circle.has(peer) or join.inviter != self._book.identity.id:
                raise ProtocolError("A request to join came for somebody else.")
        if join.inviter == self._book.identity.id or self._is_open(join.circle):
            return await self._verbs.admit(join)
        return await self._pass_on(join)

    def _is_open(self, id_: bytes) -> bool:
        circle = self._book.circles.get(id_)
        return circle is not None and circle.store.membership.charter.open

    async def _pass_on(self, join: Join) -> Joined | Refused:
        """To the member who made the invite, if it is connected: only that one knows the secret."""
        inviter = PeerId(join.inviter)
        circle = self._book.circles.get(join.circle)
        if circle is None or not circle.has(inviter) or self._neighbours.get(inviter) is None:
            return Refused(code="not_connected", reason="The member who made this invite is not connected here.")
        try:
            reply = await self._neighbours.ask(inviter, join, Joined)
        except RemoteError:
            return Refused(code="not_connected", reason="The member who made this invite does not answer.")
        assert isinstance(reply, Joined | Refused)
        if isinstance(reply, Joined):
            try:
                await self._take(circle, inviter, Delta(circle=circle.id, records=reply.records))
            except ProtocolError as error:  # not the joiner's fault
                self._neighbours.punish(inviter, error)
                return Refused(code="not_connected", reason="The member who made this invite does not answer.")
        return reply

    def _compare(self, circle: Circle, peer: PeerId, request: Digests) -> Summaries | Refused:
        circle.gossip.link(peer)  # whoever asks without a greeting has a budget too
        return circle.gossip.answer_digests(peer, request, time.time())

    async def _delta(self, peer: PeerId, request: Delta) -> Delta | Refused:
        """From a member. One who is not known as such yet may bring the certificates that say so."""
        circle = self._book.circles.get(request.circle)
        if circle is None:
            return Refused(code="not_a_member", reason="This node knows of no such circle with you in it.")
        if not circle.has(peer):
            proofs = [record for record in request.records if record.label == "certificate/1"][:PROOFS]
            if not _proven(circle, peer, proofs):
                return Refused(code="not_a_member", reason="This node knows of no such circle with you in it.")
            await self._take(circle, peer, Delta(circle=circle.id, records=proofs))
            if not circle.has(peer):
                return Refused(code="busy", reason="This node keeps no more members of that circle.")
        circle.gossip.link(peer)
        back, news = circle.gossip.answer_delta(peer, request, time.time())
        await self._verbs.news(circle, news)
        return back

    async def _take(self, circle: Circle, peer: PeerId, delta: Delta) -> None:
        await self._verbs.news(circle, circle.gossip.take(peer, delta, time.time()))

    async def _introduce(self, link: Connection, request: Introduce) -> Introduced | Refused:
        """Tell both sides where the other one is, as this node sees it, and let them dial."""
        circle = self._circle(request.circle, link.peer)
        if isinstance(circle, Refused):
            return circle
        if not self._pace(link.peer).introductions.try_take(1, time.monotonic()):
            return Refused(code="busy", reason="You ask for more introductions than this node makes.")
        wanted = PeerId(request.peer)
        other = self._neighbours.get(wanted)
        if other is None or not circle.has(wanted):
            return Refused(code="not_connected", reason="That peer is not connected here.")
        to_them = self._where(circle, link.peer, link)
        try:
            await self._neighbours.ask(wanted, to_them, Done, timeout_s=INTRODUCTION_S)
        except RemoteError:
            return Refused(code="not_connected", reason="That peer does not answer here.")
        return self._where(circle, wanted, other.link)

    def _where(self, circle: Circle, peer: PeerId, link: Connection) -> Introduced:
        contact = self._book.contact(peer)
        seen = link.path.address if link.path.kind != "relayed" else link.observed
        addresses = [seen] if seen else []
        if contact:
            addresses += [*contact.observed, *contact.addresses]
        relay = contact.relay if contact else ""
        return Introduced(circle=circle.id, peer=peer, addresses=list(dict.fromkeys(addresses))[:20], relay=relay)

    async def _introduced(self, peer: PeerId, message: Introduced) -> Done | Refused:
        circle = self._circle(message.circle, peer)
        if isinstance(circle, Refused):
            return circle
        if not circle.has(PeerId(message.peer)) or self._book.blocked(PeerId(message.peer)):
            return Refused(code="not_a_member", reason="This node does not know that peer as a member.")
        if not self._pace(peer).introductions.try_take(1, time.monotonic()):
            return Refused(code="busy", reason="You introduce more peers than this node can meet.")
        addresses = [address for address in message.addresses if may_dial(address, local=True)][:INTRODUCED]
        self._neighbours.start_meeting(replace(message, addresses=addresses))
        return Done()


def _proven(circle: Circle, peer: PeerId, proofs: list[Record]) -> bool:
    """Whether these certificates make a peer a member. Nothing of a stranger's is kept before that is known."""
    membership = circle.store.membership.copy()
    for record in proofs:
        membership.add(record)
    return peer in membership.members()


async def compare(
    circle: Circle,
    peer: PeerId,
    neighbours: Neighbours,
    news: Callable[[Circle, list[Entry]], Awaitable[None]],
) -> None:
    """Compare a circle's records with a member until nothing differs. Raises RemoteError."""
    try:
        async with asyncio.timeout(COMPARISON_S):
            for _ in range(ROUNDS):
                if not await _round(circle, peer, neighbours, news):
                    return
    except TimeoutError:
        raise Disconnected(f"A comparison with {peer.hex()[:8]} took more than {COMPARISON_S:.0f} s.") from None
    except ProtocolError as error:
        neighbours.punish(peer, error)
        raise


async def _round(
    circle: Circle,
    peer: PeerId,
    neighbours: Neighbours,
    news: Callable[[Circle, list[Entry]], Awaitable[None]],
) -> bool:
    """One comparison; whether another should follow at once."""
    sent = circle.gossip.digests()
    reply = await neighbours.ask(peer, sent, Summaries)
    if not isinstance(reply, Summaries):
        return False
    delta = circle.gossip.follow(peer, sent, reply, time.time())
    if delta is None:
        return False
    back = await neighbours.ask(peer, delta, Delta)
    if not isinstance(back, Delta):
        return False
    await news(circle, circle.gossip.take(peer, back, time.time()))
    return unfinished(delta, back)
