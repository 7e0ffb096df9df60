"""Circles, what was said in them, invites and peers, so that they survive a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from pares.store.database import Database
from pares.wire.messages import Label, Record, Role
from pares.wire.signing import PeerId, Signed


class CircleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A circle that this node belongs to. Times are Unix time."""

    id: bytes
    name: str = ""
    """The owner's own name for it; empty: the circle's."""
    joined_at: int


class InviteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An invite of this node. `secret` is empty once it is used up."""

    id: bytes
    circle: bytes
    secret: bytes
    role: Role
    made: int
    expires: int
    uses_left: int
    joined: tuple[str, ...] = ()
    """Hex ids of who came in by it."""


class PeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What this node knows of a peer by itself."""

    id: PeerId
    name: str = ""
    """The owner's own name for them; empty: theirs."""
    blocked: bool = False
    address: str = ""
    """Where it answered last."""
    seen: int = 0


class CircleTables:
    """Accessors of the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def circles(self) -> tuple[CircleRecord, ...]:
        """In the order of joining."""
        query = "SELECT id, name, joined_at FROM circles ORDER BY joined_at, id"
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return tuple(CircleRecord(id=row["id"], name=row["name"], joined_at=row["joined_at"]) for row in rows)

    async def save_circle(self, record: CircleRecord) -> None:
        statement = "INSERT INTO circles VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        await self._database.run(lambda c: c.execute(statement, (record.id, record.name, record.joined_at)))

    async def forget_circle(self, circle: bytes) -> None:
        """With all that belongs to it."""
        await self._database.run(lambda c: c.execute("DELETE FROM circles WHERE id = ?", (circle,)))

    async def statements(self, circle: bytes) -> tuple[Record, ...]:
        """In no certain order. They were checked before they were kept; check them again all the same."""
        query = "SELECT label, body, author, signature FROM statements WHERE circle = ?"
        rows = await self._database.run(lambda c: c.execute(query, (circle,)).fetchall())
        return tuple(_record(row) for row in rows)

    async def change_statements(self, circle: bytes, *, new: Iterable[Record], gone: Iterable[bytes] = ()) -> None:
        """Keep `new` and forget those with the names `gone`, together."""
        added = [
            (circle, record.name, record.label, record.signed.body, record.signed.by, record.signed.signature)
            for record in new
        ]
        removed = [(circle, name) for name in gone]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM statements WHERE circle = ? AND name = ?", removed)
            connection.executemany("INSERT OR IGNORE INTO statements VALUES (?, ?, ?, ?, ?, ?)", added)

        await self._database.run(work)

    async def invites(self) -> tuple[InviteRecord, ...]:
        """Oldest first."""
        query = "SELECT * FROM invites ORDER BY made, id"
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return tuple(
            InviteRecord(**{name: row[name] for name in row.keys() if name != "joined"}, joined=_names(row["joined"]))  # noqa: SIM118
            for row in rows
        )

    async def save_invite(self, invite: InviteRecord) -> None:
        values = (
            *(invite.id, invite.circle, invite.secret, invite.role, invite.made, invite.expires, invite.uses_left),
            msgspec.json.encode(invite.joined).decode(),
        )
        await self._database.run(lambda c: c.execute("INSERT OR REPLACE INTO invites VALUES (?,?,?,?,?,?,?,?)", values))

    async def forget_invite(self, invite: bytes) -> None:
        await self._database.run(lambda c: c.execute("DELETE FROM invites WHERE id = ?", (invite,)))

    async def peers(self) -> tuple[PeerRecord, ...]:
        rows = await self._database.run(lambda c: c.execute("SELECT * FROM peers").fetchall())
        return tuple(
            PeerRecord(
                id=PeerId(row["id"]),
                name=row["name"],
                blocked=bool(row["blocked"]),
                address=row["address"],
                seen=row["seen"],
            )
            for row in rows
        )

    async def save_peers(self, peers: Iterable[PeerRecord]) -> None:
        values = [(peer.id, peer.name, int(peer.blocked), peer.address, peer.seen) for peer in peers]
        await self._database.run(lambda c: c.executemany("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, ?)", values))


def _record(row: sqlite3.Row) -> Record:
    label: Label = row["label"]
    return Record(label=label, signed=Signed(row["body"], row["author"], row["signature"]))


def _names(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
