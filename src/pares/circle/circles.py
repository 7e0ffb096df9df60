"""The circles of this node: make, join, invite, rename, leave. It has a network only while it belongs to one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from pares.circle import invites, membership
from pares.circle.book import Book, Circle
from pares.circle.gathering import Event, Gathering
from pares.circle.invites import Invitation
from pares.circle.joining import Knocking, Letting, check_link
from pares.circle.neighbours import Neighbours
from pares.circle.offers import Profile
from pares.errors import BadRequest, Conflict, Forbidden, NotFound, ParesError
from pares.store.circles import InviteRecord
from pares.transport.link import Transport
from pares.transport.switchboard import Handler
from pares.wire.messages import CIRCLE, Delta, Role
from pares.wire.signing import Identity, PeerId

PARTING_S = 2.0
Found = TypeVar("Found")


class Circles:
    """`async with` it. `transport(protocols)` and `equip(gathering, stack)` are called when the network begins: the
    second gives it its ways of finding peers, as contexts of the stack."""

    def __init__(
        self,
        book: Book,
        profile: Profile,
        transport: Callable[[Sequence[str]], Transport],
        *,
        equip: Callable[[Gathering, contextlib.AsyncExitStack], Awaitable[None]],
        on_event: Callable[[Event], None],
        at_once: bool = True,
        handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        """`at_once`: with the network of the circles there are; else it begins with the first verb that needs it.

        `handlers`: see `Gathering`.
        """
        self.book = book
        self._at_once = at_once
        self._profile = profile
        self._make_transport = transport
        self._equip = equip
        self._on_event = on_event
        self._handlers = dict(handlers or {})
        self._letting = Letting(book, self._hear)
        self._starting = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._started: asyncio.Future[Gathering] | None = None
        self._ending = asyncio.Event()
        self._knocking = 0
        self._tasks = asyncio.TaskGroup()
        self.gathering: Gathering | None = None
        """The network; None while this node belongs to no circle."""

    @property
    def identity(self) -> Identity:
        return self.book.identity

    @property
    def network(self) -> Neighbours | None:
        return self.gathering.network if self.gathering else None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self.book.circles and self._at_once:
            await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        await self._tasks.__aexit__(kind, error, trace)

    async def _start(self) -> Gathering:
        async with self._starting:
            if self._running is None or self._started is None or self._running.done():
                self._ending, self._started = asyncio.Event(), asyncio.get_running_loop().create_future()
                self._running = self._tasks.create_task(self._run(self._started), name="circles' network")
            # Whoever asked may give up waiting; the network begins all the same.
            both: set[asyncio.Future[Any]] = {self._started, self._running}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not self._started.done():
                raise Conflict("The node is stopping.")
            return self._started.result()

    async def _run(self, started: asyncio.Future[Gathering]) -> None:
        """The network's life, in a task of its own: whoever made the first circle may be gone when the last is left."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                gathering = Gathering(
                    self.book,
                    self._profile,
                    self._make_transport((CIRCLE, *self._handlers)),
                    admit=self._letting.admit,
                    on_event=self._hear,
                    handlers=self._handlers,
                )
                await stack.enter_async_context(gathering)
                await self._equip(gathering, stack)
                self.gathering = gathering
                started.set_result(gathering)
                await self._ending.wait()
        except ParesError as error:
            if started.done():
                raise
            started.set_exception(error)
            started.exception()  # told to whoever waits; if nobody does any more, it is told at the next start
        finally:
            self.gathering = None

    async def _stop(self) -> None:
        async with self._starting:
            if self._running is not None:
                self._ending.set()
                await asyncio.wait({self._running})
                self._running = self._started = None
                gc.collect()  # the port is free when no connection is referred to any more, in a cycle either

    async def _stop_if_alone(self) -> None:
        """Without a circle this node listens to nobody."""
        if not self.book.circles and not self._knocking:
            await self._stop()

    def _hear(self, event: Event) -> None:
        gathering = self.gathering
        if event.kind == "joined" and gathering is not None:
            assert event.peer is not None
            gathering.forget_stranger(event.peer)
            self.book.circles[event.circle].gossip.link(event.peer)
            gathering.touch(self.book.circles[event.circle])
        if event.kind == "removed" and event.circle in self.book.circles:
            self._tasks.create_task(self._forget(self.book.circles[event.circle]), name="forget circle")
        if event.kind == "circles" and event.circle in self.book.circles:
            self._part(self.book.circles[event.circle])
        self._on_event(event)

    def _part(self, circle: Circle) -> None:
        """Who belongs no more hears nothing more, and who was removed does not come back by the same invite."""
        removed = circle.store.membership.removed()
        for peer in removed:
            circle.gossip.unlink(peer)
            if self.gathering is not None:
                self.gathering.part(peer)
        for invite in list(self.book.invites.values()):
            came = {PeerId(bytes.fromhex(peer)) for peer in invite.joined}
            expelled = any(removed.get(peer, peer) != peer for peer in came)
            if invite.circle == circle.id and invite.secret and expelled:
                self._tasks.create_task(self.book.void(invite), name="void invite")

    def _changed(self, circle: Circle) -> None:
        if self.gathering is not None:
            self.gathering.touch(circle)
        self._on_event(Event("circles", circle=circle.id))

    # Finding by name

    def find(self, name: str) -> Circle:
        """A circle by its id, the beginning of it, or its name. Raises NotFound, BadRequest if several fit."""
        named = [(circle, circle.id, circle.name) for circle in self.book.circles.values()]
        known = ", ".join(sorted(circle.name for circle in self.book.circles.values())) or "none"
        return _named(name, named, "circle", f"Circles here: {known}.")

    def find_peer(self, name: str) -> PeerId:
        """A peer by its id, the beginning of it, or its name. Raises NotFound, BadRequest if several fit."""
        peers = self.book.members() | self.book.peers.keys()
        named = [(peer, bytes(peer), self.book.name_of(peer)) for peer in peers]
        return _named(name, named, "peer", "`pares peers` shows all.")

    # Circles

    async def create(self, name: str, *, open_: bool = False, internet: bool = True, copies: int = 2) -> Circle:
        """A new circle, with this node as its founder. `copies`: see `Charter`."""
        now = int(time.time())
        nonce = secrets.token_bytes(16)
        charter = membership.found(self.identity, name, now, nonce, open=open_, internet=internet, copies=copies)
        circle = await self.book.enter(charter, now)
        gathering = await self._start()
        await gathering.tell_contact()
        self._changed(circle)
        return circle

    async def rename(self, circle: Circle, name: str) -> None:
        """For everybody if this node founded it, else for its owner only."""
        own = name
        if circle.store.membership.founder == self.identity.id:
            now = time.time()
            title = membership.title(self.identity, circle.store.membership, name, int(now * 1000))
            circle.gossip.made(title, now)
            own = ""
        await self.book.rename(circle, own)
        self._changed(circle)

    async def leave(self, circle: Circle) -> None:
        """Take one's own certificate back, tell who is connected, and forget the circle. A founder only forgets it."""
        if circle.store.membership.founder != self.identity.id and self.gathering is not None:
            record = membership.leave(self.identity, circle.store.membership, int(time.time()))
            delta = Delta(circle=circle.id, records=[record])
            there = [peer for peer in self.gathering.network.online() if circle.has(peer)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PARTING_S):
                    await asyncio.gather(*(self.gathering.push(circle, peer, delta) for peer in there))
        await self._forget(circle)
        self._on_event(Event("circles", circle=circle.id))

    async def remove(self, circle: Circle, peer: PeerId) -> None:
        """Take a member's certificate back. Raises NotFound, Forbidden, Conflict."""
        record = membership.revoke(self.identity, circle.store.membership, peer, int(time.time()))
        circle.gossip.made(record, time.time())
        if self.gathering is not None and self.gathering.network.get(peer) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PARTING_S):
                    await self.gathering.push(circle, peer, Delta(circle=circle.id, records=[record]))
        self._part(circle)
        self._changed(circle)

    async def _forget(self, circle: Circle) -> None:
        others = set(circle.store.membership.members())
        await self.book.forget(circle)
        if self.gathering is not None:
            for peer in others:
                if not any(self.book.with_peer(peer)):
                    self.gathering.switchboard.drop(peer, "no common circle")
        await self._stop_if_alone()

    # Invites

    async def invite(self, circle: Circle, *, expires_s: int, uses: int, role: Role) -> InviteRecord:
        """A new invite; `link_of` makes its link. Raises Forbidden for guests."""
        if self.book.role(circle) != "member":
            raise Forbidden(f"You are a guest of {circle.name}: guests do not invite.", hint="Ask a member to do it.")
        now = int(time.time())
        record = InviteRecord(
            id=secrets.token_bytes(16),
            circle=circle.id,
            secret=b"" if circle.store.membership.charter.open else secrets.token_bytes(invites.SECRET_BYTES),
            role=role,
            made=now,
            expires=now + expires_s,
            uses_left=uses,
        )
        await self._start()
        await self.book.void_expired(now)
        await self.book.save_invite(record)
        self._changed(circle)
        return record

    def link_of(self, invite: InviteRecord) -> str:
        """The link of an invite, with the addresses of now. Empty once it is used up, or without a network."""
        circle, gathering = self.book.circles[invite.circle], self.gathering
        commons = circle.store.membership.charter.open
        if gathering is None or not (invite.secret or commons):
            return ""
        mine = [*gathering.network.observations.seen(), *gathering.transport.addresses()]
        contacts = [invites.contact(self.identity.id, _few(mine), gathering.relay_of_mine())]
        for peer in gathering.network.online():
            contact = circle.store.contact(peer)
            if contact and len(contacts) < 3:
                contacts.append(invites.contact(peer, _few([*contact.observed, *contact.addresses]), contact.relay))
        return invites.link(
            Invitation(
                circle=circle.id,
                name=circle.title,
                invite=invite.id,
                secret=invite.secret,
                role=invite.role,
                expires=invite.expires,
                inviter=self.identity.id,
                inviter_name=self._profile.name,
                open=commons,
                contacts=contacts,
            )
        )

    async def withdraw(self, circle: Circle, invite: str) -> None:
        """Make an invite useless. Raises NotFound."""
        mine = [each.id for each in self.book.invites.values() if each.circle == circle.id]
        found = [id_ for id_ in mine if len(invite) >= 4 and id_.hex().startswith(invite.lower())]
        if len(found) != 1:
            raise NotFound(f"{circle.name} has no invite {invite!r}.", hint="`pares circle show` lists them.")
        await self.book.forget_invite(found[0])
        self._changed(circle)

    def read(self, link: str) -> Invitation:
        """What a link says; nothing is sent to anybody. Raises BadRequest."""
        invitation = invites.parse(link, time.time())
        check_link(invitation, self.identity.id)
        return invitation

    async def join(self, link: str) -> Circle:
        """Join by a link, until there has been a real exchange with a member.

        Raises BadRequest for what is no link, Conflict for a circle this node is in, Forbidden for a refused invite,
        PeersUnreachable with what was tried.
        """
        invitation = self.read(link)
        known = self.book.circles.get(invitation.circle)
        if known is not None and self.book.role(known) is not None:
            raise Conflict(f"This node belongs to {known.name} already.", hint="`pares circle show` says with whom.")
        self._knocking += 1
        try:
            circle = await Knocking(self.book, await self._start()).join(invitation)
        finally:
            self._knocking -= 1
            await self._stop_if_alone()
        self._changed(circle)
        return circle

    # Peers

    async def change_peer(self, peer: PeerId, *, name: str | None, blocked: bool | None) -> None:
        """Name or block a peer; a blocked one is disconnected at once."""
        await self.book.change_peer(peer, name=name, blocked=blocked)
        if self.gathering is not None:
            if blocked:
                self.gathering.switchboard.drop(peer, "blocked")
            self.gathering.touch()
        self._on_event(Event("peers", peer=peer))


def _named(name: str, known: Iterable[tuple[Found, bytes, str]], kind: str, hint: str) -> Found:
    """The one thing of this name or id."""
    known = list(known)
    fits = [k for k in known if k[1].hex() == name.lower()] or [k for k in known if k[2] == name]
    fits = fits or [k for k in known if k[2].casefold() == name.casefold()]
    if not fits and len(name) >= 4:
        fits = [k for k in known if k[1].hex().startswith(name.lower())]
    if len(fits) > 1:
        ids = ", ".join(sorted(k[1].hex()[:8] for k in fits))
        raise BadRequest(f"{len(fits)} {kind}s are called {name!r}.", hint=f"Say which by its id: {ids}.")
    if not fits:
        raise NotFound(f"There is no {kind} called {name!r} here.", hint=hint)
    return fits[0][0]


def _few(addresses: Sequence[str]) -> list[str]:
    """The two most useful addresses for a link: IPv4 first, as they come."""
    return sorted(dict.fromkeys(addresses), key=lambda address: address.startswith("["))[:2]
