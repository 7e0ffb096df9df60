"""The connections of a relay below its protocol: counted before their handshake, and never buffering without end."""

from __future__ import annotations

import asyncio
import http
import re
from typing import ClassVar, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event

from pares.transport.bucket import Bucket

_SLICE, _FRAMES_AHEAD = 16 * 1024, 4096
"""More frames than an honest client's datagrams in one read of the socket."""
_STRANGERS_SLICE, _STRANGERS_FRAMES_AHEAD = 1024, 8
"""Of who has not proven a key, and has one frame to send."""
_CONTROL_PER_SECOND, _CONTROL_BURST = 2, 20
_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,63}")


class Gate(Protocol):
    """Who decides about connections by their address."""

    def admit(self, socket: Socket, address: str) -> bool: ...

    def leave(self, socket: Socket, address: str, *, served: bool) -> None: ...


class Socket(ServerConnection):
    """A WebSocket that asks its gate first, and is aborted when its client floods it. Made by `sockets`."""

    gate: ClassVar[Gate]
    since: float
    """When it was made, in the event loop's time."""
    proven: bool = False
    """Whether its client has proven a key; until then much less is read at once."""
    flooding: str = ""
    """Why it was aborted, if its client flooded it."""
    _address: str = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        self._control = Bucket(_CONTROL_PER_SECOND, _CONTROL_BURST, self.since)
        peer = self.remote_address
        if peer and self.gate.admit(self, peer[0]):
            self._address = peer[0]
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._address:
            served = self.response is not None and self.response.status_code < http.HTTPStatus.BAD_REQUEST
            self.gate.leave(self, self._address, served=served)

    def data_received(self, data: bytes) -> None:
        # In slices: the library unpacks all of what it is given before anybody can count the frames in it.
        size, ahead = (_SLICE, _FRAMES_AHEAD) if self.proven else (_STRANGERS_SLICE, _STRANGERS_FRAMES_AHEAD)
        for start in range(0, len(data), size):
            super().data_received(data[start : start + size])
            if len(self.recv_messages.frames) > ahead:
                self._abort(f"it sent more than {ahead} frames at once")
            if self.transport.is_closing():
                return

    def process_event(self, event: Event) -> None:
        # The library answers each ping as it unpacks it, whether or not the answers are read.
        control = isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG)
        if control and not self._control.try_take(1, self.loop.time()):
            self._abort("it sent many WebSocket pings")
        super().process_event(event)

    def _abort(self, flooding: str) -> None:
        self.flooding = flooding
        self.transport.abort()


def sockets(of: Gate) -> type[Socket]:
    """The kind of sockets that pass this gate."""

    class Gated(Socket):
        gate = of

    return Gated


def answer(socket: ServerConnection, request: Request) -> Response | None:
    """To the probes of iroh's network report, and to whatever else asks; None for a client of the relay."""
    match request.path.partition("?")[0]:
        case "/relay":
            return None
        case "/ping":
            return socket.respond(http.HTTPStatus.OK, "")
        case "/generate_204":
            response = socket.respond(http.HTTPStatus.NO_CONTENT, "")
            challenge = request.headers.get("X-Iroh-Challenge", "")
            if _CHALLENGE.fullmatch(challenge):
                response.headers["X-Iroh-Response"] = f"response {challenge}"
            return response
        case _:
            return socket.respond(http.HTTPStatus.NOT_FOUND, "")
