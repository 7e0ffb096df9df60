"""A circle in one process: members with real BitTorrent sessions, whose offers and answers are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import msgspec

from pares.errors import Conflict, RemoteError
from pares.inference.gguf import Header, read_header
from pares.store.database import Database
from pares.store.events import Events
from pares.swarm.catalogue import Catalogue
from pares.swarm.disk import free_bytes, hash_file
from pares.swarm.library import Library
from pares.swarm.members import CircleFacts, Reply
from pares.swarm.merkle import HASH
from pares.swarm.predicate import File, Licence, Version
from pares.swarm.pulls import Pull, Pulls
from pares.swarm.settings import Settings
from pares.swarm.swarming import Pace, SwarmFetch
from pares.swarm.version import Opened, describe_version, open_statement, sign_version
from pares.transport.link import Connection
from pares.transport.torrents import Swarming, Torrent
from pares.wire.messages import Held, Offer, PieceHashes, Pieces
from pares.wire.signing import Identity, PeerId
from swarming import SwarmNode

SETTINGS = Settings(reserve_bytes=0, retry_s=0.01, retries=1, timeout_s=5, disk_recheck_s=0.05)
PACE = Pace(look=0.1, direct=1, ask=2, patience=3, retry=3)
DEADLINE = 25
CIRCLE = bytes(32)
PUBLISHER = Identity(bytes([7]) * 32)
FEW_HASHES = 16
"""In one answer, so that a layer takes several."""


@dataclass(frozen=True)
class Model:
    """A model file, and what its publisher says of it."""

    path: Path
    file: File
    layer: bytes
    opened: Opened

    @property
    def root(self) -> bytes:
        return bytes.fromhex(self.file.root)

    @property
    def version(self) -> Version:
        return cast("Version", self.opened.predicate)

    def header(self) -> Header:
        return read_header(self.path)

    def torrent(self, path: Path, **how: object) -> Torrent:
        return replace(Torrent(self.root, self.file.size, path, self.layer), **how)  # type: ignore[arg-type]


async def published(path: Path, name: str = "tiny", *, header: Header | None = None, **said: object) -> Model:
    """A statement on a file: true, unless a header or something of the file is to be said otherwise."""
    hashes = await hash_file(path)
    file = File(name=path.name, root=hashes.root.hex(), sha256=hashes.sha256, size=hashes.size)
    file = msgspec.structs.replace(file, **said)
    version = describe_version(
        header or read_header(path),
        name=name,
        publisher=PUBLISHER.id,
        created=1,
        files=(file,),
        licence=Licence(spdx="Apache-2.0"),
        kind="base",
    )
    return Model(path, file, hashes.layer, open_statement(sign_version(PUBLISHER, version)))


@dataclass(eq=False)
class Holder:
    """A member that gives a model away. What is set here is so from now on."""

    id: PeerId
    node: SwarmNode
    model: Model
    layer: bytes
    online: bool = True
    offers: bool = True
    layers: tuple[int, int] | None = None
    asked: int = 0

    def give(self, **how: object) -> None:
        """Have all of the file, unless `how` says otherwise."""
        self.node.torrents.add(self.model.torrent(self.model.path, **({"complete": True} | how)))

    def leave(self) -> None:
        self.online = False
        self.node.torrents.remove(self.model.root)

    def offer(self) -> Offer:
        return Offer(
            circle=CIRCLE,
            sequence=1,
            expires=1 << 40,
            bulk_port=self.node.torrents.tcp_port,
            holds=[Held(version=self.model.opened.digest, layers=self.layers)] if self.offers else [],
        )


@dataclass
class Circle:
    """Members of one circle: as `swarm.members.Members`, and as `swarm.sources.Commons` for what they offer."""

    me: PeerId = field(default_factory=lambda: Identity(bytes([1]) * 32).id)
    holders: list[Holder] = field(default_factory=list)
    versions: list[Opened] = field(default_factory=list)
    punished: list[PeerId] = field(default_factory=list)
    accepted: set[str] = field(default_factory=lambda: {"Apache-2.0"})
    shared: list[tuple[bytes, tuple[bytes, ...]]] = field(default_factory=list)
    missed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released whenever a version is looked for that is not known."""

    def circles(self) -> Sequence[CircleFacts]:
        offers = {holder.id: holder.offer() for holder in self.holders}
        members = frozenset((self.me, *offers))
        facts = CircleFacts(id=CIRCLE, name="c", open=False, internet=False, copies=0, members=members, offers=offers)
        return (facts,)

    def online(self) -> frozenset[PeerId]:
        return frozenset(holder.id for holder in self.holders if holder.online)

    def hosts(self, peer: PeerId) -> Sequence[str]:
        return [holder.node.address for holder in self.holders if holder.id == peer and holder.online]

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        (holder,) = (each for each in self.holders if each.id == peer)
        assert isinstance(request, Pieces)
        if not holder.online:
            raise RemoteError("It is away.")
        holder.asked += 1
        hashes = holder.layer[HASH * request.first :][: HASH * FEW_HASHES]
        reply = PieceHashes(root=request.root, first=request.first, hashes=hashes)
        assert isinstance(reply, kind)
        return reply

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        raise RemoteError("There are no connections here.")

    def tell_offers(self) -> None: ...

    def punish(self, peer: PeerId, why: str) -> None:
        self.punished.append(peer)

    async def find(self, text: str) -> Opened | None:
        found = [each for each in self.versions if text in (each.digest.hex(), cast("Version", each.predicate).name)]
        if len(found) > 1:
            raise Conflict(f"{text} means {len(found)} versions.")
        if not found:
            self.missed.release()
        return found[0] if found else None

    async def listing(self, file: str) -> Sequence[Opened]:
        return [
            each
            for each in self.versions
            if any(file in (listed.root, listed.sha256) for listed in cast("Version", each.predicate).files)
        ]

    async def is_licence_accepted(self, version: Opened) -> bool:
        return cast("Version", version.predicate).licence.spdx in self.accepted

    async def accept_licence(self, version: Opened) -> None:
        self.accepted.add(cast("Version", version.predicate).licence.spdx)

    async def shared_after(self, version: Opened, circles: Sequence[bytes]) -> None:
        self.shared.append((version.digest, tuple(circles)))

    async def given_up(self, version: Opened) -> None:
        self.shared = [each for each in self.shared if each[0] != version.digest]


