"""Conversations: trees of messages, of which one branch is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pares.errors import BadRequest, NotFound
from pares.store.database import Database, decode, encode, new_id, now

StoredRole = Literal["system", "user", "assistant", "tool"]
MessageState = Literal["complete", "stopped", "failed"]


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message. An edit is another child of the same parent; nothing is overwritten."""

    id: str = ""
    conversation_id: str = ""
    parent_id: str | None = None
    role: StoredRole
    content: str
    reasoning: str = ""
    model: str = ""
    sampling: Mapping[str, object] = {}
    usage: Mapping[str, object] = {}
    """Tokens and speeds, as the API shows them."""
    state: MessageState = "complete"
    error: str = ""
    created_at: str = ""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a conversation without its messages."""

    id: str
    title: str = ""
    model: str = ""
    """The one it was last held with; may be gone."""
    system: str = ""
    settings: Mapping[str, object] = {}
    leaf: str | None = None
    """The message at the end of the branch that is shown."""
    messages: int = 0
    """How many, over all branches."""
    created_at: str = ""
    updated_at: str = ""


_SELECT = (
    "SELECT c.*, (SELECT count(*) FROM messages m WHERE m.conversation_id = c.id) AS messages FROM conversations c"
)
_FOUND = """ WHERE instr(casefold(c.title), :text) OR EXISTS
    (SELECT 1 FROM messages m WHERE m.conversation_id = c.id AND instr(casefold(m.content), :text))"""
_BRANCH = """
WITH RECURSIVE branch AS (
    SELECT *, 0 AS depth FROM messages WHERE id = :leaf AND conversation_id = :conversation
    UNION ALL
    SELECT m.*, depth + 1 FROM messages m JOIN branch ON m.id = branch.parent_id
)
SELECT * FROM branch ORDER BY depth DESC
"""
_MESSAGE_JSON = ("sampling", "usage")


class Conversations:
    """Accessors. All raise NotFound for an id that is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, text: str = "", *, limit: int = 200) -> tuple[Conversation, ...]:
        """Newest first; with `text`, those whose title or any message contains it, without regard to case."""
        query = f"{_SELECT}{_FOUND if text else ''} ORDER BY c.updated_at DESC, c.rowid DESC LIMIT :limit"
        values = {"text": text.casefold(), "limit": limit}
        rows = await self._database.run(lambda c: c.execute(query, values).fetchall())
        return tuple(decode(row, Conversation) for row in rows)

    async def get(self, conversation_id: str) -> Conversation:
        return await self._database.run(lambda c: _get(c, conversation_id))

    async def create(
        self, *, title: str = "", model: str = "", system: str = "", settings: Mapping[str, object] | None = None
    ) -> Conversation:
        """A new and empty one."""
        conversation = Conversation(id=new_id(), title=title, model=model, system=system, settings=settings or {})
        await self._database.run(lambda c: _insert(c, conversation))
        return await self.get(conversation.id)

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        model: str | None = None,
        system: str | None = None,
        settings: Mapping[str, object] | None = None,
        leaf: str | None = None,
    ) -> Conversation:
        """Change what is given. Raises BadRequest for a leaf that is no message of this conversation."""
        values: dict[str, object] = {"title": title, "model": model, "system": system, "leaf": leaf}
        if settings is not None:
            values["settings_json"] = msgspec.json.encode(settings).decode()
        values = {name: value for name, value in values.items() if value is not None}

        def work(connection: sqlite3.Connection) -> Conversation:
            if leaf is not None:
                _require_message(connection, conversation_id, leaf, "leaf")
            assignments = "".join(f"{name} = :{name}, " for name in values)
            statement = f"UPDATE conversations SET {assignments}updated_at = :now WHERE id = :id"
            connection.execute(statement, {**values, "now": now(), "id": conversation_id})
            return _get(connection, conversation_id)

        return await self._database.run(work)

    async def delete(self, conversation_id: str) -> None:
        """With all its messages."""

        def work(connection: sqlite3.Connection) -> None:
            _get(connection, conversation_id)
            connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

        await self._database.run(work)

    async def add(self, conversation_id: str, message: StoredMessage) -> StoredMessage:
        """Put a message under its parent (None: a new root) and make it the leaf; its id and time are set here.

        Raises BadRequest for a parent that is no message of this conversation.
        """
        time = now()
        stored = msgspec.structs.replace(message, id=new_id(), conversation_id=conversation_id, created_at=time)

        def work(connection: sqlite3.Connection) -> None:
            _get(connection, conversation_id)
            if message.parent_id is not None:
                _require_message(connection, conversation_id, message.parent_id, "parent_id")
            _insert_message(connection, stored)
            connection.execute(
                "UPDATE conversations SET leaf = ?, updated_at = ? WHERE id = ?", (stored.id, time, conversation_id)
            )

        await self._database.run(work)
        return stored

    async def replace(self, message: StoredMessage) -> None:
        """Overwrite a message with more of itself: an answer that went on."""
        fields = encode(message, _MESSAGE_JSON)
        assignments = ", ".join(f"{n} = :{n}" for n in fields if n not in ("id", "conversation_id", "parent_id"))
        statement = f"UPDATE messages SET {assignments} WHERE id = :id"
        if not await self._database.run(lambda c: c.execute(statement, fields).rowcount):
            raise NotFound(f"There is no message with the id {message.id!r}.")

    async def messages(self, conversation_id: str) -> tuple[StoredMessage, ...]:
        """The whole tree, parents before children."""

        def work(connection: sqlite3.Connection) -> Sequence[sqlite3.Row]:
            _get(connection, conversation_id)
            query = "SELECT * FROM messages WHERE conversation_id = ? ORDER BY rowid"
            return connection.execute(query, (conversation_id,)).fetchall()

        return tuple(decode(row, StoredMessage) for row in await self._database.run(work))

    async def branch(self, conversation_id: str, leaf: str | None = None) -> tuple[StoredMessage, ...]:
        """From the root to `leaf` (None: to the leaf that is shown)."""

        def work(connection: sqlite3.Connection) -> Sequence[sqlite3.Row]:
            end = leaf or _get(connection, conversation_id).leaf
            return connection.execute(_BRANCH, {"leaf": end, "conversation": conversation_id}).fetchall()

        rows = await self._database.run(work)
        if leaf is not None and not rows:
            raise NotFound(f"There is no message with the id {leaf!r} in this conversation.")
        return tuple(decode(row, StoredMessage) for row in rows)

    async def insert(self, conversation: Conversation, messages: Sequence[StoredMessage]) -> Conversation:
        """A whole conversation at once, ids as given: for what was imported."""

        def work(connection: sqlite3.Connection) -> Conversation:
            _insert(connection, conversation)
            for message in messages:
                _insert_message(connection, message)
            return _get(connection, conversation.id)

        return await self._database.run(work)


