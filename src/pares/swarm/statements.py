"""The statements on versions that this node has: its own, and such as members of its circles tell in their offers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from pares.errors import RemoteError
from pares.store.database import Database
from pares.store.versions import StatementRecord, VersionTables
from pares.swarm.fetching import Fetching
from pares.swarm.members import CircleFacts, Members
from pares.swarm.predicate import File, Version
from pares.swarm.version import Opened, UnknownKind, open_statement
from pares.swarm.wanted import ALL, wanted
from pares.transport.bucket import Bucket
from pares.transport.link import Connection, Stream
from pares.transport.switchboard import answer, receive
from pares.wire import messages
from pares.wire.framing import MESSAGE_BYTES, ProtocolError
from pares.wire.messages import HASHES, Fetch, PieceHashes, Pieces, Refused, SwarmReply, SwarmRequest
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

BYTES = 64 * 1024 * 1024
"""Of all envelopes here; above that nothing more is fetched."""
KEPT_ABOUT = 64
"""Statements on one version that are kept for the version's sake though nobody tells them any more."""
UNTOLD_S = 3_600.0
"""What nobody tells any more is kept so long: members restart, and come back."""
REQUEST_BYTES = 2_048
REPLY_BYTES = MESSAGE_BYTES - 1_024
SERVED_PER_S = 128 * 1024
SERVED_BURST = 8 * 1024 * 1024
"""Bytes that one member is sent."""
SERVED = 1_024
"""Members of whom that is remembered."""


@dataclass(frozen=True, slots=True)
class _Kept:
    opened: Opened
    envelope: bytes


