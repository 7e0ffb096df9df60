"""Downloads: queued, resumable over restarts, several at once, each with a state that has a name.

queued > checking > fetching > verifying > done; `paused` by a person, or, with a code, by a disk that is full or gone
(then it goes on by itself when there is room, or the disk), `failed` with a code. One that nobody sends anything for is
queued with a code: it goes on by itself when a holder comes. What was fetched is kept until it is done or cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from pares.errors import Conflict, DiskFull, LocalError, ModelNotFound, NotFound, ParesError, PeersUnreachable
from pares.store.database import new_id
from pares.store.events import Events
from pares.store.pulls import PullRecord, PullTable
from pares.swarm.disk import free_bytes
from pares.swarm.from_members import FromMembers
from pares.swarm.job import EVENT, Job, Pull
from pares.swarm.library import Library, Removed
from pares.swarm.names import clean_name
from pares.swarm.preview import Preview, look_at
from pares.swarm.pulling import Pulling, identity_of
from pares.swarm.ranges import parse_part
from pares.swarm.settings import Settings
from pares.swarm.slots import Slots
from pares.swarm.sources import Commons, Found, Sources
from pares.swarm.swarming import SwarmFetch
from pares.swarm.transfer import Transfer

__all__ = ["ENDS", "Pull", "Pulls"]

ENDS = frozenset({"done", "paused", "failed"})


class Pulls:
    """All downloads of this node. `async with` goes on with those that a stop interrupted, and owns their tasks."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        events: Events,
        *,
        commons: Commons | None = None,
        swarm: SwarmFetch | None = None,
        offline: bool = False,
        free_disk: Callable[[Path], int] = free_bytes,
    ) -> None:
        """`commons` and `swarm` come together; without them, models come from origins only."""
        self._library = library
        self._settings = settings
        self._events = events
        self._free_disk = free_disk
        self._members = FromMembers(library, commons, swarm) if commons and swarm else None
        self._table = PullTable(library.database)
        self._sources = Sources(settings, library.catalogue, commons, offline=offline)
        self._pulling = Pulling(library, settings, self._sources, self._members, free_disk)
        self._slots = Slots(settings.parallel)
        self._starting = asyncio.Lock()
        self._jobs: dict[str, Job] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._table.prune()
        await self._tasks.__aenter__()
        for record in reversed(await self._table.list()):
            job = self._jobs[record.id] = self._job_of(record)
            waits = record.code == DiskFull.code or (record.state == "paused" and record.code)
            if record.state not in ENDS or waits:
                await self._begin(job)
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs.values():
            await self._halt(job)
            if job.record.state not in ENDS:
                await job.set(state="queued")
        await self._tasks.__aexit__(None, None, None)
        await self._sources.close()

    def list(self) -> tuple[Pull, ...]:
        """Newest first, finished ones too."""
        return tuple(job.view for job in reversed(self._jobs.values()))

    def get(self, pull_id: str) -> Pull:
        """Raises NotFound."""
        return self._job(pull_id).view

    async def preview(self, source: str, name: str = "", *, layers: str = "") -> Preview:
        """What pulling would take.

        Raises BadRequest, ModelNotFound, OriginUnreachable, NotFound, BrokenModelFile, NotSupported, Conflict.
        """
        part = parse_part(layers)
        found = await self._pulling.find(source, part)
        name = clean_name(name) if name else found.name
        free, reserve = self._free_disk(self._library.folder), self._settings.reserve_bytes
        if self._members and found.opened:
            return await self._members.preview(
                found.opened, part, source=source, name=name, disk_free=free, reserve=reserve
            )
        if self._members and found.offer:
            told = await self._members.preview_offer(
                found.offer, source=source, name=name, disk_free=free, reserve=reserve
            )
            if told is not None:
                return told
        return await look_at(found, source=source, name=name, disk_free=free, reserve=reserve)

    async def start(
        self,
        source: str,
        name: str = "",
        *,
        layers: str = "",
        accept_licence: bool = False,
        priority: int = 1,
        limit_bytes_per_s: int = 0,
    ) -> Pull:
        """Begin, or go on with, a download; returns at once. What is here already is `done` at once.

        `layers`: only a part of a version, as `PullRequest` says. Raises BadRequest; ModelNotFound (neither the
        catalogue nor a circle has it); Conflict (the name is taken by another model, or means several versions);
        LicenceNotAccepted; NotSupported (a part of what no circle offers).
        """
        source = source.strip()
        found = await self._pulling.find(source, parse_part(layers))
        name = clean_name(name) if name else found.name
        if self._members:
            await self._members.agree(found, accept=accept_licence)
        record = PullRecord(
            id=new_id(),
            source=source,
            name=name,
            identity=identity_of(found),
            layers=layers,
            priority=priority,
            limit_bytes_per_s=limit_bytes_per_s,
        )
        async with self._starting:
            for job in [job for job in self._jobs.values() if job.is_unfinished(name)]:
                if self._means_the_same(job.record, record, found):
                    if job.record.state in ENDS:
                        await self.resume(job.record.id)
                    return job.view
                if job.record.state != "failed":
                    origin = f"{job.record.source} {job.record.layers}".rstrip()
                    raise Conflict(f"{name!r} is being pulled from {origin}.", hint="Cancel that first.")
                await self.cancel(job.record.id)
            is_here = await self._pulling.is_here(record, found)
            job = self._jobs[record.id] = self._job_of(record)
            await (job.set(state="done") if is_here else self._begin(job))
        return job.view

    async def change(self, pull_id: str, *, priority: int | None = None, limit_bytes_per_s: int | None = None) -> Pull:
        """What it may take, in force at once. Raises NotFound."""
        job = self._job(pull_id)
        changes = {"priority": priority, "limit_bytes_per_s": limit_bytes_per_s}
        view = await job.set(**{name: value for name, value in changes.items() if value is not None})
        if self._members:
            self._members.swarm.terms_changed()
        return view

    async def pause(self, pull_id: str) -> Pull:
        """Stop and keep what there is. Raises NotFound, Conflict if it is over."""
        async with self._turning(pull_id) as job:
            if job.record.state not in ("done", "failed"):
                await self._halt(job)
            if job.record.state in ("done", "failed"):
                raise Conflict(f"The download of {job.record.name} is {job.record.state}; it cannot be paused.")
            return await job.set(state="paused", code="", error="")

    async def resume(self, pull_id: str) -> Pull:
        """Go on with what was paused or failed. Raises NotFound."""
        async with self._turning(pull_id) as job:
            if job.record.state in ("paused", "failed"):
                await self._halt(job)
                await self._begin(job)
            return job.view

    async def cancel(self, pull_id: str) -> int:
        """Stop it, and forget it and what was fetched; returns the bytes freed. Raises NotFound."""
        async with self._turning(pull_id) as job:
            await self._halt(job)
            freed = await asyncio.to_thread(self._transfer(job).clear)
            freed += await self._pulling.forget(job.record, self._staying(job.record))
            await self._table.remove(pull_id)
            del self._jobs[pull_id]
        self._events.publish(EVENT, {"id": pull_id, "name": job.record.name, "state": "removed"})
        if job.record.state != "done":
            job.error = Conflict(f"The download of {job.record.name} was cancelled.")
            job.record = msgspec.structs.replace(job.record, state="failed", code=job.error.code, error=str(job.error))
            job.wake()
        return freed

    async def remove(self, name: str, *, force: bool = False) -> Removed:
        """Remove a model and any unfinished download of that name. Raises ModelNotFound, Conflict."""
        name = clean_name(name)
        partial = [pull_id for pull_id, job in self._jobs.items() if job.is_unfinished(name)]
        freed = sum([await self.cancel(pull_id) for pull_id in partial])
        try:
            removed = await self._library.remove(name, force=force)
        except ModelNotFound:
            if not partial:
                raise
            return Removed((name,), freed)
        return msgspec.structs.replace(removed, bytes_freed=removed.bytes_freed + freed)

    async def watch(self, pull_id: str) -> AsyncIterator[Pull]:
        """The download now and after every change, until it is done, paused or failed. Raises NotFound."""
        job = self._job(pull_id)
        while True:
            changed = job.changed
            yield job.view
            if job.record.state in ENDS:
                return
            await changed.wait()

    async def wait(self, pull_id: str) -> Pull:
        """Wait until it is done or paused. Raises the error of one that failed, was cancelled or met a full disk."""
        job = self._job(pull_id)
        async for _ in self.watch(pull_id):
            pass
        if job.record.code:
            raise job.error or LocalError(job.record.error, hint="Try again with `pares pull`.")
        return job.view

    def _job(self, pull_id: str) -> Job:
        if pull_id not in self._jobs:
            raise NotFound(f"There is no download with the id {pull_id!r}.", hint="It may have been cancelled.")
        return self._jobs[pull_id]

    @asynccontextmanager
    async def _turning(self, pull_id: str) -> AsyncIterator[Job]:
        """Alone with a download. Raises NotFound, also if it was cancelled while this waited."""
        async with self._job(pull_id).turning:
            yield self._job(pull_id)

    def _job_of(self, record: PullRecord) -> Job:
        return Job(record, self._table, self._events)

    def _transfer(self, job: Job) -> Transfer:
        return Transfer(
            self._library.folder / "partial" / job.record.id,
            self._settings,
            on_progress=job.progress,
            on_retry=job.retrying,
            limit=lambda: job.record.limit_bytes_per_s,
        )

    def versions(self) -> frozenset[str]:
        """Ids of those that unfinished downloads mean."""
        return frozenset(job.record.version for job in self._jobs.values() if job.record.state != "done")

    def _staying(self, cancelled: PullRecord) -> frozenset[str]:
        """Versions of which a part was pulled, which is to stay, or that another download is about."""
        jobs = [job.record for job in self._jobs.values()]
        parts = {each.version for each in jobs if each.state == "done" and each.layers}
        return frozenset(parts | {each.version for each in jobs if each.state != "done" and each.id != cancelled.id})

    async def _begin(self, job: Job) -> None:
        job.restart()
        await job.set(state="queued", code="", error="")
        job.task = self._tasks.create_task(self._run(job), name=f"pull {job.record.name}")

    async def _halt(self, job: Job) -> None:
        if job.task is not None and not job.task.done():
            job.task.cancel()
            await asyncio.wait([job.task])

    async def _run(self, job: Job) -> None:
        transfer = self._transfer(job)
        while True:
            try:
                async with self._slots.taken(lambda: job.record.priority):
                    await self._pulling.run(job, transfer)
                await asyncio.to_thread(transfer.clear)
                await job.set(state="done", code="", error="")
                return
            except ParesError as error:
                job.error = error
            except OSError as error:
                job.error = LocalError(f"{transfer.model.parent} cannot be written ({error}).", hint="Check the disk.")
            if not await self._may_go_on(job, transfer):
                return

    async def _may_go_on(self, job: Job, transfer: Transfer) -> bool:
        """After a failure: whether that was one which passes, and has passed."""
        assert job.error is not None
        told = {"code": job.error.code, "error": str(job.error)}
        versions = frozenset({bytes.fromhex(job.record.version)} if job.record.version else ())
        has_begun = transfer.has_begun or bool(versions and job.bytes)
        if isinstance(job.error, PeersUnreachable) and versions and self._members:
            await job.set(state="queued", **told)
            await self._members.swarm.until_somebody(versions)
            return True
        if isinstance(job.error, DiskFull) and has_begun:
            await job.set(state="paused", **told)
            await self._until(lambda: self._has_room(job, transfer))
        elif isinstance(job.error, NotFound) and has_begun and versions:
            await job.set(state="paused", **told)
            await self._until(lambda: self._pulling.is_there(job.record))
        else:
            await job.set(state="failed", **told)
            return False
        await job.set(state="queued", code="", error="")
        return True

    async def _until(self, has_passed: Callable[[], Awaitable[bool]]) -> None:
        while True:
            await asyncio.sleep(self._settings.disk_recheck_s)
            with suppress(OSError, ParesError):  # not just now: the disk is away, or what it means is not known
                if await has_passed():
                    return

    async def _has_room(self, job: Job, transfer: Transfer) -> bool:
        used = await self._pulling.used(job.record) if job.record.version else transfer.used
        return self._free_disk(self._library.folder) >= job.record.total - used + self._settings.reserve_bytes

    def _means_the_same(self, present: PullRecord, asked: PullRecord, found: Found) -> bool:
        if present.layers != asked.layers:
            return False
        if found.opened is not None:
            return present.version == asked.version
        if present.source == asked.source:
            return True
        return found.offer is not None and self._library.catalogue.find(present.source) is found.offer
