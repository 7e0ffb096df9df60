"""What one download does: find, check, fetch, verify, list. From an origin, or from members who hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from pares.errors import BadRequest, Conflict, ModelNotFound, NotFound, NotSupported, OriginUnreachable, ParesError
from pares.store.models import ModelRecord
from pares.store.pulls import VERSION, PullRecord
from pares.swarm.formats import describe
from pares.swarm.from_members import FromMembers
from pares.swarm.job import Job
from pares.swarm.library import Library
from pares.swarm.preview import plan_from
from pares.swarm.ranges import Part
from pares.swarm.room import require_room
from pares.swarm.settings import Settings
from pares.swarm.sources import Found, Sources
from pares.swarm.transfer import Transfer


class Pulling:
    """The parts that a download needs. `members`: None where there are only origins."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        sources: Sources,
        members: FromMembers | None,
        free_disk: Callable[[Path], int],
    ) -> None:
        self._library, self._settings, self._sources = library, settings, sources
        self.members, self._free_disk = members, free_disk

    async def find(self, source: str, part: Part | None) -> Found:
        """What is meant. Raises as `Sources.resolve`, and NotSupported for a part of what no circle offers."""
        found = await self._sources.resolve(source)
        if part is None or found.opened is not None:
            return found
        if self.members and found.offer and (several := await self.members.versions_of(found.offer)):
            return await self._sources.version(several[0].digest.hex())
        raise NotSupported(
            "Only of what a circle offers can a part be fetched.", hint="Pull all of it, or ask a member to share it."
        )

    async def meant(self, record: PullRecord) -> Found:
        """What a download that has begun means: its version, whatever the name means by now."""
        return await (self._sources.version(record.version) if record.version else self._sources.resolve(record.source))

    async def is_here(self, record: PullRecord, found: Found) -> bool:
        """Whether the model is here already. Raises Conflict if another one has its name."""
        if record.layers or (found.version and len(found.version.files) > 1):
            return False  # what is no model of its own is in no list
        try:
            entry = await self._library.get(record.name)
        except ModelNotFound:
            return False
        if found.version is not None:
            same = any(entry.record.sha256 == file.sha256 for file in found.version.files)
        elif found.offer is not None:
            same = entry.record.sha256 == found.offer.sha256
        else:
            same = entry.record.origin == record.source
        is_gone = bool(entry.problem) and entry.record.kind == "model"
        if not same and not is_gone and entry.record.name.casefold() == record.name.casefold():
            raise Conflict(
                f"There is another model named {record.name!r} already.",
                hint="Pull it under another name, or remove it.",
            )
        return same and not entry.problem

    async def run(self, job: Job, transfer: Transfer) -> None:
        """One try at all of it."""
        await job.set(state="checking")
        found = await self.meant(job.record)
        if await self.is_here(job.record, found):
            return
        members = self.members
        if members and found.opened:
            await members.fetch(job, found.opened)
        elif not (members and found.offer and not transfer.has_begun and await members.fetch_offer(job, found.offer)):
            sha256 = await self._from_origins(job, transfer, found)
            await job.set(state="verifying", error="")
            facts = await asyncio.to_thread(describe, transfer.model)
            licence = found.offer.licence if found.offer else facts.licence
            record = ModelRecord(
                name=job.record.name,
                kind=facts.kind,
                size=facts.size,
                sha256=sha256,
                origin=job.record.source,
                licence=licence,
                architecture=facts.architecture,
                parameters=facts.parameters,
                quantization=facts.quantization,
            )
            await self._library.adopt(transfer.model, record)

    async def used(self, record: PullRecord) -> int:
        """Disk that the files of a version take up already, space reserved for them included."""
        opened = (await self.meant(record)).opened
        return self.members.used(opened) if self.members and opened else 0

    async def is_there(self, record: PullRecord) -> bool:
        """Whether what was fetched from members is where it should be, so that it can be gone on with."""
        opened = (await self.meant(record)).opened
        return not (self.members and opened) or await self.members.is_there(opened)

    async def forget(self, record: PullRecord, staying: Collection[str]) -> int:
        """Remove what was fetched from members, is not whole, and no version in `staying` needs; returns the bytes
        freed."""
        if self.members is None:
            return 0
        try:
            return await self.members.forget(await self.meant(record), staying)
        except (NotFound, BadRequest, Conflict):  # what it meant is known to nobody any more
            return 0

    async def _from_origins(self, job: Job, transfer: Transfer, found: Found) -> str:
        """From the first origin that has it; one goes on where another left off if they promise the same bytes."""
        failure: ParesError | None = None
        for origin in found.origins:
            try:
                plan = await plan_from(origin, found.offer)
                if plan.identity != job.record.identity:
                    await asyncio.to_thread(transfer.clear)
                require_room(
                    job.record.name,
                    self._library.folder,
                    needed=plan.disk,
                    used=transfer.used,
                    reserve=self._settings.reserve_bytes,
                    free=self._free_disk(self._library.folder),
                )
                changes = {"total": plan.fetched, "origin": origin.description, "identity": plan.identity}
                await job.set(state="fetching", error="", code="", **changes)
                return await transfer.run(origin, plan)
            except (OriginUnreachable, NotFound) as error:
                failure = failure or error
        raise failure or OriginUnreachable(f"Nothing is known of where {found.name} can be had.")


def identity_of(found: Found) -> str:
    """What pins a download to a version; empty for what comes from an origin, which says itself what it offers."""
    return f"{VERSION}{found.opened.digest.hex()}" if found.opened else ""
