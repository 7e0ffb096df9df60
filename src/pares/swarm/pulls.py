"""Downloads: queued, resumable over restarts, several at once, each with a state that has a name.

queued > checking > fetching > verifying > done; `paused` by a person or by a full disk (then it goes on by itself when
there is room), `failed` with a code. What was fetched is kept until a download is done or cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from pares.errors import Conflict, DiskFull, LocalError, ModelNotFound, NotFound, OriginUnreachable, ParesError
from pares.store.database import new_id
from pares.store.events import Events
from pares.store.models import ModelRecord
from pares.store.pulls import PullRecord, PullTable
from pares.swarm.disk import free_bytes, readable, used_bytes
from pares.swarm.formats import describe
from pares.swarm.library import Library, Removed
from pares.swarm.names import clean_name
from pares.swarm.origin import Plan
from pares.swarm.preview import Preview, look_at, plan_from
from pares.swarm.settings import Settings
from pares.swarm.sources import Found, Sources
from pares.swarm.transfer import Transfer

log = logging.getLogger(__name__)

EVENT = "pull"
PROGRESS_S = 0.25
ENDS = frozenset({"done", "paused", "failed"})


class Pull(PullRecord, frozen=True, kw_only=True):
    """A download as it is now."""

    bytes_per_s: float = 0.0
    eta_s: float | None = None


class _Job:
    """A download in memory: its record, its task, its speed."""

    def __init__(self, record: PullRecord) -> None:
        self.record = record
        self.task: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()
        self.turning = asyncio.Lock()
        """Held by who pauses, resumes or cancels it: one at a time."""
        self.bytes = record.bytes
        self.restart()

    @property
    def view(self) -> Pull:
        fields = {name: getattr(self.record, name) for name in PullRecord.__struct_fields__} | {"bytes": self.bytes}
        if self.record.state != "fetching" or not self.speed:
            return Pull(**fields)
        return Pull(**fields, bytes_per_s=self.speed, eta_s=max(self.record.total - self.bytes, 0) / self.speed)

    def is_unfinished(self, name: str) -> bool:
        return self.record.state != "done" and self.record.name.casefold() == name.casefold()

    def restart(self) -> None:
        self.error: ParesError | None = None
        self.speed = 0.0
        self._mark = (0.0, self.bytes)

    def wake(self) -> None:
        """Tell those who watch."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def progress(self, done: int, now: float) -> bool:
        """Note how far it is; True where that is worth telling, at most four times a second."""
        self.bytes = done
        then, before = self._mark
        if now - then < PROGRESS_S:
            return False
        rate = max(done - before, 0) / (now - then) if then else 0.0
        self.speed = 0.7 * self.speed + 0.3 * rate if self.speed else rate
        self._mark = (now, done)
        return True


