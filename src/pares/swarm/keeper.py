"""Holds versions that too few members hold: fetches them while there is room, and lets them go when others do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from pares.errors import ParesError
from pares.swarm.disk import free_bytes
from pares.swarm.keeping import Kept, Standing, to_drop, to_fetch
from pares.swarm.members import Members
from pares.swarm.predicate import Version
from pares.swarm.settings import Settings
from pares.swarm.sharing import Sharing
from pares.swarm.swarming import SwarmFetch, Wanted
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

TRY_S = 6 * 3600.0
"""For one version at a time: who sends a byte a second must not hold up everything else."""


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
        """Look, let go what need not be here, fetch what is rare.

        What does not come is tried again when it was rare for as long once more; what came of it counts as kept.
        """
        now = self._now()
        library = self._sharing.library
        named = {entry.record.root for entry in await library.list()}
        records = await library.files.all()
        self._kept = frozenset(r.root for r in records if r.keeper and r.root.hex() not in named)
        standings = list(self._standings())
        self._note(standings, now)
        given = self._sharing.given_away()
        kept = [
            Kept(digest, sum(file.size for file in version.files))
            for digest, version in self._versions()
            if digest in given and not self._kept.isdisjoint(_roots(version))
        ]
        me = self._members.me
        for digest in to_drop(kept, standings, me, self._enough_since, most_bytes=self.settings.keep_bytes, now=now):
            log.info("swarm.let_go", extra={"version": digest.hex()[:16]})
            await self._sharing.withdraw(digest)
        await self._let_go()
        if not self.settings.keep or not self.settings.seeding:
            return
        quota = self.settings.keep_bytes - sum(r.size for r in records if r.root in self._kept)
        free = free_bytes(self._sharing.library.folder) - self.settings.reserve_bytes
        for digest in to_fetch(standings, me, self._rare_since, room=min(quota, free), now=now):
            try:
                async with asyncio.timeout(TRY_S):
                    await self._keep(digest)
            except (ParesError, OSError) as error:  # TimeoutError too
                log.info("swarm.not_kept", extra={"version": digest.hex()[:16], "reason": str(error)})
                self._rare_since[digest] = self._now()

    def _versions(self) -> Iterator[tuple[bytes, Version]]:
        for opened in self._sharing.statements.versions():
            if isinstance(opened.predicate, Version):
                yield opened.digest, opened.predicate

    def _standings(self) -> Iterator[Standing]:
        """By version and circle. What this node gives away it holds, whether its offers say so at the moment or not."""
        sizes = {
            digest: sum(file.size for file in version.files if bytes.fromhex(file.root) not in self._kept)
            for digest, version in self._versions()
        }
        here = {digest for digest, held in self._sharing.here.items() if held.layers is None}
        for circle in self._members.circles():
            mine = here & self._sharing.given_away(circle.id) & sizes.keys()
            holders: dict[bytes, set[PeerId]] = {digest: {self._members.me} for digest in mine}
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
        version, files = self._sharing.version(digest), self._sharing.library.files
        if version is None:
            return
        there = [await files.get(root) for root in _roots(version)]
        if any(record is not None and not record.keeper for record in there):
            return  # it is its owner's, who gives it away or does not
        log.info("swarm.keeping", extra={"version": digest.hex()[:16], "model": version.name})
        for file in version.files:
            wanted = Wanted(
                name=version.name,
                file=file,
                versions=frozenset((digest,)),
                version=version if len(version.files) == 1 else None,
            )
            try:
                await self._fetch.fetch(wanted)
            finally:
                if (record := await files.get(wanted.root)) is not None and not record.linked:
                    await files.put(replace(record, keeper=True))
                    self._kept |= {record.root}
        await self._sharing.give_away(digest, self._fetch.holders.circles(frozenset((digest,))))

    async def _let_go(self) -> None:
        """Delete what is kept of no version that is given away, and is not to be fetched on."""
        stay = self._sharing.given_away() | self._rare_since.keys()
        needed = {root for digest, version in self._versions() if digest in stay for root in _roots(version)}
        for root in self._kept - needed - set(self._fetch.fetching):
            self._kept -= {root}
            await self._sharing.library.files.forget(root)


def _roots(version: Version) -> list[bytes]:
    return [bytes.fromhex(file.root) for file in version.files]
