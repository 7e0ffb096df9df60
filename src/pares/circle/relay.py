"""A relay for members who cannot reach each other directly: iroh's relay protocol over WebSocket, hardened.

It forwards encrypted datagrams between authenticated keys and can read none of them. docs/RELAY.md says what it does
see. Everything that a client can make it keep is bounded, and no client can make it wait for another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from pares.circle import relay_frames as frames
from pares.circle.relay_limits import Door, Pace, Refusal
from pares.circle.relay_socket import Socket, answer, sockets
from pares.circle.settings import RelaySettings
from pares.errors import AlreadyRunning, Misconfigured, RemoteError
from pares.wire.framing import ProtocolError
from pares.wire.signing import BadSignature

log = logging.getLogger(__name__)
_websocket_log = logging.getLogger(f"{__name__}.websocket")
_websocket_log.setLevel(logging.ERROR)  # its lines about each connection would repeat ours, and tell of every scanner

Refused = Refusal | Literal["handshake", "signature", "not_a_member"]
Dropped = Literal["not_connected", "queue_full"]
Ended = Literal["left", "fault", "idle", "stalled", "flood", "replaced", "not_a_member", "stopping"]

CONNECTIONS_PER_KEY = 3
"""One that is used, and such as its owner may not yet know to be dead."""
HANDSHAKING = 64
"""Connections beside the clients: those that have not proven a key, and probes."""
STOP_S = 2.0
"""How long stopping waits for clients to take their leave, at most."""
_CLOSE_S = 1.0
_REACHED = 1024
"""Correspondents of a client that are told when it is gone, at most."""


@dataclass(slots=True)
class Metrics:
    """What happened since the relay started; `clients` is what is now."""

    clients: int = 0
    forwarded_frames: int = 0
    forwarded_bytes: int = 0
    """With 33 bytes of type and key per frame."""
    delayed_s: float = 0.0
    """How long clients were kept waiting because they were faster than they may be."""
    dropped: Counter[Dropped] = field(default_factory=Counter)
    """Frames that were not forwarded."""
    refused: Counter[Refused] = field(default_factory=Counter)
    """Connections that did not become clients."""
    ended: Counter[Ended] = field(default_factory=Counter)
    """Clients that are no longer there."""


class Relay:
    """`async with Relay(settings, allowed=...)`: listens, and serves until the end of the block.

    `allowed` is asked with a key that is proven; call `recheck` when its answers may have changed.
    Entering raises AlreadyRunning if the port is taken, Misconfigured if the host is not of this machine.
    """

    def __init__(self, settings: RelaySettings, *, allowed: Callable[[bytes], bool]) -> None:
        self.metrics = Metrics()
        self.settings = settings
        self.port = settings.port
        """Where it listens: the chosen one if the setting is 0."""
        self._allowed = allowed
        self._door = Door(
            total=settings.clients + HANDSHAKING,
            per_address=settings.connections_per_address,
            per_second=settings.handshakes_per_second,
        )
        self._clients: dict[bytes, list[_Client]] = {}
        self._sockets: set[Socket] = set()
        self._server: Server

    async def __aenter__(self) -> Self:
        try:
            self._server = await serve(
                self._serve,
                self.settings.host or None,
                self.settings.port,
                subprotocols=[Subprotocol(frames.VERSION_2), Subprotocol(frames.VERSION_1)],
                process_request=answer,
                create_connection=sockets(self),
                compression=None,
                server_header=None,
                open_timeout=self.settings.handshake_s,
                close_timeout=_CLOSE_S,
                ping_interval=None,
                max_size=frames.FRAME_BYTES,
                max_queue=4,
                logger=_websocket_log,
            )
        except OSError as error:
            raise self._unusable(error) from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        log.info("relay listens on %s port %d", self.settings.host or "all addresses", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close(close_connections=False)
        clients = [client for several in self._clients.values() for client in several]
        try:
            async with asyncio.timeout(STOP_S), asyncio.TaskGroup() as tasks:
                for client in clients:
                    tasks.create_task(client.farewell())
        except TimeoutError:
            log.info("relay stops without waiting for clients that do not read")
        finally:
            for socket in tuple(self._sockets):
                socket.transport.abort()
            await self._server.wait_closed()
        log.info("relay stopped; it forwarded %d frames", self.metrics.forwarded_frames)

    def connected(self, key: bytes) -> bool:
        """Whether this member can be reached through this relay now."""
        return key in self._clients

    def recheck(self) -> None:
        """The roster changed: drop at once who is no longer allowed."""
        for key, several in tuple(self._clients.items()):
            if not self._allowed(key):
                for client in tuple(several):
                    client.drop("not_a_member", "it is no longer a member")

    def admit(self, socket: Socket, address: str) -> bool:
        """Whether a connection that was just made may go on. It is counted until `leave`."""
        if refused := self._door.admit(address, time.monotonic()):
            self._refuse(refused, f"connection from {address}")
            return False
        self._sockets.add(socket)
        return True

    def leave(self, socket: Socket, address: str, *, served: bool) -> None:
        """A connection that was admitted is gone. Not `served`: it became no WebSocket, and was no probe."""
        self._sockets.discard(socket)
        self._door.leave(address)
        if not served:
            self._refuse("handshake", f"no request that is answered came from {address}")

    def forward(self, packet: frames.Packet, sender: _Client) -> None:
        """Queue it for its destination's latest connection, or drop it: never wait."""
        several = self._clients.get(packet.destination)
        if several is None:
            self.metrics.dropped["not_connected"] += 1
            return
        frame = packet.relayed(sender.key)
        if not several[-1].offer(frame):
            self.metrics.dropped["queue_full"] += 1
            return
        self.metrics.forwarded_frames += 1
        self.metrics.forwarded_bytes += len(frame)
        if len(sender.reached) < _REACHED:
            sender.reached.add(packet.destination)

    async def _serve(self, socket: ServerConnection) -> None:
        """One connection, from the challenge to its end."""
        assert isinstance(socket, Socket)
        if (key := await self._authenticated(socket)) is None:
            return
        client = _Client(self, socket, key)
        self._enter(client)
        try:
            await client.run()
        finally:
            self._exit(client)

    async def _authenticated(self, socket: Socket) -> bytes | None:
        """The key that this connection proved, if it may be here. Otherwise it was refused."""
        nonce = os.urandom(frames.NONCE_BYTES)
        try:
            async with asyncio.timeout_at(socket.since + self.settings.handshake_s):
                try:
                    await socket.send(frames.challenge(nonce))
                    key = frames.proven_key(_binary(await socket.recv()), nonce)
                except BadSignature as fault:
                    self._refuse("signature", fault.message)
                    await socket.send(frames.deny("signature invalid"))
                    return None
                if reason := self._unwelcome(key):
                    await socket.send(frames.deny(reason))
                    return None
                return key
        except (ConnectionClosed, ProtocolError, TimeoutError) as fault:
            self._refuse("handshake", str(fault) or "it took too long")
            return None

    def _unwelcome(self, key: bytes) -> str:
        """Why the owner of this key may not be a client, in the words it is told."""
        if not self._allowed(key):
            self.metrics.refused["not_a_member"] += 1
            log.info("relay refused %s: it is not a member", key.hex()[:8])
            return "not authorized"
        if self.metrics.clients >= self.settings.clients and key not in self._clients:
            self.metrics.refused["full"] += 1
            log.warning("relay refused %s: %d clients are connected already", key.hex()[:8], self.metrics.clients)
            return "relay is full"
        return ""

    def _enter(self, client: _Client) -> None:
        """From now on it gets what comes for its key; an older connection with that key gets nothing more."""
        several = self._clients.setdefault(client.key, [])
        if several:
            several[-1].tell(frames.Status.SAME_KEY_CONNECTED)
            log.info("relay client %s connected once more", client)
        several.append(client)
        client.socket.proven = True
        self.metrics.clients += 1
        client.offer(frames.confirm())
        for old in several[:-CONNECTIONS_PER_KEY]:
            old.drop("replaced", "newer connections have the same key")
        log.info("relay client %s connected, %d in all", client, self.metrics.clients)

    def _exit(self, client: _Client) -> None:
        """It is gone: the connection with its key before it counts again, or its correspondents are told."""
        several = self._clients[client.key]
        was_active = several[-1] is client
        several.remove(client)
        self.metrics.clients -= 1
        self.metrics.ended[client.ended] += 1
        log.info("relay client %s ended (%s): %s", client, client.ended, client.why)
        if several:
            if was_active:
                several[-1].tell(frames.Status.HEALTHY)
            return
        del self._clients[client.key]
        for key in client.reached & self._clients.keys():
            self._clients[key][-1].offer(frames.gone(client.key))

    def _refuse(self, reason: Refused, detail: str) -> None:
        """Count it. The log line is for debugging: anybody can cause as many as they like."""
        self.metrics.refused[reason] += 1
        log.debug("relay refused a connection (%s): %s", reason, detail)

    def _unusable(self, error: OSError) -> AlreadyRunning | Misconfigured:
        where = f"{self.settings.host or 'all addresses'} port {self.settings.port}"
        if error.errno == errno.EADDRINUSE:
            hint = "Choose another with `pares config set relay.port`, or stop what uses it."
            return AlreadyRunning(f"The relay cannot listen on {where}: it is taken.", hint=hint)
        hint = "`relay.host` must be an address of this machine, and ports below 1024 may need rights."
        return Misconfigured(f"The relay cannot listen on {where}: {error.strerror or error}.", hint=hint)


