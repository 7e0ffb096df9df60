from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pares.errors import (
    BadRequest,
    BrokenModelFile,
    Conflict,
    ModelNotFound,
    NotFound,
    NotSupported,
    VerificationFailed,
)
from pares.store.database import Database
from pares.store.events import Events
from pares.store.models import ModelRecord
from pares.swarm.library import Library
from tiny import tiny_bert, tiny_llama, tiny_lora


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Library]:
    async with Database(home / "node.db") as database, Library(database, home / "models", Events()) as library:
        yield library


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with opened(tmp_path) as running:
        yield running


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tiny_llama(tmp_path / "elsewhere" / "Base Model.gguf", embedding=64, ffn=64)


async def test_an_import_links_and_hashes_in_the_background(library: Library, base: Path) -> None:
    assert (await library.import_path(base)).added == ("base-model",)
    assert (await library.import_path(base)).known == ("base-model",)
    await asyncio.wait_for(library.settle(), 10)
    entry = await library.get("BASE-MODEL")
    assert (entry.record.linked, entry.record.path, entry.problem) == (True, str(base), "")
    assert entry.record.sha256 == sha256(base.read_bytes()).hexdigest()
    assert (entry.record.architecture, entry.record.quantization) == ("llama", "F32")
    assert entry.record.parameters > 0
    assert os.listdir(library.folder) == []


async def test_hashing_goes_on_after_a_restart(tmp_path: Path, base: Path) -> None:
    async with opened(tmp_path) as library:
        await library.import_path(base)
    async with opened(tmp_path) as library:
        await asyncio.wait_for(library.settle(), 10)
        assert (await library.resolve("base-model")).sha256 == sha256(base.read_bytes()).hexdigest()


async def test_a_named_pipe_is_refused_and_keeps_nobody_waiting(library: Library, base: Path) -> None:
    os.mkfifo(base.parent / "pipe.gguf")
    async with asyncio.timeout(10):
        found = await library.import_path(base.parent)
    assert found.added == ("base-model",)
    assert "is not a file" in found.refused[str(base.parent / "pipe.gguf")]


async def test_a_folder_is_searched_and_what_is_refused_is_said(library: Library, base: Path) -> None:
    folder = base.parent
    tiny_llama(folder / "deep.gguf", embedding=64, ffn=64, seed=2)
    (folder / "sub" / "blobs").mkdir(parents=True)
    tiny_llama(folder / "sub" / "base-model.gguf", embedding=64, ffn=64, seed=1)
    (folder / "sub" / "pytorch_model.bin").write_bytes(b"PK\x03\x04rest")
    (folder / "sub" / "old.pt").write_bytes(b"\x80\x02}q")
    (folder / "model.safetensors").write_bytes((64).to_bytes(8, "little") + b'{"a": 1}')
    (folder / "cut.gguf").write_bytes(base.read_bytes()[:5000])
    (folder / "notes.txt").write_text("nothing")
    (folder / "sub" / "again").symlink_to(folder)
    (folder / "sub" / "blobs" / f"sha256-{'a' * 64}").write_bytes((folder / "deep.gguf").read_bytes())
    imported = await library.import_path(folder)
    assert len(imported.added) == 4
    assert {"base-model", "base-model-2", "deep"} < set(imported.added)
    reasons = {Path(path).name: reason for path, reason in imported.refused.items()}
    assert set(reasons) == {"pytorch_model.bin", "old.pt", "model.safetensors", "cut.gguf"}
    assert "pickle" in reasons["old.pt"]
    assert "zip" in reasons["pytorch_model.bin"]
    assert "convert_hf_to_gguf" in reasons["model.safetensors"]
    assert len((await library.import_path(folder)).known) == 4


async def test_single_files_that_cannot_be_used_are_refused_by_name(library: Library, base: Path) -> None:
    for name, content, error in (
        ("x.ckpt", b"\x80\x04x", NotSupported),
        ("x.gguf", b"<html>", BrokenModelFile),
        ("y.gguf", b"version https://git-lfs.github.com/spec/v1", BrokenModelFile),
        ("z.gguf", b"", BrokenModelFile),
    ):
        path = base.with_name(name)
        path.write_bytes(content)
        with pytest.raises(error):
            await library.import_path(path)
    with pytest.raises(NotFound):
        await library.import_path(base.with_name("nothing"))
    with pytest.raises(BadRequest):
        await library.import_path(base.parent, "a-name")
    assert await library.list() == ()


async def test_adapters_are_known_as_such_and_worn_by_name(library: Library, base: Path) -> None:
    adapter = tiny_lora(base.with_name("pirate.gguf"), base)
    await library.import_path(base.parent)
    assert (await library.get("pirate")).record.kind == "adapter"
    source = await library.resolve("base-model+pirate")
    assert (source.name, source.path, source.adapter_path) == ("base-model+pirate", base, adapter)
    await library.copy("base-model+pirate", "captain")
    assert (await library.resolve("captain")).adapter_path == adapter


