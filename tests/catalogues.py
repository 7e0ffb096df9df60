"""Catalogues for tests: statements on made-up versions, circles as facts, and the way from a circle room to them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from circle_nodes import Profile, circle_node
from circles import NOW
from pares.circle.circles import Circles
from pares.store.database import Database
from pares.swarm.members import CircleFacts, Reply
from pares.swarm.predicate import Architecture, File, Licence, Version
from pares.swarm.statements import Statements
from pares.swarm.version import Opened, open_statement, sign_endorsement, sign_revocation, sign_version
from pares.transport.link import Connection, Transport, Unreachable
from pares.transport.memory import Network
from pares.wire.framing import ProtocolError
from pares.wire.messages import BULK, SWARM, Held, Offer
from pares.wire.signing import Identity, PeerId


def version_of(publisher: Identity, name: str = "Owl", **said: object) -> Version:
    """A version of one file, whose root follows from the name."""
    root = hashlib.sha256(name.encode()).hexdigest()
    fields: dict[str, object] = {
        "name": name,
        "publisher": publisher.id.hex(),
        "created": NOW,
        "kind": "base",
        "files": (File(name="model.gguf", root=root, sha256=root, size=1 << 20),),
        "architecture": Architecture(name="llama", parameters=1000, layers=4),
        "licence": Licence(spdx="Apache-2.0"),
    }
    return Version(**(fields | said))  # type: ignore[arg-type]  # fields of the struct


def version(publisher: Identity, name: str = "Owl", **said: object) -> bytes:
    """Its envelope."""
    return sign_version(publisher, version_of(publisher, name, **said))


def endorsement(by: Identity, about: Opened, *, at: int = NOW, text: str = "") -> bytes:
    return sign_endorsement(by, about.digest, "Owl", text=text, at=at)


def revocation(by: Identity, about: Opened, *, at: int = NOW, reason: str = "It bites.") -> bytes:
    return sign_revocation(by, about.digest, "Owl", reason=reason, at=at)


def digest_of(envelope: bytes) -> bytes:
    return open_statement(envelope).digest


def offer(circle: bytes, holds: Iterable[Held] = (), tells: Iterable[bytes] = ()) -> Offer:
    return Offer(circle=circle, sequence=NOW, expires=NOW + 3600, holds=list(holds), tells=list(tells))


def facts(
    offers: Mapping[PeerId, Offer], *, number: int = 0, is_open: bool = False, members: Iterable[PeerId] = ()
) -> CircleFacts:
    """A circle of those who offer, and others."""
    return CircleFacts(
        id=circle_id(number),
        name=f"circle {number}",
        open=is_open,
        internet=False,
        copies=2,
        members=frozenset(offers) | frozenset(members),
        offers=dict(offers),
    )


def circle_id(number: int = 0) -> bytes:
    return hashlib.sha256(b"circle %d" % number).digest()


class CircleMembers:
    """`swarm.members.Members` over a circle room."""

    def __init__(self, circles: Circles) -> None:
        self.room = circles
        self.punished: list[PeerId] = []

    @property
    def me(self) -> PeerId:
        return self.room.identity.id

    def circles(self) -> Sequence[CircleFacts]:
        return [
            CircleFacts(f.id, f.name, f.open, f.internet, f.copies, f.members, f.offers)
            for f in self.room.book.facts(time.time())
        ]

    def online(self) -> frozenset[PeerId]:
        return frozenset(self.room.network.online()) if self.room.network else frozenset()

    def hosts(self, peer: PeerId) -> Sequence[str]:
        return self.room.gathering.links.hosts(peer) if self.room.gathering else ()

    async def ask(self, peer: PeerId, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float) -> Reply:
        if self.room.gathering is None:
            raise Unreachable("This node is in no circle.")
        return await self.room.gathering.links.ask(peer, SWARM, request, kind, timeout_s=timeout_s)

    async def link(self, peer: PeerId, protocol: str, *, timeout_s: float) -> Connection:
        if self.room.gathering is None:
            raise Unreachable("This node is in no circle.")
        return await self.room.gathering.links.link(peer, protocol, timeout_s=timeout_s)

    def tell_offers(self) -> None:
        if self.room.gathering is not None:
            self.room.gathering.touch_offers()

    def punish(self, peer: PeerId, why: str) -> None:
        self.punished.append(peer)
        if self.room.network is not None:
            self.room.network.punish(peer, ProtocolError(why))


@dataclass
class Catalogue:
    """A node that gives versions away in its circles."""

    circles: Circles
    members: CircleMembers
    statements: Statements
    profile: Profile
    layers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def id(self) -> PeerId:
        return self.circles.identity.id

    async def share(self, circle: bytes, *envelopes: bytes) -> list[Opened]:
        """Hold the versions among them, tell the rest."""
        found = [await self.statements.add(envelope) for envelope in envelopes]
        for opened in found:
            if opened.kind == "version":
                self.profile.holds.setdefault(circle, []).append(Held(version=opened.digest))
            else:
                self.profile.tells.setdefault(circle, []).append(opened.digest)
        self.members.tell_offers()
        return found

    def hears(self, digest: bytes) -> bool:
        """Whether some offer that came tells it."""
        return any(
            digest in (*offer.tells, *(held.version for held in offer.holds))
            for circle in self.members.circles()
            for peer, offer in circle.offers.items()
            if peer != self.id
        )


@asynccontextmanager
async def catalogue(
    network: Network,
    directory: Path,
    name: str,
    number: int,
    *,
    transport: Callable[[Identity, Sequence[str]], Transport] | None = None,
) -> AsyncIterator[Catalogue]:
    """A node in the simulated network, or with a transport of its own."""
    profile = Profile(name)
    layers: dict[bytes, bytes] = {}

    async def serve(link: Connection, stream: object) -> None:
        await here[0].statements.serve(link, stream)  # type: ignore[arg-type]  # a Stream

    async def refuse(link: Connection, stream: object) -> None:
        raise ProtocolError("Nobody sends bulk here.")

    async def layer_of(root: bytes) -> bytes | None:
        return layers.get(root)

    here: list[Catalogue] = []
    handlers = {SWARM: serve, BULK: refuse}
    async with (
        Database(directory / f"{name}-statements.db") as database,
        circle_node(
            network, directory, name, number, profile=profile, handlers=handlers, transport=transport
        ) as circles,
    ):
        members = CircleMembers(circles)
        statements = Statements(database, members, layer_of=layer_of)
        await statements.load()
        here.append(Catalogue(circles, members, statements, profile, layers))
        yield here[0]
