"""The one interface behind which every place stands that a model can come from: web, package index, disk; later, peers.

An origin resolves to a plan: volumes that, one after the other, are the model file. Whoever fetches may ask any origin
with the same content for any range of it, in any order, so that several can serve one file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import msgspec

from pares.errors import OriginUnreachable


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the model file's bytes, as one thing to fetch."""

    location: str
    """What the origin calls it; shown to people in errors."""
    size: int
    """Bytes of the model file that it stands for."""
    fetched: int
    """Bytes to fetch for them."""
    member: str = ""
    """The name inside of a zip archive that is fetched; empty: the bytes are fetched as they are."""
    sha256: str = ""
    """Of the bytes fetched; empty: not known beforehand."""
    validator: str = ""
    """ETag or date by which the origin tells whether it still offers the same bytes."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an origin would give."""

    file_name: str
    volumes: tuple[Volume, ...]
    sha256: str = ""
    """Of the model file; empty: not known beforehand."""

    @property
    def size(self) -> int:
        """Bytes of the model file."""
        return sum(volume.size for volume in self.volumes)

    @property
    def fetched(self) -> int:
        """Bytes to fetch."""
        return sum(volume.fetched for volume in self.volumes)

    @property
    def disk(self) -> int:
        """Bytes of disk at the worst moment: the file, and the largest archive beside it while it is unpacked."""
        return self.size + max((volume.fetched for volume in self.volumes if volume.member), default=0)

    @property
    def identity(self) -> str:
        """Equal where bytes fetched earlier may be gone on with; empty: never."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        marks = [volume.sha256 or volume.validator for volume in self.volumes]
        return f"{self.size}:{'|'.join(marks)}" if all(marks) else ""


class Body(NamedTuple):
    """Bytes of a volume from `start` on: 0 where the origin could not begin where it was asked to."""

    start: int
    chunks: AsyncIterator[bytes]


class Origin(Protocol):
    """A place that a model file can come from.

    Both methods raise OriginUnreachable (with the field `again` where another try may help), NotFound where the place
    answers that it has no such thing, and VerificationFailed where it offers other bytes than it did.
    """

    @property
    def description(self) -> str:
        """In words, without secrets."""
        ...

    async def resolve(self) -> Plan:
        """Ask what there is, without fetching it."""
        ...

    def read(self, volume: Volume, start: int) -> AbstractAsyncContextManager[Body]:
        """The volume's bytes from `start` to its end; leaving the context closes the connection."""
        ...


def interrupted(what: str, why: str, *, after_s: float = 0.0) -> OriginUnreachable:
    """A fault that may pass: the fetching side tries again, not sooner than after `after_s`."""
    return OriginUnreachable(
        f"{what} cannot be reached: {why}.", hint="Check the connection and try again.", again=True, after_s=after_s
    )
