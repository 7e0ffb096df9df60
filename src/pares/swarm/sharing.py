"""Versions of this node: published, given away in circles, endorsed, taken back; and the torrents that follow from it.

What is given away, and where, is one table of versions and circles. Everything else follows from it: what the offers
say, what statements are served, which files have a torrent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from pares.errors import BadRequest, BrokenModelFile, Conflict, NotFound, VerificationFailed
from pares.inference.gguf import read_header
from pares.store.content import FileRecord
from pares.store.versions import VersionTables
from pares.swarm import licences, version
from pares.swarm.files import header_of, trouble
from pares.swarm.front import require_truth
from pares.swarm.library import Library
from pares.swarm.members import CircleFacts, Members
from pares.swarm.predicate import Data, File, Kind, Parent, Version
from pares.swarm.ranges import held_layers
from pares.swarm.settings import Settings
from pares.swarm.statements import Statements
from pares.swarm.version import Opened
from pares.transport.torrents import FILE_BYTES, Torrent, Torrents
from pares.wire.messages import HELD, TOLD, Held
from pares.wire.signing import Identity

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a person says of a model when it is shared; the header tells the rest."""

    name: str = ""
    label: str = ""
    description: str = ""
    kind: Kind | None = None
    licence: str = ""
    licence_text: str = ""
    base: Parent | None = None
    parents: tuple[Parent, ...] = ()
    data: tuple[Data, ...] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)

    @property
    def says_something(self) -> bool:
        return self != Publication()


