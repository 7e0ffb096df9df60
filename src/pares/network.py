"""Joins the circle room to what stands below and above it: transport, LAN, DHT and relay; the control API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from pares import __version__
from pares.api import network as told
from pares.api.schemas import Check
from pares.circle.book import Book
from pares.circle.book import Circle as Kept
from pares.circle.circles import Circles
from pares.circle.dht import Directory
from pares.circle.gathering import Event, Gathering
from pares.circle.lan import Lan
from pares.circle.relay import Relay
from pares.circle.settings import RelaySettings
from pares.circle.settings import Settings as CircleSettings
from pares.circle.words import words
from pares.errors import Conflict
from pares.inference import machine
from pares.standing import CLOCK_OFF_S, Means, Standing
from pares.store.circles import CircleTables, InviteRecord
from pares.store.database import Database
from pares.store.events import Events
from pares.transport.bittorrent_process import BitTorrent
from pares.transport.bittorrent_process import Settings as BitTorrentSettings
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings as TransportSettings
from pares.transport.switchboard import Handler
from pares.wire.messages import Contact, Held
from pares.wire.signing import Identity, PeerId

log = logging.getLogger(__name__)

State = Literal["alone", "connecting", "connected", "offline"]
LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
NEWS_S = 0.3
"""Events of a moment are told together."""


class Contents(Protocol):
    """What this node gives away, and who answers about it."""

    @property
    def bulk_port(self) -> int: ...

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]: ...

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Of the protocols beside the circles' own."""
        ...

    def circles_changed(self, *, only_peers: bool) -> None:
        """Circles, their members or offers are others than before; or only where peers are, and whether they are."""
        ...


SHARES = (
    "Your node's name, and the addresses where it can be reached.",
    "Whether it is there, its version, and how much memory the machine has.",
)
SHARES_OPEN = "It is a commons: its members are strangers to you, and anybody who has the link can join."
SHARES_NOT = (
    "Your conversations and files are not shared; of your models, only those that you share or fetch in a circle."
)


