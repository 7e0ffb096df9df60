"""A node for tests of the API: real stores in a folder, scripted models, a real HTTP server on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from pares.api.app import create_app
from pares.api.auth import Gate
from pares.api.schemas import Check, Loaded, LoadRequest, LogLine, Machine, NodeStatus, Setting
from pares.api.services import InUse
from pares.api.settings import Settings
from pares.errors import NotFound
from pares.inference.settings import Settings as InferenceSettings
from pares.store.conversations import Conversations
from pares.store.database import Database
from pares.store.events import Events
from pares.store.keys import Keys
from pares.swarm.library import Library
from pares.swarm.names import clean_name
from pares.swarm.pulls import Pulls
from pares.swarm.settings import Settings as SwarmSettings
from scripted import CHATML, ScriptedModel
from scripted_commons import ScriptedCommons
from scripted_network import ScriptedNetwork
from tiny import tiny_llama

TOKEN = "the-secret-of-this-node"


@dataclass
class ScriptedNode:
    """`Services`, with scripted models under the names of the library's entries. No worker, no process, no network."""

    settings: Settings
    library: Library
    pulls: Pulls
    conversations: Conversations
    keys: Keys
    events: Events
    models: dict[str, ScriptedModel]
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    admin_token: str = TOKEN
    url: str = "http://127.0.0.1:0"
    in_memory: dict[str, Loaded] = field(default_factory=dict)
    contexts: list[int | None] = field(default_factory=list)
    keep_alives: list[float | None] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    values: dict[str, object] = field(default_factory=dict)
    loading: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared by a test that wants models to take long."""
    asked_to_load: asyncio.Event = field(default_factory=asyncio.Event)
    load_given_up: asyncio.Event = field(default_factory=asyncio.Event)
    network: ScriptedNetwork = field(init=False)
    commons: ScriptedCommons = field(init=False)

    def __post_init__(self) -> None:
        self.loading.set()
        self.network = ScriptedNetwork(self.events)
        self.commons = ScriptedCommons(self.events, self.network.me)

    @asynccontextmanager
    async def use(
        self, name: str, *, context: int | None = None, keep_alive_s: float | None = None
    ) -> AsyncIterator[InUse]:
        source = await self.library.resolve(name)
        self.contexts.append(context)
        self.keep_alives.append(keep_alive_s)
        model = self.models.get(source.path.stem) or next(iter(self.models.values()))
        self.in_memory[source.name] = _loaded(source.name, model, "loading", 0.5)
        self.asked_to_load.set()
        try:
            await self.loading.wait()
        except asyncio.CancelledError:
            self.load_given_up.set()
            raise
        self.in_memory[source.name] = _loaded(source.name, model, "ready", 1.0)
        yield InUse(model, source.name, source.system, source.defaults)

    async def load(self, name: str, request: LoadRequest) -> Loaded:
        async with self.use(name, context=request.context, keep_alive_s=request.keep_alive_s) as used:
            return self.in_memory[used.name]

    async def unload(self, name: str) -> None:
        if self.in_memory.pop(clean_name(name), None) is None:
            raise NotFound(f"{name} is not loaded.")

    def loaded(self) -> tuple[Loaded, ...]:
        return tuple(self.in_memory.values())

    def status(self) -> NodeStatus:
        machine = Machine("box", "Linux", "CPU", "AVX2", 2, 0.0, 8 * 2**30, 6 * 2**30, 10**11)
        return NodeStatus(
            version="0.1.0",
            ready=True,
            pid=1,
            home="/home/x",
            url=self.url,
            uptime_s=1.0,
            offline=False,
            listening_beyond_this_machine=False,
            key_required=self.settings.require_key,
            memory_bytes=50_000_000,
            machine=machine,
            loaded=self.loaded(),
            pulls_active=0,
            models=1,
            **self.network.in_status(),
        )

    async def doctor(self) -> Sequence[Check]:
        return (Check("disk", "ok", "There is room."),)

    def list_settings(self) -> Sequence[Setting]:
        return (self._setting("server.port"),)

    def _setting(self, name: str) -> Setting:
        if name != "server.port":
            raise NotFound(f"There is no setting {name!r}.")
        value = self.values.get(name)
        if value is None:
            return Setting(name, 11435, 11435, "default", "Port", True, "PARES_SERVER_PORT")
        return Setting(name, value, 11435, "file", "Port", True, "PARES_SERVER_PORT")

    async def change_setting(self, name: str, value: object) -> Setting:
        self._setting(name)
        self.values[name] = value
        return self._setting(name)

    def logs(self, *, after: int, limit: int) -> Sequence[LogLine]:
        lines = [LogLine(n, "2026-11-22T00:00:00.000Z", "info", "node.started", {}) for n in range(1, 4)]
        return [line for line in lines if line.id > after][-limit:]

    def shutdown(self) -> None:
        self.stopping.set()


def _loaded(name: str, model: ScriptedModel, state: str, progress: float) -> Loaded:
    return Loaded(
        name=name,
        state="loading" if state == "loading" else "ready",
        profile="fast",
        exact="",
        fingerprint=model.facts.fingerprint,
        memory_bytes=1_000_000,
        context=model.context,
        threads=1,
        running=model.active,
        waiting=0,
        sequences=8,
        tokens_per_s=0.0,
        pid=1,
        progress=progress,
    )


@dataclass
class Door:
    """A node that can be reached."""

    url: str
    node: ScriptedNode
    gate: Gate
    http: httpx2.AsyncClient
    """Without a key."""
    admin: httpx2.AsyncClient
    """May do everything."""


@asynccontextmanager
async def open_door(
    home: Path, models: Mapping[Path, ScriptedModel], settings: Settings | None = None
) -> AsyncIterator[Door]:
    """Serve scripted models under the names of model files, on a free port."""
    settings = replace(settings or Settings(), port=0)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(home / "pares.sqlite"))
        events = await Events.open(database)
        library = await stack.enter_async_context(Library(database, home / "models", events))
        pulls = await stack.enter_async_context(Pulls(library, SwarmSettings(reserve_bytes=0), events, offline=True))
        for path in models:
            await library.import_path(path)
        node = ScriptedNode(
            settings,
            library,
            pulls,
            Conversations(database),
            Keys(database),
            events,
            {path.stem: model for path, model in models.items()},
        )
        gate = Gate(node)
        async with listening(create_app(node, gate=gate)) as url:
            node.url = url
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            async with (
                httpx2.AsyncClient(base_url=url) as http,
                httpx2.AsyncClient(base_url=url, headers=bearer) as admin,
            ):
                yield Door(url, node, gate, http, admin)
                events.close()


@asynccontextmanager
async def scripted_door(
    home: Path, model: ScriptedModel | None = None, settings: Settings | None = None
) -> AsyncIterator[Door]:
    """A node with one scripted model, `tiny`."""
    path = tiny_llama(home / "tiny.gguf", layers=1, embedding=32, ffn=64, template=CHATML)
    async with open_door(home, {path: model or ScriptedModel()}, settings) as door:
        yield door


def client(url: str, **options: Any) -> httpx2.AsyncClient:  # noqa: ANN401 (those of httpx2)
    """A plain HTTP client; without certificates, which take longer to load than most tests."""
    return httpx2.AsyncClient(base_url=url, verify=False, **options)


@asynccontextmanager
async def listening(app: object) -> AsyncIterator[str]:
    """A real server in this event loop; its address."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=2)  # type: ignore[arg-type]
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.shutdown()
