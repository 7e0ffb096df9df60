"""Which models are in memory: load on demand, check memory first, unload what nobody uses, load again what died."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec
import psutil

from pares.errors import BadRequest, Conflict, ContextOverflow, LocalError, NotFound, QueueFull
from pares.inference import machine, memory, pipe
from pares.inference.generation import ModelFacts, Profile, Sampling, Step, TokenId, Vocabulary
from pares.inference.gguf import read_header
from pares.inference.header import Header, check_loadable
from pares.inference.settings import Settings
from pares.inference.supervisor import WorkerProcess

log = logging.getLogger(__name__)

CELL_STEP = 256
POOL_LEAST = 8192
"""A KV cache smaller than this is enlarged to up to four requests' contexts: short contexts are cheap."""
OUTPUTS = 16
"""Rows of a batch whose logits may be wanted: each costs a vocabulary of floats, twice."""
MAX_BYTES_PER_TOKEN = 64
"""A text with more bytes than this per token of context is refused before it is tokenized."""
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
    adapters: set[str] = field(default_factory=set)
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))


class LocalModel:
    """A model in a worker process of this machine: `Model` of `generation`."""

    def __init__(self, worker: WorkerProcess, facts: ModelFacts, adapter: str, settings: Settings) -> None:
        self._worker = worker
        self._adapter = adapter
        self._settings = settings
        self.facts = facts

    @property
    def vocabulary(self) -> Vocabulary:
        return self._worker.vocabulary

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        """See `Model.tokenize`. Raises ContextOverflow for a text that could not fit by far."""
        if len(text) > self.facts.context * MAX_BYTES_PER_TOKEN:
            raise ContextOverflow(len(text) // 4, self.facts.context)
        return await self._worker.tokenize(text, special=special, bos=bos)

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        """See `Model.grammar_for`."""
        return await self._worker.grammar_for(schema)

    def generate(self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int) -> AsyncGenerator[Step, None]:
        """See `Generator.generate`; what can be told at once is raised at once."""
        context = self.facts.context
        if not prompt:
            raise BadRequest("The prompt is empty.", param="prompt")
        if len(prompt) >= context:
            raise ContextOverflow(len(prompt) + 1, context)
        limit = self._settings.queue
        waiting = self._worker.requests - self.facts.sequences
        if waiting >= limit:
            raise QueueFull(waiting, limit, retry_after_s=max(1, waiting // max(1, self.facts.sequences)))
        most = min(max_tokens, context - len(prompt))
        return self._worker.generate(prompt, sampling, max_tokens=most, adapter=self._adapter)

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        """See `Model.embed`."""
        for tokens in inputs:
            if len(tokens) > self.facts.context:
                raise ContextOverflow(len(tokens), self.facts.context, param="input")
            if not tokens:
                raise BadRequest("There is nothing to embed in an empty input.", param="input")
        return await self._worker.embed(inputs, adapter=self._adapter)


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
            if held.expiry:
                held.expiry.cancel()
            if held.worker:
                await held.worker.stop()
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
                yield LocalModel(worker, facts, str(source.adapter_path or ""), self._settings)
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
        await self._unload(held)

    def loaded(self) -> tuple[Status, ...]:
        """What is in memory or on its way there."""
        return tuple(self._status(held) for held in self._held.values())

    # Holding and loading

    async def _hold(self, source: Source, options: Options) -> _Held:
        held = self._held.get(source.path)
        if held is None:
            header = await asyncio.to_thread(read_header, source.path)
            check_loadable(header)
            held = self._held.setdefault(source.path, _Held(replace(source, adapter_path=None, adapter=""), header))
        held.users += 1
        if held.expiry:
            held.expiry.cancel()
            held.expiry = None
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
            key = self._probe_file(held, load)
            with suppress(OSError, msgspec.DecodeError):
                load = msgspec.structs.replace(load, probe=msgspec.json.decode(key.read_bytes(), type=pipe.Probe))
            worker = await WorkerProcess.start(
                name, load, on_change=lambda: self._on_change(name), timeout_s=self._settings.load_timeout_s
            )
        if load.probe is None:
            key.parent.mkdir(parents=True, exist_ok=True)
            partial = key.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(worker.probe))
            partial.rename(key)
        header = held.header
        worker.facts = msgspec.structs.replace(
            worker.facts, name=name, architecture=header.architecture, templates=header.templates
        )
        held.worker, held.state = worker, "ready"
        held.loaded_at = asyncio.get_running_loop().time()
        self._tasks.create_task(self._mourn(held, worker), name=f"worker of {name}")
        self._on_change(name)
        return worker

    async def _plan(self, held: _Held) -> pipe.Load:
        """Context, KV cache and threads for a model, checked against free memory. Raises NotEnoughMemory."""
        settings, header = self._settings, held.header
        profile = held.options.profile or settings.profile
        load = memory.Load(
            sequences=2 * settings.running,
            kv_type="q8_0" if profile == "exact" else "f16",
            ubatch=settings.batch,
            outputs=max(OUTPUTS, settings.running),
        )
        asked = held.options.context or settings.context
        trained = header.context_length or settings.largest_default_context
        context = min(asked, trained) if asked else min(trained, settings.largest_default_context)
        free = machine.memory().free - settings.memory_reserve_bytes
        while memory.estimate(header, cells=context, **load).total > free and await self._make_room(held):
            free = machine.memory().free - settings.memory_reserve_bytes
        if not asked:
            context = memory.largest_context(header, free, limit=context, **load) or context
        needed = memory.require(header, free, context, **load)
        slots, cells = self._divide(profile, context, needed.kv, free - needed.total)
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
        await self._unload(min(idle, key=lambda h: h.loaded_at))
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
        if held.expiry:
            held.expiry.cancel()
            held.expiry = None
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
        try:
            if lived >= RESTART_AFTER_S:
                async with held.lock:
                    await self._restart(held)
        except LocalError as error:
            log.warning("worker.not_restarted", extra={"model": held.source.name, "reason": str(error)})
        finally:
            self._release(held)
            self._on_change(held.source.name)

    async def _restart(self, held: _Held) -> None:
        """Start a worker unless somebody's request did it first."""
        if held.worker is None and not self._closing:
            await self._start(held)

    def _probe_file(self, held: _Held, load: pipe.Load) -> Path:
        """Where the probe of this file, this build, this processor and these settings is remembered."""
        stat = held.source.path.stat()
        parts = (
            held.source.path,
            stat.st_size,
            stat.st_mtime_ns,
            version("llama-cpp-python"),
            machine.processor(),
            load.profile,
            load.threads > 1,
            load.gpu_layers,
        )
        return self._probes / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"

    # Telling

    def _status(self, held: _Held) -> Status:
        worker = held.worker
        loop = asyncio.get_running_loop()
        resident = 0
        if worker is not None:
            with suppress(psutil.Error):
                resident = psutil.Process(worker.pid).memory_info().rss
        return Status(
            name=held.source.name,
            state=held.state,
            profile=held.options.profile or self._settings.profile,
            facts=worker.facts if worker else None,
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
