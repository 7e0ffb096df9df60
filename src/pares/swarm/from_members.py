"""Downloads from members of circles: a version, a part of one, or what the catalogue has and a circle too."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import msgspec

from pares.errors import (
    BrokenModelFile,
    LicenceNotAccepted,
    NotSupported,
    PeersUnreachable,
    VerificationFailed,
)
from pares.store.content import FileRecord
from pares.store.pulls import PullRecord
from pares.swarm.catalogue import Offer
from pares.swarm.disk import used_bytes
from pares.swarm.job import Job
from pares.swarm.library import Library
from pares.swarm.predicate import File, Version
from pares.swarm.preview import MEMBERS, Preview, preview_of
from pares.swarm.ranges import Part, parse_part
from pares.swarm.sources import Commons, Found
from pares.swarm.swarming import Progress, SwarmFetch, Wanted
from pares.swarm.version import Opened

log = logging.getLogger(__name__)


class FromMembers:
    """What is asked of the commons and of the swarm for a download."""

    def __init__(self, library: Library, commons: Commons, swarm: SwarmFetch) -> None:
        self._library, self._commons, self.swarm = library, commons, swarm

    async def agree(self, found: Found, *, accept: bool) -> None:
        """Raises LicenceNotAccepted for a version whose licence was not agreed to, unless it is now."""
        if found.opened is None or await self._commons.is_licence_accepted(found.opened):
            return
        if accept:
            await self._commons.accept_licence(found.opened)
            return
        spdx = _version(found.opened).licence.spdx
        raise LicenceNotAccepted(
            f"{found.name} is under the licence {spdx}, to which you have not agreed yet.",
            hint="Read it, and say --accept-licence.",
            licence=spdx,
            version=found.opened.digest.hex(),
        )

    async def preview(
        self, opened: Opened, part: Part | None, *, source: str, name: str, disk_free: int, reserve: int
    ) -> Preview:
        """What fetching it would take."""
        preview = preview_of(_version(opened), part, source=source, name=name, disk_free=disk_free, reserve=reserve)
        return preview._replace(
            version=opened.digest.hex(),
            licence_accepted=await self._commons.is_licence_accepted(opened),
            holders=len(self.swarm.holders.online(frozenset((opened.digest,)))),
        )

    async def preview_offer(
        self, offer: Offer, *, source: str, name: str, disk_free: int, reserve: int
    ) -> Preview | None:
        """The same for what the catalogue has, where members hold it and are there; None: ask the origins."""
        for opened in await self.versions_of(offer):
            told = await self.preview(opened, None, source=source, name=name, disk_free=disk_free, reserve=reserve)
            if told.holders:
                header = offer.header()
                return told._replace(licence=offer.licence, licence_text="", licence_accepted=True, header=header)
        return None

    async def versions_of(self, offer: Offer) -> list[Opened]:
        """Versions that list the very file of a catalogue entry; those that most members hold first."""
        found = [each for each in await self._commons.listing(offer.sha256) if _file_of(each, offer)]
        return sorted(found, key=lambda each: -len(self.swarm.holders.of(frozenset((each.digest,)))))

    async def fetch(self, job: Job, opened: Opened) -> None:
        """A version, or the part of it that the job wants; a whole one is listed as a model where it is one.

        Raises as `SwarmFetch.fetch`, and Conflict if its name is taken by another model.
        """
        version = _version(opened)
        records = await self._fetch(job, opened, version.files)
        if not job.record.layers and len(records) == 1:
            await self._list(job.record, version, records[0])

    async def fetch_offer(self, job: Job, offer: Offer) -> bool:
        """What the catalogue has, where members hold it and are there. False: nothing came of it, ask the origins."""
        for opened in await self.versions_of(offer):
            file = _file_of(opened, offer)
            if file is None or not self.swarm.holders.online(frozenset((opened.digest,))):
                continue
            try:
                (record,) = await self._fetch(job, opened, (file,))
            except (PeersUnreachable, VerificationFailed, BrokenModelFile, NotSupported) as error:
                log.info("pull.not_from_members", extra={"pull": job.record.id, "reason": error.message})
            else:
                await self._list(job.record, _version(opened), record)
                return True
        return False

    def used(self, opened: Opened) -> int:
        """Disk that the files of a version take up already, space reserved for them included."""
        return sum(used_bytes(path) for path in self._paths(opened) if path.exists())

    async def is_there(self, opened: Opened) -> bool:
        """Whether all that was fetched of a version, as far as is known, is where it should be."""
        there = [await self._library.files.get(bytes.fromhex(file.root)) for file in _version(opened).files]
        return all(Path(record.path).exists() for record in there if record is not None)

    async def forget(self, found: Found, staying: Collection[str]) -> int:
        """Remove what was fetched, is not whole, and no version in `staying` needs; returns the bytes freed."""
        listed = [*_version(found.opened).files] if found.opened else []
        if found.offer is not None:
            listed += [file for each in await self.versions_of(found.offer) if (file := _file_of(each, found.offer))]
        freed = 0
        for root in {bytes.fromhex(file.root) for file in listed}:
            there = await self._library.files.get(root)
            listing = await self._commons.listing(root.hex())
            if any(each.digest.hex() in staying for each in listing):
                continue
            if (there is None or there.pieces is not None) and root not in self.swarm.fetching:
                self.swarm.torrents.remove(root)
                freed += await self._library.files.forget(root)
                for each in listing:
                    await self._commons.given_up(each)
        return freed

    def _paths(self, opened: Opened) -> list[Path]:
        return [self._library.files.partial_path(bytes.fromhex(file.root)) for file in _version(opened).files]

    async def _fetch(self, job: Job, opened: Opened, files: tuple[File, ...]) -> list[FileRecord]:
        """Fetch them, one after the other, and give them away where they came from."""
        part = parse_part(job.record.layers)
        whole = sum(file.size for file in files) if part is None else 0
        version, records, behind = _version(opened), [], 0
        await job.set(state="fetching", error="", code="", total=whole, origin=MEMBERS)
        for file in files:
            others = await self._commons.listing(file.root)
            wanted = Wanted(
                name=job.record.name,
                file=file,
                versions=frozenset((opened.digest, *(each.digest for each in others))),
                version=version if len(version.files) == 1 else None,
                part=part,
                terms=lambda: job.terms,
                on_progress=lambda now, behind=behind: _progress(job, now, behind, whole),  # type: ignore[misc]
                on_header=lambda: self._give_away(opened),
                on_check=lambda: _verifying(job),
            )
            if (begun := await self._library.files.get(wanted.root)) is not None:
                await self._asked_for(begun)
            records.append(await self._asked_for(await self.swarm.fetch(wanted)))
            behind = job.bytes = behind + file.size if part is None else job.bytes
        await self._give_away(opened)
        return records

    async def _asked_for(self, record: FileRecord) -> FileRecord:
        """It is here for its owner from now on, not for the circles alone: the keeper leaves it."""
        if record.keeper:
            record = msgspec.structs.replace(record, keeper=False)
            await self._library.files.put(record)
        return record

    async def _give_away(self, opened: Opened) -> None:
        await self._commons.shared_after(opened, self.swarm.holders.circles(frozenset((opened.digest,))))

    async def _list(self, record: PullRecord, version: Version, file: FileRecord) -> None:
        """As a model, if it is one that can be used here; else it stays in the store, and is given away."""
        try:
            licence = version.licence.spdx
            await self._library.adopt_shared(record.name, file, origin=record.source, licence=licence)
        except NotSupported as error:
            log.info("pull.not_listed", extra={"pull": record.id, "reason": error.message})


def _version(opened: Opened) -> Version:
    assert isinstance(opened.predicate, Version), "what is pulled is a version, not an opinion on one"
    return opened.predicate


def _file_of(opened: Opened, offer: Offer) -> File | None:
    files = _version(opened).files
    return next((file for file in files if file.sha256 == offer.sha256 and file.size == offer.size), None)


def _progress(job: Job, now: Progress, behind: int, whole: int) -> None:
    job.note(total=whole or behind + now.wanted, origin=f"{now.sources} {MEMBERS}" if now.sources else MEMBERS)
    job.progress(behind + now.done)


async def _verifying(job: Job) -> None:
    await job.set(state="verifying", error="")
