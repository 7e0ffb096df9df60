"""The table of files by content, and what was sent and received of each."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pares.store.database import Database, decode, encode, now


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is here, whole or in part."""

    root: bytes
    """Its merkle root (BEP 52); with the size, what it is known by everywhere."""
    size: int
    path: str
    sha256: str = ""
    """Hex; empty of what is not whole."""
    linked: bool = False
    """It lies where its owner put it: never moved, never deleted."""
    layer: bytes = b""
    """Hashes of its pieces; empty for a file of one piece."""
    stamp: str = ""
    """What the file looked like when it was hashed, to notice a change."""
    pieces: tuple[tuple[int, int], ...] | None = None
    """Runs of pieces that are here, `[first, after last)`; None: all."""
    keeper: bool = False
    """Fetched by itself because too few members held it."""
    added_at: str = ""
    used_at: str = ""


class Traffic(NamedTuple):
    """Bytes, since this home exists."""

    downloaded: int
    uploaded: int


class Content:
    """Accessors of the tables; rules about files are the swarm's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> tuple[FileRecord, ...]:
        """All of them, the one that was used longest ago first."""
        rows = await self._database.run(lambda c: c.execute("SELECT * FROM files ORDER BY used_at").fetchall())
        return tuple(decode(row, FileRecord) for row in rows)

    async def get(self, root: bytes) -> FileRecord | None:
        row = await self._database.run(lambda c: c.execute("SELECT * FROM files WHERE root = ?", (root,)).fetchone())
        return decode(row, FileRecord) if row else None

    async def put(self, record: FileRecord) -> FileRecord:
        """Add it, or replace what there is of that root; returns it with its times."""
        at = now()
        record = msgspec.structs.replace(record, added_at=record.added_at or at, used_at=record.used_at or at)
        fields = encode(record, ("pieces",))
        statement = (
            f"INSERT OR REPLACE INTO files ({', '.join(fields)}) VALUES ({', '.join(':' + name for name in fields)})"
        )
        await self._database.run(lambda c: c.execute(statement, fields))
        return record

    async def remove(self, root: bytes) -> None:
        await self._database.run(lambda c: c.execute("DELETE FROM files WHERE root = ?", (root,)))

    async def touch(self, root: bytes) -> None:
        """It was used now."""
        await self._database.run(lambda c: c.execute("UPDATE files SET used_at = ? WHERE root = ?", (now(), root)))

    async def add_traffic(self, root: bytes, downloaded: int, uploaded: int) -> None:
        """So many bytes more; they are counted also after the file is gone."""
        statement = """
            INSERT INTO traffic (root, downloaded, uploaded) VALUES (?, ?, ?) ON CONFLICT (root) DO UPDATE
            SET downloaded = downloaded + excluded.downloaded, uploaded = uploaded + excluded.uploaded"""
        await self._database.run(lambda c: c.execute(statement, (root, downloaded, uploaded)))

    async def traffic(self) -> dict[bytes, Traffic]:
        """By root."""
        rows = await self._database.run(
            lambda c: c.execute("SELECT root, downloaded, uploaded FROM traffic").fetchall()
        )
        return {row["root"]: Traffic(row["downloaded"], row["uploaded"]) for row in rows}
