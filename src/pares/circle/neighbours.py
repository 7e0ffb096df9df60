"""The peers that this node is connected with: greeting them, noticing when they are gone, finding them again.

A peer is *online* from the first answered greeting until its connection ends or a ping goes unanswered. Links that
somebody looks at or works with are pinged every second, others rarely: a killed peer is noticed within three seconds
where it matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pares.circle.book import Book
from pares.circle.observed import Observations
from pares.errors import RemoteError
from pares.transport.link import Connection, Disconnected, Path, Unreachable, Where
from pares.transport.switchboard import Switchboard, ask
from pares.wire.framing import ProtocolError
from pares.wire.messages import CIRCLE, Contact, Hello, Introduce, Introduced, Ping, Refused
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

Way = Literal["last address", "lan", "introduction", "dht", "relay"]

WATCHED_PING_S = 1.0
IDLE_PING_S = 20.0
PING_TIMEOUT_S = 1.5
WATCHED_S = 10.0
"""Somebody who asked for the peers is taken to look at them for so long."""
DIAL_S = 6.0
AGAIN_S = 0.25
"""After a refusal, doubled with each."""
LOOK_AGAIN_S = 0.5
"""In the DHT, which may just be starting, as may the peer."""
HEAD_START_S = 0.7
"""What dialling known addresses gets before introductions and the DHT are tried beside it."""


@dataclass(slots=True)
class Neighbour:
    """A peer with whom there is a connection."""

    link: Connection
    hello: Hello | None = None
    """What it said of itself; None until it is greeted."""
    since: float = 0.0
    """Unix time of the greeting."""
    heard: float = 0.0
    """Monotonic time of the last sign of life."""
    rtt_ms: float = 0.0
    clock_offset_s: float = 0.0
    uses: int = 0
    welcomed: bool = False
    """Since it is known as a member."""
    pinging: asyncio.Task[None] | None = None

    @property
    def online(self) -> bool:
        return self.hello is not None


@dataclass(slots=True)
class WayRecord:
    """What came of a way of finding peers."""

    worked: int = 0
    failed: int = 0
    last: str = ""


@dataclass(slots=True)
class _Attempt:
    """What was tried to reach one peer."""

    tried: list[str] = field(default_factory=list)


class Neighbours:
    """Who is connected. `on_online(peer)` is awaited after a greeting, `on_change(peer)` told of every change."""

    def __init__(
        self,
        book: Book,
        switchboard: Switchboard,
        tasks: asyncio.TaskGroup,
        *,
        hello: Callable[[str], Hello],
        on_online: Callable[[PeerId], Awaitable[None]],
        on_change: Callable[[PeerId], None],
    ) -> None:
        self._book = book
        self._switchboard = switchboard
        self._tasks = tasks
        self._hello = hello
        self._on_online = on_online
        self._on_change = on_change
        self._neighbours: dict[PeerId, Neighbour] = {}
        self._watched_until = 0.0
        self._reaching: dict[PeerId, asyncio.Task[None]] = {}
        self._meeting: dict[PeerId, asyncio.Task[None]] = {}
        self.lan: Callable[[PeerId], Sequence[str]] | None = None
        """Where a peer was seen on the local network; None: that is switched off."""
        self.dht: Callable[[PeerId, int], Awaitable[Contact | None]] | None = None
        """What a peer says of itself in the DHT, newer than this sequence; None: that is switched off."""
        self.relays: Callable[[], Sequence[str]] = tuple
        """Relays that a peer without one of its own may be connected to."""
        self.observations = Observations()
        self.ways: dict[Way, WayRecord] = {}
        self.reasons: dict[PeerId, str] = {}
        """Why a peer could not be reached, in words."""

    def stop(self) -> None:
        """Give up pinging and reaching: the node is stopping."""
        for task in (
            *self._reaching.values(),
            *self._meeting.values(),
            *(n.pinging for n in self._neighbours.values() if n.pinging),
        ):
            task.cancel()

    def get(self, peer: PeerId) -> Neighbour | None:
        """A peer that is online."""
        neighbour = self._neighbours.get(peer)
        return neighbour if neighbour and neighbour.online else None

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is a connection, greeted or not."""
        return peer in self._neighbours

    def online(self) -> tuple[PeerId, ...]:
        """Members only: also strangers may say hello."""
        return tuple(peer for peer, neighbour in self._neighbours.items() if neighbour.online and self._shares(peer))

    def _shares(self, peer: PeerId) -> bool:
        return any(self._book.with_peer(peer))

    def path(self, peer: PeerId) -> Path | None:
        neighbour = self.get(peer)
        return neighbour.link.path if neighbour else None

    async def ask(self, peer: PeerId, request: object, kind: type, *, timeout_s: float = 10.0) -> object:
        """One request to a peer that is online. Raises Disconnected; what it refuses comes back as Refused."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            raise Disconnected(f"{self._book.name_of(peer)} is not connected.")
        neighbour.uses += 1
        try:
            reply = await ask(neighbour.link, request, kind | Refused, timeout_s=timeout_s)  # type: ignore[arg-type]
        except ProtocolError as error:
            self.punish(peer, error)
            raise
        finally:
            neighbour.uses -= 1
        neighbour.heard = time.monotonic()
        return reply

    def punish(self, peer: PeerId, error: ProtocolError) -> None:
        """A peer answered what no correct peer does."""
        self._switchboard.punish(peer, error)

    # Connections come and go

    def changed(self, peer: PeerId) -> None:
        """The switchboard has another connection with a peer than before, or none."""
        link = self._switchboard.link(peer, CIRCLE)
        before = self._neighbours.get(peer)
        if link is None:
            if before is not None:
                del self._neighbours[peer]
                if before.pinging:
                    before.pinging.cancel()
                self.observations.forget(peer)
                self._on_change(peer)
        elif before is None:
            self._neighbours[peer] = Neighbour(link, heard=time.monotonic())
        else:
            before.link = link

    def greeted(self, peer: PeerId, hello: Hello, *, rtt_ms: float = 0.0) -> None:
        """A peer has said hello: it is online."""
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            return
        now = time.time()
        first = not neighbour.online
        neighbour.hello, neighbour.heard = hello, time.monotonic()
        neighbour.clock_offset_s = hello.now - now
        if first:
            neighbour.since, neighbour.rtt_ms = now, rtt_ms or neighbour.link.path.rtt_ms
            neighbour.pinging = self._tasks.create_task(self._keep(peer, neighbour), name=f"ping {peer.hex()[:8]}")
        if self._shares(peer):  # of strangers nothing is kept, nor what they say of this node's address
            self._know(peer, neighbour, hello)

    def welcome_members(self) -> None:
        """Who was greeted before it was known as a member may be one now: a joiner greets several at once."""
        for peer, neighbour in list(self._neighbours.items()):
            if neighbour.hello and not neighbour.welcomed and self._shares(peer):
                self._know(peer, neighbour, neighbour.hello)

    def _know(self, peer: PeerId, neighbour: Neighbour, hello: Hello) -> None:
        self.reasons.pop(peer, None)
        if hello.observed:
            self.observations.note(peer, hello.observed)
        if not neighbour.welcomed:
            neighbour.welcomed = True
            self._tasks.create_task(self._welcome(peer, neighbour), name=f"welcome {peer.hex()[:8]}")
            self._on_change(peer)

    async def _welcome(self, peer: PeerId, neighbour: Neighbour) -> None:
        for circle in self._book.with_peer(peer):
            circle.overlay.worked(peer)
        address = neighbour.link.path.address if neighbour.link.outgoing else neighbour.link.observed
        if neighbour.link.path.kind == "relayed":
            address = ""
        await self._book.change_peer(peer, address=address, seen=int(time.time()))
        with contextlib.suppress(RemoteError):
            await self._on_online(peer)

    async def _keep(self, peer: PeerId, neighbour: Neighbour) -> None:
        """Ping while it is connected; when it does not answer, the connection is closed."""
        number = 0
        while self._neighbours.get(peer) is neighbour:
            now = time.monotonic()
            interval = WATCHED_PING_S if neighbour.uses or now < self._watched_until else IDLE_PING_S
            quiet = now - neighbour.heard
            if quiet < interval and neighbour.rtt_ms:
                await asyncio.sleep(min(interval - quiet, WATCHED_PING_S))
                continue
            number += 1
            await self._ping(peer, neighbour, number)

    async def _ping(self, peer: PeerId, neighbour: Neighbour, number: int) -> None:
        link, began = neighbour.link, time.perf_counter()
        try:
            await ask(link, Ping(number=number), Ping, timeout_s=PING_TIMEOUT_S)
            neighbour.heard = time.monotonic()
            neighbour.rtt_ms = (time.perf_counter() - began) * 1e3
        except ProtocolError as error:
            self.punish(peer, error)
        except RemoteError as error:
            if neighbour.link is link:
                self.reasons[peer] = "It stopped answering."
                log.info("peer.gone", extra={"peer": peer.hex()[:8], "reason": error.message})
                self._switchboard.drop(peer, "no answer")

    async def check(self) -> None:
        """Ask all of whom nothing was heard in the last second whether they are there; at most `PING_TIMEOUT_S`."""
        self._watched_until = time.monotonic() + WATCHED_S
        quiet = [
            self._ping(peer, neighbour, 0)
            for peer, neighbour in list(self._neighbours.items())
            if neighbour.online and time.monotonic() - neighbour.heard > WATCHED_PING_S
        ]
        await asyncio.gather(*quiet)

    # Finding peers

    def start_reaching(self, peer: PeerId) -> None:
        """Reach a peer in the background, unless that is under way."""
        if peer not in self._reaching and self.get(peer) is None:
            task = self._tasks.create_task(self._try_to_reach(peer), name=f"reach {peer.hex()[:8]}")
            self._reaching[peer] = task
            task.add_done_callback(lambda _: self._reaching.pop(peer, None))

    async def _try_to_reach(self, peer: PeerId) -> None:
        try:
            await self.reach(peer)
        except RemoteError as error:
            self.reasons[peer] = error.message
            for circle in self._book.with_peer(peer):
                circle.overlay.failed(peer, time.time())
            self._on_change(peer)

    async def reach(self, peer: PeerId, *, addresses: Iterable[str] = (), relay: str = "") -> Neighbour:
        """Be connected with a peer and greet it, by all ways there are. Raises Unreachable with what was tried."""
        if neighbour := self.get(peer):
            return neighbour
        attempt = _Attempt()
        direct = asyncio.create_task(self._by_addresses(peer, addresses, relay, attempt))
        others: set[asyncio.Task[Neighbour | None]] = set()
        try:
            await asyncio.wait({direct}, timeout=HEAD_START_S)
            if direct.done() and (found := direct.result()):
                return found
            others = {
                asyncio.create_task(self._by_introduction(peer, attempt)),
                asyncio.create_task(self._by_dht(peer, attempt, direct)),
            }
            for finished in asyncio.as_completed({direct, *others}):
                if found := await finished:
                    return found
        finally:
            for task in (direct, *others):
                task.cancel()
            await asyncio.gather(direct, *others, return_exceptions=True)
        tried = "; ".join(attempt.tried) or "no address of it is known, and nobody who is connected knows it"
        raise Unreachable(f"{self._book.name_of(peer)} was not reached: {tried}.")

    async def _by_addresses(
        self, peer: PeerId, addresses: Iterable[str], relay: str, attempt: _Attempt
    ) -> Neighbour | None:
        contact = self._book.contact(peer)
        known = self._book.peers.get(peer)
        local = tuple(self.lan(peer)) if self.lan else ()
        last = (known.address,) if known and known.address else ()
        theirs = (*contact.observed, *contact.addresses) if contact else ()
        relay = relay or self.usable(contact.relay if contact else "") or next(iter(self.relays()), "")
        found = tuple(dict.fromkeys((*local, *last, *addresses, *theirs)))
        if not found and not relay:
            return None
        neighbour = await self._dial(Where(peer, found, relay))
        ways: list[Way] = ["lan"] if local else []
        if found and not local:
            ways.append("last address")
        if relay:
            ways.append("relay")
        if neighbour is None:
            where = "nothing answers where it was last" if found else "it has no address"
            attempt.tried.append(where + (f", nor over the relay {relay}" if relay else ""))
            for way in ways:
                self._note(way, worked=False)
            return None
        kind = neighbour.link.path.kind
        self._note("relay" if kind == "relayed" else "lan" if local else "last address", worked=True)
        return neighbour

    async def _by_introduction(self, peer: PeerId, attempt: _Attempt) -> Neighbour | None:
        """Have a common peer tell both sides where the other one is, and dial."""
        asked = 0
        for circle in list(self._book.with_peer(peer)):
            for other in self.online():
                if other == peer or not circle.has(other) or asked >= 3:
                    continue
                asked += 1
                try:
                    request = Introduce(circle=circle.id, peer=peer)
                    reply = await self.ask(other, request, Introduced, timeout_s=3.0)
                except RemoteError:
                    continue
                if isinstance(reply, Introduced) and reply.peer == peer:
                    neighbour = await self._dial(Where(peer, tuple(reply.addresses), self.usable(reply.relay)))
                    self._note("introduction", worked=neighbour is not None)
                    if neighbour:
                        return neighbour
                    attempt.tried.append(f"{self._book.name_of(other)} introduced us, but the way between is closed")
        return None

    async def _by_dht(
        self, peer: PeerId, attempt: _Attempt, direct: asyncio.Task[Neighbour | None]
    ) -> Neighbour | None:
        """Look for something newer than what is known, for as long as the known addresses are dialled."""
        if self.dht is None:
            return None
        known = self._book.contact(peer)
        while (contact := await self.dht(peer, known.sequence if known else -1)) is None and not direct.done():
            await asyncio.wait({direct}, timeout=LOOK_AGAIN_S)
        if contact is None:
            attempt.tried.append("the DHT does not know it")
            self._note("dht", worked=False)
            return None
        neighbour = await self._dial(Where(peer, (*contact.observed, *contact.addresses), self.usable(contact.relay)))
        self._note("dht", worked=neighbour is not None)
        if neighbour is None:
            attempt.tried.append("where it is by the DHT nothing answers")
        return neighbour

    def heard_from(self, peer: PeerId) -> None:
        """A sign of life."""
        if neighbour := self._neighbours.get(peer):
            neighbour.heard = time.monotonic()

    def farewell(self, peer: PeerId) -> None:
        """A peer says that it is stopping."""
        if self._shares(peer):
            self.reasons[peer] = "It was stopped."

    def start_meeting(self, message: Introduced) -> None:
        """Somebody brings us together with a peer: dial it now, as it dials us."""
        self._start_meeting(
            Where(PeerId(message.peer), tuple(message.addresses), self.usable(message.relay)), "introduction"
        )

    def saw_nearby(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """A peer shows itself on the local network: dial it there, also while it is dialled where it was before."""
        if self._shares(peer):
            self._start_meeting(Where(peer, tuple(addresses)), "lan")

    def _start_meeting(self, where: Where, way: Way) -> None:
        peer = where.peer
        if peer not in self._meeting and self.get(peer) is None:
            task = self._tasks.create_task(self._meet(where, way), name=f"meet {peer.hex()[:8]}")
            self._meeting[peer] = task
            task.add_done_callback(lambda _: self._meeting.pop(peer, None))

    async def _meet(self, where: Where, way: Way) -> None:
        if self.get(where.peer) is None:
            self._note(way, worked=await self._dial(where) is not None)

    async def _dial(self, where: Where) -> Neighbour | None:
        """Connect and greet; None if that fails. Who refuses at once is asked again: it may be busy or starting."""
        until, pause = time.monotonic() + DIAL_S, AGAIN_S
        while True:
            try:
                await self._connect(where)
                break
            except ProtocolError as error:
                self.punish(where.peer, error)
                break
            except RemoteError as error:
                log.debug("peer.not_reached", extra={"peer": where.peer.hex()[:8], "reason": error.message})
                if not isinstance(error, Unreachable) or time.monotonic() + pause > until:
                    break
            await asyncio.sleep(pause)
            pause *= 2
        return self.get(where.peer)

    async def _connect(self, where: Where) -> None:
        link = await self._switchboard.connect(where, CIRCLE, timeout_s=DIAL_S)
        neighbour = self._neighbours.get(where.peer)
        if neighbour is None or not neighbour.online:
            began = time.perf_counter()
            reply = await ask(link, self._hello(link.observed), Hello, timeout_s=DIAL_S)
            self.greeted(where.peer, reply, rtt_ms=(time.perf_counter() - began) * 1e3)

    def usable(self, relay: str) -> str:
        """A relay that a peer names is used only if a member of our circles offers it: else it could be anything."""
        return relay if relay in self.relays() else ""

    def _note(self, way: Way, *, worked: bool) -> None:
        record = self.ways.setdefault(way, WayRecord())
        if worked:
            record.worked += 1
        else:
            record.failed += 1
