from __future__ import annotations

import os
import resource
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import Conflict, DatabaseUnusable, DiskFull, NotFound
from pares.store.database import Database, connect
from pares.store.events import IDS_PER_START, RESET, Event, Events
from pares.store.keys import Keys
from pares.store.models import ModelRecord, Models, names
from pares.store.pulls import PullRecord, PullTable


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "node.db") as opened:
        yield opened


async def test_what_is_written_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    async with Database(path) as database:
        await Models(database).add(ModelRecord(name="a", kind="model", defaults={"stop": ["x"]}, linked=True))
    async with Database(path) as database:
        assert await Models(database).get("A") == ModelRecord(
            name="a", kind="model", defaults={"stop": ["x"]}, linked=True
        )


async def test_the_file_is_readable_to_its_owner_only(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        await Keys(database).create("k")
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO models (name, kind, added_at) VALUES ('a', 'model', '')")
        raise NotFound("changed my mind")

    with pytest.raises(NotFound):
        await database.run(work)
    assert await Models(database).list() == ()


async def test_all_work_is_done_in_one_thread_that_is_not_the_loops(database: Database) -> None:
    threads = {await database.run(lambda _: threading.get_ident()) for _ in range(10)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


async def test_a_database_of_a_newer_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    connection = connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(DatabaseUnusable, match="newer Pares"):
        async with Database(path):
            pass
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (999,)


async def test_a_file_that_is_no_database_is_named_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"these are not the bytes you are looking for" * 100)
    with pytest.raises(DatabaseUnusable, match="move that file away"):
        async with Database(path):
            pass


async def test_damage_inside_is_named_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    async with Database(path) as database:
        models = Models(database)
        for number in range(500):
            await models.add(ModelRecord(name=f"model-{number}", kind="model", origin="x" * 200))
    content = bytearray(path.read_bytes())
    for page in range(40, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    async with Database(path) as database:
        with pytest.raises(DatabaseUnusable, match="damaged"):
            await Models(database).list()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="No such file"):
        async with Database(tmp_path / "nowhere" / "node.db"):
            pass


async def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    # RLIMIT_FSIZE is the kernel's own refusal to let a file grow; sqlite reports it as an I/O error.
    async with Database(tmp_path / "node.db") as database:
        models = Models(database)
        await models.add(ModelRecord(name="before", kind="model"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
        try:
            with pytest.raises((DiskFull, DatabaseUnusable)):
                await models.add(ModelRecord(name="large", kind="model", system="x" * 2**20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [m.name for m in await models.list()] == ["before"]
        await models.add(ModelRecord(name="large", kind="model", system="x" * 2**20))


async def test_a_page_limit_reports_as_disk_full(database: Database) -> None:
    await database.run(lambda c: c.execute("PRAGMA max_page_count = 40"))
    with pytest.raises(DiskFull):
        await Models(database).add(ModelRecord(name="large", kind="model", system="x" * 2**20))


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        pass
    with pytest.raises(Conflict):
        await Models(database).list()


async def test_names_are_unique_without_regard_to_case(database: Database) -> None:
    models = Models(database)
    await models.add(ModelRecord(name="Llama", kind="model", size=1))
    with pytest.raises(Conflict):
        await models.add(ModelRecord(name="LLAMA", kind="alias", base="x"))
    await models.add(ModelRecord(name="llama", kind="model", size=2), replace=True)
    assert [(m.name, m.size) for m in await models.list()] == [("llama", 2)]


async def test_completion_reads_names_without_a_node(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    assert names(path) == ()
    async with Database(path) as database:
        await Models(database).add(ModelRecord(name="b", kind="model"))
        await Models(database).add(ModelRecord(name="a", kind="model"))
        assert names(path) == ("a", "b")


async def test_pulls_keep_their_creation_time_and_old_done_ones_are_forgotten(database: Database) -> None:
    table = PullTable(database)
    first = await table.save(PullRecord(id="1", source="s", name="n"))
    again = await table.save(PullRecord(id="1", source="s", name="n", state="paused", created_at=first.created_at))
    assert (await table.get("1")) == again
    assert again.created_at == first.created_at
    for number in range(120):
        await table.save(PullRecord(id=f"done-{number}", source="s", name="n", state="done"))
    await table.prune()
    states = [pull.state for pull in await table.list()]
    assert states.count("done") == 100
    assert states.count("paused") == 1


async def test_a_key_opens_until_it_is_revoked_and_is_not_in_the_file(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        keys = Keys(database)
        secret, key = await keys.create("laptop", ["infer", "admin", "infer"])
        assert key.scopes == ("infer", "admin")
        assert await keys.check("sk-pares-guess") is None
        found = await keys.check(secret)
        assert found is not None
        assert (found.id, found.revoked) == (key.id, False)
        assert (await keys.list())[0].last_used_at
        await keys.revoke(key.id)
        assert await keys.check(secret) is None
        with pytest.raises(NotFound):
            await keys.revoke("none")
    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())


async def _take(events: Events, count: int, after: int | None) -> list[Event]:
    taken = []
    async for event in events.subscribe(after):
        taken.append(event)
        if len(taken) == count:
            break
    return taken


async def test_a_subscriber_that_comes_back_gets_what_it_missed(database: Database) -> None:
    events = await Events.open(database)
    first = events.publish("a", {})
    events.publish("b", {"n": 1})
    events.publish("c", {})
    assert [e.kind for e in await _take(events, 2, first.id)] == ["b", "c"]


async def test_a_subscriber_that_missed_too_much_is_told_to_start_afresh(database: Database) -> None:
    events = await Events.open(database)
    old = events.publish("old", {}).id
    events = Events(1, kept=3)
    for number in range(10):
        events.publish("n", {"n": number})
    assert [e.kind for e in await _take(events, 1, old)] == [RESET]
    assert [e.kind for e in await _take(events, 1, events.last_id + 5)] == [RESET]
    assert [e.data["n"] for e in await _take(events, 3, events.last_id - 3)] == [7, 8, 9]


async def test_ids_never_repeat_over_restarts(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        async with Database(tmp_path / "node.db") as database:
            events = await Events.open(database)
            seen += [events.publish("x", {}).id for _ in range(5)]
    assert sorted(set(seen)) == seen
    assert seen[-1] < 2**53, "JavaScript must be able to hold it"


async def test_closing_ends_subscriptions_after_the_last_event() -> None:
    events = Events(0)
    events.publish("last", {})
    events.close()
    assert [e.kind async for e in events.subscribe(0)] == ["last"]


@given(kept=st.integers(1, 20), published=st.integers(0, 60), after=st.integers(-5, 70))
async def test_replay_is_complete_or_says_that_it_is_not(kept: int, published: int, after: int) -> None:
    events = Events(7, kept=kept)
    base = 7 * IDS_PER_START
    for _ in range(published):
        events.publish("x", {})
    events.close()
    got = [event async for event in events.subscribe(base + after)]
    missed = list(range(base + after + 1, base + published + 1))
    if got and got[0].kind == RESET:
        assert after > published or len(missed) > kept or after < 0
        assert got[0].id == base + published
    else:
        assert [event.id for event in got] == missed