class Statements:
    """`await load()` first. Reading is at hand; every change is in the database before `on_change` is called."""

    def __init__(
        self,
        database: Database,
        members: Members,
        *,
        layer_of: Callable[[bytes], Awaitable[bytes | None]],
        keeps: Callable[[bytes], bool] = lambda version: False,
        gives: Callable[[bytes, bytes], bool] = lambda version, circle: True,
        on_change: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`layer_of(root)`: the hashes of a file's pieces, if they are here. `keeps(version)`: it is of use here,
        whether or not somebody still tells it. `gives(version, circle)`: the owner has not thought better of it since
        the last offer. `now()` is monotonic."""
        self.on_change = on_change
        self._tables = VersionTables(database)
        self._members = members
        self._layer_of = layer_of
        self._keeps = keeps
        self._gives = gives
        self._now = now
        self._kept: dict[bytes, _Kept] = {}
        self._about: dict[bytes, dict[bytes, None]] = {}
        """Digests of statements by what they are about."""
        self._bytes = 0
        self._untold: dict[bytes, float] = {}
        self._served: dict[PeerId, Bucket] = {}
        self._fetching = Fetching(members, self._take, now=now)

    async def load(self) -> None:
        """Read the database; what does not hold any more is left out."""
        for record in await self._tables.statements():
            try:
                self._insert(await asyncio.to_thread(open_statement, record.envelope), record.envelope)
            except RemoteError as error:
                log.warning("statement.left_out", extra={"digest": record.digest.hex()[:8], "reason": error.message})

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes) -> Opened | None:
        kept = self._kept.get(digest)
        return kept.opened if kept else None

    def envelope(self, digest: bytes) -> bytes:
        """As it was signed. Raises KeyError for what is not here."""
        return self._kept[digest].envelope

    def all(self) -> tuple[Opened, ...]:
        return tuple(kept.opened for kept in self._kept.values())

    def versions(self) -> tuple[Opened, ...]:
        return tuple(kept.opened for kept in self._kept.values() if kept.opened.kind == "version")

    def about(self, version: bytes) -> tuple[Opened, ...]:
        """What is said of a version, and said of that again: endorsements, warnings, revocations; the oldest first."""
        found: dict[bytes, None] = {}
        ahead = [version]
        while ahead:
            new = [digest for digest in self._about.get(ahead.pop(), ()) if digest not in found]
            found |= dict.fromkeys(new)
            ahead += new
        return tuple(self._kept[digest].opened for digest in found)

    async def add(self, envelope: bytes) -> Opened:
        """Keep a statement of this node, or one that its owner brings. Raises ProtocolError."""
        opened = open_statement(envelope)
        await self._keep([_Kept(opened, envelope)])
        return opened

    # Fetching

    async def fetch(self) -> None:
        """Fetch what members tell and is not here, forget what is of no use any more.

        Call it when offers have changed, and every minute; also while it is under way. Faults of members are dealt with
        here; raises DiskFull, DatabaseUnusable.
        """
        targets = wanted(self._members.circles(), self._members.me, ignored=self._fetching.ignored())
        await self._prune({digest for told in targets.values() for digest in told})
        if self._bytes >= BYTES:
            log.warning("statements.full", extra={"bytes": self._bytes})
            return
        missing = {peer: [d for d in told if d not in self._kept] for peer, told in targets.items()}
        await self._fetching.run({peer: digests for peer, digests in missing.items() if digests})

    async def _take(self, peer: PeerId, asked: Sequence[bytes], envelopes: Sequence[bytes]) -> set[bytes]:
        """Keep what a member sent, if it is exactly what it was asked for. Raises ProtocolError."""
        found: dict[bytes, _Kept] = {}
        for envelope in envelopes:
            try:
                opened = open_statement(envelope)
            except UnknownKind as error:
                log.debug("statement.unknown", extra={"reason": error.message})
                continue
            if opened.digest not in asked or opened.digest in found:
                raise ProtocolError(f"{peer.hex()[:8]} sent a statement that it was not asked for.")
            found[opened.digest] = _Kept(opened, envelope)
        await self._keep(found.values())
        return set(found)

    async def _keep(self, statements: Iterable[_Kept]) -> None:
        new = [kept for kept in statements if kept.opened.digest not in self._kept]
        if not new:
            return
        await self._tables.change_statements(new=[_record(kept) for kept in new])
        for kept in new:
            self._insert(kept.opened, kept.envelope)
        self.on_change()

    def _insert(self, opened: Opened, envelope: bytes) -> None:
        if opened.digest not in self._kept:
            self._kept[opened.digest] = _Kept(opened, envelope)
            self._bytes += len(envelope)
            if opened.about != opened.digest:
                self._about.setdefault(opened.about, {})[opened.digest] = None

    async def _prune(self, told: set[bytes]) -> None:
        """Forget what nobody told for a while, and at once if there is too much of it."""
        now, before = self._now(), self._untold
        untold = [digest for digest in self._kept if digest not in told and not self._is_of_use(digest)]
        self._untold = {digest: before.get(digest, now) for digest in untold}
        gone = [digest for digest, since in self._untold.items() if now - since > UNTOLD_S]
        if len(self._kept) > ALL or self._bytes >= BYTES:
            gone = untold
        if gone:
            await self._tables.change_statements(gone=gone)
            for digest in gone:
                self._forget(digest)
            self.on_change()

    def _is_of_use(self, digest: bytes) -> bool:
        """Whether a statement is this node's own, or on a version that is of use here."""
        opened = self._kept[digest].opened
        if opened.author == self._members.me:
            return True
        target = self.get(opened.about)
        version = target.about if target else opened.about
        return self._keeps(version) and (
            opened.digest == version or digest in islice(self._about.get(opened.about, ()), KEPT_ABOUT)
        )

    def _forget(self, digest: bytes) -> None:
        kept = self._kept.pop(digest)
        self._bytes -= len(kept.envelope)
        self._untold.pop(digest, None)
        if (others := self._about.get(kept.opened.about)) is not None:
            others.pop(digest, None)
            if not others:
                del self._about[kept.opened.about]

    # Answering

    async def serve(self, link: Connection, stream: Stream) -> None:
        """Handler of `pares/swarm/1`."""
        request: SwarmRequest = await receive(stream, SwarmRequest, most=REQUEST_BYTES)  # type: ignore[arg-type]
        await answer(stream, await self.answer(link.peer, request))

    async def answer(self, peer: PeerId, request: SwarmRequest) -> SwarmReply:
        """What a peer is told: only what this node tells in a circle of both."""
        shared = [circle for circle in self._members.circles() if peer in circle.members]
        if not shared:
            return Refused(code="not_a_member", reason="This node knows of no circle with you in it.")
        if self._budget(peer).take(0, self._now()) > 0:
            return Refused(code="busy", reason="You ask for more than this node can send.")
        reply: SwarmReply
        if isinstance(request, Fetch):
            reply = messages.Statements(envelopes=self._envelopes(shared, request.digests))
        else:
            reply = await self._hashes(shared, request)
        self._budget(peer).take(_size(reply), self._now())
        return reply

    def _envelopes(self, shared: Sequence[CircleFacts], digests: Sequence[bytes]) -> list[bytes]:
        told = {digest for circle in shared for digest in self._told(circle)}
        found, room = [], REPLY_BYTES
        for digest in dict.fromkeys(digests):
            if digest in told and (kept := self._kept.get(digest)) is not None:
                room -= len(kept.envelope) + 8
                if room < 0:
                    break
                found.append(kept.envelope)
        return found

    async def _hashes(self, shared: Sequence[CircleFacts], request: Pieces) -> PieceHashes | Refused:
        root = request.root.hex()
        files = {file.root for circle in shared for version in self._given(circle) for file in self._files(version)}
        layer = await self._layer_of(request.root) if root in files else None
        if layer is None:
            return Refused(code="not_held", reason="This node does not give that file away where you belong.")
        start = 32 * request.first
        return PieceHashes(root=request.root, first=request.first, hashes=layer[start : start + 32 * HASHES])

    def _told(self, circle: CircleFacts) -> Iterable[bytes]:
        offer = circle.offers.get(self._members.me)
        return (*self._given(circle), *offer.tells) if offer else ()

    def _given(self, circle: CircleFacts) -> list[bytes]:
        """What the last offer says that this node gives away, as far as that still stands."""
        offer = circle.offers.get(self._members.me)
        return [held.version for held in offer.holds if self._gives(held.version, circle.id)] if offer else []

    def _files(self, version: bytes) -> Sequence[File]:
        opened = self.get(version)
        return opened.predicate.files if opened and isinstance(opened.predicate, Version) else ()

    def _budget(self, peer: PeerId) -> Bucket:
        now = self._now()
        if peer not in self._served and len(self._served) >= SERVED:
            self._served = {known: bucket for known, bucket in self._served.items() if not bucket.full(now)}
        return self._served.setdefault(peer, Bucket(SERVED_PER_S, SERVED_BURST, now))


def _size(reply: SwarmReply) -> int:
    match reply:
        case messages.Statements():
            return sum(map(len, reply.envelopes)) + 1_024
        case PieceHashes():
            return len(reply.hashes) + 1_024
    return 1_024


def _record(kept: _Kept) -> StatementRecord:
    opened = kept.opened
    return StatementRecord(
        digest=opened.digest, kind=opened.kind, version=opened.about, author=opened.author, envelope=kept.envelope
    )
