"""The models on this machine: taking them in, listing, naming, checking and removing them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from pares.errors import (
    BadRequest,
    BrokenModelFile,
    Conflict,
    ModelNotFound,
    NotFound,
    NotSupported,
    ParesError,
)
from pares.store.content import FileRecord
from pares.store.database import Database, now
from pares.store.events import Events
from pares.store.models import ModelRecord, Models
from pares.swarm import modelfile
from pares.swarm.catalogue import Catalogue, builtin
from pares.swarm.disk import link, sync_folder
from pares.swarm.files import Files, trouble
from pares.swarm.formats import describe, model_files
from pares.swarm.names import ADAPTER_MARK, clean_name, file_of_name, free_name, name_of_file
from pares.swarm.shelf import ModelSource, Shelf

log = logging.getLogger(__name__)

CHANGED = "models"
"""The kind of event that says: ask for the list again."""


class ModelEntry(msgspec.Struct, frozen=True):
    """One line of the list."""

    record: ModelRecord
    file: ModelRecord | None
    """The entry whose file this name stands for; itself for a model. None where the chain of names is broken."""
    problem: str = ""
    """Why it cannot be used, for people; empty if it can."""


class Imported(msgspec.Struct, frozen=True):
    """What came of an import."""

    added: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    """Names under which files were here already."""
    refused: Mapping[str, str] = {}
    """Path to the reason."""


class Removed(msgspec.Struct, frozen=True):
    """What was removed, and what that freed."""

    names: tuple[str, ...]
    bytes_freed: int
    linked: tuple[str, ...] = ()
    """Files that lie outside of the home and were left there."""


class Created(msgspec.Struct, frozen=True):
    """A model made from a Modelfile, and what of the Modelfile was not used."""

    name: str
    warnings: tuple[str, ...] = ()


class Library:
    """Names, files, and what they stand for. `async with` owns the task that hashes files and gives them to the store.

    Entering takes in model files that lie in the folder without an entry, so that a lost database loses no model.
    `on_file` is called with a model whenever the root of its file became known; `keeps` says of a root whether the
    store must keep its file though no model has it any more.
    """

    def __init__(
        self, database: Database, folder: Path, events: Events | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.folder = folder
        self.catalogue = catalogue or builtin()
        self.database = database
        self.files = Files(database, folder)
        self.on_file: list[Callable[[ModelRecord], None]] = []
        self.keeps: Callable[[bytes], bool] = lambda root: False
        self._models = Models(database)
        self._events = events
        self._changing = asyncio.Lock()
        self._to_hash: asyncio.Queue[ModelRecord] = asyncio.Queue()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        known = {os.path.realpath(record.path) for record in await self._models.list() if record.path}
        for path in sorted(self.folder.glob("*.gguf")):
            if os.path.realpath(path) not in known:
                with suppress(BrokenModelFile, NotSupported, NotFound):  # what others left there
                    await self._take_in(path, linked=False)
        await self._tasks.__aenter__()
        self._hasher = self._tasks.create_task(self._hash_files(), name="hash model files")
        await self._hash_again()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hasher.cancel()
        await self._tasks.__aexit__(None, None, None)

    async def list(self) -> tuple[ModelEntry, ...]:
        """Everything, by name; what cannot be used is shown with its problem, not hidden."""
        records = await self._models.list()
        shelf = Shelf(records, self.catalogue)
        return await asyncio.to_thread(lambda: tuple(_entry(record, shelf) for record in records))

    async def get(self, name: str) -> ModelEntry:
        """By name, or by the name under which the catalogue knows it. Raises ModelNotFound, BadRequest."""
        shelf = await self._shelf()
        return _entry(shelf.find(name), shelf)

    async def resolve(self, name: str) -> ModelSource:
        """What to load for a name, `base+adapter` too.

        Raises ModelNotFound, BadRequest, NotSupported, Conflict, and NotFound for a file that is gone.
        """
        source = (await self._shelf()).resolve(name)
        for path in (source.path, source.adapter_path):
            if path is not None and not path.is_file():
                raise NotFound(
                    f"{source.name} needs {path}, which is not there any more.",
                    hint=f"Put it back, or forget the model with `pares rm {source.name}`.",
                )
        return source

    async def import_path(self, path: Path, name: str = "") -> Imported:
        """Link a model file, or all in a folder, where they lie. Hashes are computed in the background.

        A single file that cannot be used raises NotSupported, BrokenModelFile or NotFound; in a folder it is reported.
        """
        path = Path(os.path.abspath(os.path.expanduser(path)))
        if path.is_file():
            taken = await self._take_in(path, linked=True, name=clean_name(name) if name else "")
            return Imported(known=(taken.name,)) if taken.known else Imported(added=(taken.name,))
        if not path.is_dir():
            raise NotFound(f"There is no file or folder at {path}.", hint="Check the path.")
        if name:
            raise BadRequest("A name can be given to one file, not to a folder.", param="name")
        found: dict[bool, tuple[str, ...]] = {False: (), True: ()}
        refused: dict[str, str] = {}
        for file in await asyncio.to_thread(model_files, path):
            try:
                taken = await self._take_in(file, linked=True)
                found[taken.known] += (taken.name,)
            except (BrokenModelFile, NotSupported, NotFound) as error:
                refused[str(file)] = str(error)
        return Imported(found[False], found[True], refused)

    async def adopt(self, file: Path, record: ModelRecord) -> ModelRecord:
        """Take over a complete and checked file from a download: move it into the folder and list it.

        Raises Conflict if the name is taken by a model whose file is there.
        """
        async with self._changing:
            present = await self._replaceable(record.name)
            target = self._free_path(record.name, record.sha256)
            record = msgspec.structs.replace(record, path=str(target), added_at=now())
            # The name before the file: if we are stopped in between, the download finds both and ends this.
            await self._models.add(record, replace=present is not None)
            os.replace(file, target)
            await asyncio.to_thread(sync_folder, self.folder)
            if present:
                await self._free(present)
        self._to_hash.put_nowait(record)
        self._tell()
        return record

    async def adopt_shared(self, name: str, file: FileRecord, *, origin: str = "", licence: str = "") -> ModelRecord:
        """List a model whose whole file is in the store: no byte is copied. If it is listed under that name, so be it.

        Raises BadRequest, Conflict if the name is taken by another model or the file is not whole; NotFound,
        NotSupported, BrokenModelFile for a file that cannot be used.
        """
        name, path = clean_name(name), Path(file.path)
        if file.pieces is not None:
            raise Conflict(f"Only a part of {name} is here.", hint="Pull the rest of it.")
        facts = await asyncio.to_thread(describe, path)
        async with self._changing:
            taken = await self._models.get(name)
            if taken and taken.root == file.root.hex() and Path(taken.path).is_file():
                return taken
            present = await self._replaceable(name)
            if not file.linked:
                target = self._free_path(name, file.root.hex())
                path = target if await asyncio.to_thread(link, path, target) else path
            record = ModelRecord(
                name=name,
                kind=facts.kind,
                path=str(path),
                linked=file.linked,
                size=file.size,
                sha256=file.sha256,
                root=file.root.hex(),
                origin=origin,
                licence=licence or facts.licence,
                architecture=facts.architecture,
                parameters=facts.parameters,
                quantization=facts.quantization,
                added_at=now(),
            )
            await self._models.add(record, replace=present is not None)
            if present:
                await self._free(present)
        self._became_known(record)
        return record

    async def remove(self, name: str, *, force: bool = False) -> Removed:
        """Forget a name, and delete its file unless it is linked, shared, or another name stands for the same bytes.

        Raises ModelNotFound, and Conflict if other names stand on it, which `force` removes too.
        """
        async with self._changing:
            shelf = await self._shelf()
            going = shelf.with_dependents(shelf.find(name))
            if len(going) > 1 and not force:
                others = ", ".join(record.name for record in going[1:])
                raise Conflict(
                    f"{others} would not work without {going[0].name}.", hint="Remove them first, or use --force."
                )
            await self._models.remove(*(record.name for record in going))
            freed = sum([await self._free(record) for record in going])
        self._tell()
        linked = tuple(record.path for record in going if record.linked)
        return Removed(tuple(record.name for record in going), freed, linked)

    async def copy(self, source: str, name: str) -> ModelRecord:
        """Another name for a model, or for `base+adapter`. Raises ModelNotFound, Conflict."""
        base, adapter = _parts((await self.resolve(source)).name)
        record = ModelRecord(name=clean_name(name), kind="alias", base=base, adapter=adapter, added_at=now())
        await self._models.add(record)
        self._tell()
        return record

    async def create(self, name: str, text: str) -> Created:
        """A model from a Modelfile: base, adapter, system prompt and defaults. An existing created model is replaced.

        FROM and ADAPTER take names and paths; a file at a path is imported. Raises BadRequest, ModelNotFound, Conflict.
        """
        name, parsed = clean_name(name), modelfile.parse(text)
        base = await self._named(parsed.base)
        adapter = await self._named(parsed.adapter) if parsed.adapter else ""
        base, adapter = _parts((await self.resolve(f"{base}{ADAPTER_MARK}{adapter}" if adapter else base)).name)
        present = await self._models.get(name)
        if present is not None:
            shelf = await self._shelf()
            standing = {record.name for record in shelf.with_dependents(present)}
            if present.kind != "created" or {shelf.find(each).name for each in (base, adapter) if each} & standing:
                raise Conflict(f"There is a model named {name!r} already.", hint="Choose another name.")
        record = ModelRecord(
            name=name,
            kind="created",
            base=base,
            adapter=adapter,
            system=parsed.system,
            defaults=parsed.defaults,
            added_at=now(),
        )
        await self._models.add(record, replace=present is not None)
        self._tell()
        return Created(name, parsed.warnings)

    async def verify(self, name: str, progress: Callable[[int], None] = lambda _: None) -> str:
        """Hash the file again; returns its SHA-256. Raises VerificationFailed, NotFound. `progress`: bytes done.

        Once its root is known, the error names the first piece that is wrong, and no more than that is read.
        """
        source = await self.resolve(name)
        record = next(each for each in await self._models.list() if Path(each.path) == source.path)
        if not record.root or await self.files.get(bytes.fromhex(record.root)) is None:
            return (await self._hash(record, progress)).sha256
        await self.files.verify(bytes.fromhex(record.root), progress, source.path)
        return record.sha256

    async def settle(self) -> None:
        """Wait until the files that are here so far are hashed."""
        await self._to_hash.join()

    async def _shelf(self) -> Shelf:
        return Shelf(await self._models.list(), self.catalogue)

    async def _named(self, reference: str) -> str:
        """The name of what a Modelfile refers to; a file is imported first."""
        if reference.startswith((".", "~")) or Path(reference).is_absolute():
            found = await self.import_path(Path(reference))
            names = (*found.added, *found.known)
            if len(names) != 1:
                raise BadRequest(f"{reference} is not one model file.", hint="Name the .gguf file.")
            return names[0]
        return reference

    async def _take_in(self, path: Path, *, linked: bool, name: str = "") -> _Taken:
        """List a file where it lies, unless it is listed already."""
        async with self._changing:
            records = await self._models.list()
            for record in records:
                if record.path and _same(record.path, path) and name.casefold() in ("", record.name.casefold()):
                    return _Taken(record.name, known=True)
            facts = await asyncio.to_thread(describe, path)
            wanted = name_of_file(facts.title if facts.is_blob else path.name)
            record = ModelRecord(
                name=name or free_name(wanted, {record.name.casefold() for record in records}),
                kind=facts.kind,
                path=str(path),
                linked=linked,
                size=facts.size,
                origin=str(path) if linked else "",
                licence=facts.licence,
                architecture=facts.architecture,
                parameters=facts.parameters,
                quantization=facts.quantization,
                added_at=now(),
            )
            await self._models.add(record)
        self._to_hash.put_nowait(record)
        self._tell()
        return _Taken(record.name, known=False)

    async def _replaceable(self, name: str) -> ModelRecord | None:
        """What has the name now and may lose it. Raises Conflict if it is a model whose file is there."""
        present = await self._models.get(name)
        if present is not None and (present.kind != "model" or Path(present.path).is_file()):
            raise Conflict(f"There is a model named {name!r} already.", hint="Choose another name.")
        return present

    def _free_path(self, name: str, digest: str) -> Path:
        target = self.folder / file_of_name(name)
        return target.with_stem(f"{target.stem}-{digest[:12]}") if target.exists() else target

    async def _free(self, gone: ModelRecord) -> int:
        """Give up the file of a model that is no longer listed, as far as nobody else needs it; returns bytes freed."""
        staying = [record for record in await self._models.list() if record.path]
        root = bytes.fromhex(gone.root)
        same = [record for record in staying if root and record.root == gone.root]
        freed = 0
        if gone.path and not gone.linked and all(record.path != gone.path for record in staying):
            freed = await self.files.drop_name(Path(gone.path), root)
        file = await self.files.get(root)
        if file and not self.keeps(root) and not any(not each.linked or each.path == file.path for each in same):
            freed += await self.files.forget(root)
            for record in same[:1]:  # the same bytes, where their owner put them
                self._to_hash.put_nowait(record)
        return freed

    async def _hash_again(self) -> None:
        """Queue what was never hashed, and what may have changed while nobody looked."""
        files = {file.root.hex(): file for file in await self.files.all()}
        for record in await self._models.list():
            file = files.get(record.root)
            if record.path and (file is None or trouble(file)):
                self._to_hash.put_nowait(record)

    async def _hash_files(self) -> None:
        while True:
            record = await self._to_hash.get()
            try:
                await self._hash(record)
            except (OSError, ParesError) as error:  # the file is gone or has changed; the disk is full
                log.warning("library.not_hashed", extra={"path": record.path, "reason": str(error)})
                self._tell()  # what is wrong with it shows in the list
            finally:
                self._to_hash.task_done()

    async def _hash(self, record: ModelRecord, progress: Callable[[int], None] = lambda _: None) -> FileRecord:
        """Hash a model's file, give it to the store, and note it for all names that stand for it."""
        file = await self.files.take(Path(record.path), linked=record.linked, progress=progress, sha256=record.sha256)
        async with self._changing:
            named = await self._models.set_hashes(record.path, file.sha256, file.root.hex())
            if not named:  # removed meanwhile
                await self._free(msgspec.structs.replace(record, root=file.root.hex()))
        for each in named:
            self._became_known(each)
        return file

    def _became_known(self, record: ModelRecord) -> None:
        for told in self.on_file:
            told(record)
        self._tell()

    def _tell(self) -> None:
        if self._events is not None:
            self._events.publish(CHANGED, {})


class _Taken(NamedTuple):
    name: str
    known: bool


def _entry(record: ModelRecord, shelf: Shelf) -> ModelEntry:
    try:
        file = shelf.chain(record)[-1]
    except (ModelNotFound, Conflict) as error:
        return ModelEntry(record, None, error.message)
    try:
        size = Path(file.path).stat().st_size
    except OSError:
        return ModelEntry(record, file, f"Its file is not at {file.path} any more.")
    changed = size != file.size
    return ModelEntry(record, file, f"Its file has {size:,} bytes; it had {file.size:,}." if changed else "")


def _parts(name: str) -> tuple[str, str]:
    base, _, adapter = name.partition(ADAPTER_MARK)
    return base, adapter


def _same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