class Sharing:
    """`reseed` after anything moved that it depends on; it touches only what is different from before."""

    def __init__(
        self,
        identity: Identity,
        library: Library,
        statements: Statements,
        tables: VersionTables,
        torrents: Torrents,
        members: Members,
        settings: Settings,
        *,
        is_fetched: Callable[[bytes], bool],
    ) -> None:
        """`is_fetched`: whether a file's torrent belongs to a download at the moment."""
        self.identity = identity
        self.library = library
        self.statements = statements
        self.members = members
        self.settings = settings
        self._tables = tables
        self._torrents = torrents
        self._shares: dict[bytes, set[bytes]] = {}
        """Circles by version."""
        self.here: dict[bytes, Held] = {}
        """What this node holds of versions, shared or not."""
        self._own_words: dict[bytes, tuple[bytes, ...]] = {}
        """By circle: what this node says of versions that somebody offers there."""
        self._seeding: dict[bytes, Torrent] = {}
        self._is_fetched = is_fetched
        self._licences: frozenset[str] = frozenset()
        self._reseeding = asyncio.Lock()

    async def load(self) -> None:
        """Read what is given away and which licences were accepted."""
        for shared, circle in await self._tables.shares():
            self._shares.setdefault(shared, set()).add(circle)
        self._licences = frozenset(await self._tables.licences())
        await self.reseed()

    # What is asked by others

    def shared_in(self, digest: bytes) -> frozenset[bytes]:
        """Circles that this node belongs to and gives a version away in."""
        return frozenset(self._shares.get(digest, ()))

    def gives(self, digest: bytes, circle: bytes) -> bool:
        """Whether a version is given away in a circle at this moment, whatever the last offer said."""
        return self.settings.seeding and circle in self._shares.get(digest, ())

    def given_away(self, circle: bytes | None = None) -> frozenset[bytes]:
        """Versions that this node gives away in a circle, or anywhere; also while that is switched off."""
        return frozenset(v for v, circles in self._shares.items() if (circles if circle is None else circle in circles))

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]:
        """For an offer: versions held and given away in a circle, and what others say of them."""
        if not self.settings.seeding:
            return (), ()
        mine = sorted(digest for digest, circles in self._shares.items() if circle in circles)
        held = [self.here[digest] for digest in mine if digest in self.here][:HELD]
        said = dict.fromkeys(self._own_words.get(circle, ()))
        said |= dict.fromkeys(opened.digest for each in held for opened in self.statements.about(each.version))
        return held, tuple(said)[:TOLD]

    # Versions

    def version(self, digest: bytes) -> Version | None:
        """What its publisher says of a version; None if its statement is not here."""
        opened = self.statements.get(digest)
        return opened.predicate if opened and isinstance(opened.predicate, Version) else None

    def versions_of(self, root: str) -> list[Opened]:
        """Known versions that consist of one file, which is this; this node's own first."""
        found = [
            opened
            for opened in self.statements.versions()
            if isinstance(opened.predicate, Version) and [file.root for file in opened.predicate.files] == [root]
        ]
        return sorted(found, key=lambda opened: (opened.author != self.identity.id, opened.digest))

    async def share(self, model: str, circles: Sequence[CircleFacts], said: Publication) -> Opened:
        """Give a model away in circles. It is published as a version unless it is one already.

        Raises ModelNotFound, Conflict without a circle or a licence, BadRequest for a licence that is none.
        """
        if not circles:
            raise Conflict("This node belongs to no circle to share with.", hint="Start one with `pares circle new`.")
        record = await self._file_of(model)
        known = [] if said.says_something else await self._true_of(record)
        opened = known[0] if known else await self._publish(model, record, said)
        await self.give_away(opened.digest, [circle.id for circle in circles])
        return opened

    async def give_away(self, digest: bytes, circles: Iterable[bytes]) -> None:
        """From now on in these circles."""
        for circle in circles:
            await self._tables.share(digest, circle)
            self._shares.setdefault(digest, set()).add(circle)
        await self.reseed()

    async def unshare(self, digest: bytes, circles: Sequence[CircleFacts], *, force: bool = False) -> None:
        """Raises Conflict where nobody else of a circle holds all of it, unless `force`."""
        leaving = [circle for circle in circles if circle.id in self._shares.get(digest, ())]
        alone = [circle.name for circle in leaving if not self._other_holders(digest, circle)]
        if alone and not force:
            raise Conflict(
                f"Nobody else in {', '.join(alone)} is known to hold all of it: it would be lost there.",
                hint="Share it on until somebody has it, or use --force.",
                circles=alone,
            )
        for circle in leaving:
            await self._tables.unshare(digest, circle.id)
            self._shares[digest].discard(circle.id)
        if leaving:
            await self._leave_to_owner(digest)
        await self.reseed()

    async def withdraw(self, digest: bytes) -> None:
        """Give it away nowhere any more, whoever else holds it."""
        for circle in self._shares.pop(digest, set()):
            await self._tables.unshare(digest, circle)
        await self.reseed()

    def would_be_lost(self, digest: bytes) -> tuple[str, ...]:
        """Names of the circles where this node gives it away and nobody else is known to hold all of it."""
        where = self._shares.get(digest, set())
        if (held := self.here.get(digest)) is None or held.layers is not None:
            return ()
        return tuple(c.name for c in self.members.circles() if c.id in where and not self._other_holders(digest, c))

    async def voice(self, digest: bytes, text: str, *, against: bool) -> Opened:
        """Endorse a version; or take back what is one's own of it, and of somebody else's version warn.

        Raises NotFound, BadRequest without a reason.
        """
        of = self.version(digest)
        if of is None:
            raise NotFound("There is no statement of this version here.")
        now = int(time.time())
        if against:
            if not text:
                raise BadRequest("A revocation needs a reason.", param="text", hint="Say in a few words why.")
            envelope = version.sign_revocation(self.identity, digest, of.name, reason=text, at=now)
        else:
            envelope = version.sign_endorsement(self.identity, digest, of.name, text=text, at=now)
        opened = await self.statements.add(envelope)
        self.members.tell_offers()
        return opened

    # Licences

    def is_accepted(self, licence_of: Version) -> bool:
        """Whether the owner of this node agreed to a version's licence, or published the version."""
        return licence_of.publisher == self.identity.id.hex() or _mark(licence_of) in self._licences

    async def accept(self, licence_of: Version) -> None:
        await self._tables.accept(_mark(licence_of))
        self._licences |= {_mark(licence_of)}

    # Seeding

    async def reseed(self) -> None:
        """Bring torrents and offers in line with what is here, shared and switched on."""
        async with self._reseeding:
            records = {record.root: record for record in await self.library.files.all()}
            sound = {root: record for root, record in records.items() if not self._is_troubled(record)}
            circles = {circle.id: circle for circle in self.members.circles()}
            for where_shared in self._shares.values():
                where_shared.intersection_update(circles)  # who leaves a circle and returns is asked again
            here: dict[bytes, Held] = {}
            wanted: dict[bytes, Torrent] = {}
            for opened in self.statements.versions():
                assert isinstance(opened.predicate, Version)
                roots = [bytes.fromhex(file.root) for file in opened.predicate.files]
                if (mine := await self._holding(opened.digest, [sound.get(root) for root in roots])) is not None:
                    here[opened.digest] = mine
                where = [circles[id_] for id_ in self._shares.get(opened.digest, ()) if id_ in circles]
                public = self.settings.public_discovery and any(c.open and c.internet for c in where)
                for record in [records[root] for root in roots if where and root in records]:
                    if record.size > FILE_BYTES:
                        continue
                    before = wanted.get(record.root)
                    wanted[record.root] = _torrent(record, public=public or (before is not None and before.public))
            self._apply(wanted if self.settings.seeding else {}, sound)
            words = {circle.id: self._words_for(circle) for circle in circles.values()}
            if (here, words) != (self.here, self._own_words):
                self.here, self._own_words = here, words
                self.members.tell_offers()

    def _is_troubled(self, record: FileRecord) -> bool:
        """Whether a file cannot be given away: it is gone, or changed, as its size or times tell, or its bytes."""
        told = None if self._is_fetched(record.root) else self._torrents.get(record.root)
        return bool(trouble(record)) or (told is not None and told.code == VerificationFailed.code)

    def _apply(self, wanted: dict[bytes, Torrent], sound: Container[bytes]) -> None:
        for root in self._seeding.keys() - wanted.keys():
            del self._seeding[root]
            if not self._is_fetched(root):
                self._torrents.remove(root)
        for root, torrent in wanted.items():
            if self._is_fetched(root):
                self._seeding.pop(root, None)
            elif self._seeding.get(root) != torrent or self._torrents.get(root) is None:
                self._seeding[root] = torrent
                self._torrents.add(torrent)
            elif root in sound and (told := self._torrents.get(root)) and told.state == "failed":
                self._torrents.resume(root)  # the file is back
        for root in [told.root for told in self._torrents.all()]:
            if root not in wanted and not self._is_fetched(root):
                self._torrents.remove(root)

    async def _holding(self, digest: bytes, files: Sequence[FileRecord | None]) -> Held | None:
        """What of a version is here, if that can be given to anybody."""
        if all(record is not None and record.pieces is None for record in files):
            return Held(version=digest)
        match files:
            case [FileRecord(pieces=runs) as record] if runs:
                with suppress(OSError, BrokenModelFile):  # not even its header is here
                    header = await asyncio.to_thread(header_of, record)
                    if (part := held_layers(header, runs)) is not None:
                        return Held(version=digest, layers=(part.first, part.last), head=part.head)
        return None

    def _words_for(self, circle: CircleFacts) -> tuple[bytes, ...]:
        offered = {held.version for offer in circle.offers.values() for held in offer.holds}
        mine = [o for o in self.statements.all() if o.author == self.members.me and o.kind != "version"]
        return tuple(opened.digest for opened in mine if opened.about in offered)

    def _other_holders(self, digest: bytes, circle: CircleFacts) -> int:
        return sum(
            any(held.version == digest and held.layers is None for held in offer.holds)
            for peer, offer in circle.offers.items()
            if peer != self.members.me
        )

    # Publishing

    async def _file_of(self, model: str) -> FileRecord:
        """The file behind a name, hashed. Raises ModelNotFound, Conflict for what is made of several, NotFound."""
        entry = await self.library.get(model)
        if entry.file is None or entry.problem:
            raise NotFound(entry.problem or f"{model} has no file.")
        record = entry.file
        if not record.root:
            await self.library.settle()
            record = (await self.library.get(model)).file or record
        found = await self.library.files.get(bytes.fromhex(record.root)) if record.root else None
        if found is None:
            raise NotFound(f"{record.path} could not be read to the end.", hint="See `pares logs`.")
        return found

    async def _true_of(self, record: FileRecord) -> list[Opened]:
        """Known versions that are this file, and say of it what is so: anybody may publish anything of any root."""
        header = await asyncio.to_thread(read_header, Path(record.path))
        found = []
        for opened in self.versions_of(record.root.hex()):
            assert isinstance(opened.predicate, Version)
            (file,) = opened.predicate.files
            if (file.sha256, file.size) == (record.sha256, record.size):
                with suppress(VerificationFailed):
                    require_truth(opened.predicate, header, opened.predicate.name)
                    found.append(opened)
        return found

    async def _leave_to_owner(self, digest: bytes) -> None:
        """What its owner does not give away, the keeper must not give away again."""
        version = self.version(digest)
        for file in version.files if version else ():
            record = await self.library.files.get(bytes.fromhex(file.root))
            if record is not None and record.keeper:
                await self.library.files.put(replace(record, keeper=False))

    async def _publish(self, model: str, record: FileRecord, said: Publication) -> Opened:
        entry = await self.library.get(model)
        path = Path(record.path)
        header = await asyncio.to_thread(read_header, path)
        offer = self.library.catalogue.find(entry.record.name)
        licence = licences.declared(
            said.licence, header=header, words=offer.licence if offer else "", text=said.licence_text
        )
        name = said.name or entry.record.name
        made = version.describe_version(
            header,
            name=name,
            publisher=self.identity.id,
            created=int(time.time()),
            files=(File(name=_file_name(name), root=record.root.hex(), sha256=record.sha256, size=record.size),),
            licence=licence,
            kind=said.kind,
            label=said.label,
            description=said.description,
            source=entry.record.origin if "://" in entry.record.origin else "",
            base=said.base,
            parents=said.parents,
            data=said.data,
            recipe=said.recipe,
        )
        for before in self.versions_of(record.root.hex()):
            said_before = before.predicate
            if isinstance(said_before, Version) and replace(made, created=said_before.created) == said_before:
                return before  # said the same already
        return await self.statements.add(version.sign_version(self.identity, made))


def _torrent(record: FileRecord, *, public: bool) -> Torrent:
    """A file as it is given away; of a part nothing more is fetched."""
    return Torrent(
        root=record.root,
        size=record.size,
        path=Path(record.path),
        layer=record.layer,
        complete=record.pieces is None,
        have=record.pieces or (),
        wanted=record.pieces,
        public=public,
    )


def _mark(of: Version) -> str:
    """What is accepted: the text, or the name where there is none."""
    return of.licence.text_sha256 or of.licence.spdx


def _file_name(name: str) -> str:
    return f"{name.rpartition('/')[2].replace(':', '-')}.gguf"
