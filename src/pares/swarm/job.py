"""A download in memory: its record, its task, its speed; and what of it is kept and told."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from pares.errors import ParesError
from pares.store.events import Events
from pares.store.pulls import PullRecord, PullTable
from pares.swarm.swarming import Terms

log = logging.getLogger(__name__)

EVENT = "pull"
PROGRESS_S = 0.25


class Pull(PullRecord, frozen=True, kw_only=True):
    """A download as it is now."""

    bytes_per_s: float = 0.0
    eta_s: float | None = None


class Job:
    """One download."""

    def __init__(self, record: PullRecord, table: PullTable, events: Events) -> None:
        self.record = record
        self._table, self._events = table, events
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

    @property
    def terms(self) -> Terms:
        """What it may take now."""
        return Terms(self.record.priority, self.record.limit_bytes_per_s)

    def is_unfinished(self, name: str) -> bool:
        return self.record.state != "done" and self.record.name.casefold() == name.casefold()

    def restart(self) -> None:
        self.error: ParesError | None = None
        self.speed = 0.0
        self._mark = (0.0, self.bytes)

    async def set(self, **changes: object) -> Pull:
        """Change the record, keep it, and tell everybody.

        A download goes on where its record cannot be kept (the disk is full): after a restart it is as it was before.
        """
        self.record = msgspec.structs.replace(self.record, bytes=self.bytes, **changes)
        try:
            self.record = await self._table.save(self.record)
        except ParesError as error:
            log.warning("pull.not_kept", extra={"pull": self.record.id, "reason": error.message})
        self.tell()
        return self.view

    def note(self, **changes: object) -> None:
        """Change the record in memory: what need not last."""
        self.record = msgspec.structs.replace(self.record, **changes)

    def tell(self) -> None:
        """Tell those who watch."""
        self._events.publish(EVENT, msgspec.to_builtins(self.view))
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def progress(self, done: int) -> None:
        """Note how far it is; told at most four times a second."""
        now = time.monotonic()
        self.bytes = done
        then, before = self._mark
        if now - then < PROGRESS_S:
            return
        rate = max(done - before, 0) / (now - then) if then else 0.0
        self.speed = 0.7 * self.speed + 0.3 * rate if self.speed else rate
        self._mark = (now, done)
        if self.record.error and self.speed:
            self.note(error="", code="")
        self.tell()

    def retrying(self, error: ParesError) -> None:
        self.note(error=f"Trying again: {error.message}")
        self.tell()
