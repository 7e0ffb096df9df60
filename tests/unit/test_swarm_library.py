from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
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
from pares.store.models import ModelRecord, Models
from pares.swarm.disk import used_bytes
from pares.swarm.library import Library
from pares.swarm.merkle import pieces
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


async def settled(library: Library) -> Library:
    await asyncio.wait_for(library.settle(), 10)
    return library


async def own(library: Library, base: Path, name: str) -> ModelRecord:
    """A model whose file was downloaded, hashed."""
    incoming = Path(shutil.copy(base, library.folder / "incoming"))
    await library.adopt(incoming, ModelRecord(name=name, kind="model", size=base.stat().st_size))
    return (await (await settled(library)).get(name)).record


async def test_every_file_gets_a_root_and_is_told_of(library: Library, base: Path) -> None:
    told: list[ModelRecord] = []
    library.on_file.append(told.append)
    await library.import_path(base)
    record = await own(library, base, "own")
    imported = (await library.get("base-model")).record
    assert imported.root == record.root == told[0].root != ""
    assert [each.name for each in told] == ["base-model", "own"]
    (file,) = await library.files.all()
    assert (file.root.hex(), file.sha256, file.linked) == (record.root, record.sha256, False)
    assert os.path.samefile(file.path, record.path)


async def test_a_model_listed_by_an_earlier_version_gets_its_root(tmp_path: Path, base: Path) -> None:
    async with opened(tmp_path) as library:
        await library.import_path(base)
        digest = sha256(base.read_bytes()).hexdigest()
        await settled(library)
        await Models(library.database).set_hashes(str(base), digest, "")
        await library.files.forget((await library.files.all())[0].root)
    async with opened(tmp_path) as library:
        record = (await (await settled(library)).get("base-model")).record
        assert record.root == (await library.files.all())[0].root.hex()


async def test_a_file_that_changed_while_the_node_was_down_keeps_its_old_hashes(tmp_path: Path, base: Path) -> None:
    async with opened(tmp_path) as library:
        await library.import_path(base)
        before = (await (await settled(library)).get("base-model")).record
    base.write_bytes(base.read_bytes()[:-1] + b"x")
    async with opened(tmp_path) as library:
        assert (await (await settled(library)).get("base-model")).record == before
        count = pieces(base.stat().st_size)
        with pytest.raises(VerificationFailed, match=f"piece {count - 1} of {count}"):
            await library.verify("base-model")


async def test_removing_the_last_name_frees_the_disk(library: Library, base: Path) -> None:
    one, two = await own(library, base, "one"), await own(library, base, "two")
    used = used_bytes(Path(one.path))
    assert os.path.samefile(one.path, two.path)
    assert (await library.remove("one")).bytes_freed == 0
    assert Path(two.path).is_file()
    assert (await library.remove("two")).bytes_freed == used
    assert os.listdir(library.folder / "files") == []
    assert await library.files.all() == ()


async def test_what_is_given_away_stays_when_its_name_goes(library: Library, base: Path) -> None:
    record = await own(library, base, "own")
    root = bytes.fromhex(record.root)
    library.keeps = lambda asked: asked == root
    assert (await library.remove("own")).bytes_freed == 0
    assert not Path(record.path).exists()
    assert (library.folder / "files" / record.root).read_bytes() == base.read_bytes()
    file = await library.files.get(root)
    assert file is not None
    again = await library.adopt_shared("again", file, origin="a circle", licence="MIT")
    assert (again.sha256, again.origin, again.licence, again.architecture) == (file.sha256, "a circle", "MIT", "llama")
    assert os.path.samefile(again.path, file.path)
    assert await library.adopt_shared("again", file) == again
    assert (await library.resolve("again")).sha256 == file.sha256
    library.keeps = lambda _: False
    assert (await library.remove("again")).bytes_freed > 0
    assert os.listdir(library.folder / "files") == []


async def test_where_there_are_no_links_models_are_kept_and_freed_too(
    library: Library, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    record = await own(library, base, "own")
    library.keeps = lambda _: True
    assert (await library.remove("own")).bytes_freed == 0
    (file,) = await library.files.all()
    assert file.path == str(library.folder / "files" / record.root)
    again = await library.adopt_shared("again", file)
    assert (again.path, again.linked) == (file.path, False)
    assert (await library.remove("again")).bytes_freed == 0
    await library.adopt_shared("third", file)
    library.keeps = lambda _: False
    assert (await library.remove("third")).bytes_freed > 0
    assert not Path(file.path).exists()


async def test_an_imported_file_counts_again_when_the_copy_beside_it_goes(library: Library, base: Path) -> None:
    await library.import_path(base)
    record = await own(library, base, "own")
    assert (await library.remove("own")).bytes_freed > 0
    await settled(library)
    (file,) = await library.files.all()
    assert (file.root.hex(), file.path, file.linked) == (record.root, str(base), True)
    shared = await library.adopt_shared("shared", file)
    assert (shared.path, shared.linked) == (str(base), True)
    await library.remove("base-model")
    assert await library.files.get(file.root) == file, "the other name stands for the same file"
    await library.remove("shared")
    assert await library.files.all() == ()
    assert base.is_file()


async def test_what_is_not_whole_or_has_another_name_is_not_listed(library: Library, base: Path) -> None:
    record = await own(library, base, "own")
    file = await library.files.get(bytes.fromhex(record.root))
    assert file is not None
    with pytest.raises(Conflict, match="Only a part"):
        await library.adopt_shared("part", msgspec.structs.replace(file, pieces=()))
    await library.import_path(tiny_llama(base.with_name("other.gguf"), embedding=64, ffn=64, seed=9))
    with pytest.raises(Conflict, match="other"):
        await library.adopt_shared("other", file)
    with pytest.raises(BadRequest):
        await library.adopt_shared("../../etc", file)


async def test_a_model_removed_while_it_is_hashed_leaves_nothing(library: Library, base: Path) -> None:
    for number in range(20):
        incoming = Path(shutil.copy(base, library.folder / "incoming"))
        await library.adopt(incoming, ModelRecord(name="own", kind="model"))
        for _ in range(number):
            await asyncio.sleep(0)
        await library.remove("own")
    await settled(library)
    assert await library.files.all() == ()
    assert sorted(os.listdir(library.folder)) in (["files"], [])
    assert not any((library.folder / "files").glob("*"))