def _get(connection: sqlite3.Connection, conversation_id: str) -> Conversation:
    row = connection.execute(f"{_SELECT} WHERE c.id = ?", (conversation_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no conversation with the id {conversation_id!r}.", hint="It may have been deleted.")
    return decode(row, Conversation)


def _insert(connection: sqlite3.Connection, conversation: Conversation) -> None:
    fields = encode(conversation, ("settings",))
    del fields["messages"]
    time = now()
    fields |= {"created_at": conversation.created_at or time, "updated_at": time}
    statement = f"INSERT INTO conversations ({', '.join(fields)}) VALUES ({', '.join(':' + name for name in fields)})"
    connection.execute(statement, fields)


def _insert_message(connection: sqlite3.Connection, message: StoredMessage) -> None:
    fields = encode(message, _MESSAGE_JSON)
    statement = f"INSERT INTO messages ({', '.join(fields)}) VALUES ({', '.join(':' + name for name in fields)})"
    connection.execute(statement, fields)


def _require_message(connection: sqlite3.Connection, conversation_id: str, message_id: str, param: str) -> None:
    query = "SELECT 1 FROM messages WHERE id = ? AND conversation_id = ?"
    if connection.execute(query, (message_id, conversation_id)).fetchone() is None:
        raise BadRequest(f"{message_id!r} is not a message of this conversation.", param=param)
