"""All connections of a node: one per peer and protocol, requests over them, and who is there.

A request has a stream of its own: one frame goes, one comes back. When both sides dial at the same time, the connection
that the lower key dialled stays; the other is retired: nothing new is sent over it, and it is closed a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from pares.errors import Fence, RemoteError
from pares.transport.link import Connection, Disconnected, Stream, Transport, Unreachable, Where, ip_of, may_dial
from pares.wire.framing import MESSAGE_BYTES, PREFIX, ProtocolError, frame, size_of
from pares.wire.signing import PeerId, decoded

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")
Handler = Callable[[Connection, Stream], Awaitable[None]]
_Wire = tuple[PeerId, str]
"""A peer, and the protocol that is spoken with it."""

DIAL_S = 10.0
ADDRESSES = 24
"""Addresses of one peer that are dialled, at most."""
REQUEST_S = 15.0
"""From a stream's opening until its request is answered."""
STREAMS = 64
"""Requests of one connection that are worked on at the same time; the next wait in QUIC's flow control."""
CONNECTIONS = 1024
RETIRED_S = 3.0
RETIRED = 4
"""Connections of one peer that are on their way out, at most."""
AT_ONCE_S = 5.0
"""Two connections within so long were dialled at the same time; after that a new one means that the old one is dead."""
PUNISHED_S = 60.0
"""A peer that broke the protocol is not let in again for so long."""
PUNISHED = 4096
"""Peers of whom that is remembered, at most."""


@dataclass(slots=True, eq=False)
class _Dial:
    """An attempt to connect, for all who wait for it."""

    where: Where
    task: asyncio.Task[None] | None = None
    failure: str = "The connection ended at once."


