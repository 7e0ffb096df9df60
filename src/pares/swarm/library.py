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
    VerificationFailed,
)
from pares.store.database import Database, now
from pares.store.events import Events
from pares.store.models import ModelRecord, Models
from pares.swarm import modelfile
from pares.swarm.catalogue import Catalogue, builtin
from pares.swarm.disk import sha256_of, sync_folder, used_bytes
from pares.swarm.formats import MODEL_SUFFIXES, describe
from pares.swarm.names import ADAPTER_MARK, clean_name, file_of_name, name_of_file
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
    """Names, files, and what they stand for. `async with` owns the task that hashes imported files.

    Entering takes in model files that lie in the folder without an entry, so that a lost database loses no model.
    """

    def __init__(
        self, database: Database, folder: Path, events: Events | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self.folder = folder
        self.catalogue = catalogue or builtin()
        self.database = database
        self._models = Models(database)
        self._events = events
        self._changing = asyncio.Lock()
        self._to_hash: asyncio.Queue[str] = asyncio.Queue()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        known = {os.path.realpath(record.path) for record in await self._models.list() if record.path}
        for path in sorted(self.folder.glob("*.gguf")):
            if os.path.realpath(path) not in known:
                with suppress(BrokenModelFile, NotSupported, NotFound):  # what others left there
                    await self._take_in(path, linked=False)
        await self._tasks.__aenter__()
        self._hasher = self._tasks.create_task(self._hash_imported(), name="hash imported models")
        for record in await self._models.list():
            if record.path and not record.sha256:
                self._to_hash.put_nowait(record.path)
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
        for file in await asyncio.to_thread(_model_files, path):
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
            present = await self._models.get(record.name)
            if present is not None and (present.kind != "model" or Path(present.path).is_file()):
                raise Conflict(f"There is a model named {record.name!r} already.", hint="Choose another name.")
            target = self.folder / file_of_name(record.name)
            if target.exists():
                target = target.with_stem(f"{target.stem}-{record.sha256[:12]}")
            record = msgspec.structs.replace(record, path=str(target), added_at=now())
            # The name before the file: if we are stopped in between, the download finds both and ends this.
            await self._models.add(record, replace=present is not None)
            os.replace(file, target)
            await asyncio.to_thread(sync_folder, self.folder)
        self._tell()
        return record

    async def remove(self, name: str, *, force: bool = False) -> Removed:
        """Forget a name, and delete its file unless it is linked.

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
            freed = 0
            for record in going:
                if record.path and not record.linked and (path := Path(record.path)).is_file():
                    freed += used_bytes(path)
                    await asyncio.to_thread(path.unlink)
            await self._models.remove(*(record.name for record in going))
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
        """Hash the file again; returns its SHA-256. Raises VerificationFailed, NotFound. `progress`: bytes done."""
        source = await self.resolve(name)
        sha256 = await sha256_of(source.path, progress)
        if source.sha256 and sha256 != source.sha256:
            raise VerificationFailed(
                f"{source.path} has changed: its SHA-256 is {sha256}, it was {source.sha256}.",
                hint=f"Remove it with `pares rm {source.name}` and get it again.",
                sha256=sha256,
                expected=source.sha256,
            )
        await self._models.set_sha256(str(source.path), sha256)
        return sha256

    async def settle(self) -> None:
        """Wait until the files imported so far are hashed."""
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
                name=name or _free_name(wanted, {record.name.casefold() for record in records}),
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
        self._to_hash.put_nowait(record.path)
        self._tell()
        return _Taken(record.name, known=False)

    async def _hash_imported(self) -> None:
        while True:
            path = await self._to_hash.get()
            try:
                await self._models.set_sha256(path, await sha256_of(Path(path)))
                self._tell()
            except (OSError, ParesError) as error:  # the file is gone, which the list shows; the disk is full
                log.warning("library.not_hashed", extra={"path": path, "reason": str(error)})
            finally:
                self._to_hash.task_done()

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


def _free_name(wanted: str, taken: set[str]) -> str:
    names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _model_files(folder: Path) -> tuple[Path, ...]:
    """Files below a folder that are, or pretend to be, models. Links to folders are not followed."""
    return tuple(
        sorted(
            Path(root, name)
            for root, _, names in os.walk(folder)
            for name in names
            if Path(name).suffix.lower() in MODEL_SUFFIXES or name.startswith("sha256-")
        )
    )
