"""One sqlite file, one connection, one thread that owns it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from pares.errors import Conflict, DatabaseUnusable, DiskFull

T = TypeVar("T")
Row = TypeVar("Row", bound=msgspec.Struct)

BUSY_SECONDS = 5.0


class Database:
    """The node's state. Open it with `async with`; `run` does all work in the database's own thread, in order.

    Opening brings the file up to this program's schema. Raises DatabaseUnusable for a damaged file and for one that a
    newer Pares has written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pares-store")
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(self._thread, connect, self.path)
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._thread.submit(connection.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction: all of it is kept, or, if it raises, nothing.

        Raises DiskFull, DatabaseUnusable, Conflict (another program holds the file), and whatever `work` raises.
        """
        connection = self._connection
        if connection is None:
            raise Conflict("The database is closed.", hint="The node is stopping; start it again.")

        def transaction() -> T:
            with _named_errors(self.path):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)


def connect(path: Path) -> sqlite3.Connection:
    """Open and migrate; for use in one thread at a time. Raises DatabaseUnusable, DiskFull."""
    with _named_errors(path):
        # Conversations are private: the file is born readable to its owner only (sqlite gives its -wal the same mode).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("casefold", 1, str.casefold, deterministic=True)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    migrations = sorted(
        (
            file
            for file in resources.files("pares.store").joinpath("migrations").iterdir()
            if file.name.endswith(".sql")
        ),
        key=lambda file: file.name,
    )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise DatabaseUnusable(
            f"{path} was written by a newer Pares (schema {version}; this one knows {len(migrations)}).",
            hint="Update Pares, or give it another home (PARES_HOME).",
            path=str(path),
            schema=version,
        )
    for number, file in enumerate(migrations[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{file.read_text('utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of sqlite and of the file system, as our own."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                raise DiskFull(f"The disk is full: {path} could not be written.", hint="Free some space.") from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise Conflict(f"Another program is using {path}.", hint="Close it and try again.") from error
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                raise DatabaseUnusable(
                    f"{path} is damaged ({error}).",
                    hint="Stop the node and move that file away: the node then starts with an empty one and finds the "
                    "models again, which are untouched. `sqlite3 FILE .recover` may save the conversations.",
                    path=str(path),
                ) from error
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
                raise DatabaseUnusable(
                    f"{path} cannot be read or written ({error}).",
                    hint="Check its owner, its permissions and the disk.",
                ) from error
            case _:
                raise
    except OSError as error:
        raise DatabaseUnusable(
            f"{path} cannot be opened ({error.strerror}).", hint="Check its folder's owner and permissions."
        ) from error


def decode(row: sqlite3.Row, kind: type[Row]) -> Row:
    """A row as a struct; a column `x_json` becomes the field `x`."""
    fields = {
        name.removesuffix("_json"): msgspec.json.decode(row[name]) if name.endswith("_json") else row[name]
        for name in row.keys()  # noqa: SIM118 (a Row iterates over its values)
    }
    return msgspec.convert(fields, kind, strict=False)


def encode(value: msgspec.Struct, json: tuple[str, ...] = ()) -> dict[str, object]:
    """The other way: a struct as named parameters; the fields in `json` go to columns `x_json`."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    for name in json:
        fields[f"{name}_json"] = msgspec.json.encode(fields.pop(name)).decode()
    return fields


def glance(path: Path, query: str) -> tuple[Any, ...]:
    """The first column of what is asked of a database file, at once and without a node. Never raises."""
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.1)
        try:
            return tuple(row[0] for row in connection.execute(query))
        finally:
            connection.close()
    except sqlite3.Error:
        return ()


def now() -> str:
    """The time as this room writes it: ISO 8601, UTC, milliseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_id() -> str:
    """An identifier that nobody can guess and that is safe in an address."""
    return secrets.token_hex(8)