class _Client:
    """One connection of an authenticated member: a reader, a writer with a bounded queue, and a heartbeat."""

    def __init__(self, relay: Relay, socket: Socket, key: bytes) -> None:
        settings, now = relay.settings, time.monotonic()
        self.key, self.socket = key, socket
        self.version = socket.subprotocol or frames.VERSION_2
        self.reached: set[bytes] = set()
        self.ended: Ended = "left"
        self.why = "it left"
        self._relay, self._settings = relay, settings
        self._sending = Pace(settings.frames_per_second, settings.bytes_per_second, now)
        self._receiving = Pace(settings.frames_per_second, settings.bytes_per_second, now)
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiting = asyncio.Event()
        self._heard = True
        self._dropped = False

    def __str__(self) -> str:
        return self.key.hex()[:8]

    def offer(self, frame: bytes) -> bool:
        """Queue a frame for it; whether there was room."""
        if self._queued + len(frame) > self._settings.queue_bytes:
            return False
        self._queue.append(frame)
        self._queued += len(frame)
        self._waiting.set()
        return True

    def tell(self, status: frames.Status) -> None:
        """Say how the connection is."""
        self.offer(frames.status(status, self.version))

    def drop(self, ended: Ended, why: str) -> None:
        """End it now; what is queued is lost, and nothing that it has sent is looked at any more."""
        if self.ended == "left":
            self.ended, self.why = ended, why
        self._dropped = True
        self.socket.transport.abort()

    async def farewell(self) -> None:
        """The relay stops: say so, and close."""
        self.ended, self.why = "stopping", "the relay stops"
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(frames.restarting(0, 5_000))
            await self.socket.close(CloseCode.SERVICE_RESTART)

    async def run(self) -> None:
        """Until it leaves or is dropped."""
        async with asyncio.TaskGroup() as tasks:
            others = tasks.create_task(self._write()), tasks.create_task(self._keep_alive())
            try:
                await self._read()
            except RemoteError as fault:
                self.drop("fault", fault.message)
            except ConnectionClosed as closed:
                self._note(closed)
            finally:
                for task in others:
                    task.cancel()

    async def _read(self) -> None:
        while True:
            frame = _binary(await self.socket.recv())
            if self._dropped:
                return
            self._heard = True
            match frames.parse(frame):
                case frames.Packet() as packet:
                    self._relay.forward(packet, self)
                case frames.Ping(data):
                    self.offer(frames.pong(data))
                case frames.Pong():
                    pass
            if delay := self._sending.take(len(frame), time.monotonic()):
                self._relay.metrics.delayed_s += delay
                await asyncio.sleep(delay)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._waiting.wait()
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued -= len(frame)
                    if not await self._sent(frame):
                        return
                    if delay := self._receiving.take(len(frame), time.monotonic()):
                        await asyncio.sleep(delay)
                self._waiting.clear()

    async def _sent(self, frame: bytes) -> bool:
        """Write it; a client that reads nothing is dropped."""
        try:
            async with asyncio.timeout(self._settings.stalled_s):
                await self.socket.send(frame)
        except TimeoutError:
            self.drop("stalled", f"it read nothing for {self._settings.stalled_s:g} s")
            return False
        return True

    async def _keep_alive(self) -> None:
        """Ask after silence, and drop it when that is not answered. Half the deadline each."""
        while True:
            spread = random.uniform(0.8, 1.0)  # so that not all are asked at once
            await asyncio.sleep(self._settings.idle_s / 2 * spread)
            if not self._heard:
                self.drop("idle", f"it was silent for {self._settings.idle_s:g} s")
                return
            self._heard = False
            self.offer(frames.ping(os.urandom(frames.PING_BYTES)))

    def _note(self, closed: ConnectionClosed) -> None:
        """Why the connection ended, if nobody here ended it."""
        if self.ended != "left":
            return
        if self.socket.flooding:
            self.ended, self.why = "flood", self.socket.flooding
        elif closed.sent is not None and not closed.rcvd_then_sent:
            self.ended, self.why = "fault", f"{closed.sent.reason or closed.sent}"
        elif closed.rcvd is None:
            self.why = "the connection broke"


def _binary(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise ProtocolError("A text message came; relay frames are binary.")
    return message
