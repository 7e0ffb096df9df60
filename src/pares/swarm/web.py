"""HTTP as downloads need it: resumed by range, checked against what was promised, every fault with a name.

Plain http is accepted from this machine itself and where the hash is known beforehand; a redirect may not leave https.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urljoin

import httpx2

from pares.errors import BadRequest, Misconfigured, NotFound, OriginUnreachable, VerificationFailed
from pares.swarm.origin import Body, Plan, Volume, interrupted
from pares.swarm.settings import Settings

MAX_REDIRECTS = 5
MAX_RETRY_AFTER_S = 120.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524})

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Answer(NamedTuple):
    """What came back, after redirects."""

    response: httpx2.Response
    url: str
    redirect_headers: httpx2.Headers
    """Of the first redirect, if there was one."""


class Web:
    """One pool of connections; `close` it at the end. Nothing is opened before the first request."""

    def __init__(self, settings: Settings, *, offline: bool = False, ca_file: str = "") -> None:
        self._settings = settings
        self._offline = offline
        self._ca_file = settings.ca_file or ca_file
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """End all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def get(
        self, url: str, headers: dict[str, str] | None = None, *, pinned: bool = False
    ) -> AsyncIterator[Answer]:
        """A successful answer whose body has not been read yet. `pinned`: its hash is known, so http will do.

        Raises OriginUnreachable, NotFound, BadRequest.
        """
        if self._offline:
            raise OriginUnreachable(
                f"{shown(url)} was not asked: this node is offline by setting.",
                hint="Go online with `pares config set node.offline false`, or import a file with `pares import`.",
            )
        try:
            async with AsyncExitStack() as stack:
                answer = await self._follow(url, headers or {}, stack, pinned=pinned)
                _check_status(answer.response, url)
                yield answer
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise BadRequest(f"{shown(url)} is not an address to fetch from ({error}).", param="source") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise OriginUnreachable(
                    f"{shown(url)} has a certificate that is not trusted here ({error}).",
                    hint="Where a company's proxy is in between, set swarm.ca_file to its certificate.",
                ) from error
            raise interrupted(shown(url), str(error) or type(error).__name__) from error

    async def _follow(self, url: str, headers: dict[str, str], stack: AsyncExitStack, *, pinned: bool) -> Answer:
        """Redirects are followed here, because the client would read their bodies, however long."""
        target, first = url, None
        for _ in range(MAX_REDIRECTS + 1):
            if not pinned and not _is_private(target):
                raise OriginUnreachable(
                    f"{shown(target)} is not https.",
                    hint="Use an https address, or give the hash with it: `...#sha256=...`.",
                )
            hop = AsyncExitStack()
            response = await hop.enter_async_context(self._connections().stream("GET", target, headers=headers))
            if not response.has_redirect_location:
                stack.push_async_exit(hop)
                return Answer(response, target, first or httpx2.Headers())
            await hop.aclose()
            target, first = urljoin(target, response.headers["location"]), first or response.headers
        raise OriginUnreachable(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")

    async def page(self, url: str, accept: str, most: int) -> tuple[bytes, str, str]:
        """A small document: its bytes, media type and final address."""
        async with self.get(url, {"Accept": accept}, pinned=True) as answer:
            body = bytearray()
            async for chunk in answer.response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    raise OriginUnreachable(f"{shown(url)} is larger than {most} bytes, which no such page is.")
            media_type = answer.response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return bytes(body), media_type, answer.url

    def _connections(self) -> httpx2.AsyncClient:
        if self._client is None:
            verify: ssl.SSLContext | bool = True
            if self._ca_file:
                try:
                    verify = ssl.create_default_context(cafile=self._ca_file)
                except OSError as error:
                    raise Misconfigured(f"swarm.ca_file: {self._ca_file} cannot be used ({error}).") from error
            self._client = httpx2.AsyncClient(
                verify=verify,
                timeout=self._settings.timeout_s,
                headers={"User-Agent": f"pares/{version('pares')}", "Accept-Encoding": "identity"},
            )
        return self._client


def _check_status(response: httpx2.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in PASSING:
        wait = response.headers.get("retry-after", "")
        after_s = min(float(wait), MAX_RETRY_AFTER_S) if wait.isascii() and wait.isdigit() else 0.0
        raise interrupted(shown(url), f"it answers {status}", after_s=after_s)
    if status in (404, 410):
        raise NotFound(f"There is nothing at {shown(url)} (it answers {status}).", hint="Check the address.")
    if status in (401, 403):
        raise OriginUnreachable(
            f"{shown(url)} does not give this file to just anyone (it answers {status}).",
            hint="Fetch it with your browser, signed in there, then `pares import FILE`.",
        )
    raise OriginUnreachable(f"{shown(url)} answers {status}.")


class Offered(NamedTuple):
    """What a server says of a file."""

    size: int
    validator: str
    headers: httpx2.Headers
    """Of the first answer, which may have been a redirect."""


async def offered(web: Web, url: str, *, pinned: bool) -> Offered:
    """Ask for a file's size and validator by fetching its first byte, which more servers answer well than HEAD."""
    async with web.get(url, {"Range": "bytes=0-0"}, pinned=pinned) as answer:
        response = answer.response
        if response.status_code == 206:
            size = _content_range(response, url)[1]
        elif (length := response.headers.get("content-length", "")).isdigit():
            size = int(length)
        else:
            raise OriginUnreachable(
                f"{shown(url)} does not say how large the file is.", hint="Fetch it yourself, then `pares import FILE`."
            )
        return Offered(size, _validator(response.headers), answer.redirect_headers or response.headers)


@asynccontextmanager
async def read(web: Web, volume: Volume, start: int) -> AsyncIterator[Body]:
    """The bytes of a volume from `start`, or from 0 where the server ignores ranges or has other bytes by now."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and not volume.sha256 and volume.validator:
        headers["If-Range"] = volume.validator
    async with web.get(volume.location, headers, pinned=bool(volume.sha256)) as (response, _, _):
        begin, size = 0, volume.fetched
        if response.status_code == 206:
            begin, size = _content_range(response, volume.location)
        elif (length := response.headers.get("content-length", "")).isdigit():
            size = int(length)
        if size != volume.fetched or begin not in (0, start):
            raise VerificationFailed(
                f"{shown(volume.location)} offers {size:,} bytes now; it offered {volume.fetched:,} before.",
                hint="The file was replaced there: pull it again.",
            )
        yield Body(begin, response.aiter_bytes())


class WebOrigin:
    """A file at an https address; with its hash, as `https://...#sha256=...`, also at an http one."""

    def __init__(self, web: Web, url: str, *, sha256: str = "", hub: bool = False) -> None:
        self._web = web
        self._url = url
        self._sha256 = sha256
        self._hub = hub

    @property
    def description(self) -> str:
        return shown(self._url)

    async def resolve(self) -> Plan:
        found = await offered(self._web, self._url, pinned=bool(self._sha256))
        size, sha256 = found.size, self._sha256
        if self._hub and not sha256:
            # A hub's own redirect to its storage tells the hash of a large file, and no other address may.
            tag = found.headers.get("x-linked-etag", "").strip('"').lower()
            sha256 = tag if _SHA256.fullmatch(tag) else ""
        volume = Volume(
            location=self._url, size=size, fetched=size, sha256=sha256, validator="" if sha256 else found.validator
        )
        return Plan(file_name=file_name(self._url), volumes=(volume,), sha256=sha256)

    def read(self, volume: Volume, start: int) -> AbstractAsyncContextManager[Body]:
        return read(self._web, volume, start)


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    bare = re.sub(r"[?#].*", "", url, flags=re.DOTALL)
    return re.sub(r"^([a-z]+://)[^/@]*@", r"\1", bare)


def file_name(url: str) -> str:
    """The last part of an address's path."""
    return PurePosixPath(unquote(re.sub(r"[?#].*", "", url, flags=re.DOTALL))).name


def _validator(headers: httpx2.Headers) -> str:
    tag = str(headers.get("etag", ""))
    return tag if tag and not tag.startswith("W/") else str(headers.get("last-modified", ""))


def _content_range(response: httpx2.Response, url: str) -> tuple[int, int]:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if match is None:
        raise OriginUnreachable(f"{shown(url)} answers a request for a range without saying which one it sends.")
    return int(match[1]), int(match[3])


def _is_private(url: str) -> bool:
    """Whether nobody on the way can change what is sent: https, or this machine itself."""
    address = httpx2.URL(url)
    if address.scheme == "https":
        return True
    try:
        return ipaddress.ip_address(address.host.strip("[]")).is_loopback
    except ValueError:
        return address.host == "localhost"
