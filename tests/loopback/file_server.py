"""An HTTP server with the faults that downloads have to survive: it drops, stalls, refuses, ignores ranges."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PIECE = 1 << 16


@dataclass
class Served:
    """A file at a path, and how it misbehaves."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    ranges: bool = True
    announce_length: bool = True
    drop_after: list[int] = field(default_factory=list)
    """Bytes after which the connection breaks: one entry for each answer, from the first on."""
    stall_at: int | None = None
    """The answer stops there until `release` is set."""
    refuse: list[int] = field(default_factory=list)
    """Status codes of the first answers."""


@dataclass
class Request:
    path: str
    range_start: int | None
    headers: dict[str, str]


class FileServer:
    """`files` by path. `requests` has everything that was asked; `stalled` is set when an answer stops."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.stalled = asyncio.Event()
        self.release = asyncio.Event()
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    def serve(self, path: str, body: bytes, **faults: object) -> str:
        """Put a file there; returns its address."""
        self.files[path] = Served(body, **faults)  # type: ignore[arg-type]
        return self.url + path

    def starts(self, path: str) -> list[int | None]:
        """Where each request for a file's bytes began, without the look at its first byte."""
        return [r.range_start for r in self.requests if r.path == path and r.headers.get("range") != "bytes=0-0"]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not await self._reply(head.decode("latin-1"), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the stream's own callback would log it
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        open_ones = list(self._connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _reply(self, head: str, writer: asyncio.StreamWriter) -> bool:
        """Returns whether the connection may serve another request."""
        line, *fields = head.split("\r\n")
        headers = {k.lower(): v for k, _, v in (f.partition(": ") for f in fields if f)}
        path = line.split(" ")[1]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        self.requests.append(Request(path, int(wanted[1]) if wanted else None, headers))
        served = self.files.get(path.partition("?")[0], Served(b"nothing here", status=404))
        status = served.refuse.pop(0) if served.refuse else served.status
        body, answer_headers = served.body, dict(served.headers)
        if status != 200:
            body = body if not served.ranges else b"no"
        elif wanted and served.ranges and headers.get("if-range") in (None, answer_headers.get("ETag")):
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            answer_headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        if served.announce_length:
            answer_headers["Content-Length"] = str(len(body))
        fields_text = "".join(f"{name}: {value}\r\n" for name, value in answer_headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{fields_text}\r\n".encode("latin-1"))
        is_look = headers.get("range") == "bytes=0-0"
        return await self._send(body, served, writer, faulty=not is_look) and served.announce_length

    async def _send(self, body: bytes, served: Served, writer: asyncio.StreamWriter, *, faulty: bool) -> bool:
        drop_after = served.drop_after.pop(0) if faulty and served.drop_after else None
        for offset in range(0, len(body), PIECE):
            if drop_after is not None and offset >= drop_after:
                writer.transport.abort()
                return False
            if faulty and served.stall_at is not None and offset >= served.stall_at:
                self.stalled.set()
                await self.release.wait()
            writer.write(body[offset : offset + PIECE])
            await writer.drain()
        return True


@asynccontextmanager
async def file_server() -> AsyncIterator[FileServer]:
    """A server on a free port of this machine."""
    server = FileServer()
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            await server.close()
