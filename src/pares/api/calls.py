"""One request from its bytes to its answer: who may, how much, in which shape, and what if it fails."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pares.api.auth import Gate, Need
from pares.api.failures import encode, internal, log, refusal, surface_of
from pares.api.inventory import Inventory
from pares.api.metrics import Metrics
from pares.api.services import Services
from pares.api.streams import Stream, while_connected
from pares.errors import BadRequest, Fence, MethodNotAllowed, ParesError, TooLarge

B_co = TypeVar("B_co", covariant=True)
V = TypeVar("V")

BODY_DEADLINE_S = 60.0
"""Longest wait for the next part of a request's body."""
CLIENT_LEFT = 499
"""The status under which an abandoned request is counted."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all requests have in common."""

    services: Services
    gate: Gate
    metrics: Metrics
    inventory: Inventory


@dataclass(frozen=True, slots=True)
class Call(Generic[B_co]):
    """A request that was let in, with its body decoded."""

    request: Request
    services: Services
    gate: Gate
    metrics: Metrics
    inventory: Inventory
    body: B_co
    raw: bytes
    warnings: tuple[str, ...]
    """Fields of the body that are not known here, in words."""

    def path(self, name: str) -> str:
        """A part of the address."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str:
        """A parameter after the question mark; empty if it is not there."""
        return self.request.query_params.get(name, "")

    def number(self, name: str, default: int, *, low: int = 0, high: int = 2**63 - 1) -> int:
        """A numeric parameter after the question mark. Raises BadRequest."""
        text = self.query(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise BadRequest(f"{name} must be a whole number from {low} to {high}.", param=name)
        return int(text)


Handler = Callable[[Call[Any]], Awaitable["Response | Stream"]]


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter after the question mark, for the document."""

    name: str
    schema: dict[str, object]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One address: what it takes, what it answers, who may. The same table routes requests and writes the document."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Handler
    summary: str
    need: Need
    body: Any = None
    """The type of the JSON body; None if it takes none."""
    body_required: bool = True
    answer: Any = None
    """The type of the JSON answer; None for an empty one."""
    status: int = 200
    also: tuple[tuple[int, Any], ...] = ()
    """Further answers: status and type."""
    streams: tuple[str, ...] = ()
    """Media types beside JSON that the answer may come in."""
    query: tuple[Query, ...] = ()
    any_content_type: bool = False
    """Take JSON under any Content-Type, as people's scripts for Ollama send it."""


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(encode(value), status, headers, media_type="application/json")


class Endpoint:
    """All methods of one address, as an ASGI application."""

    def __init__(self, routes: dict[str, Route], shared: Shared) -> None:
        self._routes = routes
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._routes.get(method)
        if route is None:
            allowed = sorted(self._routes.keys() | ({"HEAD"} if "GET" in self._routes else set()))
            error = MethodNotAllowed(f"{scope['method']} is not possible here.", hint=f"Use {' or '.join(allowed)}.")
            response = refusal(error, surface_of(scope["path"]))
            response.headers["Allow"] = ", ".join(allowed)
            await response(scope, receive, send)
        else:
            await self._serve(route, scope, receive, send)

    async def _serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """The fence: whatever happens behind it, the client gets an answer in shape and the node goes on."""
        status = CLIENT_LEFT
        surface = surface_of(scope["path"])

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def work() -> None:
            nonlocal surface
            answer: ASGIApp = await route.handler(call)
            if isinstance(answer, Stream):
                surface = answer.surface
            await answer(scope, receive, counted_send)

        try:
            with Fence() as fence:
                call = await self._admit(route, Request(scope, receive))
                await while_connected(receive, work())
            if (problem := fence.problem) is not None:
                error = problem if isinstance(problem, ParesError) else internal(problem)
                if error is problem and error.status >= 500:
                    failure = {"route": route.path, "code": error.code, "reason": error.message}
                    log.warning("request.failed", extra=failure)
                if status == CLIENT_LEFT:
                    await refusal(error, surface)(scope, receive, counted_send)
                else:
                    end = surface.breakage(error)
                    await send({"type": "http.response.body", "body": end, "more_body": False})
        finally:
            self._shared.metrics.requests.labels(route.path, route.method, str(status)).inc()

    async def _admit(self, route: Route, request: Request) -> Call[Any]:
        shared = self._shared
        await shared.gate.admit(request, route.need)
        raw = b""
        body: object = None
        warnings: tuple[str, ...] = ()
        if route.body is not None:
            if not route.any_content_type:
                _require_json(request)
            raw = await read_body(request, shared.services.settings.max_body_bytes)
            body, warnings = decode(raw if raw or route.body_required else b"{}", route.body)
        return Call(request, shared.services, shared.gate, shared.metrics, shared.inventory, body, raw, warnings)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is over the limit, BadRequest if the client stops sending."""
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    more = True
    while more:
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                message = await request.receive()
        except TimeoutError:
            raise BadRequest(f"The request's body did not arrive within {BODY_DEADLINE_S:.0f} s.") from None
        if message["type"] == "http.disconnect":
            raise BadRequest("The client left before its request was complete.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The request's body is larger than {limit / 2**20:.0f} MiB.",
        hint="Send less, or raise the setting server.max_body_bytes.",
        limit=limit,
    )


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise BadRequest(f"The body must be JSON, not {kind[:100]}.", hint="Send Content-Type: application/json.")


_AT = re.compile(r" - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`$")


@functools.cache
def _decoder(kind: object) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_Keys = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(data: bytes, kind: type[V]) -> tuple[V, tuple[str, ...]]:
    """A body as a struct, and a warning for each field that the struct does not have. Raises BadRequest."""
    try:
        value: V = _decoder(cast("Hashable", kind)).decode(data)
        if not isinstance(value, msgspec.Struct):
            return value, ()
        known = value.__struct_encode_fields__
        unknown = [name for name in _Keys.decode(data) if name not in known]
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        path = at["path"] if at else ""
        where = f"{path}: " if path else ""
        raise BadRequest(f"{where}{_AT.sub('', text).replace('`', '')}.", param=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    return value, tuple(f"{name[:100]!r} is not known here and was ignored" for name in unknown[:20])
