"""API keys: only their hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from pares.errors import NotFound
from pares.store.database import Database, decode, new_id, now

Scope = Literal["infer", "admin"]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; not the key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: str
    last_used_at: str | None = None
    revoked: bool = False


_COLUMNS = "id, name, scopes_json, created_at, last_used_at, revoked"


class Keys:
    """Create, check and revoke."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, scopes: Sequence[Scope] = ("infer",)) -> tuple[str, ApiKey]:
        """A new key, in the clear for the only time, and what is kept of it."""
        secret = f"sk-pares-{secrets.token_urlsafe(32)}"
        key = ApiKey(id=new_id(), name=name, scopes=tuple(dict.fromkeys(scopes)), created_at=now())
        values = (key.id, name, _digest(secret), msgspec.json.encode(key.scopes).decode(), key.created_at)
        statement = "INSERT INTO api_keys (id, name, sha256, scopes_json, created_at) VALUES (?, ?, ?, ?, ?)"
        await self._database.run(lambda c: c.execute(statement, values))
        return secret, key

    async def list(self) -> tuple[ApiKey, ...]:
        """All of them, revoked ones too, oldest first."""
        query = f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, rowid"
        return tuple(decode(row, ApiKey) for row in await self._database.run(lambda c: c.execute(query).fetchall()))

    async def check(self, secret: str) -> ApiKey | None:
        """The key that this is, unless it is unknown or revoked; notes that it was used.

        A lookup by the hash of 256 random bits leaks nothing by its timing.
        """

        def work(connection: sqlite3.Connection) -> sqlite3.Row | None:
            row: sqlite3.Row | None = connection.execute(
                f"SELECT {_COLUMNS} FROM api_keys WHERE sha256 = ? AND NOT revoked", (_digest(secret),)
            ).fetchone()
            # To the minute: a busy client must not mean a write per request.
            if row is not None and (row["last_used_at"] or "")[:16] != time[:16]:
                connection.execute("UPDATE api_keys SET last_used_at = ? WHERE id = ?", (time, row["id"]))
            return row

        time = now()
        row = await self._database.run(work)
        return decode(row, ApiKey) if row else None

    async def revoke(self, key_id: str) -> None:
        """For good. Raises NotFound."""
        statement = "UPDATE api_keys SET revoked = 1 WHERE id = ?"
        if not await self._database.run(lambda c: c.execute(statement, (key_id,)).rowcount):
            raise NotFound(f"There is no key with the id {key_id!r}.", hint="`pares key ls` shows them.")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
