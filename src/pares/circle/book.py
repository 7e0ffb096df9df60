"""What this node knows of its circles and peers, kept in the database as it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from msgspec.structs import replace

from pares.circle.gossip import Gossip
from pares.circle.overlay import Overlay
from pares.circle.records import Store
from pares.errors import RemoteError
from pares.store.circles import CircleRecord, CircleTables, InviteRecord, PeerRecord
from pares.wire.messages import Contact, Offer, Record, Role
from pares.wire.signing import Identity, PeerId


@dataclass(slots=True, eq=False)
class Circle:
    """A circle that this node belongs to."""

    record: CircleRecord
    gossip: Gossip
    overlay: Overlay
    saved: set[bytes] = field(default_factory=set)
    """Names of the statements that the database has."""

    @property
    def id(self) -> bytes:
        return self.record.id

    @property
    def store(self) -> Store:
        return self.gossip.store

    @property
    def title(self) -> str:
        """Its own name."""
        return self.store.membership.name

    @property
    def name(self) -> str:
        """What its owner calls it here."""
        return self.record.name or self.title

    def has(self, peer: PeerId) -> bool:
        return peer in self.store.membership.members()


@dataclass(frozen=True, slots=True)
class Facts:
    """What other rooms may know of a circle, at one moment."""

    id: bytes
    name: str
    open: bool
    internet: bool
    copies: int
    members: frozenset[PeerId]
    """This node included."""
    offers: Mapping[PeerId, Offer]
    """In force, this node's own included; not of those whom its owner blocked."""


class Book:
    """`await Book.open(...)`; then reading is at hand, and every change is written before it is told to anybody."""

    def __init__(self, identity: Identity, tables: CircleTables) -> None:
        self.identity = identity
        self.circles: dict[bytes, Circle] = {}
        self.invites: dict[bytes, InviteRecord] = {}
        self.peers: dict[PeerId, PeerRecord] = {}
        self._tables = tables
        self._secret = hashlib.blake2b(b"pares overlay", key=identity.seed, digest_size=32).digest()

    @classmethod
    async def open(cls, identity: Identity, tables: CircleTables, now: int) -> Self:
        """With everything the database has. A statement that does not hold any more is left out."""
        book = cls(identity, tables)
        for record in await tables.circles():
            statements = await tables.statements(record.id)
            charters = [statement for statement in statements if statement.signed.digest == record.id]
            if charters:
                circle = book._circle(record, charters[0])
                book.circles[record.id] = circle
                circle.saved = {statement.name for statement in statements}
                for statement in sorted(statements, key=lambda statement: statement.label == "contact/1"):
                    try:
                        circle.store.add(statement, now)
                    except RemoteError:
                        continue
        book.invites = {invite.id: invite for invite in await tables.invites()}
        await book.void_expired(now)
        book.peers = {peer.id: peer for peer in await tables.peers()}
        return book

    # Circles

    async def enter(self, charter: Record, now: int) -> Circle:
        """Begin to keep a circle. Raises ProtocolError if this is not a charter."""
        record = CircleRecord(id=charter.signed.digest, joined_at=now)
        circle = self._circle(record, charter)
        await self._tables.save_circle(record)
        self.circles[record.id] = circle
        await self.save(circle)
        return circle

    async def rename(self, circle: Circle, name: str) -> None:
        circle.record = replace(circle.record, name=name)
        await self._tables.save_circle(circle.record)

    async def forget(self, circle: Circle) -> None:
        """With its statements and invites."""
        self.circles.pop(circle.id, None)
        self.invites = {key: invite for key, invite in self.invites.items() if invite.circle != circle.id}
        await self._tables.forget_circle(circle.id)

    async def save(self, circle: Circle) -> None:
        """Bring the database up to the circle's statements; offers are too short-lived to be worth it."""
        if self.circles.get(circle.id) is not circle:
            return  # it was left meanwhile
        held = {entry.name: entry.record for entry in circle.store.entries() if not isinstance(entry.statement, Offer)}
        new = [record for name, record in held.items() if name not in circle.saved]
        gone = circle.saved - held.keys()
        if new or gone:
            await self._tables.change_statements(circle.id, new=new, gone=gone)
            circle.saved = set(held)

    def facts(self, now: float) -> tuple[Facts, ...]:
        """Of all circles."""
        return tuple(
            Facts(
                id=circle.id,
                name=circle.name,
                open=(charter := circle.store.membership.charter).open,
                internet=charter.internet,
                copies=charter.copies,
                members=frozenset(circle.store.membership.members()),
                offers={p: offer for p, offer in circle.store.offers(now).items() if not self.blocked(p)},
            )
            for circle in self.circles.values()
        )

    def with_peer(self, peer: PeerId) -> Iterator[Circle]:
        """The circles that this peer belongs to as well."""
        return (circle for circle in self.circles.values() if circle.has(peer))

    def role(self, circle: Circle) -> Role | None:
        """This node's own; None once it was removed."""
        return circle.store.membership.role_of(self.identity.id)

    def members(self) -> set[PeerId]:
        """Of all circles, without this node itself."""
        found = {peer for circle in self.circles.values() for peer in circle.store.membership.members()}
        return found - {self.identity.id}

    # Peers

    def contact(self, peer: PeerId) -> Contact | None:
        """The newest that any circle has."""
        found = (circle.store.contact(peer) for circle in self.with_peer(peer))
        return max((contact for contact in found if contact), key=lambda contact: contact.sequence, default=None)

    def name_of(self, peer: PeerId) -> str:
        """What the owner calls a peer, else what it calls itself, else the beginning of its key."""
        known, contact = self.peers.get(peer), self.contact(peer)
        return (known.name if known else "") or (contact.name if contact else "") or peer.hex()[:8]

    def blocked(self, peer: PeerId) -> bool:
        return peer in self.peers and self.peers[peer].blocked

    async def change_peer(
        self, peer: PeerId, *, name: str | None = None, blocked: bool | None = None, address: str = "", seen: int = 0
    ) -> None:
        """What is not given stays."""
        before = self.peers.get(peer, PeerRecord(id=peer))
        after = PeerRecord(
            id=peer,
            name=before.name if name is None else name,
            blocked=before.blocked if blocked is None else blocked,
            address=address or before.address,
            seen=max(seen, before.seen),
        )
        if after != before:
            self.peers[peer] = after
            await self._tables.save_peers([after])

    # Invites

    async def save_invite(self, invite: InviteRecord) -> None:
        self.invites[invite.id] = invite
        await self._tables.save_invite(invite)

    async def void(self, invite: InviteRecord) -> None:
        """Nobody comes in by it any more; who did stays known."""
        await self.save_invite(replace(invite, uses_left=0, secret=b""))

    async def void_expired(self, now: int) -> None:
        """A secret is not kept longer than it is good for."""
        for invite in [invite for invite in self.invites.values() if invite.expires <= now and invite.secret]:
            await self.void(invite)

    async def forget_invite(self, invite: bytes) -> None:
        self.invites.pop(invite, None)
        await self._tables.forget_invite(invite)

    def _circle(self, record: CircleRecord, charter: Record) -> Circle:
        me = self.identity.id
        store = Store(charter, me=me, secret=self._secret)
        return Circle(record, Gossip(store), Overlay(me, self._secret))
