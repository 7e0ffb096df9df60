"""The network of this node's circles while it belongs to any: connected members, and what is told among them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from pares.circle.answering import Answering, compare
from pares.circle.book import Book, Circle
from pares.circle.links import Links
from pares.circle.neighbours import Neighbours
from pares.circle.offers import Offers, Profile
from pares.circle.statements import Entry, signed
from pares.errors import RemoteError
from pares.transport.admission import source_of
from pares.transport.link import Connection, Stream, Transport
from pares.transport.switchboard import Handler, Switchboard
from pares.wire.messages import BULK, CIRCLE, Bye, Contact, Delta, Done, Hello, Join, Joined, Refused
from pares.wire.signing import Identity, PeerId

log = logging.getLogger(__name__)

TICK_S = 1.0
NEWS_S = 0.2
"""News waits so long for more, to travel together."""
PRUNE_S = 60.0
CONTACT_LIFE_S = 7 * 86_400
CONTACT_RENEWAL_S = 86_400
RELAYS = 2
"""At so many a node can be found."""
STRANGERS = 16
STRANGERS_EACH = 8
"""Connections with those who may want to join; the same from one address, so that nobody alone keeps others out."""
STRANGER_S = 20.0
FAREWELL_S = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the rooms above may want to tell."""

    kind: str
    """circles, peers, offers, joined, removed."""
    circle: bytes = b""
    peer: PeerId | None = None
    invite: bytes = b""


@dataclass(frozen=True, slots=True)
class _Stranger:
    until: float
    """Monotonic time."""
    source: str


