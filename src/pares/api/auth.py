"""Who may come in: host names, web origins, keys, and the page's cookie."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pares.api.failures import refusal, surface_of
from pares.api.services import Services, Settings
from pares.errors import Forbidden, ParesError, Unauthorized

Need = Literal["nothing", "infer", "admin"]

TICKET_S = 300.0
"""How long a one-time link to the page is good for."""
MAX_TICKETS = 32
COOKIE_AGE_S = 30 * 24 * 3600

_CORS_PATHS = ("/v1/", "/api/")
_SAFE = ("GET", "HEAD", "OPTIONS")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)


def host_name(header: str) -> str:
    """The name in a Host header, lower case, without port and brackets; empty if it is none."""
    match = _HOST.fullmatch(header.lower())
    return (match["v6"] or match["name"]) if match else ""


class Gate:
    """Keys and the page's cookie, which is derived from the node's secret: it opens this node until it is restarted."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tickets: dict[str, float] = {}

    async def admit(self, request: Request, need: Need) -> None:
        """Raises Unauthorized or Forbidden unless the request may do what needs `need`."""
        if need == "nothing" or (need == "infer" and not self._key_needed()):
            return
        cookie = request.cookies.get(cookie_name(request.scope), "")
        if cookie and hmac.compare_digest(cookie.encode(), self._cookie().encode()):
            return
        secret = _secret(request)
        if not secret:
            raise Unauthorized(
                "This needs a key.",
                hint="Send it as `Authorization: Bearer KEY`; `pares key new` makes one."
                if need == "infer"
                else "Open the page by `pares status --url`, or send the token of the home's node.json.",
            )
        if hmac.compare_digest(secret.encode(), self._services.admin_token.encode()):
            return
        key = await self._services.keys.check(secret)
        if key is None:
            raise Unauthorized("This key is not known here, or it was revoked.", hint="`pares key ls` shows them.")
        if need not in key.scopes and "admin" not in key.scopes:
            raise Forbidden(f"The key {key.name!r} may not do this.", hint=f"Make one with the scope {need}.")

    def _key_needed(self) -> bool:
        settings = self._services.settings
        return settings.require_key or not is_loopback(settings.host)

    def ticket(self) -> str:
        """A secret that opens the page once, within five minutes."""
        now = time.monotonic()
        self._tickets = {ticket: end for ticket, end in self._tickets.items() if end > now}
        if len(self._tickets) >= MAX_TICKETS:
            self._tickets.pop(next(iter(self._tickets)))
        ticket = secrets.token_urlsafe(32)
        self._tickets[_digest(ticket)] = now + TICKET_S
        return ticket

    def enter(self, secret: str, scope: Scope) -> str | None:
        """The Set-Cookie header for whoever has a ticket (now used up) or the node's token; None for others."""
        ticket = self._tickets.pop(_digest(secret), 0.0) > time.monotonic()
        if not ticket and not hmac.compare_digest(secret.encode(), self._services.admin_token.encode()):
            return None
        return f"{cookie_name(scope)}={self._cookie()}; HttpOnly; SameSite=Strict; Path=/; Max-Age={COOKIE_AGE_S}" + (
            "; Secure" if scope["scheme"] == "https" else ""
        )

    def _cookie(self) -> str:
        return hmac.new(self._services.admin_token.encode(), b"pares page cookie 1", hashlib.sha256).hexdigest()


def cookie_name(scope: Scope) -> str:
    """One per port: browsers send a cookie to all ports of a host, and there may be several nodes."""
    server = scope.get("server")
    return f"pares_{server[1] if server else 0}"


def _secret(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Perimeter:
    """The outermost layer: refuses foreign Host headers (DNS rebinding) and foreign web origins, answers CORS."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self._own = frozenset({socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        settings = self._services.settings
        origin = headers.get("origin", "")
        cross = bool(origin) and _netloc(origin) != headers.get("host", "").lower()
        shared = cross and _may_share(origin, scope["path"], settings.origins)
        try:
            self._check(scope, headers, settings, cross=cross and not shared)
        except ParesError as error:
            await refusal(error, surface_of(scope["path"]))(scope, receive, send)
            return
        if shared and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(None, 204, _preflight(origin, headers))(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(raw=message.setdefault("headers", []))
                own.setdefault("X-Content-Type-Options", "nosniff")
                if shared:
                    own["Access-Control-Allow-Origin"] = origin
                    own["Access-Control-Expose-Headers"] = "X-Served-By, Retry-After"
                    own.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope, headers: Headers, settings: Settings, *, cross: bool) -> None:
        host = host_name(headers.get("host", ""))
        if not self._is_own_name(host, settings):
            raise Forbidden(
                f"This node is not called {host[:100]!r}.",
                hint="If it should be, add the name to the setting server.hosts.",
            )
        if cross and scope["method"] not in _SAFE:
            raise Forbidden(
                "Pages of other sites may not use this node.",
                hint="If this one should, add its origin to the setting server.origins.",
            )

    def _is_own_name(self, host: str, settings: Settings) -> bool:
        names = {"localhost", "127.0.0.1", "::1", settings.host.lower(), *(name.lower() for name in settings.hosts)}
        if host in names:
            return True
        if is_loopback(settings.host):
            return False
        # Rebinding needs a name that its attacker owns: an address cannot be rebound, and our own name is ours.
        return host in self._own or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    """Host and port of an Origin header; empty for `null` and other things that are none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _may_share(origin: str, path: str, origins: Sequence[str]) -> bool:
    """Whether a page of `origin` may call `path` from a browser. Never the control API."""
    return path.startswith(_CORS_PATHS) and (origin in origins or "*" in origins)


def _preflight(origin: str, headers: Headers) -> dict[str, str]:
    private = "access-control-request-private-network" in headers
    return {
        **({"Access-Control-Allow-Private-Network": "true"} if private else {}),
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
        "Access-Control-Max-Age": "600",
        "Vary": "Origin, Access-Control-Request-Headers",
    }
