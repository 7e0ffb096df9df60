"""Which models are in memory: load on demand, check memory first, unload what nobody uses, load again what died."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec
import psutil

from pares import __version__
from pares.errors import Conflict, LocalError, NotFound
from pares.inference import machine, memory, pipe
from pares.inference.generation import ModelFacts, Profile
from pares.inference.gguf import read_header
from pares.inference.header import Header, check_loadable
from pares.inference.local import LocalModel
from pares.inference.settings import Settings
from pares.inference.supervisor import WorkerProcess

log = logging.getLogger(__name__)

CELL_STEP = 256
POOL_LEAST = 8192
"""A KV cache smaller than this is enlarged to up to four requests' contexts: short contexts are cheap."""
PARKED_PART = 8
"""Of the memory to spare, one part in so many may hold conversations at rest."""
OUTPUTS = 16
"""Rows of a batch whose logits may be wanted: each costs a vocabulary of floats, twice."""
SPEED_WINDOW_S = 10.0
RESTART_AFTER_S = 10.0
"""A worker that dies after living so long is started again at once; a younger one when it is asked for."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model file on this machine, and perhaps an adapter to run it with."""

    name: str
    path: Path
    adapter_path: Path | None = None
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How to load; None = as the settings say."""

    context: int | None = None
    profile: Profile | None = None
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A model in memory."""

    name: str
    state: Literal["loading", "ready", "stopping"]
    profile: Profile
    facts: ModelFacts | None
    memory_bytes: int
    pid: int
    running: int
    waiting: int
    tokens_per_s: float
    progress: float
    expires_in_s: float | None
    adapters: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Held:
    """One model file: its worker if it has one, and who is using it."""

    source: Source
    header: Header
    options: Options = Options()
    worker: WorkerProcess | None = None
    starting: WorkerProcess | None = None
    """The worker that is loading it."""
    state: Literal["loading", "ready", "stopping"] = "loading"
    users: int = 0
    """Who wants it: waiting for it or working with it."""
    working: int = 0
    """Who works with the worker that is there."""
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nobody works with it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    expiry: asyncio.TimerHandle | None = None
    loaded_at: float = 0.0
    used_at: float = 0.0
    adapters: set[str] = field(default_factory=set)
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def cancel_expiry(self) -> None:
        if self.expiry:
            self.expiry.cancel()
            self.expiry = None


def load_of(settings: Settings, profile: Profile) -> memory.Load:
    """How the engine loads a model, as far as its memory goes."""
    return memory.Load(
        sequences=2 * settings.running,
        key_type="q8_0" if profile == "exact" else "f16",
        ubatch=settings.batch,
        outputs=max(OUTPUTS, settings.running),
    )