class Switchboard:
    """`async with` it. `allowed(link)` says who may be connected; `on_change(peer)` hears of news."""

    def __init__(
        self,
        transport: Transport,
        handlers: Mapping[str, Handler],
        *,
        allowed: Callable[[Connection], bool],
        on_change: Callable[[PeerId], None] = lambda peer: None,
        lasting: Collection[str] = (),
    ) -> None:
        """`lasting`: protocols whose streams may be open for long; their handlers have deadlines of their own."""
        self.transport = transport
        self._handlers = handlers
        self._allowed = allowed
        self._on_change = on_change
        self._lasting = frozenset(lasting)
        self._links: dict[_Wire, Connection] = {}
        self._adopted: dict[_Wire, float] = {}
        self._retired: dict[Connection, asyncio.TimerHandle] = {}
        self._dials: dict[_Wire, _Dial] = {}
        self._punished: dict[PeerId, float] = {}
        self._tasks = asyncio.TaskGroup()
        self._stopping = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._accepting = self._tasks.create_task(self._accept(), name="accept connections")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._accepting.cancel()
        for wire in list(self._dials):
            self._give_up(wire, "The node is stopping.")
        for link in (*self._links.values(), *self._retired):
            link.close("the node is stopping")
        await self._tasks.__aexit__(kind, error, trace)

    def link(self, peer: PeerId, protocol: str) -> Connection | None:
        """The connection with a peer, if there is one."""
        return self._links.get((peer, protocol))

    def connected(self, protocol: str) -> tuple[PeerId, ...]:
        """All peers with a connection for this protocol."""
        return tuple(peer for peer, spoken in self._links if spoken == protocol)

    async def connect(self, where: Where, protocol: str, *, timeout_s: float = DIAL_S) -> Connection:
        """The connection with a peer, dialled if there is none. Raises Unreachable.

        Addresses are somebody's word: those where nobody may be dialled are left out. A dial that is under way goes on
        with the new ones besides.
        """
        wire = (where.peer, protocol)
        name = where.peer.hex()[:8]
        if (link := self._links.get(wire)) is not None:
            return link
        if self._stopping:
            raise Unreachable("The node is stopping.")
        if (left := self._punished.get(where.peer, 0) - _now()) > 0:
            raise Unreachable(f"{name} broke the protocol, and is left alone for {left:.0f} s.")
        self._start_dialling(wire, where, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dialled(wire)
        except TimeoutError:
            raise Unreachable(f"{name} did not answer within {timeout_s:.0f} s.") from None

    def drop(self, peer: PeerId, reason: str) -> None:
        """Close all connections with a peer."""
        for link in [link for link in (*self._links.values(), *self._retired) if link.peer == peer]:
            link.close(reason)
            self._forget(link)

    def punish(self, peer: PeerId, error: RemoteError) -> None:
        """A peer broke the protocol: it is dropped, and not let in for a minute."""
        log.warning("peer.dropped", extra={"peer": peer.hex()[:8], "reason": error.message})
        self._punished.pop(peer, None)
        if len(self._punished) >= PUNISHED:
            del self._punished[next(iter(self._punished))]
        self._punished[peer] = _now() + PUNISHED_S
        self.drop(peer, "protocol error")

    # Dialling

    def _start_dialling(self, wire: _Wire, where: Where, timeout_s: float) -> None:
        local = any(ip_of(address).is_loopback for address in self.transport.addresses())
        addresses = [address for address in where.addresses if may_dial(address, local=local)]
        before = self._dials.get(wire)
        if before is not None:
            addresses += before.where.addresses
            where = replace(where, relay=where.relay or before.where.relay)
        where = replace(where, addresses=tuple(dict.fromkeys(addresses))[:ADDRESSES])
        if before is not None:
            if set(where.addresses) == set(before.where.addresses) and where.relay == before.where.relay:
                return
            self._give_up(wire, "Dialled anew.")
        dial = self._dials[wire] = _Dial(where)
        dial.task = self._tasks.create_task(self._dial(wire, dial, timeout_s), name=f"dial {where.peer.hex()[:8]}")

    async def _dialled(self, wire: _Wire) -> Connection:
        while (dial := self._dials.get(wire)) is not None and dial.task is not None:
            await asyncio.wait({dial.task})
            if (link := self._links.get(wire)) is not None:  # they may have dialled us meanwhile
                return link
            if wire not in self._dials:
                raise Unreachable(dial.failure)
        raise Unreachable("The node is stopping.")

    async def _dial(self, wire: _Wire, dial: _Dial, timeout_s: float) -> None:
        """A failure is noted: raised in a task, it would end all others of its group."""
        try:
            self._adopt(await self.transport.connect(dial.where, wire[1], timeout_s=timeout_s))
        except (Unreachable, Disconnected) as error:
            dial.failure = error.message
        if self._dials.get(wire) is dial:
            del self._dials[wire]

    def _give_up(self, wire: _Wire, why: str) -> None:
        dial = self._dials.pop(wire)
        dial.failure = why
        if dial.task is not None:
            dial.task.cancel()

    # Connections

    async def _accept(self) -> None:
        with contextlib.suppress(Disconnected):
            while True:
                link = await self.transport.accept()
                with contextlib.suppress(Disconnected):
                    self._adopt(link)

    def _adopt(self, link: Connection) -> None:
        """Take a connection into use, or let it go for one that is better. Raises Disconnected if it is not welcome."""
        wire, now = (link.peer, link.protocol), _now()
        if why := self._unwelcome(link, now):
            link.close(why)
            raise Disconnected(f"The connection is not wanted: {why}.")
        self._tasks.create_task(self._serve(link), name=f"serve {link.peer.hex()[:8]}")
        before = self._links.get(wire)
        if before is not None:
            at_once = before.outgoing != link.outgoing and now - self._adopted[wire] < AT_ONCE_S
            if at_once and self._preferred(before):
                self._retire(link)
                return
            self._retire(before)
        self._links[wire], self._adopted[wire] = link, now
        if wire in self._dials and not link.outgoing and self._preferred(link):
            self._give_up(wire, "They dialled first.")
        self._on_change(link.peer)

    def _unwelcome(self, link: Connection, now: float) -> str:
        """Why a connection is not taken; empty if it is."""
        if self._stopping:
            return "the node is stopping"
        if link.protocol not in self._handlers:
            return "nobody here speaks this protocol"
        while self._punished and (first := next(iter(self._punished.items())))[1] <= now:
            del self._punished[first[0]]
        if link.peer in self._punished or not self._allowed(link):
            return "not welcome"
        if (link.peer, link.protocol) not in self._links and len(self._links) >= CONNECTIONS:
            return "full"
        return ""

    def _preferred(self, link: Connection) -> bool:
        """Of two connections, both sides keep the one that the lower key dialled."""
        return link.outgoing == (self.transport.id < link.peer)

    def _retire(self, link: Connection) -> None:
        others = [other for other in self._retired if other.peer == link.peer]
        if len(others) >= RETIRED:
            others[0].close("too many connections")
            self._forget(others[0])
        close = asyncio.get_running_loop().call_later(RETIRED_S, link.close, "another connection is used")
        self._retired[link] = close

    def _forget(self, link: Connection) -> None:
        wire = (link.peer, link.protocol)
        if (timer := self._retired.pop(link, None)) is not None:
            timer.cancel()
        if self._links.get(wire) is link:
            del self._links[wire], self._adopted[wire]
            self._on_change(link.peer)

    # Requests of theirs

    async def _serve(self, link: Connection) -> None:
        handler = self._handlers[link.protocol]
        places = asyncio.Semaphore(STREAMS)
        try:
            async with asyncio.TaskGroup() as requests:
                requests.create_task(_until_closed(link))
                while True:
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
                async with asyncio.timeout(None if link.protocol in self._lasting else REQUEST_S):
                    await handler(link, stream)
        except asyncio.CancelledError:
            stream.abort()
            raise
        match fence.problem:
            case None:
                return
            case ProtocolError() as error:
                self.punish(link.peer, error)
            case RemoteError() | TimeoutError() as error:
                log.debug("peer.request_given_up", extra={"peer": link.peer.hex()[:8], "reason": str(error)})
            case bug:
                log.error("peer.request_failed", extra={"peer": link.peer.hex()[:8]}, exc_info=bug)
        stream.abort()


async def _until_closed(link: Connection) -> None:
    """What is still waiting when a connection ends is given up, and no more of it is taken on."""
    raise Disconnected(await link.closed())


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


def _now() -> float:
    return asyncio.get_running_loop().time()
