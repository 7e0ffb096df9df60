"""Conversations that are kept: list, make, change, export, import."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.schemas import (
    ChatSettings,
    Conversation,
    ConversationChange,
    ConversationRow,
    Conversations,
    MessageNode,
)
from pares.errors import BadRequest
from pares.store import transcripts
from pares.store.conversations import Conversation as Stored
from pares.store.conversations import StoredMessage

CHANGED = "conversations"


async def listed(call: Call[None]) -> Response:
    found = await call.services.conversations.list(call.query("search")[:200])
    return reply(Conversations(tuple(row_of(each) for each in found)))


async def create(call: Call[ConversationChange]) -> Response:
    body = call.body
    if body.leaf is not None:
        raise BadRequest("A new conversation has no messages yet.", param="leaf")
    made = await call.services.conversations.create(
        title=body.title or "",
        model=body.model or "",
        system=body.system or "",
        settings=_settings(body),
    )
    tell(call, made.id)
    return reply(Conversation(row_of(made), made.system, settings_of(made), None, ()), 201)


async def show(call: Call[None]) -> Response:
    return reply(await _whole(call, call.path("id")))


async def change(call: Call[ConversationChange]) -> Response:
    body, conversation_id = call.body, call.path("id")
    await call.services.conversations.update(
        conversation_id,
        title=body.title,
        model=body.model,
        system=body.system,
        settings=_settings(body),
        leaf=body.leaf,
    )
    tell(call, conversation_id)
    return reply(await _whole(call, conversation_id))


async def delete(call: Call[None]) -> Response:
    await call.services.conversations.delete(call.path("id"))
    tell(call, call.path("id"))
    return Response(None, 204)


async def export(call: Call[None]) -> Response:
    """As a file: `json` has all branches, `md` the one that is shown."""
    store, conversation_id = call.services.conversations, call.path("id")
    conversation = await store.get(conversation_id)
    match call.query("format") or "json":
        case "json":
            content = await asyncio.to_thread(transcripts.to_json, conversation, await store.messages(conversation_id))
            kind, suffix = "application/json", "json"
        case "md":
            content = transcripts.to_markdown(conversation, await store.branch(conversation_id)).encode()
            kind, suffix = "text/markdown; charset=utf-8", "md"
        case other:
            raise BadRequest(f"There is no format {other[:40]!r}.", param="format", hint="Ask for json or md.")
    name = quote(f"{conversation.title[:60] or 'conversation'}.{suffix}", safe="")
    headers = {"Content-Disposition": f"attachment; filename=\"conversation.{suffix}\"; filename*=UTF-8''{name}"}
    return Response(content, 200, headers, media_type=kind)


async def import_(call: Call[msgspec.Raw]) -> Response:
    conversation, messages = await asyncio.to_thread(transcripts.from_json, call.raw)
    await call.services.conversations.insert(conversation, messages)
    tell(call, conversation.id)
    return reply(await _whole(call, conversation.id), 201)


def tell(call: Call[object], conversation_id: str) -> None:
    """Other tabs ask again."""
    call.services.events.publish(CHANGED, {"id": conversation_id})


def row_of(stored: Stored) -> ConversationRow:
    return ConversationRow(stored.id, stored.title, stored.model, stored.created_at, stored.updated_at, stored.messages)


def settings_of(stored: Stored) -> ChatSettings:
    """As far as they mean something: a conversation may come from a file."""
    try:
        return msgspec.convert(stored.settings, ChatSettings)
    except msgspec.ValidationError:
        return ChatSettings()


def node_of(message: StoredMessage) -> MessageNode:
    usage, seed = message.usage, message.sampling.get("seed")
    return MessageNode(
        id=message.id,
        parent_id=message.parent_id,
        role="assistant" if message.role == "tool" else message.role,
        content=message.content,
        reasoning=message.reasoning,
        model=message.model,
        state=message.state,
        created_at=message.created_at,
        prompt_tokens=int(_number(usage.get("prompt_tokens"))),
        generated_tokens=int(_number(usage.get("generated_tokens"))),
        tokens_per_s=_number(usage.get("tokens_per_s")),
        first_token_s=_number(usage.get("first_token_s")),
        seed=seed if isinstance(seed, int) else None,
        error=message.error,
    )


async def _whole(call: Call[object], conversation_id: str) -> Conversation:
    store = call.services.conversations
    stored = await store.get(conversation_id)
    nodes = tuple(node_of(message) for message in await store.messages(conversation_id))
    return Conversation(row_of(stored), stored.system, settings_of(stored), stored.leaf, nodes)


def _settings(body: ConversationChange) -> dict[str, object] | None:
    if body.settings is None:
        return None
    settings: dict[str, object] = msgspec.to_builtins(body.settings)
    return settings


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
