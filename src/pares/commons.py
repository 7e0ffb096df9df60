"""Joins the swarm room to circles, BitTorrent and the tunnel: what this node shares, knows of and fetches of versions.

Built before the network is entered, entered after it. It is `network.Contents` and `sources.Commons`; what the API
asks of it is in `told.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pares.errors import NotFound, ParesError
from pares.membership import CircleMembers
from pares.network import Network
from pares.store.database import Database
from pares.store.events import Events
from pares.store.files import write_whole
from pares.store.versions import VersionTables
from pares.swarm.keeper import Keeper
from pares.swarm.library import Library
from pares.swarm.offered import Offered
from pares.swarm.predicate import Version
from pares.swarm.settings import Settings
from pares.swarm.sharing import Sharing
from pares.swarm.statements import Statements
from pares.swarm.swarming import SwarmFetch
from pares.swarm.version import Opened
from pares.transport.bittorrent_process import BitTorrent
from pares.transport.bittorrent_process import Settings as BitTorrentSettings
from pares.transport.link import Connection, Stream
from pares.transport.switchboard import Handler
from pares.transport.torrents import Poisoned, Swarming, Torrents
from pares.transport.tunnel import Tunnels
from pares.wire.messages import BULK, SWARM, Held
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

NEWS_S = 1.0
"""Between two looks at what has changed, and two events."""
RECHECK_S = 5.0
"""Between two looks whether what could not be given away can be again."""
ROUND_S = 60.0
"""Statements are asked for again, and rare versions looked for."""
TUNNEL_S = 10.0
FORGIVEN = 3
"""Wrong pieces of one member, after which nothing more is exchanged with it until this node starts again.