class Network:
    """`async with` it. It is the API's `NetworkServices`, and the circle room's `Profile`."""

    def __init__(
        self,
        home: Path,
        identity: Identity,
        database: Database,
        events: Events,
        *,
        circle: CircleSettings,
        transport: TransportSettings,
        relay: RelaySettings,
        offline: bool,
        at_once: bool,
        hostname: str,
    ) -> None:
        """`at_once`: see `Circles`."""
        self._home = home
        self.identity = identity
        self._tables = CircleTables(database)
        self._events = events
        self._circle, self._transport, self._relay_settings = circle, transport, relay
        self._offline, self._at_once = offline, at_once
        self.name = (circle.name or hostname or "a node")[:64]
        self.version = __version__
        self.memory_bytes = machine.memory().total
        self.contents: Contents | None = None
        """Set before this is entered."""
        self._means = Means()
        self._news: set[str] = set()
        self._something = asyncio.Event()
        self._stack = AsyncExitStack()

    @property
    def relay_url(self) -> str:
        """See `circle.gathering.Profile`."""
        return self._standing.relay_url

    @property
    def bulk_port(self) -> int:
        """See `circle.offers.Profile`."""
        return self.contents.bulk_port if self.contents else 0

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]:
        """See `circle.offers.Profile`."""
        return self.contents.holdings(circle) if self.contents else ((), ())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            book = await Book.open(self.identity, self._tables, int(time.time()))
            self.circles_here = Circles(
                book,
                self,
                self._make_transport,
                equip=self._equip,
                on_event=self._hear,
                at_once=self._at_once,
                handlers=self.contents.handlers if self.contents else None,
            )
            self._standing = Standing(self.circles_here, self._means, offline=self._offline)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            telling = tasks.create_task(self._tell(), name="tell of peers")
            stack.callback(telling.cancel)
            if not self._offline:
                await stack.enter_async_context(self.circles_here)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # Downwards

    def _make_transport(self, protocols: Sequence[str]) -> QuicTransport:
        return QuicTransport(self.identity.seed, protocols, self._transport)

    async def _equip(self, gathering: Gathering, stack: AsyncExitStack) -> None:
        """Give the network of circles its ways of finding peers, and the relay that this node may be."""
        book, network, tasks = gathering.book, gathering.network, gathering.tasks
        local = not self._transport.loopback_only
        if self._circle.lan and (local or self._circle.lan_interfaces):
            lan = self._means.lan = Lan(
                self.identity.id,
                gathering.transport.addresses,
                wanted=lambda peer: peer in book.members(),
                seen=network.saw_nearby,
                interfaces=self._circle.lan_interfaces,
            )
            network.lan = lan.where
            stack.callback(tasks.create_task(lan.run(), name="lan").cancel)
        if self._circle.dht and (local or self._circle.dht_private):
            settings = BitTorrentSettings(
                state=self._home / "dht.state",
                addresses=("0.0.0.0", "::") if local else ("127.0.0.1",),
                bootstrap=self._circle.dht_bootstrap,
                private=self._circle.dht_private,
            )
            bittorrent = BitTorrent(settings, on_change=lambda: self._note("network"))
            directory = Directory(bittorrent, self.identity, now=time.time, local=self._circle.dht_private)
            self._means.bittorrent, self._means.directory = bittorrent, directory
            network.dht = _newer(directory)
            gathering.publish = directory.publish
            stack.callback(tasks.create_task(bittorrent.run(), name="bittorrent").cancel)
            stack.callback(tasks.create_task(directory.run(), name="dht").cancel)
        if self._relay_settings.enabled:
            relay = Relay(self._relay_settings, allowed=lambda key: PeerId(key) in book.members())
            self._means.relay = await stack.enter_async_context(relay)
        stack.callback(self._means.forget)

    # Events

    def _hear(self, event: Event) -> None:
        if event.kind == "joined" and event.peer is not None:
            who = msgspec.to_builtins(self.who(event.peer))
            self._events.publish("joined", {"circle": event.circle.hex(), "invite": event.invite.hex(), "peer": who})
        if event.kind in ("circles", "removed", "joined"):
            self._note("circles")
            if self._means.relay is not None:
                self._means.relay.recheck()
        self._note("peers")
        self._note("network")
        if self.contents is not None:
            self.contents.circles_changed(only_peers=event.kind == "peers")

    def _note(self, kind: str) -> None:
        self._news.add(kind)
        self._something.set()

    async def _tell(self) -> None:
        """Publish what moved; nobody is asked anything for it."""
        while True:
            await self._something.wait()
            await asyncio.sleep(NEWS_S)
            self._something.clear()
            news, self._news = self._news, set()
            if "circles" in news:
                self._events.publish("circles", {"circles": msgspec.to_builtins(await self.circles())})
            if "peers" in news:
                self._events.publish("peers", {"peers": msgspec.to_builtins(self._peers())})
            if "network" in news:
                self._events.publish("network", msgspec.to_builtins(self._network()))

    # Upwards: see `api.services.NetworkServices`

    async def circles(self) -> Sequence[told.Circle]:
        return [self._circle_told(circle) for circle in self.circles_here.book.circles.values()]

    async def circle(self, circle: str) -> told.CircleDetail:
        kept = self.circles_here.find(circle)
        book = self.circles_here.book
        online = self.online()
        members = []
        for peer, member in kept.store.membership.members().items():
            founder = peer == kept.store.membership.founder
            members.append(
                told.Member(
                    id=peer.hex(),
                    name=self.name_of(peer),
                    words=_words(peer),
                    role="founder" if founder else member.role,
                    you=peer == self.identity.id,
                    invited_by=member.invited_by.hex() if member.invited_by else "",
                    since=_time(member.issued),
                    online=peer in online or peer == self.identity.id,
                )
            )
        invites = [self._invite(i) for i in book.invites.values() if i.circle == kept.id and i.expires > time.time()]
        return told.CircleDetail(circle=self._circle_told(kept), members=tuple(members), invites=tuple(invites))

    async def create(self, request: told.CircleRequest) -> told.Circle:
        self._must_be_online("make a circle")
        return self._circle_told(
            await self.circles_here.create(
                request.name, open_=request.open, internet=request.internet, copies=request.copies
            )
        )

    async def rename(self, circle: str, name: str) -> told.Circle:
        kept = self.circles_here.find(circle)
        await self.circles_here.rename(kept, name)
        return self._circle_told(kept)

    async def leave(self, circle: str) -> None:
        await self.circles_here.leave(self.circles_here.find(circle))

    async def invite(self, circle: str, request: told.InviteRequest) -> told.Invite:
        self._must_be_online("invite anybody")
        kept = self.circles_here.find(circle)
        return self._invite(
            await self.circles_here.invite(kept, expires_s=request.expires_s, uses=request.uses, role=request.role)
        )

    async def withdraw(self, circle: str, invite: str) -> None:
        await self.circles_here.withdraw(self.circles_here.find(circle), invite)

    async def remove(self, circle: str, member: str) -> None:
        await self.circles_here.remove(self.circles_here.find(circle), self.circles_here.find_peer(member))

    async def preview(self, link: str) -> told.JoinPreview:
        invitation = self.circles_here.read(link)
        shares = (*SHARES, SHARES_OPEN, SHARES_NOT) if invitation.open else (*SHARES, SHARES_NOT)
        return told.JoinPreview(
            circle=invitation.circle.hex(),
            name=invitation.name,
            open=invitation.open,
            inviter=told.Who(invitation.inviter.hex(), invitation.inviter_name, _words(invitation.inviter)),
            role=invitation.role,
            expires_at=_time(invitation.expires),
            shares=shares,
            already=invitation.circle in self.circles_here.book.circles,
        )

    async def join(self, link: str) -> told.Joined:
        self._must_be_online("join a circle")
        began = time.monotonic()
        circle = await self.circles_here.join(link)
        return told.Joined(self._circle_told(circle), round(time.monotonic() - began, 3))

    async def peers(self) -> Sequence[told.Peer]:
        if self.circles_here.network is not None:
            await self.circles_here.network.check()
        return self._peers()

    async def change_peer(self, peer: str, change: told.PeerChange) -> told.Peer:
        found = self.circles_here.find_peer(peer)
        await self.circles_here.change_peer(found, name=change.name, blocked=change.blocked)
        return self._peer(found)

    async def network(self) -> told.Network:
        return self._network()

    def figures(self) -> Mapping[str, tuple[str, float]]:
        _, online, circles = self.state()
        found = {"circles": ("Circles of this node", circles), "peers_online": ("Peers that answer", online)}
        if self._means.relay is None:
            return found
        relay = self._means.relay.metrics
        return found | {
            "relay_clients": ("Members connected to the relay here", relay.clients),
            "relay_forwarded_frames": ("Frames that it forwarded", relay.forwarded_frames),
            "relay_forwarded_bytes": ("Bytes that it forwarded", relay.forwarded_bytes),
            "relay_dropped_frames": ("Frames that it did not forward", relay.dropped.total()),
            "relay_refused_connections": ("Connections that it did not take", relay.refused.total()),
        }

    # What is told

    def state(self) -> tuple[State, int, int]:
        """For the status: in a word, how many peers are online, how many circles there are."""
        online, circles = len(self.online()), len(self.circles_here.book.circles)
        if self._offline:
            return "offline", 0, circles
        return ("connected" if online else "connecting" if circles else "alone"), online, circles

    async def checks(self) -> Sequence[Check]:
        """The doctor's lines about circles and peers."""
        return await self._standing.checks()

    def _must_be_online(self, what: str) -> None:
        if self._offline:
            raise Conflict(
                f"This node is offline by its settings: it cannot {what}.", hint="Start it without --offline."
            )

    def online(self) -> frozenset[PeerId]:
        network = self.circles_here.network
        return frozenset(network.online()) if network else frozenset()

    def name_of(self, peer: PeerId) -> str:
        """Until a peer's contact has come: what it said when it greeted."""
        if peer == self.identity.id:
            return self.name
        name, network = self.circles_here.book.name_of(peer), self.circles_here.network
        neighbour = network.get(peer) if network else None
        said = neighbour.hello.name if neighbour and neighbour.hello else ""
        return said if said and name == peer.hex()[:8] else name

    def who(self, peer: PeerId) -> told.Who:
        return told.Who(peer.hex(), self.name_of(peer), _words(peer))

    def _circle_told(self, kept: Kept) -> told.Circle:
        membership = kept.store.membership
        members = membership.members()
        mine = members.get(self.identity.id)
        founder = membership.founder == self.identity.id
        return told.Circle(
            id=kept.id.hex(),
            name=kept.name,
            title=kept.title,
            role="founder" if founder else mine.role if mine else "guest",
            open=membership.charter.open,
            internet=membership.charter.internet,
            copies=membership.charter.copies,
            founder=self.who(membership.founder),
            members=len(members),
            online=sum(peer in members for peer in self.online()),
            since=_time(kept.record.joined_at),
            can_invite=mine is not None and mine.role == "member",
        )

    def _invite(self, invite: InviteRecord) -> told.Invite:
        link = self.circles_here.link_of(invite)
        return told.Invite(
            id=invite.id.hex(),
            circle=invite.circle.hex(),
            link=link,
            qr=_qr(link) if link else "",
            role=invite.role,
            expires_at=_time(invite.expires),
            uses_left=invite.uses_left,
            joined=tuple(self.who(PeerId(bytes.fromhex(peer))) for peer in invite.joined),
        )

    def _peers(self) -> list[told.Peer]:
        book = self.circles_here.book
        known = book.members() | {peer for peer, record in book.peers.items() if record.blocked}
        return sorted((self._peer(peer) for peer in known), key=lambda p: (not p.online, p.name.casefold(), p.id))

    def _peer(self, peer: PeerId) -> told.Peer:
        book, network = self.circles_here.book, self.circles_here.network
        neighbour = network.get(peer) if network else None
        record = book.peers.get(peer)
        seen = neighbour.since if neighbour else record.seen if record else 0
        offset = round(neighbour.clock_offset_s) if neighbour else 0
        return told.Peer(
            id=peer.hex(),
            name=self.name_of(peer),
            words=_words(peer),
            online=neighbour is not None,
            path=neighbour.link.path.kind if neighbour else "",
            rtt_ms=round(neighbour.rtt_ms or neighbour.link.path.rtt_ms, 2) if neighbour else None,
            since=_time(seen) if seen else None,
            circles=tuple(circle.id.hex() for circle in book.with_peer(peer)),
            offers=self._offers(peer),
            version=neighbour.hello.version if neighbour and neighbour.hello else "",
            clock_offset_s=float(offset) if abs(offset) >= CLOCK_OFF_S else None,
            blocked=book.blocked(peer),
            reason="" if neighbour else self._why_not(peer),
        )

    def _why_not(self, peer: PeerId) -> str:
        network = self.circles_here.network
        if self.circles_here.book.blocked(peer):
            return "You blocked it."
        if network is None:
            return "This node is offline."
        now = time.time()
        lately = [offer for c in self.circles_here.book.with_peer(peer) if (offer := c.store.offer(peer, now))]
        if lately and peer not in network.reasons:
            return "It was there lately; in a large circle a node is connected with some of the members only."
        return network.reasons.get(peer, "It has not been reached yet.")

    def _offers(self, peer: PeerId) -> tuple[str, ...]:
        found = []
        for circle in self.circles_here.book.with_peer(peer):
            if offer := circle.store.offer(peer, time.time()):
                found += ["relay"] if offer.relay else []
                found += [f"{offer.memory_bytes / 1e9:.0f} GB memory"] if offer.memory_bytes else []
        return tuple(dict.fromkeys(found))

    def _network(self) -> told.Network:
        reachable, message, hint = self._standing.reachability()
        gathering = self.circles_here.gathering
        nat = gathering.network.observations.nat(gathering.transport.addresses()) if gathering else "unknown"
        return told.Network(
            id=self.identity.id.hex(),
            words=_words(self.identity.id),
            name=self.name,
            reachable=reachable,
            message=message,
            hint=hint,
            nat=nat,
            relay=gathering.relay_of_mine() if gathering else "",
            relaying=self._means.relay is not None,
            ways=tuple(self._standing.ways()),
            peers_online=len(self.online()),
        )


def _newer(directory: Directory) -> Callable[[PeerId, int], Awaitable[Contact | None]]:
    return lambda peer, sequence: directory.lookup(peer, after=sequence)


def _words(key: bytes) -> str:
    return " ".join(words(key))


def _time(unix: float) -> datetime:
    """What others signed may lie after the last year that calendars know."""
    return datetime.fromtimestamp(min(unix, LAST_SECOND), UTC)


def _qr(link: str) -> str:
    import segno

    return segno.make(link, error="l").svg_inline(scale=4, border=2)
