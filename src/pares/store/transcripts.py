"""Conversations out of a node and into one: JSON with all branches, Markdown with the one that is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from pares.errors import BadRequest
from pares.store.conversations import Conversation, MessageState, StoredMessage, StoredRole
from pares.store.database import new_id, now

MAX_MESSAGES = 100_000

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Line = Annotated[str, msgspec.Meta(max_length=1000)]


class TranscriptMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message in a file; `parent` is the id of an earlier one in the same file."""

    id: Id
    parent: Id | None = None
    role: StoredRole
    content: str
    reasoning: str = ""
    model: Line = ""
    sampling: Mapping[str, object] = {}
    usage: Mapping[str, object] = {}
    state: MessageState = "complete"
    created_at: Line = ""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """The file. Fields that a newer version adds are ignored; a changed meaning is a new `format`."""

    format: Literal["pares-conversation-1"] = "pares-conversation-1"
    title: Line = ""
    model: Line = ""
    system: str = ""
    settings: Mapping[str, object] = {}
    created_at: Line = ""
    leaf: Id | None = None
    messages: Annotated[tuple[TranscriptMessage, ...], msgspec.Meta(max_length=MAX_MESSAGES)] = ()


def to_json(conversation: Conversation, messages: Sequence[StoredMessage]) -> bytes:
    """All branches."""
    transcript = Transcript(
        title=conversation.title,
        model=conversation.model,
        system=conversation.system,
        settings=conversation.settings,
        created_at=conversation.created_at,
        leaf=conversation.leaf,
        messages=tuple(
            TranscriptMessage(
                id=message.id,
                parent=message.parent_id,
                role=message.role,
                content=message.content,
                reasoning=message.reasoning,
                model=message.model,
                sampling=message.sampling,
                usage=message.usage,
                state=message.state,
                created_at=message.created_at,
            )
            for message in messages
        ),
    )
    return msgspec.json.format(msgspec.json.encode(transcript), indent=1)


def from_json(data: bytes) -> tuple[Conversation, tuple[StoredMessage, ...]]:
    """Read such a file; everything gets new ids, so that the same file can be imported twice. Raises BadRequest."""
    try:
        transcript = msgspec.json.decode(data, type=Transcript)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"This is not a conversation exported by Pares: {error}.") from error
    conversation_id, time = new_id(), now()
    ids: dict[str | None, str | None] = {None: None}
    messages = []
    for message in transcript.messages:
        if message.id in ids:
            raise BadRequest(f"Two messages of this file have the same id {message.id!r}.")
        if message.parent not in ids:
            raise BadRequest(f"Message {message.id!r} answers {message.parent!r}, which does not come before it.")
        ids[message.id] = own_id = new_id()
        messages.append(
            StoredMessage(
                id=own_id,
                conversation_id=conversation_id,
                parent_id=ids[message.parent],
                role=message.role,
                content=message.content,
                reasoning=message.reasoning,
                model=message.model,
                sampling=message.sampling,
                usage=message.usage,
                state=message.state,
                created_at=message.created_at or time,
            )
        )
    if transcript.leaf not in ids:
        raise BadRequest(f"The file names {transcript.leaf!r} as its last message, but has no such message.")
    conversation = Conversation(
        id=conversation_id,
        title=transcript.title,
        model=transcript.model,
        system=transcript.system,
        settings=transcript.settings,
        leaf=ids[transcript.leaf] or (messages[-1].id if messages else None),
        created_at=transcript.created_at or time,
    )
    return conversation, tuple(messages)


def to_markdown(conversation: Conversation, branch: Sequence[StoredMessage]) -> str:
    """The branch that is shown, for people to read."""
    parts = [f"# {conversation.title or 'Conversation'}"]
    if conversation.system:
        parts += ["## System", conversation.system]
    for message in branch:
        who = (message.model or "Assistant") if message.role == "assistant" else message.role.capitalize()
        parts.append(f"## {who}")
        if message.reasoning:
            parts.append("\n".join(f"> {line}".rstrip() for line in message.reasoning.splitlines()))
        parts.append(message.content if message.state == "complete" else f"{message.content}\n\n*({message.state})*")
    return "\n\n".join(parts) + "\n"