async def test_an_embedding_model_is_taken_too(library: Library, tmp_path: Path) -> None:
    assert (await library.import_path(tiny_bert(tmp_path / "embed.gguf"))).added == ("embed",)


async def test_removing_a_link_leaves_the_file(library: Library, base: Path) -> None:
    await library.import_path(base)
    removed = await library.remove("base-model")
    assert (removed.bytes_freed, removed.linked) == (0, (str(base),))
    assert base.is_file()
    with pytest.raises(ModelNotFound):
        await library.remove("base-model")


async def test_removing_says_what_it_would_break_and_what_it_freed(library: Library, base: Path) -> None:
    size = base.stat().st_size
    moved = Path(base.rename(library.folder / "incoming"))
    record = ModelRecord(name="own", kind="model", size=size, sha256="0" * 64)
    path = Path((await library.adopt(moved, record)).path)
    await library.copy("own", "alias")
    await library.create("made", "FROM alias\nSYSTEM hi")
    with pytest.raises(Conflict, match="alias, made would not work"):
        await library.remove("own")
    assert path.is_file()
    removed = await library.remove("own", force=True)
    assert set(removed.names) == {"own", "alias", "made"}
    assert removed.bytes_freed >= size
    assert not path.exists()
    assert await library.list() == ()


async def test_a_file_that_is_gone_is_shown_and_named(library: Library, base: Path) -> None:
    await library.import_path(base)
    await library.copy("base-model", "alias")
    base.rename(base.with_name("moved"))
    for entry in await library.list():
        assert "not at" in entry.problem
    with pytest.raises(NotFound, match="not there any more"):
        await library.resolve("alias")
    base.with_name("moved").rename(base)
    assert (await library.resolve("alias")).path == base
    base.write_bytes(base.read_bytes() + b"x")
    assert "bytes" in (await library.get("alias")).problem


async def test_a_lost_database_loses_no_model(tmp_path: Path, base: Path) -> None:
    async with opened(tmp_path) as library:
        incoming = Path(base.rename(library.folder / "incoming"))
        await library.adopt(incoming, ModelRecord(name="kept", kind="model", size=incoming.stat().st_size))
        (library.folder / "rubbish.gguf").write_bytes(b"rubbish")
    for file in tmp_path.glob("node.db*"):
        file.unlink()
    async with opened(tmp_path) as library:
        assert [entry.record.name for entry in await library.list()] == ["kept"]
        assert not (await library.get("kept")).record.linked


async def test_models_are_made_from_modelfiles_and_made_anew(library: Library, base: Path) -> None:
    adapter = tiny_lora(base.with_name("pirate.gguf"), base)
    text = f'FROM {base}\nADAPTER {adapter}\nPARAMETER temperature 0.5\nSYSTEM "Arr."\nTEMPLATE x'
    created = await library.create("captain:v1", text)
    assert len(created.warnings) == 1
    source = await library.resolve("Captain:v1")
    assert (source.path, source.adapter_path) == (base, adapter)
    assert (source.system, source.defaults) == ("Arr.", {"temperature": 0.5})
    await library.create("captain:v1", "FROM base-model\nPARAMETER temperature 0.9")
    source = await library.resolve("captain:v1")
    assert (source.adapter_path, source.system, source.defaults) == (None, "", {"temperature": 0.9})


async def test_models_are_not_made_from_themselves_nor_over_others(library: Library, base: Path) -> None:
    await library.import_path(base)
    await library.create("a", "FROM base-model")
    await library.create("b", "FROM a")
    for name, text in (("a", "FROM b"), ("a", "FROM a"), ("base-model", "FROM b")):
        with pytest.raises(Conflict):
            await library.create(name, text)
    with pytest.raises(ModelNotFound):
        await library.create("c", "FROM nothing")
    with pytest.raises(Conflict):
        await library.copy("a", "B")
    assert (await library.resolve("b")).path == base


async def test_verifying_finds_a_changed_byte(library: Library, base: Path) -> None:
    await library.import_path(base)
    await asyncio.wait_for(library.settle(), 10)
    seen: list[int] = []
    assert await library.verify("base-model", seen.append) == sha256(base.read_bytes()).hexdigest()
    assert seen[-1] == base.stat().st_size
    content = bytearray(base.read_bytes())
    content[-1] ^= 1
    base.write_bytes(content)
    with pytest.raises(VerificationFailed, match="has changed"):
        await library.verify("base-model")


async def test_a_taken_over_file_never_overwrites_another(library: Library, base: Path) -> None:
    second = tiny_llama(base.with_name("second"), embedding=64, ffn=64, seed=5)
    one = await library.adopt(base, ModelRecord(name="a:b", kind="model", sha256="1" * 64))
    two = await library.adopt(second, ModelRecord(name="a/b", kind="model", sha256="2" * 64))
    assert one.path != two.path
    assert Path(one.path).is_file()
    with pytest.raises(Conflict):
        await library.adopt(Path(two.path), ModelRecord(name="A:B", kind="model", sha256="3" * 64))
