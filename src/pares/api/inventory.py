"""The models on this machine and in the catalogue, with what loading each would take here and now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pares.api.schemas import CatalogueRow, Fit, Loaded, ModelRow, Need
from pares.api.services import Services
from pares.errors import NotFound, ParesError
from pares.inference import memory
from pares.inference.engine import load_of
from pares.inference.gguf import read_header
from pares.inference.header import GGUFArray, Header, Value
from pares.store.models import ModelRecord
from pares.swarm.catalogue import Offer
from pares.swarm.library import ModelEntry
from pares.swarm.names import ADAPTER_MARK

KEPT_HEADERS = 256
BIG_ARRAY = 4096


class Inventory:
    """Rows for the lists. Headers are kept without their vocabularies, by path, time and size of the file."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._headers: OrderedDict[tuple[Path, int, int], Header] = OrderedDict()

    async def header(self, path: Path) -> Header:
        """What a file says of itself, big arrays without their content. Raises BrokenModelFile, OSError."""
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        header = self._headers.get(key)
        if header is None:
            header = self._headers[key] = _light(await asyncio.to_thread(read_header, path))
            if len(self._headers) > KEPT_HEADERS:
                self._headers.popitem(last=False)
        self._headers.move_to_end(key)
        return header

    async def path(self, name: str) -> Path:
        """The file behind a name, an adapter's too. Raises ModelNotFound, NotFound for a file that is gone."""
        entry = await self._services.library.get(name)
        if entry.file is None or not Path(entry.file.path).is_file():
            hint = f"Put it back, or forget it with `pares rm {entry.record.name}`."
            raise NotFound(entry.problem or "Its file is gone.", hint=hint)
        return Path(entry.file.path)

    async def rows(self) -> tuple[ModelRow, ...]:
        """All models, by name."""
        entries = await self._services.library.list()
        room = _Room(self._services, entries)
        return tuple([await self._row(entry, room) for entry in entries])

    async def row(self, name: str) -> ModelRow:
        """One model. Raises ModelNotFound."""
        entry = await self._services.library.get(name)
        return await self._row(entry, _Room(self._services, (entry,)))

    async def catalogue(self) -> tuple[CatalogueRow, ...]:
        """What can be had with one click."""
        entries = await self._services.library.list()
        room = _Room(self._services, entries)
        here = {entry.record.name.casefold() for entry in entries if not entry.problem}
        return tuple(
            _catalogue_row(offer, offer.name.casefold() in here, room) for offer in self._services.library.catalogue
        )

    def fit(self, header: Header) -> tuple[Fit, Need]:
        """How a model would do here now."""
        return self.fitting()(header)

    def fitting(self) -> Callable[[Header], tuple[Fit, Need]]:
        """How models would do here, at this one moment."""
        room = _Room(self._services, ())
        return lambda header: room.fit(header, 0)

    async def _row(self, entry: ModelEntry, room: _Room) -> ModelRow:
        record, file = entry.record, entry.file or entry.record
        broken = entry.problem
        fit: Fit = "will not run"
        need: Need | None = None
        if not broken:
            try:
                fit, need = await self._fit(file, room)
            except (ParesError, OSError) as error:
                broken = str(error)
        return ModelRow(
            name=record.name,
            kind=record.kind,
            size=file.size,
            quantization=file.quantization,
            parameters=file.parameters,
            architecture=file.architecture,
            licence=file.licence,
            added_at=record.added_at,
            linked=file.linked,
            missing=bool(file.path) and not Path(file.path).is_file(),
            loaded=file.path in room.loaded,
            fit=fit,
            need=need,
            broken=broken,
        )

    async def _fit(self, file: ModelRecord, room: _Room) -> tuple[Fit, Need | None]:
        header = await self.header(Path(file.path))
        if header.is_adapter:
            return "runs well", None
        return room.fit(header, room.loaded.get(file.path, 0))


class _Room:
    """What this machine has free, and which files are in memory, at one moment."""

    def __init__(self, services: Services, entries: tuple[ModelEntry, ...]) -> None:
        status = services.status()
        machine = status.machine
        self._settings = services.inference
        self._total = machine.memory_total
        self._free = max(0, machine.memory_free - self._settings.memory_reserve_bytes)
        paths = {entry.record.name.casefold(): entry.file.path for entry in entries if entry.file}
        self.loaded: dict[str, int] = {
            paths[name]: loaded.memory_bytes for loaded in status.loaded if (name := _base(loaded)) in paths
        }
        """Path to the memory of its worker."""

    def fit(self, header: Header, own: int) -> tuple[Fit, Need]:
        """`own`: memory that the model itself has already."""
        settings, free = self._settings, self._free + own
        load = load_of(settings, settings.profile)
        trained = header.context_length or settings.largest_default_context
        largest = memory.largest_context(header, free, limit=trained, **load)
        context = min(settings.context or min(settings.largest_default_context, largest or trained), trained)
        needed = memory.estimate(header, cells=context, **load)
        need = Need(
            weights=needed.weights,
            kv_cache=needed.kv,
            buffers=needed.buffers,
            total=needed.total,
            free=free,
            context=context,
            largest_context=largest,
            text=needed.sum_text(),
        )
        return memory.fit(header, free, self._total, context=context, **load), need


def _base(loaded: Loaded) -> str:
    return loaded.name.partition(ADAPTER_MARK)[0].casefold()


def _light(header: Header) -> Header:
    """Without the bytes of its big arrays: megabytes of vocabulary, of which only the lengths matter here."""

    def small(value: Value) -> Value:
        if not isinstance(value, GGUFArray):
            return value
        kept = bytes(value.raw) if len(value) <= BIG_ARRAY else b""
        return GGUFArray(value.element, len(value), memoryview(kept))

    metadata = {key: small(value) for key, value in header.metadata.items()}
    return replace(header, metadata=metadata, raw=memoryview(b""))


def _catalogue_row(offer: Offer, here: bool, room: _Room) -> CatalogueRow:
    fit, need = room.fit(offer.header(), 0)
    return CatalogueRow(
        name=offer.name,
        title=offer.title,
        description=offer.description,
        size=offer.size,
        quantization=offer.quantization,
        parameters=offer.shape.parameters,
        licence=offer.licence,
        chat=offer.chat,
        here=here,
        fit=fit,
        need=need,
        starter=offer.starter,
    )
