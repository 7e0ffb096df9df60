"""All connections of a node: one per peer and protocol, requests over them, and who is there.

A request has a stream of its own: one frame goes, one comes back. When both sides dial at the same time, the connection
that the lower key dialled stays; the other is retired: nothing new is sent over it, and it is closed a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from pares.errors import Fence, RemoteError
from pares.transport.link import Connection, Disconnected, Stream, Transport, Unreachable, Where
from pares.wire.framing import MESSAGE_BYTES, PREFIX, ProtocolError, frame, size_of
from pares.wire.signing import PeerId, decoded

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")
Handler = Callable[[Connection, Stream], Awaitable[None]]

DIAL_S = 10.0
REQUEST_S = 15.0
"""From a stream's opening until its request is answered."""
STREAMS = 64
"""Requests of one connection that are worked on at the same time; the next wait in QUIC's flow control."""
CONNECTIONS = 1024
RETIRED_S = 3.0
AT_ONCE_S = 5.0
"""Two connections within so long were dialled at the same time; after that a new one means that the old one is dead."""
PUNISHED_S = 60.0
"""A peer that broke the protocol is not let in again for so long."""


class Switchboard:
    """`async with` it. `allowed(peer, protocol)` says who may be connected; `on_change(peer)` hears of news."""

    def __init__(
        self,
        transport: Transport,
        handlers: Mapping[str, Handler],
        *,
        allowed: Callable[[PeerId, str], bool],
        on_change: Callable[[PeerId], None] = lambda peer: None,
    ) -> None:
        self.transport = transport
        self._handlers = handlers
        self._allowed = allowed
        self._on_change = on_change
        self._links: dict[tuple[PeerId, str], Connection] = {}
        self._adopted: dict[tuple[PeerId, str], float] = {}
        self._dialling: dict[tuple[PeerId, str], asyncio.Task[Connection | RemoteError]] = {}
        self._punished: dict[PeerId, float] = {}
        self._tasks = asyncio.TaskGroup()
        self._open: Counter[PeerId] = Counter()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._accepting = self._tasks.create_task(self._accept(), name="accept connections")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._accepting.cancel()
        for task in list(self._dialling.values()):
            task.cancel()
        for link in list(self._links.values()):
            link.close("the node is stopping")
        await self._tasks.__aexit__(kind, error, trace)

    def link(self, peer: PeerId, protocol: str) -> Connection | None:
        """The connection with a peer, if there is one."""
        return self._links.get((peer, protocol))

    def connected(self, protocol: str) -> tuple[PeerId, ...]:
        """All peers with a connection for this protocol."""
        return tuple(peer for peer, spoken in self._links if spoken == protocol)

    async def connect(self, where: Where, protocol: str, *, timeout_s: float = DIAL_S) -> Connection:
        """The connection with a peer, dialled if there is none. Raises Unreachable."""
        key = (where.peer, protocol)
        if (link := self._links.get(key)) is not None:
            return link
        task = self._dialling.get(key)
        if task is None:
            task = self._tasks.create_task(self._dial(where, protocol, timeout_s), name=f"dial {where.peer.hex()[:8]}")
            self._dialling[key] = task
            task.add_done_callback(lambda _: self._dialling.pop(key, None))
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if (link := self._links.get(key)) is not None:  # they may have dialled us meanwhile
            return link
        if not done:
            raise Unreachable(f"{where.peer.hex()[:8]} did not answer within {timeout_s:.0f} s.")
        if task.cancelled():
            raise Unreachable("The node is stopping.")
        found = task.result()
        if isinstance(found, RemoteError):
            raise Unreachable(found.message)
        return found

    def drop(self, peer: PeerId, reason: str) -> None:
        """Close all connections with a peer."""
        for (other, _), link in list(self._links.items()):
            if other == peer:
                link.close(reason)
                self._forget(link)

    def punish(self, peer: PeerId, error: RemoteError) -> None:
        """A peer broke the protocol: it is dropped, and not let in for a minute."""
        log.warning("peer.dropped", extra={"peer": peer.hex()[:8], "reason": error.message})
        self._punished[peer] = time.monotonic() + PUNISHED_S
        self.drop(peer, "protocol error")

    # Connections

    async def _dial(self, where: Where, protocol: str, timeout_s: float) -> Connection | RemoteError:
        """A failure is a result: raised in a task, it would end all others of its group."""
        try:
            return self._adopt(await self.transport.connect(where, protocol, timeout_s=timeout_s))
        except (Unreachable, Disconnected) as error:
            return error

    async def _accept(self) -> None:
        with contextlib.suppress(Disconnected):
            while True:
                link = await self.transport.accept()
                with contextlib.suppress(Disconnected):
                    self._adopt(link)

    def _adopt(self, link: Connection) -> Connection:
        """Take a connection into use; the one that is used from now on. Raises Disconnected if it is not welcome."""
        key = (link.peer, link.protocol)
        now = time.monotonic()
        self._punished = {peer: until for peer, until in self._punished.items() if until > now}
        if link.peer in self._punished or not self._allowed(link.peer, link.protocol):
            link.close("not welcome")
            raise Disconnected("The peer is not welcome here.")
        if key not in self._links and len(self._links) >= CONNECTIONS:
            link.close("full")
            raise Disconnected(f"There are {CONNECTIONS} connections already.")
        self._tasks.create_task(self._serve(link), name=f"serve {link.peer.hex()[:8]}")
        before = self._links.get(key)
        at_once = before is not None and now - self._adopted[key] < AT_ONCE_S
        if at_once and before and before.outgoing != link.outgoing and self._preferred(before):
            self._retire(link)
            return before
        self._links[key], self._adopted[key] = link, now
        if before is not None:
            self._retire(before)
        self._on_change(link.peer)
        return link

    def _preferred(self, link: Connection) -> bool:
        """Of two connections, both sides keep the one that the lower key dialled."""
        return link.outgoing == (self.transport.id < link.peer)

    def _retire(self, link: Connection) -> None:
        asyncio.get_running_loop().call_later(RETIRED_S, link.close, "another connection is used")

    def _forget(self, link: Connection) -> None:
        key = (link.peer, link.protocol)
        if self._links.get(key) is link:
            del self._links[key], self._adopted[key]
            self._on_change(link.peer)

    # Requests of theirs

    async def _serve(self, link: Connection) -> None:
        handler = self._handlers.get(link.protocol)
        places = asyncio.Semaphore(STREAMS)
        try:
            async with asyncio.TaskGroup() as requests:
                while handler is not None:
                    await places.acquire()
                    stream = await link.accept()
                    task = requests.create_task(self._answer(handler, link, stream))
                    task.add_done_callback(lambda _: places.release())
        except* Disconnected:
            pass
        finally:
            self._forget(link)
            link.close("")

    async def _answer(self, handler: Handler, link: Connection, stream: Stream) -> None:
        try:
            with Fence() as fence:
                async with asyncio.timeout(REQUEST_S):
                    await handler(link, stream)
        except asyncio.CancelledError:
            stream.abort()
            raise
        match fence.problem:
            case None:
                return
            case ProtocolError() as error:
                self.punish(link.peer, error)
            case RemoteError() | TimeoutError():
                pass
            case bug:
                log.error("peer.request_failed", extra={"peer": link.peer.hex()[:8]}, exc_info=bug)
        stream.abort()


async def ask(link: Connection, request: msgspec.Struct, kind: type[Reply], *, timeout_s: float = REQUEST_S) -> Reply:
    """One request and its answer on a stream of its own. Raises Disconnected (a deadline too) and ProtocolError."""
    stream: Stream | None = None
    try:
        async with asyncio.timeout(timeout_s):
            stream = await link.open()
            await stream.send(frame(msgspec.msgpack.encode(request)))
            await stream.finish()
            return await receive(stream, kind)
    except BaseException as error:
        if stream is not None:
            stream.abort()
        if isinstance(error, TimeoutError):
            raise Disconnected(f"{link.peer.hex()[:8]} did not answer within {timeout_s:.1f} s.") from None
        raise


async def receive(stream: Stream, kind: type[Reply], *, most: int = MESSAGE_BYTES) -> Reply:
    """The next frame as a message. Raises ProtocolError, Disconnected."""
    size = size_of(await stream.receive(PREFIX.size), most=most)
    return decoded(await stream.receive(size), kind)


async def answer(stream: Stream, reply: msgspec.Struct) -> None:
    """Send the one answer and end the stream."""
    await stream.send(frame(msgspec.msgpack.encode(reply)))
    await stream.finish()
