"""From what a person asks for to the places it can come from."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote, urldefrag

from pares.errors import BadRequest, ModelNotFound, NotFound
from pares.swarm.catalogue import Catalogue, Offer
from pares.swarm.disk import FileOrigin
from pares.swarm.names import clean_name, name_of_file, nearest
from pares.swarm.origin import Origin
from pares.swarm.package_index import PackageIndex, PackageOrigin
from pares.swarm.predicate import Version
from pares.swarm.settings import Settings
from pares.swarm.version import Opened
from pares.swarm.web import Web, WebOrigin, file_name

_HUB = re.compile(r"hf:([\w.-]+)/([\w.-]+)(?:@([\w.-]+))?/(.+)", re.ASCII)
_HUB_PAGE = re.compile(r"/([\w.-]+)/([\w.-]+)/(?:blob|resolve)/([\w.-]+)/([^?#]+)(?:\?.*)?", re.ASCII)
_HASH = re.compile(r"sha256=([0-9a-fA-F]{64})")


class Commons(Protocol):
    """What pulling has to know of versions. Digests are those of their statements."""

    async def find(self, text: str) -> Opened | None:
        """The version with this id, beginning of an id, or name; None: there is none.

        Raises Conflict, with the publishers, where a name means several.
        """
        ...

    async def listing(self, file: str) -> Sequence[Opened]:
        """The versions that list a file with this merkle root, or this SHA-256, in hex."""
        ...

    async def is_licence_accepted(self, version: Opened) -> bool: ...

    async def accept_licence(self, version: Opened) -> None: ...

    async def shared_after(self, version: Opened, circles: Sequence[bytes]) -> None:
        """This node holds the version, or a part of it, from these circles, and gives it away there from now on.

        Called when the header is there, and again when all is that was wanted.
        """
        ...

    async def given_up(self, version: Opened) -> None:
        """What was fetched of it was removed again: it is given away nowhere any more."""
        ...


class Found(NamedTuple):
    """What a source means."""

    name: str
    """The name that the model gets unless another is asked for."""
    origins: tuple[Origin, ...]
    """The same content from each; the first that answers serves."""
    offer: Offer | None = None
    """Its entry in the catalogue, if that is what was asked for."""
    opened: Opened | None = None
    """The statement on the version, if that is what was asked for; then there are no origins, but members."""

    @property
    def version(self) -> Version | None:
        return self.opened.predicate if self.opened and isinstance(self.opened.predicate, Version) else None


class Sources:
    """Knows all kinds of origins; `close` it at the end. Finding one opens no connection."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, commons: Commons | None = None, *, offline: bool = False
    ) -> None:
        self._settings = settings
        self._commons = commons
        self._catalogue = catalogue
        self._web = Web(settings, offline=offline)
        self._index = PackageIndex(settings, offline=offline)

    async def close(self) -> None:
        """End all connections."""
        await self._web.close()
        await self._index.close()

    async def resolve(self, source: str) -> Found:
        """As `find`, and versions by their name or id where nothing else is called so.

        Raises also Conflict, for a name under which circles have several versions.
        """
        try:
            return self.find(source)
        except (ModelNotFound, BadRequest):
            opened = await self._commons.find(source.strip()) if self._commons else None
            if opened is None:
                raise
            return _of_version(opened)

    async def version(self, digest: str) -> Found:
        """The version with this id. Raises NotFound."""
        opened = await self._commons.find(digest) if self._commons else None
        if opened is None:
            raise NotFound(
                f"The version {digest[:12]} is not known here any more.", hint="Pull it by its name, or cancel this."
            )
        return _of_version(opened)

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
        try:
            address, fragment = urldefrag(source)
        except ValueError as error:
            raise BadRequest(f"{source[:200]!r} is not an address ({error}).", param="source") from error
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


def _of_version(opened: Opened) -> Found:
    assert isinstance(opened.predicate, Version), "what is found by a name or an id is a version"
    return Found(name_of_version(opened.predicate.name), (), opened=opened)


def name_of_version(name: str) -> str:
    """The name that a model gets from a version's, which may be any text."""
    try:
        return clean_name(name)
    except BadRequest:
        return name_of_file(name)
