from __future__ import annotations

import asyncio
import hashlib
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from file_server import FileServer, file_server

from pares.errors import (
    BrokenModelFile,
    Conflict,
    DiskFull,
    ModelNotFound,
    NotFound,
    NotSupported,
    OriginUnreachable,
    VerificationFailed,
)
from pares.store.database import Database
from pares.store.events import Events
from pares.store.pulls import PullTable
from pares.swarm.catalogue import Catalogue, builtin
from pares.swarm.disk import free_bytes
from pares.swarm.library import Library
from pares.swarm.pulls import Pull, Pulls
from pares.swarm.settings import Settings
from tiny import tiny_llama

SETTINGS = Settings(reserve_bytes=0, retry_s=0.01, retries=3, timeout_s=5, disk_recheck_s=0.05)
DEADLINE = 20


@dataclass
class Node:
    pulls: Pulls
    library: Library
    events: Events
    home: Path

    async def until(self, pull_id: str, state: str) -> Pull:
        changes = self.events.subscribe()
        async with asyncio.timeout(DEADLINE):
            while (pull := self.pulls.get(pull_id)).state != state:
                await anext(changes)
        return pull

    async def arrived(self, bytes_: int) -> None:
        """Wait until so many bytes are there: what nobody tells when the next ones are late."""
        async with asyncio.timeout(DEADLINE):
            while self.pulls.list()[0].bytes < bytes_:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def partial_bytes(self) -> int:
        return _size(self.home / "models/partial")


