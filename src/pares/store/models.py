"""The table of models on this machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from pares.errors import Conflict
from pares.store.database import Database, decode, encode, glance

ModelKind = Literal["model", "adapter", "alias", "created"]


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One name and what it stands for. Names are compared without regard to case."""

    name: str
    kind: ModelKind
    path: str = ""
    """Empty for an alias and for a created model: they stand on another entry."""
    linked: bool = False
    """The file lies where its owner put it: never moved, never deleted."""
    size: int = 0
    sha256: str = ""
    """Empty while it is being computed."""
    root: str = ""
    """Hex merkle root of its file (BEP 52), under which the store of files has it; empty while it is being computed."""
    origin: str = ""
    licence: str = ""
    architecture: str = ""
    parameters: int = 0
    quantization: str = ""
    base: str = ""
    """Of an alias: what it stands for. Of a created model: what it is made from."""
    adapter: str = ""
    """Of a created model: the adapter on top of its base."""
    system: str = ""
    defaults: Mapping[str, object] = {}
    """Sampling defaults of a created model, in Ollama's words: temperature, top_k, num_ctx, stop, ..."""
    added_at: str = ""


class Models:
    """Accessors of the table; rules about names and files are the library's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> tuple[ModelRecord, ...]:
        """All of them, by name."""
        rows = await self._database.run(lambda c: c.execute("SELECT * FROM models ORDER BY name").fetchall())
        return tuple(decode(row, ModelRecord) for row in rows)

    async def get(self, name: str) -> ModelRecord | None:
        row = await self._database.run(lambda c: c.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone())
        return decode(row, ModelRecord) if row else None

    async def add(self, record: ModelRecord, *, replace: bool = False) -> None:
        """Raises Conflict if the name is taken and `replace` is not asked for."""
        fields = encode(record, ("defaults",))
        statement = (
            f"INSERT {'OR REPLACE ' if replace else ''}INTO models ({', '.join(fields)})"
            f" VALUES ({', '.join(':' + name for name in fields)})"
        )
        try:
            await self._database.run(lambda c: c.execute(statement, fields))
        except sqlite3.IntegrityError as error:
            raise Conflict(f"There is a model named {record.name!r} already.", hint="Choose another name.") from error

    async def set_hashes(self, path: str, sha256: str, root: str) -> tuple[ModelRecord, ...]:
        """The hashes of a file have been computed: note them for all names that stand for that file; returns those."""

        def work(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            connection.execute("UPDATE models SET sha256 = ?, root = ? WHERE path = ?", (sha256, root, path))
            return connection.execute("SELECT * FROM models WHERE path = ? ORDER BY name", (path,)).fetchall()

        return tuple(decode(row, ModelRecord) for row in await self._database.run(work))

    async def remove(self, *names: str) -> None:
        await self._database.run(lambda c: c.executemany("DELETE FROM models WHERE name = ?", [(n,) for n in names]))


def names(path: Path) -> tuple[str, ...]:
    """The names in a database file, for completion in a shell. Never raises."""
    return glance(path, "SELECT name FROM models ORDER BY name")