libtorrent bans an address with its port, and whoever means harm comes back from another port.
"""
POISONED = 16
"""Banned sources that are remembered, to be shown."""


class Commons:
    """`async with` it."""

    def __init__(
        self,
        home: Path,
        network: Network,
        database: Database,
        library: Library,
        events: Events,
        settings: Settings,
        *,
        loopback_only: bool,
        dht: bool,
        bootstrap: tuple[str, ...],
        offline: bool,
    ) -> None:
        """`dht`: it may be used for what is shared in a commons. `offline`: nothing is given or fetched."""
        self.settings = replace(settings, seeding=settings.seeding and not offline)
        self.network = network
        self.library = library
        self.members = CircleMembers(network)
        self.poisoned: list[Poisoned] = []
        self._wrong: Counter[PeerId] = Counter()
        self.needed: Callable[[], Container[str]] = tuple
        """Ids of versions whose statements stay, whoever still tells them; asked before each look for statements."""
        self._needed: Container[str] = ()
        self._events = events
        self._offline, self._loopback_only = offline, loopback_only
        self._dht, self._bootstrap = dht and not loopback_only, bootstrap
        self._port_file = home / "torrents.port"
        resume = home / "torrents"
        resume.mkdir(parents=True, exist_ok=True)
        addresses = ("127.0.0.1",) if loopback_only or not settings.direct else ("0.0.0.0", "::")
        self.session = BitTorrent(
            BitTorrentSettings(
                state=home / "torrents.state",
                addresses=addresses,
                port=settings.bulk_port or _kept_port(self._port_file),
                bootstrap=bootstrap,
                dht=False,
                resume=resume,
            ),
            on_change=self._session_changed,
        )
        self.torrents = Torrents(self.session, on_change=self._moved, on_poison=self._poisoned)
        self.tunnels = Tunnels(self._connect, allowed=self._is_member, target=lambda: self.torrents.tcp_port)
        self.statements = Statements(
            database,
            self.members,
            layer_of=self._layer_of,
            keeps=lambda version: version in self.sharing.here or version.hex() in self._needed,
            gives=lambda version, circle: self.sharing.gives(version, circle),
            on_change=self._statements_changed,
        )
        self.sharing = Sharing(
            network.identity,
            library,
            self.statements,
            VersionTables(database),
            self.torrents,
            self.members,
            self.settings,
            is_fetched=lambda root: root in self.fetch.fetching,
        )
        self.fetch = SwarmFetch(
            library.files,
            self.torrents,
            self.members,
            self.tunnels,
            self.settings,
            called=network.name_of,
            release=lambda root: self._wake(reseed=True),
        )
        self.keeper = Keeper(self.sharing, self.fetch, self.members, self.settings)
        self._something = asyncio.Event()
        self._reseed = self._moving = self._circles = self._peers = False
        self._counted: dict[bytes, tuple[int, int]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(tasks.create_task(self.session.run(), name="torrents").cancel)
            await stack.enter_async_context(self.tunnels)
            await stack.enter_async_context(self.fetch)
            self.torrents.limit(upload=self.settings.upload_limit, download=self.settings.download_limit)
            self._admit()
            await self.statements.load()
            await self.sharing.load()
            self.library.on_file.append(lambda record: self._wake(reseed=True))
            self.library.keeps = self.keeper.keeps
            stack.push_async_callback(self._count_traffic)
            stack.callback(tasks.create_task(self._follow(), name="follow offers").cancel)
            if not self._offline:
                stack.callback(tasks.create_task(self._rounds(), name="ask again").cancel)
                stack.callback(tasks.create_task(self._keep_rare(), name="keep rare versions").cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # What the network asks: see `network.Contents`

    @property
    def bulk_port(self) -> int:
        return self.torrents.tcp_port if self.settings.direct else 0

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]:
        return self.sharing.holdings(circle)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        return {SWARM: self.statements.serve, BULK: self._serve_bulk}

    def circles_changed(self, *, only_peers: bool) -> None:
        self._peers = True
        self._circles |= not only_peers
        self._wake()

    # What pulling asks: see `swarm.sources.Commons`

    async def find(self, text: str) -> Opened | None:
        with suppress(NotFound):
            return self.offered().find(text).opened
        return None

    async def listing(self, file: str) -> Sequence[Opened]:
        return [
            opened
            for opened in self.statements.versions()
            if isinstance(opened.predicate, Version)
            and any(file in (each.root, each.sha256) for each in opened.predicate.files)
        ]

    async def is_licence_accepted(self, version: Opened) -> bool:
        assert isinstance(version.predicate, Version)
        return self.sharing.is_accepted(version.predicate)

    async def accept_licence(self, version: Opened) -> None:
        assert isinstance(version.predicate, Version)
        await self.sharing.accept(version.predicate)

    async def shared_after(self, version: Opened, circles: Sequence[bytes]) -> None:
        await self.sharing.give_away(version.digest, circles)

    async def given_up(self, version: Opened) -> None:
        await self.sharing.withdraw(version.digest)

    # What is known

    def offered(self) -> Offered:
        """What circles offer at the moment."""
        return Offered(
            self.statements.all(),
            self.members.circles(),
            me=self.members.me,
            online=self.members.online(),
            here=self.sharing.here,
            name_of=self.network.name_of,
        )

    async def change(self, **settings: object) -> None:
        """Switch seeding, or set a limit; in force at once."""
        changed = replace(self.settings, **settings)  # type: ignore[arg-type]
        self.settings = replace(changed, seeding=changed.seeding and not self._offline)
        self.sharing.settings = self.fetch.settings = self.keeper.settings = self.settings
        self.torrents.limit(upload=self.settings.upload_limit, download=self.settings.download_limit)
        await self.sharing.reseed()
        self.members.tell_offers()
        self._wake()

    def uncounted(self) -> tuple[int, int]:
        """Bytes down and up that are not in the table yet."""
        down = up = 0
        for told in self.torrents.all():
            before = self._counted.get(told.root, (0, 0))
            if told.downloaded >= before[0] and told.uploaded >= before[1]:
                down, up = down + told.downloaded - before[0], up + told.uploaded - before[1]
        return down, up

    def peer_of(self, address: str) -> PeerId | None:
        """The member whose session this is, as its offer says; who dialled us comes from some other port."""
        return self.peers_by_address()(address)

    def peers_by_address(self) -> Callable[[str], PeerId | None]:
        """`peer_of` as things are now, for many addresses."""
        circles = self.members.circles()
        sessions: dict[str, PeerId] = {}
        machines: dict[str, list[PeerId]] = {}
        for peer in self.members.online():
            for address in self.fetch.holders.addresses(peer, circles):
                sessions.setdefault(address, peer)
            for host in self.members.hosts(peer):
                machines.setdefault(host, []).append(peer)

        def find(address: str) -> PeerId | None:
            if peer := self.tunnels.peer_of(address) or sessions.get(address):
                return peer
            there = machines.get(address.rpartition(":")[0].strip("[]"), [])
            return there[0] if len(there) == 1 else None

        return find

    # Downwards

    async def _serve_bulk(self, link: Connection, stream: Stream) -> None:
        await self.tunnels.serve(link, stream)

    async def _connect(self, peer: PeerId) -> Connection:
        return await self.members.link(peer, BULK, timeout_s=TUNNEL_S)

    def _is_member(self, peer: PeerId) -> bool:
        return self._wrong[peer] < FORGIVEN and any(peer in circle.members for circle in self.members.circles())

    async def _layer_of(self, root: bytes) -> bytes | None:
        record = await self.library.files.get(root)
        return record.layer if record else None

    def _session_changed(self) -> None:
        """Keep the port over restarts: what others know of this node, and a forwarded port, stay good."""
        if self.session.listening and self.session.port != _kept_port(self._port_file):
            with suppress(OSError):  # a full disk; then it is another port the next time
                write_whole(self._port_file, str(self.session.port))
        self.members.tell_offers()

    # News

    def _moved(self, told: Swarming) -> None:
        self.fetch.told(told)
        self._moving = True
        self._wake(reseed=told.state == "failed")

    def _poisoned(self, poisoned: Poisoned) -> None:
        peer = self.peer_of(poisoned.address)
        if peer is not None:
            self.fetch.avoided.add((poisoned.root, peer))
            self._wrong[peer] += 1
            self._admit()
        log.warning(
            "swarm.poisoned",
            extra={
                "file": poisoned.root.hex()[:16],
                "piece": poisoned.piece,
                "source": self.network.name_of(peer) if peer else poisoned.address,
            },
        )
        self.poisoned = [*self.poisoned[1 - POISONED :], poisoned]
        self._wake()

    def _statements_changed(self) -> None:
        self._events.publish("versions", {})
        self._wake(reseed=True)

    def _wake(self, *, reseed: bool = False) -> None:
        self._reseed |= reseed
        self._something.set()

    async def _follow(self) -> None:
        """Act on news, at most once a second. A member that answers slowly holds up nothing but its own statements."""
        async with asyncio.TaskGroup() as fetching:
            while True:
                await self._news()
                self._something.clear()
                circles, self._circles = self._circles, False
                peers, self._peers = self._peers, False
                reseed, self._reseed = self._reseed, False
                moving, self._moving = self._moving, False
                if peers:
                    self._admit()
                    self.fetch.offers_changed()
                if circles:
                    fetching.create_task(self._fetch_statements(), name="fetch statements")
                    self._use_dht()
                    self._events.publish("versions", {})
                if circles or reseed:
                    await self._reseed_all()
                if moving:
                    self._events.publish("swarm", {})
                await asyncio.sleep(NEWS_S)

    async def _news(self) -> None:
        """Wait for some. Nobody tells that a volume is back: while a file cannot be given away, look now and then."""
        failed = any(told.state == "failed" for told in self.torrents.all())
        with suppress(TimeoutError):
            async with asyncio.timeout(RECHECK_S if failed else None):
                await self._something.wait()
        self._reseed |= failed

    async def _reseed_all(self) -> None:
        try:
            await self.sharing.reseed()
        except (ParesError, OSError) as error:  # the disk, or the database on it; the next round tries again
            log.warning("swarm.not_reseeded", extra={"reason": str(error)})

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            self.circles_changed(only_peers=False)  # what could not be had before is asked for again
            await self._count_traffic()

    async def _keep_rare(self) -> None:
        """Beside the rounds: what is fetched may take hours."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self.keeper.round()
            except (ParesError, OSError) as error:
                log.warning("swarm.not_kept", extra={"reason": str(error)})

    async def _fetch_statements(self) -> None:
        if self._offline:
            return
        self._needed = self.needed()
        try:
            await self.statements.fetch()
        except ParesError as error:
            log.info("statements.not_fetched", extra={"reason": error.message})

    def _use_dht(self) -> None:
        """Strangers are asked for sources only while this node is in a commons that allows the internet."""
        wanted = self._dht and self._is_public()
        if wanted != self.session.settings.dht:
            self.session.reopen(replace(self.session.settings, dht=wanted, local_discovery=wanted))

    def _is_public(self) -> bool:
        """Whether strangers may be spoken with: in a commons that uses the internet, if that is not switched off."""
        return self.settings.public_discovery and any(c.open and c.internet for c in self.members.circles())

    def _admit(self) -> None:
        """Only addresses of members are spoken with, unless this node is in a commons that anybody may be in."""
        if self._loopback_only:
            self.torrents.admit(())
            return
        circles = self.members.circles()
        if self._is_public():
            self.torrents.admit(None)
            return
        members = {peer for circle in circles for peer in circle.members if self._wrong[peer] < FORGIVEN}
        members.discard(self.members.me)
        self.torrents.admit({host for peer in members for host in self.members.hosts(peer)})

    async def _count_traffic(self) -> None:
        """Add to the table what came and went since the last time."""
        for told in self.torrents.all():
            down, up = self._counted.get(told.root, (0, 0))
            if told.downloaded < down or told.uploaded < up:  # it was taken out, and added again
                down = up = 0
            if (told.downloaded, told.uploaded) != (down, up):
                try:
                    await self.library.files.content.add_traffic(told.root, told.downloaded - down, told.uploaded - up)
                except ParesError as error:
                    log.warning("swarm.not_counted", extra={"reason": error.message})
                    return
            self._counted[told.root] = told.downloaded, told.uploaded


def _kept_port(file: Path) -> int:
    """0 where there is none, or nothing sensible."""
    with suppress(OSError, ValueError):
        port = int(file.read_text("ascii"))
        return port if 1024 <= port <= 65535 else 0
    return 0
