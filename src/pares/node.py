"""The composition root: builds every room, owns the one TaskGroup, and starts and stops all in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec
import psutil
import uvicorn

from pares import __version__
from pares.api import schemas
from pares.api.app import create_app
from pares.api.auth import Gate, is_loopback
from pares.api.connection import Connection
from pares.api.inventory import Inventory
from pares.api.schemas import Check, Loaded, LoadRequest, LogLine, NodeStatus, Setting
from pares.api.services import InUse
from pares.api.settings import Settings as ServerSettings
from pares.circle.words import words
from pares.commons import Commons
from pares.config import Config, change, describe, load, write_whole
from pares.doctor import examine
from pares.errors import AlreadyRunning, ParesError
from pares.inference import machine
from pares.inference.engine import Engine, Options, Source, Status
from pares.inference.settings import Settings as InferenceSettings
from pares.network import Network
from pares.store.conversations import Conversations
from pares.store.database import Database
from pares.store.events import Events
from pares.store.files import claimed
from pares.store.identity import FILE_NAME, load_or_make
from pares.store.keys import Keys
from pares.store.logbook import Logbook
from pares.swarm.disk import free_bytes
from pares.swarm.library import CHANGED, Library
from pares.swarm.pulls import Pulls
from pares.told import CommonsTold
from pares.wire.signing import Identity

log = logging.getLogger(__name__)

NEXT_PORTS = 20
"""How many ports after the usual one are tried, where nobody asked for a certain one."""
BACKLOG = 512
GRACE_S = 2.0
"""What open answers get to end in when the node stops."""
NEWS_S = 0.5
STATUS_NEWS_S = 2.0


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the node decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Node:
    """A running node. `async with Node(config) as node:`; it is ready then, and stopped afterwards.

    A `passing` one serves a single command, and says so.

    Raises AlreadyRunning if another node has this home or the port that was asked for. It is the API's `Services`.
    """

    def __init__(self, config: Config, *, passing: bool = False) -> None:
        self.config = config
        self.passing = passing
        self.admin_token = ""
        self.url = ""
        self.stopping = asyncio.Event()
        self.started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self._models: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._build(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shutdown()
        await self._stack.aclose()

    async def _build(self, stack: AsyncExitStack) -> None:
        config = self.config
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(claimed(config.home))
        self.admin_token = _secret(config.home / "secret")
        self._start_log(stack)
        self.database = await stack.enter_async_context(Database(config.database))
        self.events = await Events.open(self.database)
        self.conversations = Conversations(self.database)
        self.keys = Keys(self.database)
        folder = Path(config.swarm.folder).expanduser() if config.swarm.folder else config.home / "models"
        self.library = await stack.enter_async_context(Library(self.database, folder, self.events))
        self.network = self._network()
        shared = self._commons()
        self.network.contents = shared
        await stack.enter_async_context(self.network)
        await stack.enter_async_context(shared)
        self.pulls = await stack.enter_async_context(
            Pulls(
                self.library,
                config.swarm,
                self.events,
                commons=shared,
                swarm=None if config.node.offline else shared.fetch,
                offline=config.node.offline,
            )
        )
        shared.needed = self.pulls.versions
        self.commons = CommonsTold(
            shared, self.pulls, fitting=lambda: Inventory(self).fitting(), keep=self.change_setting
        )
        self.engine = await stack.enter_async_context(
            Engine(config.inference, probes=config.home / "cache" / "probes", on_change=self._on_change)
        )
        await self._count_models()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        sockets = self._listen(stack)
        self.gate = Gate(self)
        server = _Server(
            uvicorn.Config(
                create_app(self, gate=self.gate),
                http=Connection,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(GRACE_S),
            )
        )
        serving = tasks.create_task(server.serve(sockets=sockets), name="http")
        news = tasks.create_task(self._tell_news(), name="news")
        stack.push_async_callback(self._stop_serving, server, serving, news)
        self._write_node_file(stack)
        log.info("node.ready", extra={"url": self.url, "home": str(config.home), "version": __version__})

    def _network(self) -> Network:
        config = self.config
        return Network(
            config.home,
            Identity(load_or_make(config.home / FILE_NAME)),
            self.database,
            self.events,
            circle=config.circle,
            transport=config.transport,
            relay=config.relay,
            offline=config.node.offline,
            at_once=not self.passing,
            hostname=socket.gethostname(),
        )

    def _commons(self) -> Commons:
        config = self.config
        return Commons(
            config.home,
            self.network,
            self.database,
            self.library,
            self.events,
            config.swarm,
            loopback_only=config.transport.loopback_only,
            dht=config.circle.dht,
            bootstrap=config.circle.dht_bootstrap,
            offline=config.node.offline,
        )

    # Starting and stopping

    def _start_log(self, stack: AsyncExitStack) -> None:
        self.logbook = Logbook(self.config.logs)
        root = logging.getLogger()
        before = root.level
        root.addHandler(self.logbook)
        root.setLevel(self.config.node.log_level.upper())
        for noisy in ("httpx2", "httpcore2", "asyncio", "filelock", "uvicorn"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        stack.callback(self.logbook.close)
        stack.callback(root.setLevel, before)
        stack.callback(root.removeHandler, self.logbook)

    def _listen(self, stack: AsyncExitStack) -> list[socket.socket]:
        server = self.config.server
        asked = self.config.sources.get("server.port", "default") != "default"
        ports = [server.port] if asked or not server.port else range(server.port, server.port + NEXT_PORTS)
        main = _bind(server.host, ports)
        stack.callback(main.close)
        port = main.getsockname()[1]
        host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        sockets = [main]
        if server.ollama_port:
            sockets.append(_bind(server.host, [server.ollama_port]))
            stack.callback(sockets[1].close)
        return sockets

    def _write_node_file(self, stack: AsyncExitStack) -> None:
        told = {
            "pid": os.getpid(),
            "port": int(self.url.rpartition(":")[2]),
            "url": self.url,
            "token": self.admin_token,
            "version": __version__,
            "started_at": self.started_at,
        }
        write_whole(self.config.node_file, msgspec.json.encode(told).decode())
        stack.callback(self.config.node_file.unlink, missing_ok=True)

    async def _stop_serving(self, server: _Server, serving: asyncio.Task[None], news: asyncio.Task[None]) -> None:
        self.shutdown()
        news.cancel()
        server.should_exit = True
        await serving
        if cut_off := server.server_state.tasks:  # what they have written so far is still to be kept
            await asyncio.wait(cut_off, timeout=GRACE_S)

    def shutdown(self) -> None:
        """See `Services.shutdown`."""
        if not self.stopping.is_set():
            log.info("node.stopping")
            self.stopping.set()
            self.events.close()

    # What the API asks for

    @property
    def settings(self) -> ServerSettings:
        return self.config.server

    @property
    def inference(self) -> InferenceSettings:
        return self.config.inference

    @asynccontextmanager
    async def use(
        self, name: str, *, context: int | None = None, keep_alive_s: float | None = None
    ) -> AsyncIterator[InUse]:
        """See `Services.use`."""
        found = await self.library.resolve(name)
        source = Source(found.name, found.path, found.adapter_path, found.adapter_name)
        began = time.monotonic()
        async with self.engine.use(source, Options(context=context, keep_alive_s=keep_alive_s)) as model:
            yield InUse(model, found.name, found.system, found.defaults, time.monotonic() - began)

    async def load(self, name: str, request: LoadRequest) -> Loaded:
        """See `Services.load`."""
        found = await self.library.resolve(name)
        source = Source(found.name, found.path, found.adapter_path, found.adapter_name)
        options = Options(context=request.context, profile=request.profile, keep_alive_s=request.keep_alive_s)
        return _loaded(await self.engine.load(source, options))

    async def unload(self, name: str) -> None:
        """See `Services.unload`."""
        await self.engine.unload((await self.library.resolve(name)).path)

    def loaded(self) -> tuple[Loaded, ...]:
        """See `Services.loaded`."""
        return tuple(_loaded(status) for status in self.engine.loaded())

    def status(self) -> NodeStatus:
        """See `Services.status`."""
        config = self.config
        state, online, circles = self.network.state()
        return NodeStatus(
            version=__version__,
            ready=bool(self.url) and not self.stopping.is_set(),
            pid=os.getpid(),
            home=str(config.home),
            url=self.url,
            uptime_s=round(time.monotonic() - self._began, 1),
            offline=config.node.offline,
            listening_beyond_this_machine=not is_loopback(config.server.host),
            key_required=config.server.require_key or not is_loopback(config.server.host),
            memory_bytes=psutil.Process().memory_info().rss,
            machine=_machine(config.home),
            loaded=self.loaded(),
            pulls_active=sum(
                pull.state in ("queued", "checking", "fetching", "verifying") for pull in self.pulls.list()
            ),
            models=len(self._models),
            passing=self.passing,
            id=self.network.identity.id.hex(),
            words=" ".join(words(self.network.identity.id)),
            circles=circles,
            network=state,
            peers_online=online,
        )

    async def doctor(self) -> Sequence[Check]:
        """See `Services.doctor`."""
        own = await asyncio.to_thread(examine, self.config, models_missing=self._missing)
        return [*own, *await self.network.checks()]

    def list_settings(self) -> Sequence[Setting]:
        """See `Services.list_settings`."""
        return describe(load(self.config.home, flags=self.config.flags))

    async def change_setting(self, name: str, value: object) -> Setting:
        """See `Services.change_setting`: written to the file, in force after the next start."""
        await asyncio.to_thread(change, self.config.home, name, value)
        after = load(self.config.home, flags=self.config.flags)
        return next(setting for setting in describe(after) if setting.name == name)

    def logs(self, *, after: int, limit: int) -> Sequence[LogLine]:
        """See `Services.logs`."""
        return [
            LogLine(line.id, line.time, line.level, line.event, line.fields)
            for line in self.logbook.lines(after=after, limit=limit)
        ]

    # News for whoever listens

    def _on_change(self, name: str) -> None:
        self._changed.add(name)
        self._news.set()

    async def _count_models(self) -> None:
        entries = await self.library.list()
        self._models = tuple(entry.record.name for entry in entries)
        self._missing = tuple(entry.record.name for entry in entries if entry.problem)

    async def _tell_news(self) -> None:
        """Publish what moved, at most every half second per model, and the status if it is another than before."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_models(), name="follow models")
            tasks.create_task(self._tell_status(), name="tell status")
            known: set[str] = set()
            while True:
                await self._news.wait()
                await asyncio.sleep(NEWS_S)
                self._news.clear()
                changed, self._changed = self._changed, set()
                here = {loaded.name: loaded for loaded in self.loaded()}
                for name in sorted(changed & here.keys()):
                    self.events.publish("loaded", msgspec.to_builtins(here[name]))
                for name in sorted((known | changed) - here.keys()):
                    self.events.publish("unloaded", {"name": name})
                known = set(here)

    async def _follow_models(self) -> None:
        async for event in self.events.subscribe():
            if event.kind == CHANGED:
                try:
                    await self._count_models()
                except ParesError as error:
                    log.warning("models.not_counted", extra={"reason": error.message})

    async def _tell_status(self) -> None:
        told: object = None
        while True:
            status = self.status()
            # What moves all the time is no news.
            still = msgspec.structs.replace(
                status, uptime_s=0, memory_bytes=0, machine=_still(status.machine), loaded=()
            )
            if still != told:
                told = still
                self.events.publish("status", msgspec.to_builtins(status))
            await asyncio.sleep(STATUS_NEWS_S)