@asynccontextmanager
async def node(
    home: Path, settings: Settings = SETTINGS, catalogue: Catalogue | None = None, **options: object
) -> AsyncIterator[Node]:
    async with Database(home / "node.db") as database:
        events = await Events.open(database)
        async with (
            Library(database, home / "models", events, catalogue) as library,
            Pulls(library, settings, events, **options) as pulls,  # type: ignore[arg-type]
        ):
            yield Node(pulls, library, events, home)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """About 5 MB."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return tiny_llama(path, embedding=256, ffn=768).read_bytes()


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_file_is_fetched_checked_and_listed(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/Tiny-Model.gguf", model)
    async with node(tmp_path) as home:
        pull = await home.pulls.wait((await home.pulls.start(f"{url}#sha256={sha256(model)}")).id)
        assert (pull.state, pull.name, pull.bytes, pull.total) == ("done", "tiny-model", len(model), len(model))
        source = await home.library.resolve("tiny-model")
        assert source.path.read_bytes() == model
        assert source.sha256 == sha256(model)
        assert source.path.parent == tmp_path / "models"
        (entry,) = await home.library.list()
        assert (entry.record.architecture, entry.record.size, entry.record.linked) == ("llama", len(model), False)
        assert home.partial_bytes() == 0
        assert (await home.pulls.start(f"{url}#sha256={sha256(model)}")).state == "done", "it is here already"
    assert len(server.starts("/Tiny-Model.gguf")) == 1


async def test_broken_connections_cost_nothing_that_arrived(tmp_path: Path, server: FileServer, model: bytes) -> None:
    mega = 1 << 20
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'}, drop_after=[2 * mega, mega, mega // 2])
    async with node(tmp_path) as home:
        await home.pulls.wait((await home.pulls.start(url)).id)
        assert (await home.library.resolve("m")).path.read_bytes() == model
    starts = server.starts("/m.gguf")
    assert len(starts) == 4
    assert starts[0] is None
    assert [start or 0 for start in starts] == sorted(start or 0 for start in starts)
    assert all(start and start >= mega for start in starts[1:])


async def test_a_server_without_ranges_is_read_from_the_start_again(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", model, ranges=False, headers={"ETag": '"1"'}, drop_after=[2 << 20])
    async with node(tmp_path) as home:
        await home.pulls.wait((await home.pulls.start(url)).id)
        assert (await home.library.resolve("m")).path.read_bytes() == model


async def test_it_gives_up_after_tries_without_progress(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, drop_after=[0] * 20)
    async with node(tmp_path) as home:
        with pytest.raises(OriginUnreachable):
            await home.pulls.wait((await home.pulls.start(url)).id)
        (pull,) = home.pulls.list()
        assert (pull.state, pull.code) == ("failed", "origin_unreachable")
    assert len(server.starts("/m.gguf")) == SETTINGS.retries + 1


async def test_a_busy_server_is_asked_again(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, headers={"Retry-After": "0"})
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        server.files["/m.gguf"].refuse = []
        await home.pulls.wait(pull.id)
        await home.library.remove("m")
        server.files["/m.gguf"].refuse = [503]
        with pytest.raises(OriginUnreachable, match="503"):
            await home.pulls.wait((await home.pulls.start(url)).id)
        await home.pulls.resume(home.pulls.list()[0].id)
        await home.pulls.wait(home.pulls.list()[0].id)


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (401, OriginUnreachable), (418, OriginUnreachable)])
async def test_refusals_have_names(tmp_path: Path, server: FileServer, status: int, error: type[Exception]) -> None:
    url = server.serve("/m.gguf", b"", status=status)
    async with node(tmp_path) as home:
        with pytest.raises(error, match=str(status)):
            await home.pulls.wait((await home.pulls.start(url)).id)
        with pytest.raises(error):
            await home.pulls.preview(url)


async def test_a_stalled_pull_pauses_resumes_and_cancels_at_once(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'}, stall_at=2 << 20)
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        await home.arrived(2 << 20)
        before = time.monotonic()
        paused = await home.pulls.pause(pull.id)
        assert time.monotonic() - before < 1
        assert (paused.state, paused.code) == ("paused", "")
        assert home.partial_bytes() >= 2 << 20
        server.stalled.clear()
        await home.pulls.resume(pull.id)
        await asyncio.wait_for(server.stalled.wait(), DEADLINE)
        before = time.monotonic()
        assert await home.pulls.cancel(pull.id) >= 2 << 20
        assert time.monotonic() - before < 1
        assert home.pulls.list() == ()
        assert home.partial_bytes() == 0
        with pytest.raises(NotFound):
            await home.pulls.pause(pull.id)
    assert server.starts("/m.gguf")[1] == 2 << 20


async def test_a_stopped_node_goes_on_when_it_starts_again(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'}, stall_at=3 << 20)
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        await home.arrived(3 << 20)
    server.files["/m.gguf"].stall_at = None
    async with node(tmp_path) as home:
        assert (await home.pulls.wait(pull.id)).state == "done"
        assert (await home.library.resolve("m")).path.read_bytes() == model
    assert server.starts("/m.gguf")[1] == 3 << 20


async def test_a_file_that_was_replaced_meanwhile_is_fetched_anew(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", b"\0" + model[1:], headers={"ETag": '"old"'}, stall_at=3 << 20)
    server.files["/m.gguf"].body = model[:200_000] + bytes(len(model) - 200_000)
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        await home.arrived(3 << 20)
        await home.pulls.pause(pull.id)
        server.serve("/m.gguf", model, headers={"ETag": '"new"'})
        await home.pulls.resume(pull.id)
        await home.pulls.wait(pull.id)
        assert (await home.library.resolve("m")).path.read_bytes() == model


async def test_a_file_of_another_size_in_mid_transfer_is_named(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'}, stall_at=2 << 20, drop_after=[3 << 20])
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        await asyncio.wait_for(server.stalled.wait(), DEADLINE)
        server.files["/m.gguf"].body = model + b"more"
        server.release.set()
        with pytest.raises(VerificationFailed, match="before"):
            await asyncio.wait_for(home.pulls.wait(pull.id), DEADLINE)


async def test_wrong_bytes_never_appear_and_are_thrown_away(tmp_path: Path, server: FileServer, model: bytes) -> None:
    wrong = model[:-1] + bytes([model[-1] ^ 1])
    url = server.serve("/m.gguf", wrong)
    async with node(tmp_path) as home:
        with pytest.raises(VerificationFailed):
            await home.pulls.wait((await home.pulls.start(f"{url}#sha256={sha256(model)}")).id)
        assert await home.library.list() == ()
        assert home.partial_bytes() == 0
        server.serve("/m.gguf", model)
        await home.pulls.wait((await home.pulls.start(f"{url}#sha256={sha256(model)}")).id)


@pytest.mark.parametrize(
    ("front", "error"),
    [
        (b"<!DOCTYPE html><html>", BrokenModelFile),
        (b"PK\x03\x04", NotSupported),
        (b"\x80\x02}q\x00", NotSupported),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, BrokenModelFile),
    ],
)
async def test_what_is_no_model_is_refused_while_it_is_still_coming(
    tmp_path: Path, server: FileServer, front: bytes, error: type[Exception]
) -> None:
    url = server.serve("/m.gguf", front + bytes(50_000_000), stall_at=4 << 20)
    async with node(tmp_path) as home:
        with pytest.raises(error):
            await asyncio.wait_for(home.pulls.wait((await home.pulls.start(url)).id), DEADLINE)
        assert home.partial_bytes() == 0
        assert await home.library.list() == ()


async def test_a_truncated_model_is_refused(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model[: len(model) // 2])
    async with node(tmp_path) as home:
        with pytest.raises(BrokenModelFile):
            await home.pulls.wait((await home.pulls.start(url)).id)


async def test_too_little_disk_is_said_before_the_first_byte(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model)
    settings = replace(SETTINGS, reserve_bytes=1_000_000)
    async with node(tmp_path, settings, free_disk=lambda _: len(model) + 900_000) as home:
        pull = await home.pulls.start(url)
        with pytest.raises(DiskFull, match="Free 100 kB") as full:
            await home.pulls.wait(pull.id)
        assert full.value.fields["missing"] == 100_000
        assert (home.pulls.get(pull.id).state, home.pulls.get(pull.id).code) == ("failed", "disk_full")
        preview = await home.pulls.preview(url)
        assert (preview.fits_disk, preview.size, preview.disk_needed) == (False, len(model), len(model) + 1_000_000)
    assert server.starts("/m.gguf") == [None], "only the preview's look at the header"


@pytest.mark.parametrize("logged", [0, 3_500_000], ids=["for the model", "for the database too"])
async def test_a_disk_that_fills_up_pauses_the_pull_until_there_is_room(
    tmp_path: Path, server: FileServer, model: bytes, logged: int
) -> None:
    # RLIMIT_FSIZE makes the kernel refuse the write, as a file system does that is full.
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    free = 0
    async with node(tmp_path, free_disk=lambda folder: free or free_bytes(folder)) as home:
        # So much in sqlite's write-ahead log already, and it cannot grow either.
        await home.library.database.run(lambda c: c.execute(f"CREATE TABLE full AS SELECT zeroblob({logged})"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
        try:
            pull = await home.until((await home.pulls.start(url)).id, "paused")
            free = 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert pull.code == "disk_full"
        assert "kept" in pull.error
        assert home.partial_bytes() == 3_000_000
        free = 0
        await home.until(pull.id, "done")
        assert (await home.library.resolve("m")).path.read_bytes() == model
    assert server.starts("/m.gguf")[1:] == [3_000_000]


async def test_a_killed_node_resumes_where_it_was(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'}, stall_at=4 << 20)
    script = Path(__file__).with_name("pull_until_killed.py")
    child = await asyncio.create_subprocess_exec(sys.executable, str(script), str(tmp_path), url)
    async with asyncio.timeout(DEADLINE):
        await server.stalled.wait()
        while (arrived := _size(tmp_path / "models/partial")) < 3 << 20:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    server.files["/m.gguf"].stall_at = None
    async with node(tmp_path) as home:
        (pull,) = home.pulls.list()
        await home.pulls.wait(pull.id)
        source = await home.library.resolve("m")
        assert source.path.read_bytes() == model
        assert source.sha256 == sha256(model)
    (start,) = server.starts("/m.gguf")[1:]
    assert start is not None
    assert start >= arrived


async def test_a_node_killed_between_the_name_and_the_file_ends_what_it_began(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", model, headers={"ETag": '"1"'})
    async with node(tmp_path) as home:
        pull = await home.pulls.wait((await home.pulls.start(url)).id)
        partial = tmp_path / "models/partial" / pull.id
        partial.mkdir(parents=True)
        (tmp_path / "models/m.gguf").rename(partial / "model")
        record = await PullTable(home.library.database).get(pull.id)
        assert record is not None
        await PullTable(home.library.database).save(msgspec.structs.replace(record, state="verifying"))
    async with node(tmp_path) as home:
        await home.pulls.wait(pull.id)
        assert (await home.library.resolve("m")).path.read_bytes() == model
    assert len(server.starts("/m.gguf")) == 1


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


async def test_only_so_many_run_at_once_and_the_rest_wait(tmp_path: Path, server: FileServer, model: bytes) -> None:
    urls = [server.serve(f"/m{n}.gguf", model, stall_at=1 << 20) for n in range(4)]
    async with node(tmp_path, replace(SETTINGS, parallel=2)) as home:
        pulls = [await home.pulls.start(url) for url in urls]
        for pull in pulls[:2]:
            await home.until(pull.id, "fetching")
        assert [home.pulls.get(pull.id).state for pull in pulls[2:]] == ["queued", "queued"]
        server.release.set()
        async with asyncio.timeout(DEADLINE):
            for pull in pulls:
                await home.pulls.wait(pull.id)
        assert len(await home.library.list()) == 4


async def test_progress_is_told_at_most_four_times_a_second(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, stall_at=4 << 20)
    async with node(tmp_path) as home:
        start = home.events.last_id
        pull = await home.pulls.start(url)
        await asyncio.wait_for(server.stalled.wait(), DEADLINE)
        server.release.set()
        begun = time.monotonic()
        await home.pulls.wait(pull.id)
        took = time.monotonic() - begun
        home.events.close()
        events = [event async for event in home.events.subscribe(start)]
    states = [event.data["state"] for event in events if event.kind == "pull"]
    assert [state for n, state in enumerate(states) if n == 0 or states[n - 1] != state] == [
        "queued",
        "checking",
        "fetching",
        "verifying",
        "done",
    ]
    assert states.count("fetching") <= 4 + took * 4
    assert {"bytes", "total", "bytes_per_s", "eta_s", "id", "name"} <= set(events[-1].data)


async def test_offline_asks_nobody(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model)
    async with node(tmp_path, replace(SETTINGS, index_url=server.url, hub_url=server.url), offline=True) as home:
        for source in (url, "hf:a/b/c.gguf", "smollm2"):
            with pytest.raises(OriginUnreachable, match="offline"):
                await home.pulls.wait((await home.pulls.start(source)).id)
        file = tmp_path / "local.gguf"
        file.write_bytes(model)
        await home.pulls.wait((await home.pulls.start(str(file))).id)
    assert server.requests == []


async def test_a_local_file_is_copied(tmp_path: Path, model: bytes) -> None:
    file = tmp_path / "My Model.gguf"
    file.write_bytes(model)
    async with node(tmp_path) as home:
        await home.pulls.wait((await home.pulls.start(str(file))).id)
        file.unlink()
        assert (await home.library.resolve("my-model")).path.read_bytes() == model
        with pytest.raises(NotFound):
            await home.pulls.wait((await home.pulls.start("/nowhere/at/all.gguf")).id)


async def test_the_hub_is_trusted_for_its_hash_and_pages_are_understood(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    server.serve("/storage/blob", model)
    path = "/owner/repo-GGUF/resolve/main/sub/Model-Q4.gguf"
    server.serve(
        path,
        b"elsewhere",
        status=302,
        headers={"Location": "/storage/blob", "X-Linked-Etag": f'"{sha256(model)}"', "X-Linked-Size": str(len(model))},
    )
    async with node(tmp_path, replace(SETTINGS, hub_url=server.url)) as home:
        preview = await home.pulls.preview("hf:owner/repo-GGUF/sub/Model-Q4.gguf")
        assert (preview.sha256, preview.name, preview.size) == (sha256(model), "model-q4", len(model))
        assert preview.header.architecture == "llama"
        page = f"{server.url}/owner/repo-GGUF/blob/main/sub/Model-Q4.gguf?download=true"
        await home.pulls.wait((await home.pulls.start(page)).id)
        assert (await home.library.resolve("model-q4")).sha256 == sha256(model)
        for nonsense in ("hf:owner/repo", "hf:owner", "hf:a/b/../c"):
            with pytest.raises(Exception, match="does not name a file"):
                await home.pulls.start(nonsense)


async def test_redirects_end_and_never_leave_https(tmp_path: Path, server: FileServer, model: bytes) -> None:
    round_about = server.serve("/a.gguf", b"", status=302, headers={"Location": "/a.gguf"})
    down = server.serve("/b.gguf", b"", status=302, headers={"Location": "http://192.0.2.1/b.gguf"})
    async with node(tmp_path) as home:
        with pytest.raises(OriginUnreachable, match="redirects more than"):
            await home.pulls.wait((await home.pulls.start(round_about)).id)
        with pytest.raises(OriginUnreachable, match="not https"):
            await home.pulls.wait((await home.pulls.start(down)).id)
        with pytest.raises(OriginUnreachable, match="not https"):
            await home.pulls.wait((await home.pulls.start("http://192.0.2.1/c.gguf")).id)


async def test_a_preview_reads_the_header_and_no_more(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model + bytes(40_000_000), stall_at=5 << 20)
    async with node(tmp_path) as home:
        preview = await asyncio.wait_for(home.pulls.preview(url), DEADLINE)
        assert (preview.header.architecture, preview.header.block_count) == ("llama", 2)
        assert preview.size == len(model) + 40_000_000
        assert home.pulls.list() == ()
        assert home.partial_bytes() == 0


async def test_names_that_are_taken_are_not_overwritten(tmp_path: Path, server: FileServer, model: bytes) -> None:
    one, two = server.serve("/x/m.gguf", model), server.serve("/y/m.gguf", model)
    async with node(tmp_path) as home:
        await home.pulls.wait((await home.pulls.start(one)).id)
        with pytest.raises(Conflict):
            await home.pulls.start(two)
        await home.pulls.wait((await home.pulls.start(two, "other")).id)
        assert len(home.pulls.list()) == len(await PullTable(home.library.database).list()) == 2
        with pytest.raises(ModelNotFound) as unknown:
            await home.pulls.start("smolm2-135m-instruct")
        assert "smollm2-135m-instruct" in unknown.value.nearest


async def test_a_name_is_pulled_from_one_source_at_a_time(tmp_path: Path, server: FileServer, model: bytes) -> None:
    wrong, slow = server.serve("/wrong/m.gguf", b"", status=404), server.serve("/slow/m.gguf", model, stall_at=1 << 20)
    other = server.serve("/other/m.gguf", model)
    async with node(tmp_path) as home:
        with pytest.raises(NotFound):
            await home.pulls.wait((await home.pulls.start(wrong)).id)
        pull = await home.pulls.start(slow)
        assert (await home.pulls.start(f" {slow} ")).id == pull.id
        with pytest.raises(Conflict, match="being pulled from"):
            await home.pulls.start(other)
        assert [each.id for each in home.pulls.list()] == [pull.id], "the failed one made way"
        waiting = asyncio.create_task(home.pulls.wait(pull.id))
        await home.until(pull.id, "fetching")
        await home.pulls.cancel(pull.id)
        with pytest.raises(Conflict, match="cancelled"):
            await asyncio.wait_for(waiting, DEADLINE)


async def test_removing_takes_partial_downloads_along(tmp_path: Path, server: FileServer, model: bytes) -> None:
    url = server.serve("/m.gguf", model, stall_at=2 << 20)
    async with node(tmp_path) as home:
        await home.pulls.start(url)
        await home.arrived(2 << 20)
        removed = await home.pulls.remove("M")
        assert removed.bytes_freed >= 2 << 20
        assert home.partial_bytes() == 0
        with pytest.raises(ModelNotFound):
            await home.pulls.remove("m")
        server.release.set()
        await home.pulls.wait((await home.pulls.start(url)).id)
        assert (await home.pulls.remove("m")).bytes_freed >= len(model)
        assert list((tmp_path / "models").glob("*.gguf")) == []


async def test_another_origin_takes_over_where_one_fails(tmp_path: Path, server: FileServer, model: bytes) -> None:
    bad, good = "/o/r/resolve/main/bad.gguf", "/o/r/resolve/main/good.gguf"
    server.serve(bad, model, drop_after=[3 << 20] + [0] * 20)
    server.serve(good, model)
    offer = msgspec.structs.replace(
        next(iter(builtin())),
        name="tiny",
        size=len(model),
        sha256=sha256(model),
        wheels=(),
        sources=("hf:o/r/missing.gguf", "hf:o/r/bad.gguf", "hf:o/r/good.gguf"),
    )
    async with node(tmp_path, replace(SETTINGS, hub_url=server.url), Catalogue((offer,))) as home:
        await home.pulls.wait((await home.pulls.start("tiny")).id)
        assert (await home.library.resolve("tiny")).path.read_bytes() == model
    (start,) = server.starts(good)
    assert start is not None, "it goes on where the other origin left off"
    assert start >= 2 << 20


async def test_those_who_turn_a_pull_at_the_same_time_take_turns(
    tmp_path: Path, server: FileServer, model: bytes
) -> None:
    url = server.serve("/m.gguf", model, stall_at=len(model) // 2)
    async with node(tmp_path) as home:
        pull = await home.pulls.start(url)
        await home.arrived(len(model) // 4)
        await asyncio.gather(*(home.pulls.pause(pull.id) for _ in range(3)))
        await asyncio.gather(*(home.pulls.resume(pull.id) for _ in range(3)))
        ends = await asyncio.gather(*(home.pulls.cancel(pull.id) for _ in range(3)), return_exceptions=True)
        assert [type(end) for end in ends] == [int, NotFound, NotFound]
        assert home.partial_bytes() == 0