class Pulls:
    """All downloads of this node. `async with` goes on with those that a stop interrupted, and owns their tasks."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        events: Events,
        *,
        offline: bool = False,
        free_disk: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._library = library
        self._settings = settings
        self._events = events
        self._free_disk = free_disk
        self._table = PullTable(library.database)
        self._sources = Sources(settings, library.catalogue, offline=offline)
        self._slots = asyncio.Semaphore(settings.parallel)
        self._starting = asyncio.Lock()
        self._jobs: dict[str, _Job] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._table.prune()
        await self._tasks.__aenter__()
        for record in reversed(await self._table.list()):
            job = self._jobs[record.id] = _Job(record)
            if record.state not in ENDS or record.code == DiskFull.code:
                await self._begin(job)
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs.values():
            await self._halt(job)
            if job.record.state not in ENDS:
                await self._set(job, state="queued")
        await self._tasks.__aexit__(None, None, None)
        await self._sources.close()

    def list(self) -> tuple[Pull, ...]:
        """Newest first, finished ones too."""
        return tuple(job.view for job in reversed(self._jobs.values()))

    def get(self, pull_id: str) -> Pull:
        """Raises NotFound."""
        return self._job(pull_id).view

    async def preview(self, source: str, name: str = "") -> Preview:
        """What pulling would take.

        Raises BadRequest, ModelNotFound, OriginUnreachable, NotFound, BrokenModelFile, NotSupported.
        """
        found = self._sources.find(source)
        origin, plan, header = await look_at(found)
        return Preview(
            source=source,
            name=clean_name(name) if name else found.name,
            origin=origin.description,
            size=plan.size,
            fetched=plan.fetched,
            disk_needed=plan.disk + self._settings.reserve_bytes,
            disk_free=self._free_disk(self._library.folder),
            sha256=plan.sha256,
            licence=found.offer.licence if found.offer else header.licence,
            header=header,
        )

    async def start(self, source: str, name: str = "") -> Pull:
        """Begin, or go on with, a download; returns at once. What is here already is `done` at once.

        Raises BadRequest, ModelNotFound (not in the catalogue), Conflict (the name is taken by another model).
        """
        source = source.strip()
        found = self._sources.find(source)
        name = clean_name(name) if name else found.name
        async with self._starting:
            for job in [job for job in self._jobs.values() if job.is_unfinished(name)]:
                if self._means_the_same(job.record.source, source):
                    if job.record.state in ENDS:
                        await self.resume(job.record.id)
                    return job.view
                if job.record.state != "failed":
                    raise Conflict(f"{name!r} is being pulled from {job.record.source}.", hint="Cancel that first.")
                await self.cancel(job.record.id)
            record = PullRecord(id=new_id(), source=source, name=name)
            is_here = await self._is_here(record, found)
            job = self._jobs[record.id] = _Job(record)
            await (self._set(job, state="done") if is_here else self._begin(job))
        return job.view

    async def pause(self, pull_id: str) -> Pull:
        """Stop and keep what there is. Raises NotFound, Conflict if it is over."""
        async with self._turning(pull_id) as job:
            if job.record.state not in ("done", "failed"):
                await self._halt(job)
            if job.record.state in ("done", "failed"):
                raise Conflict(f"The download of {job.record.name} is {job.record.state}; it cannot be paused.")
            return await self._set(job, state="paused", code="", error="")

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
            freed = await asyncio.to_thread(_remove_folder, self._folder(job))
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

    def _job(self, pull_id: str) -> _Job:
        if pull_id not in self._jobs:
            raise NotFound(f"There is no download with the id {pull_id!r}.", hint="It may have been cancelled.")
        return self._jobs[pull_id]

    @asynccontextmanager
    async def _turning(self, pull_id: str) -> AsyncIterator[_Job]:
        """Alone with a download. Raises NotFound, also if it was cancelled while this waited."""
        async with self._job(pull_id).turning:
            yield self._job(pull_id)

    def _folder(self, job: _Job) -> Path:
        return self._library.folder / "partial" / job.record.id

    async def _set(self, job: _Job, **changes: object) -> Pull:
        """Change the record, keep it, and tell everybody.

        A download goes on where its record cannot be kept (the disk is full): after a restart it is as it was before.
        """
        job.record = msgspec.structs.replace(job.record, bytes=job.bytes, **changes)
        try:
            job.record = await self._table.save(job.record)
        except ParesError as error:
            log.warning("pull.not_kept", extra={"pull": job.record.id, "reason": error.message})
        self._tell(job)
        return job.view

    def _tell(self, job: _Job) -> None:
        self._events.publish(EVENT, msgspec.to_builtins(job.view))
        job.wake()

    async def _begin(self, job: _Job) -> None:
        job.restart()
        await self._set(job, state="queued", code="", error="")
        job.task = self._tasks.create_task(self._run(job), name=f"pull {job.record.name}")

    async def _halt(self, job: _Job) -> None:
        if job.task is not None and not job.task.done():
            job.task.cancel()
            await asyncio.wait([job.task])

    async def _run(self, job: _Job) -> None:
        transfer = Transfer(
            self._folder(job),
            self._settings,
            on_progress=lambda done: self._progress(job, done),
            on_retry=lambda error: self._retrying(job, error),
        )
        while True:
            try:
                async with self._slots:
                    await self._pull(job, transfer)
                return
            except ParesError as error:
                job.error = error
            except OSError as error:
                job.error = LocalError(f"{transfer.model.parent} cannot be written ({error}).", hint="Check the disk.")
            waiting = isinstance(job.error, DiskFull) and transfer.has_begun
            state = "paused" if waiting else "failed"
            await self._set(job, state=state, code=job.error.code, error=str(job.error))
            if not waiting:
                return
            await self._wait_for_room(job)
            await self._set(job, state="queued", code="", error="")

    async def _wait_for_room(self, job: _Job) -> None:
        while True:
            await asyncio.sleep(self._settings.disk_recheck_s)
            with suppress(OSError):  # the disk is not there just now
                missing = job.record.total - used_bytes(self._folder(job))
                if self._free_disk(self._library.folder) >= missing + self._settings.reserve_bytes:
                    return

    def _progress(self, job: _Job, done: int) -> None:
        if job.progress(done, time.monotonic()):
            if job.record.error and job.speed:
                job.record = msgspec.structs.replace(job.record, error="")
            self._tell(job)

    def _retrying(self, job: _Job, error: ParesError) -> None:
        job.record = msgspec.structs.replace(job.record, error=f"Trying again: {error.message}")
        self._tell(job)

    async def _pull(self, job: _Job, transfer: Transfer) -> None:
        """One try at all of it: find, check, fetch, verify, list."""
        await self._set(job, state="checking")
        found = self._sources.find(job.record.source)
        if not await self._is_here(job.record, found):
            sha256 = await self._fetch(job, transfer, found)
            await self._set(job, state="verifying", error="")
            await self._adopt(job, transfer.model, found, sha256)
        await asyncio.to_thread(_remove_folder, self._folder(job))
        await self._set(job, state="done")

    async def _fetch(self, job: _Job, transfer: Transfer, found: Found) -> str:
        """From the first origin that has it; one goes on where another left off if they promise the same bytes."""
        failure: ParesError | None = None
        for origin in found.origins:
            try:
                plan = await plan_from(origin, found.offer)
                if plan.identity != job.record.identity:
                    await asyncio.to_thread(_remove_folder, self._folder(job))
                self._require_room(job, plan)
                changes = {"total": plan.fetched, "origin": origin.description, "identity": plan.identity}
                await self._set(job, state="fetching", error="", **changes)
                return await transfer.run(origin, plan)
            except (OriginUnreachable, NotFound) as error:
                failure = failure or error
        raise failure or OriginUnreachable(f"Nothing is known of where {found.name} can be had.")

    async def _adopt(self, job: _Job, file: Path, found: Found, sha256: str) -> None:
        facts = await asyncio.to_thread(describe, file)
        record = ModelRecord(
            name=job.record.name,
            kind=facts.kind,
            size=facts.size,
            sha256=sha256,
            origin=job.record.source,
            licence=found.offer.licence if found.offer else facts.licence,
            architecture=facts.architecture,
            parameters=facts.parameters,
            quantization=facts.quantization,
        )
        await self._library.adopt(file, record)

    def _means_the_same(self, one: str, other: str) -> bool:
        offer = self._sources.find(one).offer
        return one == other or (offer is not None and offer is self._sources.find(other).offer)

    async def _is_here(self, record: PullRecord, found: Found) -> bool:
        """Whether the model is here already. Raises Conflict if another one has its name."""
        try:
            entry = await self._library.get(record.name)
        except ModelNotFound:
            return False
        same = entry.record.sha256 == found.offer.sha256 if found.offer else entry.record.origin == record.source
        is_gone = bool(entry.problem) and entry.record.kind == "model"
        if not same and not is_gone and entry.record.name.casefold() == record.name.casefold():
            raise Conflict(
                f"There is another model named {record.name!r} already.",
                hint="Pull it under another name, or remove it.",
            )
        return same and not entry.problem

    def _require_room(self, job: _Job, plan: Plan) -> None:
        reserve, free = self._settings.reserve_bytes, self._free_disk(self._library.folder)
        missing = plan.disk - used_bytes(self._folder(job)) + reserve - free
        if missing > 0:
            raise DiskFull(
                f"{job.record.name} needs {readable(plan.disk)} on the disk of {self._library.folder}, and "
                f"{readable(reserve)} must stay free; {readable(free)} are free.",
                hint=f"Free {readable(missing)}, or choose another folder (swarm.folder).",
                needed=plan.disk,
                reserve=reserve,
                free=free,
                missing=missing,
            )


def _remove_folder(folder: Path) -> int:
    freed = used_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return freed