@dataclass
class Home:
    """A node that pulls."""

    pulls: Pulls
    library: Library
    fetch: SwarmFetch
    events: Events

    async def until(self, pull_id: str, holds: Callable[[Pull], object]) -> Pull:
        changes = self.events.subscribe()
        async with asyncio.timeout(DEADLINE):
            while not holds(pull := self.pulls.get(pull_id)):
                await anext(changes)
        return pull

    async def pull(self, source: str, **how: object) -> Pull:
        """Until it is done. Raises what it failed of."""
        pull = await self.pulls.start(source, **how)  # type: ignore[arg-type]
        async with asyncio.timeout(DEADLINE):
            return await self.pulls.wait(pull.id)

    def received(self, model: Model) -> int:
        """Bytes that came for a file while its torrent is there."""
        status = self.fetch.torrents.get(model.root)
        return status.downloaded if status else 0


class _Listening(SwarmNode):
    """Passes on what the session says."""

    def __init__(self, folder: Path) -> None:
        self.hears: Callable[[Swarming], None] = lambda _: None
        super().__init__(folder)

    def _heard(self, news: Swarming) -> None:
        super()._heard(news)
        self.hears(news)


class Town:
    """Where members and the pulling node live."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.circle = Circle()
        self._folder = folder
        self._stack = stack

    async def holder(self, model: Model, *, listed: bool = True, **how: object) -> Holder:
        """A member who gives a model away, whose version everybody knows."""
        number = len(self.circle.holders)
        node = SwarmNode(self._folder / f"member-{number}")
        await self._stack.enter_async_context(_running(node))
        holder = Holder(Identity(bytes([100 + number]) * 32).id, node, model, model.layer)
        if listed and model.opened not in self.circle.versions:
            self.circle.versions.append(model.opened)
        holder.give(**how)
        await node.until(lambda: node.torrents.tcp_port)
        self.circle.holders.append(holder)
        return holder

    @asynccontextmanager
    async def home(
        self,
        settings: Settings = SETTINGS,
        catalogue: Catalogue | None = None,
        free_disk: Callable[[Path], int] = free_bytes,
        release: Callable[[bytes], None] | None = None,
    ) -> AsyncIterator[Home]:
        """The node that pulls; opened again, it is the same one after a restart."""
        folder = self._folder / "home"
        node = _Listening(folder)
        async with Database(folder / "node.db") as database, _running(node):
            events = await Events.open(database)
            async with AsyncExitStack() as stack:
                library = await stack.enter_async_context(Library(database, folder / "models", events, catalogue))
                fetch = SwarmFetch(
                    library.files,
                    node.torrents,
                    self.circle,
                    None,
                    settings,
                    release=release,
                    free_disk=free_disk,
                    pace=PACE,
                )
                node.hears = fetch.told
                await stack.enter_async_context(fetch)
                options = {"commons": self.circle, "swarm": fetch, "free_disk": free_disk}
                pulls = await stack.enter_async_context(Pulls(library, settings, events, **options))  # type: ignore[arg-type]
                yield Home(pulls, library, fetch, events)


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(folder, stack)


@asynccontextmanager
async def _running(node: SwarmNode) -> AsyncIterator[None]:
    life = asyncio.create_task(node.session.run())
    try:
        yield
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