def run(config: Config, *, on_ready: Callable[[str], None]) -> int:
    """Be the node of a home until a signal or `shutdown` ends it: the exit code.

    `on_ready` gets an address that opens the page once. The first SIGINT or SIGTERM stops cleanly, the second at once.
    """

    async def serve() -> int:
        loop = asyncio.get_running_loop()
        stopped_by: list[signal.Signals] = []
        async with Node(config) as node:

            def stop(number: signal.Signals) -> None:
                if stopped_by:
                    os._exit(128 + number)
                stopped_by.append(number)
                node.shutdown()

            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError):  # Windows
                    loop.add_signal_handler(number, stop, number)
            on_ready(f"{node.url}/?token={node.gate.ticket()}")
            await node.stopping.wait()
        return 130 if stopped_by == [signal.SIGINT] else 0

    return asyncio.Runner(loop_factory=_new_loop).run(serve())


def _secret(path: Path) -> str:
    """The home's secret, kept over restarts: the cookie of an open page stays good. Only its owner can read it."""
    with contextlib.suppress(FileNotFoundError):
        if kept := path.read_text("ascii").strip():
            return kept
    secret = secrets.token_urlsafe(32)
    write_whole(path, secret)
    return secret


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _bind(host: str, ports: Sequence[int]) -> socket.socket:
    """A listening socket on the first of the ports that is free. Raises AlreadyRunning."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"Cannot listen on {host} port {port}: {error.strerror}.",
                    hint="Choose another with --port, or another address with `server.host`.",
                ) from error
            continue
        listener.setblocking(False)
        return listener
    raise AlreadyRunning(
        f"Port {ports[0]} is taken by another program.",
        hint="Choose another with --port N; --port 0 takes a free one.",
    )


def _machine(home: Path) -> schemas.Machine:
    memory = machine.memory()
    return schemas.Machine(
        name=socket.gethostname(),
        system=f"{os.uname().sysname} {os.uname().release}" if hasattr(os, "uname") else sys.platform,
        processor=machine.processor(),
        instruction_set=machine.instruction_set(),
        cores=machine.cores(),
        cores_busy=round(machine.busy_cores(), 2),
        memory_total=memory.total,
        memory_free=memory.free,
        disk_free=free_bytes(home),
    )


def _still(moving: schemas.Machine) -> schemas.Machine:
    return msgspec.structs.replace(moving, cores_busy=0, memory_free=0, disk_free=0)


def _loaded(status: Status) -> Loaded:
    facts = status.facts
    expires = status.expires_in_s
    return Loaded(
        name=status.name,
        state=status.state,
        profile=status.profile,
        exact=facts.exact if facts else "",
        fingerprint=facts.fingerprint if facts else "",
        memory_bytes=status.memory_bytes,
        context=facts.context if facts else 0,
        threads=facts.threads if facts else 0,
        running=status.running,
        waiting=status.waiting,
        sequences=facts.sequences if facts else 0,
        tokens_per_s=round(status.tokens_per_s, 1),
        pid=status.pid,
        progress=status.progress,
        expires_at=None if expires is None else (datetime.now(UTC) + timedelta(seconds=expires)).isoformat(),
        adapters=status.adapters,
    )
