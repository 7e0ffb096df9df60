"""The table of downloads, so that they survive a restart."""

from __future__ import annotations

from typing import Literal

import msgspec

from pares.store.database import Database, decode, encode, now

PullState = Literal["queued", "checking", "fetching", "verifying", "done", "paused", "failed"]
KEPT_DONE = 100
VERSION = "version:"


class PullRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One download and how far it is."""

    id: str
    source: str
    """As asked for: a catalogue name, a version's name or id, an address, `hf:owner/repo/file`, a path."""
    name: str
    """The name the model will have here."""
    state: PullState = "queued"
    bytes: int = 0
    total: int = 0
    """0 while unknown."""
    origin: str = ""
    """Where the bytes come from, in words."""
    identity: str = ""
    """What tells whether the partial file belongs to what the origin offers now: a hash, an ETag, or `version:` and
    the id of a version, which says what is meant whatever the name will mean later."""
    code: str = ""
    error: str = ""
    layers: str = ""
    """The part that is wanted: `header`, `head`, `A-B`, `A-B+head`; empty: all of it."""
    priority: int = 1
    """0 low, 1 normal, 2 high."""
    limit_bytes_per_s: int = 0
    """0: none."""
    created_at: str = ""
    updated_at: str = ""

    @property
    def version(self) -> str:
        """The id of the version that is fetched; empty where it does not come from a circle."""
        return self.identity.removeprefix(VERSION) if self.identity.startswith(VERSION) else ""


class PullTable:
    """Accessors of the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> tuple[PullRecord, ...]:
        """Newest first."""
        query = "SELECT * FROM pulls ORDER BY created_at DESC, rowid DESC"
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return tuple(decode(row, PullRecord) for row in rows)

    async def get(self, pull_id: str) -> PullRecord | None:
        row = await self._database.run(lambda c: c.execute("SELECT * FROM pulls WHERE id = ?", (pull_id,)).fetchone())
        return decode(row, PullRecord) if row else None

    async def save(self, record: PullRecord) -> PullRecord:
        """Insert or overwrite; returns it with its times set."""
        time = now()
        record = msgspec.structs.replace(record, created_at=record.created_at or time, updated_at=time)
        fields = encode(record)
        statement = (
            f"INSERT INTO pulls ({', '.join(fields)}) VALUES ({', '.join(':' + name for name in fields)})"
            f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in fields)}"
        )
        await self._database.run(lambda c: c.execute(statement, fields))
        return record

    async def remove(self, pull_id: str) -> None:
        await self._database.run(lambda c: c.execute("DELETE FROM pulls WHERE id = ?", (pull_id,)))

    async def prune(self) -> None:
        """Forget finished ones beyond the newest hundred."""
        statement = (
            "DELETE FROM pulls WHERE state = 'done' AND id NOT IN"
            " (SELECT id FROM pulls WHERE state = 'done' ORDER BY updated_at DESC LIMIT ?)"
        )
        await self._database.run(lambda c: c.execute(statement, (KEPT_DONE,)))