class Engine:
    """All models of this node. `async with` it; leaving stops the workers.

    `on_change(name)` is called when a model's state or queue moves. `probes` is a folder that remembers what the
    load-time probe measured of a file with a build.
    """

    def __init__(
        self, settings: Settings, *, probes: Path, on_change: Callable[[str], None] = lambda name: None
    ) -> None:
        self._settings = settings
        self._probes = probes
        self._on_change = on_change
        self._held: dict[Path, _Held] = {}
        self._memory_lock = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> Engine:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for held in list(self._held.values()):
            held.cancel_expiry()
            for worker in (held.worker, held.starting):
                if worker:
                    await worker.stop()
        self._held.clear()
        await self._tasks.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def use(self, source: Source, options: Options = Options()) -> AsyncIterator[LocalModel]:
        """Hold a model, loaded now if it was not. Raises NotEnoughMemory, BrokenModelFile, WorkerDied."""
        held = await self._hold(source, options)
        try:
            worker = await self._ready(held, options)
            try:
                if source.adapter_path:
                    held.adapters.add(source.adapter)
                facts = msgspec.structs.replace(worker.facts, name=source.name, adapter=source.adapter)
                yield LocalModel(worker, facts, str(source.adapter_path or ""), self._settings.queue)
            finally:
                held.working -= 1
                if not held.working:
                    held.quiet.set()
        finally:
            self._release(held)

    async def load(self, source: Source, options: Options = Options()) -> Status:
        """Load and wait until ready; options other than those it was loaded with load it again."""
        async with self.use(source, options):
            return self._status(self._held[source.path])

    async def unload(self, path: Path) -> None:
        """Give a model's memory back; its running requests end with WorkerDied. Raises NotFound."""
        held = self._held.get(path)
        if held is None:
            raise NotFound(f"{path.stem} is not loaded.", hint="`pares ps` shows what is.")
        if held.starting is not None:
            await held.starting.stop()
        await self._unload(held)

    def loaded(self) -> tuple[Status, ...]:
        """What is in memory or on its way there."""
        return tuple(self._status(held) for held in self._held.values())

    # Holding and loading

    async def _hold(self, source: Source, options: Options) -> _Held:
        held = self._held.get(source.path)
        if held is None:
            try:
                header = await asyncio.to_thread(read_header, source.path)
            except OSError as error:
                message = f"{source.path} cannot be read ({error.strerror})."
                raise NotFound(message, hint="Check the file and its permissions.") from error
            check_loadable(header)
            held = self._held.setdefault(source.path, _Held(replace(source, adapter_path=None, adapter=""), header))
        held.users += 1
        held.cancel_expiry()
        if options.keep_alive_s is not None:
            held.options = replace(held.options, keep_alive_s=options.keep_alive_s)
        return held

    def _release(self, held: _Held) -> None:
        held.users -= 1
        if held.users:
            return
        if held.worker is None or self._closing:
            if self._held.get(held.source.path) is held and held.worker is None:
                del self._held[held.source.path]
            return
        held.used_at = asyncio.get_running_loop().time()
        keep = held.options.keep_alive_s
        keep = self._settings.keep_alive_s if keep is None else keep
        if keep >= 0:
            held.expiry = asyncio.get_running_loop().call_later(keep, self._expire, held)
        self._on_change(held.source.name)

    def _expire(self, held: _Held) -> None:
        if not self._closing:
            self._tasks.create_task(self._unload(held, only_if_unused=True), name=f"unload {held.source.name}")

    async def _ready(self, held: _Held, options: Options) -> WorkerProcess:
        """The worker of a held model, with at least the context and in the profile asked for; counts as work."""
        async with held.lock:
            worker = held.worker
            if worker is None or worker.ended.is_set() or not self._serves(held, worker, options):
                if worker is not None and held.working:
                    await self._wait_until_quiet(held)
                await self._stop(held)
                held.options = replace(
                    held.options,
                    context=options.context if options.context is not None else held.options.context,
                    profile=options.profile or held.options.profile,
                )
                worker = await self._start(held)
            held.working += 1
            held.quiet.clear()
            return worker

    async def _wait_until_quiet(self, held: _Held) -> None:
        """Others are in the middle of their answers with the old options: let them finish."""
        try:
            async with asyncio.timeout(self._settings.load_timeout_s):
                await held.quiet.wait()
        except TimeoutError:
            raise Conflict(
                f"{held.source.name} is busy with other requests and cannot be loaded again with other options.",
                hint="Try again later, or without asking for another context or profile.",
            ) from None

    def _serves(self, held: _Held, worker: WorkerProcess, options: Options) -> bool:
        wanted = min(options.context or 0, held.header.context_length or options.context or 0)
        return wanted <= worker.facts.context and options.profile in (None, worker.facts.profile)

    async def _start(self, held: _Held) -> WorkerProcess:
        held.state = "loading"
        name = held.source.name
        async with self._memory_lock:
            load = await self._plan(held)
            self._on_change(name)
            held.worker = None
            load = msgspec.structs.replace(load, probe=self._remembered(load))
            worker = await WorkerProcess.spawn(name, load, on_change=lambda: self._on_change(name))
            held.starting = worker
            try:
                if self._closing:
                    await worker.stop()
                await worker.ready(timeout_s=self._settings.load_timeout_s)
            finally:
                held.starting = None
        header = held.header
        worker.facts = msgspec.structs.replace(
            worker.facts, name=name, architecture=header.architecture, templates=header.templates
        )
        held.worker, held.state = worker, "ready"
        held.loaded_at = asyncio.get_running_loop().time()
        held.counts.clear()
        held.adapters.clear()
        self._tasks.create_task(self._mourn(held, worker), name=f"worker of {name}")
        self._on_change(name)
        if load.probe is None:
            self._remember(load, worker.probe)
        return worker

    async def _plan(self, held: _Held) -> pipe.Load:
        """Context, KV cache and threads for a model, checked against free memory. Raises NotEnoughMemory."""
        settings, header = self._settings, held.header
        profile = held.options.profile or settings.profile
        load = load_of(settings, profile)
        asked = held.options.context or settings.context
        trained = header.context_length or settings.largest_default_context
        context = min(asked, trained) if asked else min(trained, settings.largest_default_context)
        free = machine.memory().free - settings.memory_reserve_bytes
        while memory.estimate(header, cells=context, **load).total > free and await self._make_room(held):
            free = machine.memory().free - settings.memory_reserve_bytes
        if not asked:
            context = memory.largest_context(header, free, limit=context, **load) or context
        needed = memory.require(header, free, context, **load)
        spare = free - needed.total
        slots, cells = self._divide(profile, context, needed.kv, spare)
        parked, parked_each = memory.parking(header, spare // PARKED_PART) if profile == "fast" else (0, 0)
        return pipe.Load(
            path=str(held.source.path),
            context=context,
            cells=cells,
            slots=slots,
            running=min(slots, settings.running),
            batch=settings.batch,
            outputs=load["outputs"],
            threads=settings.threads or await asyncio.to_thread(machine.threads_to_use),
            profile=profile,
            gpu_layers=settings.gpu_layers,
            step_target_s=settings.step_target_s,
            pooling=header.pooling or "mean",
            parked=parked,
            parked_each=parked_each,
        )

    def _divide(self, profile: Profile, context: int, kv_bytes: int, spare_bytes: int) -> tuple[int, int]:
        """Slots, and cells for all of them. A KV cache beyond one request's may take half of the memory to spare."""
        requests = 1 + (spare_bytes // 2 // kv_bytes if kv_bytes else self._settings.running)
        if profile == "exact":
            # Every slot has cells of its own, each as many as a request may need.
            slots = min(self._settings.running, requests)
            return slots, slots * (-(-context // CELL_STEP) * CELL_STEP)
        pool = min(4 * context, POOL_LEAST, requests * context)
        return 2 * self._settings.running, -(-max(context, pool) // CELL_STEP) * CELL_STEP

    async def _make_room(self, wanting: _Held) -> bool:
        """Unload the model that has been idle the longest. False if none is idle."""
        idle = [h for h in self._held.values() if h.worker and not h.users and h is not wanting and h.state == "ready"]
        if not idle:
            return False
        await self._unload(min(idle, key=lambda h: h.used_at))
        return True

    async def _unload(self, held: _Held, *, only_if_unused: bool = False) -> None:
        async with held.lock:
            if held.users and only_if_unused:
                return
            await self._stop(held)
        if not held.users and self._held.get(held.source.path) is held:
            del self._held[held.source.path]
        self._on_change(held.source.name)

    async def _stop(self, held: _Held) -> None:
        held.cancel_expiry()
        if held.worker is not None:
            held.state = "stopping"
            self._on_change(held.source.name)
            await held.worker.stop()
            held.worker = None

    async def _mourn(self, held: _Held, worker: WorkerProcess) -> None:
        """When a worker dies by itself, load its model again if it had lived well until then."""
        await worker.ended.wait()
        if self._closing or held.worker is not worker or held.state == "stopping":
            return
        lived = asyncio.get_running_loop().time() - held.loaded_at
        held.worker = None
        held.users += 1
        held.cancel_expiry()
        try:
            if lived >= RESTART_AFTER_S:
                async with held.lock:
                    await self._restart(held)
        except (LocalError, OSError) as error:
            log.warning("worker.not_restarted", extra={"model": held.source.name, "reason": str(error)})
        finally:
            self._release(held)
            self._on_change(held.source.name)

    async def _restart(self, held: _Held) -> None:
        """Start a worker unless somebody's request did it first."""
        if held.worker is None and not self._closing:
            await self._start(held)

    # What was probed

    def _remembered(self, load: pipe.Load) -> pipe.Probe | None:
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._probe_file(load).read_bytes(), type=pipe.Probe)
        return None

    def _remember(self, load: pipe.Load, probe: pipe.Probe) -> None:
        """Without it the model is probed again next time."""
        try:
            path = self._probe_file(load)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(probe))
            partial.rename(path)
        except OSError as error:
            log.warning("probe.not_kept", extra={"path": load.path, "reason": str(error)})

    def _probe_file(self, load: pipe.Load) -> Path:
        """Where the probe of this file, this build, this processor and these settings is remembered."""
        stat = Path(load.path).stat()
        parts = (
            Path(load.path),
            stat.st_size,
            stat.st_mtime_ns,
            version("llama-cpp-python"),
            __version__,
            machine.processor(),
            load.profile,
            load.threads > 1,
            load.gpu_layers,
        )
        return self._probes / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"

    # Telling

    def _status(self, held: _Held) -> Status:
        worker = held.worker or held.starting
        loop = asyncio.get_running_loop()
        resident = 0
        if worker is not None:
            with suppress(psutil.Error):
                resident = psutil.Process(worker.pid).memory_info().rss
        return Status(
            name=held.source.name,
            state=held.state,
            profile=held.options.profile or self._settings.profile,
            facts=held.worker.facts if held.worker else None,
            memory_bytes=resident,
            pid=worker.pid if worker else 0,
            running=worker.queue.running if worker else 0,
            waiting=worker.queue.waiting if worker else 0,
            tokens_per_s=self._speed(held),
            progress=worker.progress if worker else 0.0,
            expires_in_s=max(0.0, held.expiry.when() - loop.time()) if held.expiry else None,
            adapters=tuple(sorted(held.adapters)),
        )

    def _speed(self, held: _Held) -> float:
        """Tokens per second over the last few seconds in which this was asked."""
        if held.worker is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        held.counts.append((now, held.worker.tokens_total))
        while now - held.counts[0][0] > SPEED_WINDOW_S:
            held.counts.popleft()
        (start, before), (_, after) = held.counts[0], held.counts[-1]
        return (after - before) / (now - start) if now > start else 0.0
