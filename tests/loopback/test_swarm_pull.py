"""Pulls from members: real BitTorrent sessions and real statements; only the circles' own messages are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from file_server import file_server

from pares.errors import (
    BadRequest,
    BrokenModelFile,
    Conflict,
    DiskFull,
    LicenceNotAccepted,
    NotSupported,
    VerificationFailed,
)
from pares.swarm.catalogue import Catalogue, builtin
from pares.swarm.coverage import bytes_in, covers, runs
from pares.swarm.merkle import piece_length, pieces
from pares.swarm.ranges import HEADER, Part, part_bytes, part_pieces
from pares.swarm.version import open_statement, sign_version
from scripted_members import CIRCLE, DEADLINE, FEW_HASHES, PUBLISHER, SETTINGS, Model, Town, published, town
from swarming import MIB
from tiny import tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 layers, about 12 MB."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=12, embedding=160, ffn=320)


@pytest.fixture
async def model(tiny: Path) -> Model:
    return await published(tiny)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as made:
        yield made


async def test_a_version_is_fetched_from_a_member_checked_listed_and_given_away(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    async with here.home() as home:
        pull = await home.pull("tiny")
        assert (pull.state, pull.bytes, pull.total) == ("done", model.file.size, model.file.size)
        assert pull.version == model.opened.digest.hex()
        assert (await home.library.resolve("tiny")).path.read_bytes() == model.path.read_bytes()
        record = await home.library.files.get(model.root)
        assert record is not None
        assert (record.pieces, record.sha256, record.layer) == (None, model.file.sha256, model.layer)
        assert set(here.circle.shared) == {(model.opened.digest, (CIRCLE,))}
        assert holder.asked > 1, "the hashes took several questions"
        assert (await home.pulls.start("tiny")).state == "done", "it is here already"
        again = await home.pull("tiny", name="other")
        assert again.state == "done"
        assert (await home.library.resolve("other")).path.samefile((await home.library.resolve("tiny")).path)


async def test_two_members_send_at_once(here: Town, model: Model) -> None:
    holders = [await here.holder(model), await here.holder(model)]
    for holder in holders:
        holder.node.torrents.limit(upload=8 * MIB, download=0)
    async with here.home() as home:
        await home.pull("tiny")
    for holder in holders:
        await holder.node.until(lambda holder=holder: holder.node.now(model.root).uploaded > MIB)  # type: ignore[misc]


async def test_layers_of_a_model_cost_their_pieces_and_grow_to_the_whole_without_a_byte_twice(
    here: Town, smollm2: Path
) -> None:
    model = await published(smollm2, "smollm2-135m")
    await here.holder(model)
    kept: list[bytes] = []
    async with here.home(release=kept.append) as home:
        await home.pull("smollm2-135m", layers="10-20")
        part = Part(10, 20, False)
        header, size = model.header(), model.file.size
        wanted = part_pieces(header, part)
        record = await home.library.files.get(model.root)
        assert record is not None
        assert record.pieces == wanted
        received = home.received(model)
        edges = 2 * len(runs(part_bytes(header, part))) * piece_length(size)
        assert received == bytes_in(wanted, size) <= sum(b - a for a, b in part_bytes(header, part)) + edges
        mine, theirs = Path(record.path).read_bytes(), model.path.read_bytes()
        assert all(mine[first:after] == theirs[first:after] for first, after in part_bytes(header, part))
        assert await home.library.list() == (), "a part is no model"
        await home.pull("smollm2-135m")
        assert home.received(model) == size
        assert (await home.library.resolve("smollm2-135m")).path.read_bytes() == theirs
    assert kept == [model.root] * 2


async def test_a_header_alone_and_layers_that_there_are_not(here: Town, model: Model) -> None:
    await here.holder(model)
    async with here.home() as home:
        await home.pull("tiny", layers="header")
        record = await home.library.files.get(model.root)
        assert record is not None
        assert record.pieces == part_pieces(model.header(), HEADER)
        with pytest.raises(BadRequest, match="12 layers"):
            await home.pull("tiny", layers="10-20")
        assert await home.library.files.get(model.root) == record


async def test_who_lies_about_hashes_is_punished_and_another_one_asked(here: Town, model: Model) -> None:
    liar = await here.holder(model)
    liar.layer = bytes(len(model.layer))
    long_winded = await here.holder(model)
    long_winded.layer = model.layer * 2
    assert pieces(model.file.size) % FEW_HASHES, "its last answer goes beyond the end"
    await here.holder(model)
    async with here.home() as home:
        await home.pull("tiny", layers="header")
    assert here.circle.punished == [liar.id, long_winded.id]


async def test_what_is_no_model_is_refused_before_the_rest_comes(here: Town, tiny: Path, tmp_path: Path) -> None:
    true = (await published(tiny)).header()
    fronts = {b"PK\x03\x04": NotSupported, b"\x80\x04": NotSupported, b"GGUF\x03" + b"\xff" * 19: BrokenModelFile}
    holders = []
    for number, front in enumerate(fronts):
        wrong = tmp_path / f"wrong-{number}.gguf"
        wrong.write_bytes(front + tiny.read_bytes()[len(front) :])
        holders.append(await here.holder(await published(wrong, f"wrong-{number}", header=true)))
    async with here.home(replace(SETTINGS, parallel=3)) as home:
        ends = await asyncio.gather(*(home.pull(f"wrong-{n}") for n in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [*fronts.values()]
        assert await home.library.files.all() == ()
        assert list(home.library.files.folder.iterdir()) == []
    assert here.circle.shared == []
    assert all(holder.node.now(holder.model.root).uploaded < 3 * MIB for holder in holders)


async def test_a_statement_that_says_something_else_than_the_file_is_refused(
    here: Town, tiny: Path, tmp_path: Path
) -> None:
    other = await published(tiny_llama(tmp_path / "other.gguf", layers=3, embedding=64))
    await here.holder(await published(tiny, "lie", header=other.header()))
    await here.holder(await published(tiny, "wrong", sha256="0" * 64))
    async with here.home() as home:
        with pytest.raises(VerificationFailed, match="is not what its publisher says"):
            await home.pull("lie", layers="header")
        with pytest.raises(VerificationFailed, match="contradicts itself"):
            await home.pull("wrong")
        assert await home.library.list() == ()
        assert await home.library.files.all() == ()


async def test_it_waits_for_a_holder_who_left_and_goes_on_when_one_returns(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    holder.node.torrents.limit(upload=3 * MIB, download=0)
    async with here.home() as home:
        pull = await home.pulls.start("tiny")
        await home.until(pull.id, lambda pull: pull.bytes > model.file.size // 4)
        holder.leave()
        waiting = await home.until(pull.id, lambda pull: pull.state == "queued")
        assert waiting.code == "peers_unreachable"
        assert holder.id.hex()[:8] in waiting.error
        holder.give()
        holder.node.torrents.limit(upload=0, download=0)
        holder.online = True
        async with asyncio.timeout(DEADLINE):
            done = await home.pulls.wait(pull.id)
        assert (done.state, done.error, done.code) == ("done", "", "")


async def test_what_nobody_tells_any_more_waits_and_goes_on_when_somebody_does(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    holder.node.torrents.limit(upload=3 * MIB, download=0)
    async with here.home() as home:
        pull = await home.pulls.start("tiny")
        await home.until(pull.id, lambda pull: pull.bytes > model.file.size // 4)
        here.circle.versions.clear()
        holder.leave()
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                await here.circle.missed.acquire()
        waiting = home.pulls.get(pull.id)
        assert (waiting.state, waiting.code) == ("paused", "not_found")
        assert home.pulls.versions() == {model.opened.digest.hex()}
        here.circle.versions.append(model.opened)
        holder.give()
        holder.node.torrents.limit(upload=0, download=0)
        holder.online = True
        await home.until(pull.id, lambda pull: pull.state == "done")
        assert not home.pulls.versions()


async def test_those_who_wait_for_a_holder_keep_no_place(here: Town, model: Model, tmp_path: Path) -> None:
    other = await published(tiny_llama(tmp_path / "other.gguf"), "other")
    holder = await here.holder(model)
    holder.leave()
    await here.holder(other)
    async with here.home(replace(SETTINGS, parallel=1)) as home:
        waiting = await home.pulls.start("tiny")
        await home.pull("other", layers="header")
        assert home.pulls.get(waiting.id).state in ("queued", "checking", "fetching")


async def test_a_node_that_stopped_goes_on_where_it_was(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    holder.node.torrents.limit(upload=3 * MIB, download=0)
    async with here.home() as home:
        pull = await home.pulls.start("tiny")
        await home.until(pull.id, lambda pull: pull.bytes > model.file.size // 2)
    holder.node.torrents.limit(upload=0, download=0)
    async with here.home(release=lambda _: None) as home:
        async with asyncio.timeout(DEADLINE):
            await home.pulls.wait(pull.id)
        assert (await home.library.resolve("tiny")).path.read_bytes() == model.path.read_bytes()
        assert home.received(model) < model.file.size * 0.85


async def test_too_little_disk_is_said_before_anybody_is_asked(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    async with here.home(replace(SETTINGS, reserve_bytes=MIB), free_disk=lambda _: model.file.size) as home:
        with pytest.raises(DiskFull):
            await home.pull("tiny")
        preview = await home.pulls.preview("tiny")
        assert (preview.fits_disk, preview.holders, preview.version) == (False, 1, model.opened.digest.hex())
        assert preview.header.architecture == "llama"
        assert (await home.pulls.preview("tiny", layers="2-4")).fetched < model.file.size / 3
    assert holder.asked == 0


async def test_a_licence_is_agreed_to_once(here: Town, model: Model) -> None:
    await here.holder(model)
    here.circle.accepted.clear()
    async with here.home() as home:
        assert not (await home.pulls.preview("tiny")).licence_accepted
        with pytest.raises(LicenceNotAccepted, match="--accept-licence"):
            await home.pulls.start("tiny")
        assert home.pulls.list() == ()
        await home.pull("tiny", layers="header", accept_licence=True)
        assert (await home.pull("tiny", layers="header", name="again")).state == "done"


async def test_a_name_that_means_several_versions_is_never_guessed(here: Town, model: Model, tmp_path: Path) -> None:
    other = await published(tiny_llama(tmp_path / "other.gguf"))
    await here.holder(model)
    await here.holder(other)
    async with here.home() as home:
        with pytest.raises(Conflict, match="means 2 versions"):
            await home.pulls.start("tiny")
        await home.pull(other.opened.digest.hex())
        assert (await home.library.resolve("tiny")).path.read_bytes() == other.path.read_bytes()
        with pytest.raises(Conflict, match="another model"):
            await home.pulls.start(model.opened.digest.hex())


async def test_pause_resume_limit_and_cancel(here: Town, model: Model) -> None:
    await here.holder(model)
    async with here.home() as home:
        pull = await home.pulls.start("tiny", limit_bytes_per_s=2 * MIB, priority=2)
        await home.until(pull.id, lambda pull: pull.bytes > MIB)
        with pytest.raises(Conflict, match="being pulled"):
            await home.pulls.start("tiny", layers="2-4")
        paused = await home.pulls.pause(pull.id)
        assert (paused.state, paused.priority, paused.limit_bytes_per_s) == ("paused", 2, 2 * MIB)
        assert home.fetch.torrents.all() == ()
        record = await home.library.files.get(model.root)
        assert record is not None
        assert record.pieces
        await home.pulls.resume(pull.id)
        changed = await home.pulls.change(pull.id, limit_bytes_per_s=0)
        assert (changed.priority, changed.limit_bytes_per_s) == (2, 0)
        async with asyncio.timeout(DEADLINE / 3):
            await home.pulls.wait(pull.id)
        slow = await home.pulls.start("tiny", name="slow")
        assert slow.state != "failed"


async def test_what_is_cancelled_leaves_nothing(here: Town, model: Model) -> None:
    await here.holder(model)
    async with here.home() as home:
        for least, limit in ((0, MIB // 4), (MIB, 2 * MIB)):  # while the header comes, and after that
            pull = await home.pulls.start("tiny", limit_bytes_per_s=limit)
            await home.until(pull.id, lambda pull, least=least: pull.bytes > least)  # type: ignore[misc]
            assert await home.pulls.cancel(pull.id) > least
            assert await home.library.files.all() == ()
            assert list(home.library.files.folder.iterdir()) == []
            assert home.fetch.torrents.all() == ()


async def test_what_was_cancelled_is_given_away_to_nobody_should_it_come_from_elsewhere(
    here: Town, model: Model
) -> None:
    await here.holder(model)
    async with here.home() as home:
        pull = await home.pulls.start("tiny", limit_bytes_per_s=2 * MIB)
        await home.until(pull.id, lambda pull: here.circle.shared and pull.bytes > 0)
        await home.pulls.cancel(pull.id)
        assert here.circle.shared == []


async def test_cancelling_leaves_what_another_download_or_a_part_of_the_same_file_needs(
    here: Town, model: Model
) -> None:
    same = msgspec.structs.replace(model.version, name="same")
    await here.holder(model)
    await here.holder(replace(model, opened=open_statement(sign_version(PUBLISHER, same))))
    async with here.home() as home:
        part = await home.pull("tiny", layers="2-4")
        other = await home.pulls.start("same", limit_bytes_per_s=MIB)
        await home.until(other.id, lambda pull: pull.bytes > part.bytes)
        await home.pulls.cancel(other.id)
        record = await home.library.files.get(model.root)
        assert record is not None
        assert covers(record.pieces or (), part_pieces(model.header(), Part(2, 4, False)))
        assert Path(record.path).exists()
        await home.pull("tiny")
        await home.library.remove("tiny")
        again = await home.pulls.start("tiny", limit_bytes_per_s=MIB)
        front = bytes_in(part_pieces(model.header(), HEADER), model.file.size)
        await home.until(again.id, lambda pull: pull.bytes > front)
        await home.pulls.cancel(again.id)
        await home.pulls.cancel(part.id)
        assert await home.library.files.all() != (), "it was a part that somebody asked for"


async def test_a_statement_that_gives_a_file_another_size_changes_nothing_of_it(here: Town, model: Model) -> None:
    await here.holder(model)
    lie = await published(model.path, "lie", size=model.file.size + 5 * MIB)
    liar = await here.holder(model)
    liar.model = lie
    here.circle.versions.append(lie.opened)
    async with here.home() as home:
        await home.pull("tiny", layers="2-4")
        before = await home.library.files.get(model.root)
        with pytest.raises(VerificationFailed, match="is not what its publisher says"):
            await home.pull("lie")
        assert await home.library.files.get(model.root) == before
        await home.pull("tiny")
        with pytest.raises(VerificationFailed, match="is not what its publisher says"):
            await home.pull("lie", name="other")


async def test_the_parts_of_a_model_in_several_files_are_fetched_in_turn(
    here: Town, tiny: Path, tmp_path: Path
) -> None:
    one, other = await published(tiny), await published(tiny_llama(tmp_path / "other.gguf"))
    both = msgspec.structs.replace(one.version, name="both", files=(one.file, other.file))
    opened = open_statement(sign_version(PUBLISHER, both))
    here.circle.versions.append(opened)
    for model in (one, other):
        await here.holder(replace(model, opened=opened))
    async with here.home() as home:
        pull = await home.pull("both")
        assert pull.bytes == pull.total == one.file.size + other.file.size
        assert {record.root for record in await home.library.files.all()} == {one.root, other.root}


async def test_the_catalogue_is_served_by_members_and_by_its_origins_where_they_lie(
    here: Town, model: Model, tmp_path: Path
) -> None:
    async with file_server() as server:
        url = server.serve("/o/r/resolve/main/tiny.gguf", model.path.read_bytes())
        offer = msgspec.structs.replace(
            next(iter(builtin())),
            name="from-members",
            size=model.file.size,
            sha256=model.file.sha256,
            wheels=(),
            aliases=(),
            sources=(url,),
        )
        other = tiny_llama(tmp_path / "other.gguf", layers=12, embedding=160, ffn=320, seed=1)
        lied = await published(other, "lied", sha256="1" * 64)
        lied_about = msgspec.structs.replace(offer, name="from-origins", sha256="1" * 64)
        liar = await here.holder(lied)
        await here.holder(model)
        async with here.home(catalogue=Catalogue((offer, lied_about))) as home:
            pull = await home.pull("from-members")
            assert "members" in pull.origin
            assert server.requests == []
            assert lied.file.size == model.file.size
            with pytest.raises(VerificationFailed):
                await home.pull("from-origins")
            assert server.requests != [], "it was asked after what members sent was wrong"
            await liar.node.until(lambda: liar.node.now(lied.root).uploaded > 0)
            assert [entry.record.name for entry in await home.library.list()] == ["from-members"]
            await home.pull("from-members", layers="2-3", name="part")


async def test_a_disk_that_is_gone_pauses_a_pull_until_it_is_back(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    holder.node.torrents.limit(upload=3 * MIB, download=0)
    async with here.home() as home:
        pull = await home.pulls.start("tiny")
        await home.until(pull.id, lambda pull: pull.bytes > 2 * MIB)
        await home.pulls.pause(pull.id)
        disk = home.library.files.folder
        away = disk.rename(disk.with_name("away"))
        await home.pulls.resume(pull.id)
        paused = await home.until(pull.id, lambda pull: pull.state == "paused")
        assert (paused.code, "is not at" in paused.error) == ("not_found", True)
        holder.node.torrents.limit(upload=0, download=0)
        disk.rmdir()
        away.rename(disk)
        async with asyncio.timeout(DEADLINE):
            assert (await home.until(pull.id, lambda pull: pull.state == "done")).error == ""
        assert (await home.library.resolve("tiny")).path.read_bytes() == model.path.read_bytes()
