"""The page's files, as they lie in `pares.web`."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from starlette.responses import RedirectResponse, Response

from pares.api.calls import Call
from pares.errors import NotFound
from pares.web import HEADERS, ROOT

OLLAMA_GREETING = "Ollama is running"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


async def front(call: Call[None]) -> Response:
    """The page; with a one-time token in the address, a way in. On Ollama's port, its greeting."""
    server = call.request.scope.get("server")
    if server and server[1] == call.services.settings.ollama_port:
        return Response(OLLAMA_GREETING, media_type="text/plain")
    if ticket := call.query("token"):
        response: Response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        if cookie := call.gate.enter(ticket, call.request.scope):
            response.headers["Set-Cookie"] = cookie
        return response
    return _file(call, "index.html")


async def static(call: Call[None]) -> Response:
    """One of its files."""
    return _file(call, call.request.scope["path"].lstrip("/"))


def _file(call: Call[None], name: str) -> Response:
    """Raises NotFound for everything that is not a file of the page."""
    path = ROOT / name
    media_type = _TYPES.get(path.suffix)
    try:
        found = media_type is not None and path.resolve(strict=True).is_relative_to(ROOT.resolve()) and path.is_file()
        if not found:
            raise FileNotFoundError
        content, tag = _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        raise NotFound("There is no such page.", hint="The page begins at /.") from None
    headers = {**HEADERS, "ETag": tag}
    if tag in (each.strip().removeprefix("W/") for each in call.request.headers.get("if-none-match", "").split(",")):
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type=media_type)


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> tuple[bytes, str]:
    """A file's bytes and ETag; read again when it has changed."""
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
