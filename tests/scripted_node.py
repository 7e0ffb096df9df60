"""A node that answers what a test tells it to, over real HTTP."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pares import __version__
from pares.api import schemas
from pares.api.commons import Versions
from pares.api.failures import refusal, surface_of
from pares.cli.app import run
from pares.errors import ParesError, Unauthorized

CONTROL = "/pares/v1"
TOKEN = "the token of this home"
METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


@dataclass(frozen=True)
class Stream:
    """A streamed answer: its pieces, then something to do, then perhaps silence until the client goes."""

    pieces: Sequence[str]
    then: Callable[[], None] = lambda: None
    hold: bool = False

    async def __aiter__(self) -> AsyncIterator[str]:
        for piece in self.pieces:
            yield piece
        self.then()
        if self.hold:
            await asyncio.Event().wait()


@dataclass
class ScriptedNode:
    """`script` says what is answered to `METHOD /path`: a value, an error, a Stream, None for 204, a function from the
    request's body to one of those, or a list to be worked off of which the last stays. `calls` is what was asked."""

    home: Path
    url: str = ""
    script: dict[str, object] = field(default_factory=dict)
    calls: list[tuple[str, object]] = field(default_factory=list)

    def asked(self, call: str) -> list[object]:
        """The bodies of all requests of one kind."""
        return [body for name, body in self.calls if name == call]

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        call = f"{request.method} {path.removeprefix(CONTROL)}"
        content = await request.body()
        body = msgspec.json.decode(content) if content else None
        self.calls.append((call, body))
        answer: object = self.script.get(call, ParesError(f"{call} is not in the script."))
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            answer = Unauthorized("Wrong token.")
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(body)
        match answer:
            case ParesError():
                return refusal(answer, surface_of(path))
            case Stream():
                return StreamingResponse(aiter(answer))
            case None:
                return Response(None, 204)
        return Response(msgspec.json.encode(answer), media_type="application/json")


class _Server(uvicorn.Server):
    ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def scripted_node(home: Path, *, pid: int | None = None) -> Iterator[ScriptedNode]:
    """Run one whose address is in the home, as the real one's is."""
    node = ScriptedNode(home)
    app = Starlette(routes=[Route("/{path:path}", node._answer, methods=METHODS)])
    listener = socket.create_server(("127.0.0.1", 0))
    node.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    node.script["GET /status"] = status(node)
    node.script["GET /versions"] = Versions(())
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    server.ready = threading.Event()
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert server.ready.wait(10)
        write_address(home, node.url, pid=os.getpid() if pid is None else pid)
        yield node
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def write_address(home: Path, url: str, *, pid: int, started_at: datetime | None = None) -> None:
    """What a running node writes into its home."""
    told = {
        "pid": pid,
        "url": url,
        "token": TOKEN,
        "version": __version__,
        "started_at": started_at or datetime.now(UTC),
    }
    (home / "node.json").write_bytes(msgspec.json.encode(told))


MACHINE = schemas.Machine("box", "Linux 6", "A processor", "AVX2", 4, 0.5, 16 * 10**9, 8 * 10**9, 10**12)
NEED = schemas.Need(100, 50, 10, 160, 8 * 10**9, 8192, 8192, "0.16 GB of 8 GB")
ROW = schemas.ModelRow(
    "smol", "model", 98_362_432, "Q4_1", 134_515_008, "llama", "Apache-2.0", "2026-11-22T10:00:00Z",
    linked=False, missing=False, loaded=False, fit="runs well", need=NEED,
)  # fmt: skip
DETAIL = schemas.ModelDetail(
    ROW, "/models/smol.gguf", "ab" * 32, "the catalogue", 8192, 30, 576, 49152, {"general.name": "smol"}, {},
    {"default": "{{ messages }}"}, ("chat",), "The licence.",
)  # fmt: skip
LOADED = schemas.Loaded(
    "smol", "ready", "fast", "", "", 500_000_000, 8192, 2, 1, 0, 8, 12.5, 4711, expires_at="2126-11-22T10:00:00Z"
)
MESSAGE = schemas.MessageNode(
    "m2", "m1", "assistant", "Blue.", "", "smol", "complete", "2026-11-22T10:00:00Z",
    prompt_tokens=12, generated_tokens=3, tokens_per_s=30.0, first_token_s=0.2,
)  # fmt: skip
CONVERSATION = schemas.Conversation(
    schemas.ConversationRow("c1", "Sky", "smol", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z", 2),
    "", schemas.ChatSettings(temperature=0.5), "m2", (MESSAGE,),
)  # fmt: skip


def status(node: ScriptedNode) -> schemas.NodeStatus:
    """One that is ready, with one model in memory."""
    return schemas.NodeStatus(
        __version__, True, os.getpid(), str(node.home), node.url, 60.0, False, False, False, 80_000_000, MACHINE,
        (LOADED,), 0, 1,
    )  # fmt: skip


def pull(state: str, amount: int = 0, total: int = 1000, **more: object) -> schemas.PullStatus:
    """How a download stands."""
    told = {"id": "p1", "source": "smol", "name": "smol", "state": state, "bytes": amount, "total": total}
    told |= {"bytes_per_s": 100.0, "eta_s": 5.0, "origin": "the index", **more}
    return msgspec.convert(told, schemas.PullStatus)


def chat_lines(*pieces: str, thinking: str = "") -> Stream:
    """An answer in the lines of `/api/chat`."""
    told = [{"message": {"role": "assistant", "content": "", "thinking": thinking}}] if thinking else []
    told += [{"message": {"role": "assistant", "content": piece}} for piece in pieces]
    last = {
        "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
        "total_duration": 2 * 10**9, "load_duration": 0, "prompt_eval_count": 12, "prompt_eval_duration": 5 * 10**8,
        "eval_count": 3, "eval_duration": 10**9,
    }  # fmt: skip
    return Stream([msgspec.json.encode(line).decode() + "\n" for line in [*told, last]])


def sse(*events: tuple[str, object]) -> Stream:
    """A stream of named events."""
    return Stream([f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n" for name, data in events])


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 (tests know its shape)
        return msgspec.json.decode(self.out)


class Call:
    """The command line in this process: the exit code and what it printed."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PARES_HOME", str(home))

    def __call__(self, *arguments: str, stdin: str = "") -> Said:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        code = run(arguments)
        return Said(code, *self._capsys.readouterr())


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Person:
    """Calls from a terminal, where somebody answers what is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, answer: str, *arguments: str) -> Said:
        stdout, stderr = Screen(), Screen()
        with self._monkeypatch.context() as patch:
            for name, stream in (("stdin", Screen(answer)), ("stdout", stdout), ("stderr", stderr)):
                patch.setattr(f"sys.{name}", stream)
            code = run(arguments)
        return Said(code, stdout.getvalue(), stderr.getvalue())
