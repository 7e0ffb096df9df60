"""What names stand for: a snapshot of the list, and the rules by which a name leads to files. Touches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pares.errors import BadRequest, Conflict, ModelNotFound, NotSupported
from pares.store.models import ModelRecord
from pares.swarm.catalogue import Catalogue
from pares.swarm.names import ADAPTER_MARK, clean_name, nearest, split_adapter

MAX_CHAIN = 16


class ModelSource(msgspec.Struct, frozen=True):
    """All that loading a model by a name needs."""

    name: str
    """Canonical: as it is written in the list, with `+adapter` where one was asked for."""
    path: Path
    sha256: str
    """Of the base file; empty while it is being computed."""
    adapter_path: Path | None = None
    adapter_name: str = ""
    system: str = ""
    defaults: Mapping[str, object] = {}
    """Sampling defaults, in Ollama's words."""


class Shelf:
    """The list at one moment. Names are found in any case, and by the names that the catalogue has for them."""

    def __init__(self, records: Iterable[ModelRecord], catalogue: Catalogue) -> None:
        self._records = {record.name.casefold(): record for record in records}
        self._catalogue = catalogue

    def find(self, name: str) -> ModelRecord:
        """Raises BadRequest for what is no name; ModelNotFound with the nearest ones: never another model."""
        name = clean_name(name)
        offer = self._catalogue.find(name)
        record = self._records.get(name.casefold())
        if record is None and offer is not None:
            record = self._records.get(offer.name.casefold())
        if record is None:
            known = (*(each.name for each in self._records.values()), *self._catalogue.names())
            raise ModelNotFound(name, () if offer else nearest(name, known), pullable=offer is not None)
        return record

    def chain(self, record: ModelRecord) -> tuple[ModelRecord, ...]:
        """The record and what it stands on, down to one with a file. Raises ModelNotFound, Conflict for a circle."""
        chain = [record]
        while chain[-1].base:
            if len(chain) == MAX_CHAIN:
                raise Conflict(f"{record.name} stands on itself, or on more than {MAX_CHAIN} names.")
            chain.append(self.find(chain[-1].base))
        return tuple(chain)

    def resolve(self, name: str) -> ModelSource:
        """What to load for a name, `base+adapter` too. Raises ModelNotFound, BadRequest, NotSupported, Conflict."""
        base, adapter = split_adapter(name)
        chain = self.chain(self.find(base))
        adapters = [each for each in (adapter, *(record.adapter for record in chain)) if each]
        if len(adapters) > 1:
            raise NotSupported(f"{name} means {len(adapters)} adapters ({', '.join(adapters)}); one is possible.")
        if chain[-1].kind == "adapter":
            raise BadRequest(
                f"{chain[0].name} is an adapter, not a model.", param="model", hint=f"Ask for BASE+{chain[0].name}."
            )
        worn = self.chain(self.find(adapters[0]))[-1] if adapters else None
        if worn is not None and worn.kind != "adapter":
            raise BadRequest(f"{worn.name} is a model, not an adapter.", param="model")
        defaults: dict[str, object] = {}
        for record in reversed(chain):
            defaults |= record.defaults
        return ModelSource(
            name=f"{chain[0].name}{ADAPTER_MARK}{worn.name}" if worn and adapter else chain[0].name,
            path=Path(chain[-1].path),
            sha256=chain[-1].sha256,
            adapter_path=Path(worn.path) if worn else None,
            adapter_name=worn.name if worn else "",
            system=next((record.system for record in chain if record.system), ""),
            defaults=defaults,
        )

    def with_dependents(self, record: ModelRecord) -> tuple[ModelRecord, ...]:
        """The record, and all that would not work without it."""
        going = [record]
        for gone in going:
            going += [
                each
                for each in self._records.values()
                if each not in going and gone.name.casefold() in (each.base.casefold(), each.adapter.casefold())
            ]
        return tuple(going)
