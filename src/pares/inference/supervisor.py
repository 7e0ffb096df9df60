"""The node's side of one worker process: start it, route its messages, say clearly how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import count

import msgspec

from pares.errors import LocalError, WorkerDied
from pares.inference import pipe
from pares.inference.generation import ModelFacts, Sampling, Step, TokenId, Usage, Vocabulary

SOCKET_BUFFER = 1 << 20
LAST_WORDS = 4096
"""Bytes of what a worker said on stderr that are kept, for its obituary."""


class _Stream:
    """Steps that have arrived for one generation and were not taken yet."""

    __slots__ = ("_waiter", "begun", "error", "steps")

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self.error: LocalError | None = None
        self.begun: Usage | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, step: Step) -> None:
        self.steps.append(step)
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        self._waiter = None


class WorkerProcess(asyncio.Protocol):
    """A worker. Make one with `spawn`, then wait until it is `ready`. `on_change`: its queue or progress moved."""

    facts: ModelFacts
    vocabulary: Vocabulary
    probe: pipe.Probe
    _process: asyncio.subprocess.Process
    _transport: asyncio.WriteTransport
    _watcher: asyncio.Task[None]

    def __init__(self, name: str, on_change: Callable[[], None]) -> None:
        self.name = name
        self.queue = pipe.Queue(0, 0)
        self.progress = 0.0
        self.tokens_total = 0
        self._on_change = on_change
        self._ids = count(1)
        self._frames = pipe.Frames()
        self._streams: dict[int, _Stream] = {}
        self._replies: dict[int, asyncio.Future[list[bytes]]] = {}
        self._embeddings = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stderr = b""
        self._stopping = False
        self.ended = asyncio.Event()

    @classmethod
    async def spawn(cls, name: str, load: pipe.Load, *, on_change: Callable[[], None]) -> WorkerProcess:
        """Start a process that begins to load. Raises WorkerDied if the system has no room for one."""
        worker = cls(name, on_change)
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            worker._transport, _ = await loop.create_connection(lambda: worker, sock=ours)
            try:
                worker._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "pares.inference.worker", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
            except BaseException as error:
                worker._transport.close()
                if isinstance(error, OSError):
                    message = f"No process could be started for {name}: {error.strerror}."
                    raise WorkerDied(message, hint="Close other programs and try again.") from error
                raise
        worker._watcher = asyncio.create_task(worker._watch(), name=f"watch worker of {name}")
        worker._send(load)
        return worker

    async def ready(self, *, timeout_s: float) -> None:
        """Wait until the model is loaded. Raises what the worker refused with, or WorkerDied; it is stopped then."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready
        except TimeoutError:
            await self.stop()
            message = f"{self.name} did not load within {timeout_s:.0f} s."
            raise WorkerDied(message, hint="Try a smaller model.") from None
        except BaseException:
            await self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def requests(self) -> int:
        """Generations and embeddings that are computed or wait."""
        return len(self._streams) + self._embeddings

    async def stop(self) -> None:
        """End the process and give its memory back; its requests end with WorkerDied."""
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # it holds nothing to save, and in the middle of loading it would hear nothing else
        await self.ended.wait()

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int, adapter: str
    ) -> AsyncGenerator[Step, None]:
        """Steps of one generation; closing the iterator cancels it in the worker."""
        id_ = next(self._ids)
        stream = _Stream()
        self._alive()
        self._send(pipe.Generate(id_, array("i", prompt).tobytes(), sampling, max_tokens, adapter))
        self._streams[id_] = stream
        try:
            while True:
                while stream.steps:
                    step = stream.steps.popleft()
                    yield step
                    if step.finish is not None:
                        return
                if stream.error is not None:
                    raise stream.error
                await stream.wait()
        finally:
            if self._streams.pop(id_, None) is not None and not self.ended.is_set():
                self._send(pipe.Cancel(id_))

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        """See `Model.tokenize`."""
        id_ = next(self._ids)
        message = pipe.Tokenize(id_, text.encode("utf-8", "replace"), special, bos)
        return [TokenId(token) for token in array("i", (await self._ask(id_, message))[0])]

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        """See `Model.grammar_for`."""
        id_ = next(self._ids)
        return (await self._ask(id_, pipe.SchemaToGrammar(id_, msgspec.json.encode(schema))))[0].decode()

    async def embed(self, inputs: Sequence[Sequence[TokenId]], *, adapter: str) -> list[list[float]]:
        """See `Model.embed`."""
        id_ = next(self._ids)
        message = pipe.Embed(id_, [array("i", tokens).tobytes() for tokens in inputs], adapter)
        self._embeddings += 1
        try:
            return [array("f", part).tolist() for part in await self._ask(id_, message)]
        finally:
            self._embeddings -= 1

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._dispatch(pipe.from_worker.decode(body))

    # Inside

    def _send(self, message: pipe.ToWorker) -> None:
        self._transport.write(pipe.frame(message))

    def _alive(self) -> None:
        if self.ended.is_set() or self._stopping:
            raise WorkerDied(f"The process that held {self.name} has ended.", hint="Ask again: it is loaded anew.")

    async def _ask(self, id_: int, message: pipe.ToWorker) -> list[bytes]:
        self._alive()
        reply: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._replies[id_] = reply
        self._send(message)
        try:
            return await reply
        finally:
            self._replies.pop(id_, None)
            if reply.cancelled() and not self.ended.is_set():
                self._send(pipe.Cancel(id_))

    def _dispatch(self, message: pipe.FromWorker) -> None:
        match message:
            case pipe.Tokens(ids, tokens, details):
                self.tokens_total += len(ids)
                for id_, token in zip(ids, tokens, strict=True):
                    stream = self._streams.get(id_)
                    if stream is None:
                        continue
                    if id_ in details:
                        detail = details[id_]
                        top = tuple((TokenId(t), p) for t, p in detail.top)
                        stream.put(Step(TokenId(token), detail.logprob, top, usage=stream.begun))
                    else:
                        stream.put(Step(TokenId(token), usage=stream.begun))
                    stream.begun = None
            case pipe.Began(id_, usage):
                if (stream := self._streams.get(id_)) is not None:
                    stream.begun = usage
            case pipe.Ended(id_, reason, usage):
                if (stream := self._streams.get(id_)) is not None:
                    stream.put(Step(finish=reason, usage=usage))
            case pipe.Reply(id_, parts):
                if (reply := self._replies.get(id_)) is not None and not reply.done():
                    reply.set_result(parts)
            case pipe.Failed():
                self._fail(message.id, pipe.as_error(message))
            case pipe.Queue():
                self.queue = message
                self._on_change()
            case pipe.Progress(fraction):
                self.progress = fraction
                self._on_change()
            case pipe.Ready(facts, vocabulary, probe):
                self.facts, self.vocabulary, self.probe = facts, vocabulary, probe
                self.progress = 1.0
                if not self._ready.done():
                    self._ready.set_result(None)

    def _fail(self, id_: int, error: LocalError) -> None:
        if id_ == 0:
            if not self._ready.done():
                self._ready.set_exception(error)
        elif (stream := self._streams.get(id_)) is not None:
            stream.error = error
            stream.wake()
        elif (reply := self._replies.get(id_)) is not None and not reply.done():
            reply.set_exception(error)

    async def _watch(self) -> None:
        """Read what the process complains of until it ends, then tell everyone who waits."""
        assert self._process.stderr is not None
        while part := await self._process.stderr.read(LAST_WORDS):
            self._stderr = (self._stderr + part)[-LAST_WORDS:]
        code = await self._process.wait()
        self._transport.close()
        self.ended.set()
        error = WorkerDied(self._obituary(code), hint="Ask again: it is loaded anew.")
        for id_ in [0, *self._streams, *self._replies]:
            self._fail(id_, error)
        self._on_change()

    def _obituary(self, code: int) -> str:
        if self._stopping:
            return f"{self.name} was unloaded."
        if code == -signal.SIGKILL:
            why = "it was killed, most likely by the system because memory ran out"
        elif code < 0:
            why = f"it crashed ({signal.strsignal(-code)})"
        else:
            why = f"it ended with code {code}"
        last = "; ".join(self._stderr.decode(errors="replace").split("\n")[-4:]).strip("; ")
        return f"The process that held {self.name} is gone: {why}." + (f" Its last words: {last}" if last else "")
