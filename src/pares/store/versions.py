"""The tables of statements on versions, of what is given away where, and of the licences that were accepted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from pares.store.database import Database, decode, glance, now


class StatementRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A statement in its envelope, under its digest."""

    digest: bytes
    kind: Literal["version", "endorsement", "revocation"]
    version: bytes
    """What it is about; of a version its own digest."""
    author: bytes
    envelope: bytes


class VersionTables:
    """Accessors of the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Statements

    async def statements(self) -> tuple[StatementRecord, ...]:
        """All, the oldest first."""
        query = "SELECT digest, kind, version, author, envelope FROM version_statements ORDER BY seen_at, digest"
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return tuple(decode(row, StatementRecord) for row in rows)

    async def change_statements(self, *, new: Iterable[StatementRecord] = (), gone: Iterable[bytes] = ()) -> None:
        """Keep `new` and forget those with the digests `gone`, together."""
        seen = now()
        added = [(r.digest, r.kind, r.version, r.author, r.envelope, seen) for r in new]
        removed = [(digest,) for digest in gone]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM version_statements WHERE digest = ?", removed)
            connection.executemany("INSERT OR IGNORE INTO version_statements VALUES (?, ?, ?, ?, ?, ?)", added)

        await self._database.run(work)

    # What is given away

    async def shares(self) -> tuple[tuple[bytes, bytes], ...]:
        """Versions, each with a circle in which it is given away."""
        query = "SELECT version, circle FROM shares ORDER BY version, circle"
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return tuple((row["version"], row["circle"]) for row in rows)

    async def share(self, version: bytes, circle: bytes) -> None:
        """The circle has to be one of this node's."""
        statement = "INSERT OR IGNORE INTO shares VALUES (?, ?)"
        await self._database.run(lambda c: c.execute(statement, (version, circle)))

    async def unshare(self, version: bytes, circle: bytes) -> None:
        statement = "DELETE FROM shares WHERE version = ? AND circle = ?"
        await self._database.run(lambda c: c.execute(statement, (version, circle)))

    # Licences

    async def licences(self) -> frozenset[str]:
        """Those that were accepted: hex SHA-256 of the text, or the SPDX expression where there is none."""
        rows = await self._database.run(lambda c: c.execute("SELECT licence FROM accepted_licences").fetchall())
        return frozenset(row["licence"] for row in rows)

    async def accept(self, licence: str) -> None:
        statement = "INSERT OR IGNORE INTO accepted_licences VALUES (?, ?)"
        await self._database.run(lambda c: c.execute(statement, (licence, now())))


class _Envelope(msgspec.Struct):
    payload: bytes


class _Named(msgspec.Struct):
    name: str


class _Statement(msgspec.Struct):
    predicate: _Named


def names(path: Path) -> tuple[str, ...]:
    """The names of the versions in a database file, for completion in a shell. Never raises."""
    found = set()
    for envelope in glance(path, "SELECT envelope FROM version_statements WHERE kind = 'version' LIMIT 1000"):
        with suppress(msgspec.DecodeError):
            payload = msgspec.json.decode(envelope, type=_Envelope).payload
            found.add(msgspec.json.decode(payload, type=_Statement).predicate.name)
    return tuple(sorted(found))
