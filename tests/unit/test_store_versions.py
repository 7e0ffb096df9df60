"""The tables of statements, shares and accepted licences."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pares.store.circles import CircleRecord, CircleTables
from pares.store.database import Database
from pares.store.versions import StatementRecord, VersionTables

ONE, OTHER = bytes(32), bytes([1]) * 32


def statement(digest: bytes, envelope: bytes = b"{}") -> StatementRecord:
    return StatementRecord(digest=digest, kind="version", version=digest, author=OTHER, envelope=envelope)


async def test_statements_are_kept_once_and_forgotten_together_with_what_comes(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        tables = VersionTables(database)
        await tables.change_statements(new=[statement(ONE)])
        await tables.change_statements(new=[statement(ONE, b"other")])
        assert await tables.statements() == (statement(ONE),)
        await tables.change_statements(new=[statement(OTHER)], gone=[ONE])
        assert await tables.statements() == (statement(OTHER),)


async def test_what_is_given_away_in_a_circle_ends_with_the_circle(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        tables, circles = VersionTables(database), CircleTables(database)
        for circle in (ONE, OTHER):
            await circles.save_circle(CircleRecord(id=circle, joined_at=0))
            await tables.share(ONE, circle)
            await tables.share(ONE, circle)
        await tables.share(OTHER, OTHER)
        await tables.unshare(ONE, OTHER)
        assert await tables.shares() == ((ONE, ONE), (OTHER, OTHER))
        await circles.forget_circle(OTHER)
        assert await tables.shares() == ((ONE, ONE),)
        with pytest.raises(sqlite3.IntegrityError):
            await tables.share(ONE, OTHER)


async def test_a_licence_is_accepted_once_for_all(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        tables = VersionTables(database)
        for licence in ("MIT", "MIT", "ab" * 32):
            await tables.accept(licence)
        assert await tables.licences() == {"MIT", "ab" * 32}
