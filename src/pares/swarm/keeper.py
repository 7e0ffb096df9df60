"""Holds versions that too few members hold: fetches them while there is room, and lets them go when others do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from pares.swarm.disk import free_bytes
from pares.swarm.keeping import Kept, Standing, to_drop, to_fetch
from pares.swarm.members import Members
from pares.swarm.predicate import Version
from pares.swarm.settings import Settings
from pares.swarm.sharing import Sharing
from pares.swarm.swarming import SwarmFetch, Wanted
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)


class Keeper:
    """Call `round` every minute or so. What it keeps is no model in the list: nobody asked for it."""

    def __init__(
        self,
        sharing: Sharing,
        fetch: SwarmFetch,
        members: Members,
        settings: Settings,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._now = now
        self._sharing, self._fetch, self._members = sharing, fetch, members
        self._rare_since: dict[bytes, float] = {}
        self._enough_since: dict[bytes, float] = {}
        self._kept: frozenset[bytes] = frozenset()

    def keeps(self, root: bytes) -> bool:
        """Whether a file stays though no model here needs it."""
        return root in self._kept

    async def round(self) -> None:
        """Look, let go what need not be here, fetch what is rare. Raises ParesError for a file that does not come."""
        now = self._now()
        library = self._sharing.library
        named = {entry.record.root for entry in await library.list()}
        records = await library.files.all()
        self._kept = frozenset(r.root for r in records if r.keeper and r.root.hex() not in named)
        standings = list(self._standings())
        self._note(standings, now)
        kept = [
            Kept(digest, sum(file.size for file in version.files))
            for digest, version in self._versions()
            if any(bytes.fromhex(file.root) in self._kept for file in version.files)
        ]
        me = self._members.me
        for digest in to_drop(kept, standings, me, self._enough_since, most_bytes=self.settings.keep_bytes, now=now):
            await self._drop(digest)
        if not self.settings.keep or not self.settings.seeding:
            return
        quota = self.settings.keep_bytes - sum(each.size for each in kept)
        free = free_bytes(self._sharing.library.folder) - self.settings.reserve_bytes
        for digest in to_fetch(standings, me, self._rare_since, room=min(quota, free), now=now):
            await self._keep(digest)

    def _versions(self) -> Iterator[tuple[bytes, Version]]:
        for opened in self._sharing.statements.versions():
            if isinstance(opened.predicate, Version):
                yield opened.digest, opened.predicate

    def _standings(self) -> Iterator[Standing]:
        sizes = {digest: sum(file.size for file in version.files) for digest, version in self._versions()}
        for circle in self._members.circles():
            holders: dict[bytes, set[PeerId]] = {}
            for peer, offer in circle.offers.items():
                for held in offer.holds:
                    if held.layers is None and held.version in sizes:
                        holders.setdefault(held.version, set()).add(peer)
            for digest, holding in holders.items():
                yield Standing(digest, sizes[digest], frozenset(holding), circle.members, circle.copies)

    def _note(self, standings: list[Standing], now: float) -> None:
        me = self._members.me
        rare = {each.version for each in standings if each.missing and me not in each.holders}
        scarce = {each.version for each in standings if len(each.holders - {me}) < each.copies}
        self._rare_since = {version: self._rare_since.get(version, now) for version in rare}
        enough = {each.version for each in standings} - scarce
        self._enough_since = {version: self._enough_since.get(version, now) for version in enough}

    async def _keep(self, digest: bytes) -> None:
        version = self._sharing.version(digest)
        if version is None:
            return
        log.info("swarm.keeping", extra={"version": digest.hex()[:16], "model": version.name})
        files = self._sharing.library.files
        for file in version.files:
            wanted = Wanted(
                name=version.name,
                file=file,
                versions=frozenset((digest,)),
                version=version if len(version.files) == 1 else None,
            )
            record = await self._fetch.fetch(wanted)
            await files.put(replace(record, keeper=True))
            self._kept |= {record.root}
        await self._sharing.give_away(digest, self._fetch.holders.circles(frozenset((digest,))))

    async def _drop(self, digest: bytes) -> None:
        version = self._sharing.version(digest)
        log.info("swarm.let_go", extra={"version": digest.hex()[:16]})
        await self._sharing.withdraw(digest)
        for file in version.files if version else ():
            root = bytes.fromhex(file.root)
            if root in self._kept:
                self._kept -= {root}
                await self._sharing.library.files.forget(root)