class Gathering:
    """`async with` it. `admit` answers those who want to join."""

    def __init__(
        self,
        book: Book,
        profile: Profile,
        transport: Transport,
        *,
        admit: Callable[[Join], Awaitable[Joined | Refused]],
        on_event: Callable[[Event], None],
        handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        """`handlers` of further protocols, by which members of its circles may connect, and nobody else."""
        self.book = book
        self.profile = profile
        self.transport = transport
        self.admit = admit
        self.expected: Counter[PeerId] = Counter()
        """Who is dialled though it shares no circle yet: the members at whose doors this node knocks."""
        self.publish: Callable[[Contact | None], None] = lambda contact: None
        """Tells the DHT where this node is; None: nothing any more."""
        self._on_event = on_event
        self._handlers = dict(handlers or {})
        self._offers = Offers(book.identity, profile)
        self._stack = contextlib.AsyncExitStack()
        self._strangers: dict[PeerId, _Stranger] = {}
        self._wake = asyncio.Event()
        self._dirty: set[bytes] = set()
        self._told: Contact | None = None

    @property
    def identity(self) -> Identity:
        return self.book.identity

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.transport)
            self.tasks = await stack.enter_async_context(asyncio.TaskGroup())
            switchboard = Switchboard(
                self.transport,
                {CIRCLE: self._handle, **self._handlers},
                allowed=self._allowed,
                on_change=self._changed,
                lasting=(BULK,),
            )
            self.network = Neighbours(
                self.book,
                switchboard,
                self.tasks,
                hello=self.hello,
                on_online=self.meet,
                on_change=self._peer_changed,
            )
            self.network.relays = self.relays
            self.links = Links(self.book, self.network, switchboard, self._handlers)
            self._answering = Answering(self.book, self.network, self)
            stack.callback(self.network.stop)
            self.switchboard = await stack.enter_async_context(switchboard)
            keeping = self.tasks.create_task(self._keep(), name="keep circles")
            stack.callback(keeping.cancel)
            stack.push_async_callback(self._say_farewell)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        await self._save_dirty()

    def touch(self, circle: Circle | None = None) -> None:
        """Something changed: save and spread it soon."""
        if circle is not None:
            self._dirty.add(circle.id)
        self._wake.set()

    def touch_offers(self) -> None:
        """What this node holds has changed: its offers are made anew soon."""
        self._wake.set()

    def part(self, peer: PeerId) -> None:
        """Close the connection of somebody who was a member, unless it is one of a stranger by now, who may join."""
        if peer not in self._strangers and not any(self.book.with_peer(peer)):
            self.switchboard.drop(peer, "removed from the circle")

    def forget_stranger(self, peer: PeerId) -> None:
        """Somebody who knocked was let in."""
        self._strangers.pop(peer, None)

    def hello(self, observed: str) -> Hello:
        """How this node greets."""
        profile = self.profile
        return Hello(name=profile.name, version=profile.version, now=int(time.time()), observed=observed)

    def relays(self) -> Sequence[str]:
        """Where members of our circles relay, in an order of this node's own: nobody can choose to be everybody's."""
        now = time.time()
        found = {o.relay for c in self.book.circles.values() for o in c.store.offers(now).values() if o.relay}
        return sorted(found, key=lambda url: hashlib.blake2b(url.encode(), key=self.identity.id).digest())

    def _allowed(self, link: Connection) -> bool:
        """Members, whom we are asking to let us in, and for a short while a few who may want to join."""
        if link.protocol != CIRCLE:
            return self.links.allowed(link)
        peer = link.peer
        if self.book.blocked(peer):
            return False
        if peer in self.expected or peer in self._strangers:
            return True
        if shared := list(self.book.with_peer(peer)):
            known = link.outgoing or self.network.is_connected(peer)
            return known or any(self._has_room(circle) for circle in shared)
        source = source_of(link.observed) if link.observed else ""
        from_there = sum(stranger.source == source for stranger in self._strangers.values())
        if len(self._strangers) >= STRANGERS or from_there >= STRANGERS_EACH:
            return False
        self._strangers[peer] = _Stranger(time.monotonic() + STRANGER_S, source)
        return True

    def _has_room(self, circle: Circle) -> bool:
        """Whether one more member may keep a link with this node by its own choice."""
        there = [n for peer in self.network.online() if circle.has(peer) and (n := self.network.get(peer))]
        incoming = sum(not neighbour.link.outgoing for neighbour in there)
        return circle.overlay.admits(len(circle.store.membership.members()), incoming)

    async def _handle(self, link: Connection, stream: Stream) -> None:
        await self._answering.handle(link, stream)

    def _changed(self, peer: PeerId) -> None:
        self.network.changed(peer)
        if not self.network.is_connected(peer):
            self._strangers.pop(peer, None)

    def _peer_changed(self, peer: PeerId) -> None:
        if self.network.get(peer) is None:
            for circle in self.book.circles.values():
                circle.gossip.unlink(peer)
        self._wake.set()
        self._on_event(Event("peers", peer=peer))

    async def meet(self, peer: PeerId) -> None:
        """A peer has been greeted: compare what both know of the circles they share."""
        for circle in list(self.book.with_peer(peer)):
            circle.gossip.link(peer)
            me = self.identity.id
            proofs = [entry.record for entry in circle.store.membership.proofs(me)]
            proofs += [e.record for e in circle.store.entries() if e.by == me and e.record.label == "contact/1"]
            await self.network.ask(peer, Delta(circle=circle.id, records=proofs), Delta)
            await compare(circle, peer, self.network, self.news)

    async def _keep(self) -> None:
        """Once a second, and at once when something happened: dial, tell, compare, prune."""
        pruned = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
                await asyncio.sleep(NEWS_S)
            self._wake.clear()
            await self.tell_contact()
            self._dial()
            self._link()
            await self._spread()
            if time.monotonic() - pruned > PRUNE_S:
                pruned = time.monotonic()
                for circle in self.book.circles.values():
                    circle.store.prune(time.time())
            await self._save_dirty()
            self._drop_strangers()
            self.links.close_idle()

    def _dial(self) -> None:
        now = time.time()
        online = set(self.network.online())
        for circle in self.book.circles.values():
            members = [peer for peer in circle.store.membership.members() if not self.book.blocked(peer)]
            present, near = circle.store.offers(now), circle.store.near()
            for peer in circle.overlay.choose(members, online, present, now, near):
                if peer not in online:
                    self.network.start_reaching(peer)

    def _link(self) -> None:
        """Everybody who is connected counts in all circles that both belong to by now."""
        self.network.welcome_members()
        for peer in self.network.online():
            for circle in self.book.with_peer(peer):
                circle.gossip.link(peer)

    async def _spread(self) -> None:
        now = time.time()
        for circle in list(self.book.circles.values()):
            for peer, delta in circle.gossip.pushes(now).items():
                self.tasks.create_task(self.push(circle, peer, delta), name="push news")
            if (due := circle.gossip.due(now)) is not None:
                self.tasks.create_task(self._compare(circle, due), name="compare")

    async def push(self, circle: Circle, peer: PeerId, delta: Delta) -> None:
        with contextlib.suppress(RemoteError):
            await self.network.ask(peer, delta, Delta)

    async def _compare(self, circle: Circle, peer: PeerId) -> None:
        with contextlib.suppress(RemoteError):
            await compare(circle, peer, self.network, self.news)

    async def _save_dirty(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for circle in [self.book.circles[id_] for id_ in dirty & self.book.circles.keys()]:
            await self.book.save(circle)

    def _drop_strangers(self) -> None:
        now = time.monotonic()
        for peer, stranger in list(self._strangers.items()):
            if any(self.book.with_peer(peer)):
                del self._strangers[peer]
            elif stranger.until <= now:
                del self._strangers[peer]
                self.switchboard.drop(peer, "not a member")

    async def tell_contact(self) -> None:
        """Sign and spread a new contact when the addresses changed, or the last one grows old; offers likewise."""
        now = time.time()
        observed = list(self.network.observations.agreed())
        relay = self.relay_of_mine()
        own = self.transport.addresses()
        # One who sees it is enough here: only who is connected hears of it, to try a direct path.
        self.transport.advertise([address for address in self.network.observations.seen() if address not in own])
        self.transport.use_relays([url for url in dict.fromkeys((relay, *self.relays()[:RELAYS])) if url])
        fresh = Contact(
            sequence=0,
            expires=int(now) + CONTACT_LIFE_S,
            name=self.profile.name,
            addresses=list(self.transport.addresses())[:16],
            observed=observed[:4],
            relay=relay,
        )
        told = self._told
        if told is not None and set(told.addresses) != set(fresh.addresses):
            for circle in self.book.circles.values():
                circle.overlay.try_all_again()  # another network: who could not be reached from the last one may be now
        if told is None or replace(told, sequence=0, expires=fresh.expires) != fresh or self._is_old(told, now):
            for circle in self.book.circles.values():
                fresh = replace(fresh, sequence=max(fresh.sequence, circle.store.next_sequence(now)))
            self._told = fresh
        wanted = any(circle.store.membership.charter.internet for circle in self.book.circles.values())
        self.publish(self._told if wanted else None)
        for circle in self.book.circles.values():
            assert self._told is not None
            mine = circle.store.contact(self.identity.id)
            if mine is None or mine.sequence < self._told.sequence:
                circle.gossip.made(signed(self.identity, "contact/1", self._told), now)
                self._dirty.add(circle.id)
                self._wake.set()
            if (offer := self._offers.make(circle, now)) is not None:
                circle.gossip.made(offer, now)
                self._wake.set()

    def _is_old(self, told: Contact, now: float) -> bool:
        return told.expires - now < CONTACT_LIFE_S - CONTACT_RENEWAL_S

    def relay_of_mine(self) -> str:
        """The relay that others may find this node at: the first of the circles', if any."""
        return self.profile.relay_url or next(iter(self.relays()), "")

    async def news(self, circle: Circle, entries: list[Entry]) -> None:
        """A peer told something new: keep it, pass it on, and see whether this node still belongs."""
        if not entries:
            return
        self._dirty.add(circle.id)
        self._wake.set()
        if any(entry.record.label in ("certificate/1", "revocation/1", "title/1") for entry in entries):
            self._on_event(Event("circles", circle=circle.id))
            if self.book.role(circle) is None and circle.id in self.book.circles:
                log.warning("circle.removed_from", extra={"circle": circle.name})
                self._on_event(Event("removed", circle=circle.id))
        if any(entry.record.label == "contact/1" for entry in entries):
            self._on_event(Event("peers"))
        if any(entry.record.label == "offer/1" for entry in entries):
            self._on_event(Event("offers", circle=circle.id))

    async def _say_farewell(self) -> None:
        goodbyes = [self._goodbye(peer) for peer in self.network.online()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await asyncio.gather(*goodbyes)

    async def _goodbye(self, peer: PeerId) -> None:
        with contextlib.suppress(RemoteError):
            await self.network.ask(peer, Bye(), Done, timeout_s=FAREWELL_S)
