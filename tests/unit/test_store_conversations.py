from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pares.errors import BadRequest, NotFound
from pares.store import transcripts
from pares.store.conversations import Conversations, StoredMessage
from pares.store.database import Database


@pytest.fixture
async def conversations(tmp_path: Path) -> AsyncIterator[Conversations]:
    async with Database(tmp_path / "node.db") as database:
        yield Conversations(database)


async def _say(conversations: Conversations, chat: str, parent: str | None, role: str, text: str) -> str:
    message = StoredMessage(parent_id=parent, role=role, content=text)  # type: ignore[arg-type]
    return (await conversations.add(chat, message)).id


async def test_an_edit_is_a_new_branch_and_both_stay(conversations: Conversations) -> None:
    chat = (await conversations.create(title="t", settings={"temperature": 0.5})).id
    first = await _say(conversations, chat, None, "user", "hello")
    answer = await _say(conversations, chat, first, "assistant", "hi")
    await _say(conversations, chat, answer, "user", "how are you")
    edited = await _say(conversations, chat, answer, "user", "who are you")
    assert [m.content for m in await conversations.branch(chat)] == ["hello", "hi", "who are you"]
    assert len(await conversations.messages(chat)) == 4
    await conversations.update(chat, leaf=answer)
    assert [m.content for m in await conversations.branch(chat)] == ["hello", "hi"]
    assert [m.content for m in await conversations.branch(chat, edited)] == ["hello", "hi", "who are you"]
    shown = await conversations.get(chat)
    assert (shown.messages, shown.leaf, shown.settings) == (4, answer, {"temperature": 0.5})


async def test_an_answer_that_went_on_replaces_itself(conversations: Conversations) -> None:
    chat = (await conversations.create()).id
    message = await conversations.add(chat, StoredMessage(role="assistant", content="one", state="stopped"))
    await conversations.replace(msgspec.structs.replace(message, content="one two", state="complete", usage={"t": 2}))
    (stored,) = await conversations.messages(chat)
    assert (stored.content, stored.state, stored.usage, stored.id) == ("one two", "complete", {"t": 2}, message.id)


async def test_search_finds_titles_and_any_branch_in_any_case(conversations: Conversations) -> None:
    tea = (await conversations.create(title="Tee und Ärger")).id
    cake = (await conversations.create(title="other")).id
    first = await _say(conversations, cake, None, "user", "KÄSEKUCHEN bitte")
    await _say(conversations, cake, None, "user", "no, something else 100%")
    assert [c.id for c in await conversations.list("ärger")] == [tea]
    assert [c.id for c in await conversations.list("käsekuchen")] == [cake]
    assert [c.id for c in await conversations.list("100%")] == [cake]
    assert await conversations.list("%") == await conversations.list("100%")
    assert [c.id for c in await conversations.list()] == [cake, tea]
    await conversations.update(tea, title="newer")
    assert [c.id for c in await conversations.list(limit=1)] == [tea]
    assert first


async def test_a_long_conversation_is_deleted_whole(conversations: Conversations) -> None:
    chat = (await conversations.create()).id
    turns = [
        {"id": str(n), "role": "user", "content": "x", **({"parent": str(n - 1)} if n else {})} for n in range(3000)
    ]
    data = json.dumps({"format": "pares-conversation-1", "messages": turns}).encode()
    imported = await conversations.insert(*transcripts.from_json(data))
    assert len(await conversations.branch(imported.id)) == 3000
    await conversations.delete(imported.id)
    assert [c.id for c in await conversations.list()] == [chat]
    with pytest.raises(NotFound):
        await conversations.messages(imported.id)


async def test_messages_of_another_conversation_are_no_parents(conversations: Conversations) -> None:
    one, other = (await conversations.create()).id, (await conversations.create()).id
    message = await _say(conversations, one, None, "user", "x")
    with pytest.raises(BadRequest):
        await _say(conversations, other, message, "user", "y")
    with pytest.raises(BadRequest):
        await conversations.update(other, leaf=message)
    for call in (conversations.get("no"), conversations.delete("no"), conversations.branch(one, "no")):
        with pytest.raises(NotFound):
            await call


async def test_a_conversation_survives_export_and_import_with_its_branches(conversations: Conversations) -> None:
    chat = (await conversations.create(title="t", system="be brief", model="m")).id
    first = await _say(conversations, chat, None, "user", "a")
    await conversations.add(
        chat, StoredMessage(parent_id=first, role="assistant", content="b", reasoning="hm\n\nwell", model="m")
    )
    await _say(conversations, chat, first, "assistant", "c")
    exported = transcripts.to_json(await conversations.get(chat), await conversations.messages(chat))
    for _ in range(2):
        copy = await conversations.insert(*transcripts.from_json(exported))
        again = transcripts.to_json(await conversations.get(copy.id), await conversations.messages(copy.id))
        assert _without_ids(again) == _without_ids(exported)
        assert [m.content for m in await conversations.branch(copy.id)] == ["a", "c"]
    markdown = transcripts.to_markdown(await conversations.get(chat), (await conversations.messages(chat))[:2])
    assert markdown == "# t\n\n## System\n\nbe brief\n\n## User\n\na\n\n## m\n\n> hm\n>\n> well\n\nb\n"


def _without_ids(data: bytes) -> object:
    read = json.loads(data)
    numbers = {message["id"]: number for number, message in enumerate(read["messages"])}
    for message in read["messages"]:
        message["id"] = numbers[message["id"]]
        message["parent"] = numbers.get(message.get("parent"))
    read["leaf"] = numbers[read["leaf"]]
    return read


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_messages = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcd") | _json,
        "role": st.sampled_from(["user", "assistant"]) | _json,
        "content": st.text(),
    },
    optional={"parent": st.sampled_from("abcd") | _json, "sampling": _json, "state": _json, "created_at": _json},
)
_files = st.fixed_dictionaries(
    {"format": st.just("pares-conversation-1") | _json, "messages": st.lists(_messages, max_size=5) | _json},
    optional={"leaf": st.sampled_from("abcd") | _json, "title": _json, "settings": _json},
)


@given(data=st.binary() | _files.map(lambda x: json.dumps(x).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_are_imported_or_refused_by_name(conversations: Conversations, data: bytes) -> None:
    try:
        conversation, messages = transcripts.from_json(data)
    except BadRequest:
        return
    stored = await conversations.insert(conversation, messages)
    assert stored.messages == len(messages)
    assert len(await conversations.messages(stored.id)) == len(messages)
