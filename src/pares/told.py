"""Versions and the swarm as the API tells of them: `api.services.CommonsServices` over the commons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pares.api import commons as told
from pares.api.network import Who
from pares.api.schemas import Fit, Need
from pares.circle.words import words
from pares.commons import Commons
from pares.errors import BadRequest, Conflict, NotFound, ParesError, VerificationFailed
from pares.inference.header import Header
from pares.store.content import FileRecord
from pares.swarm import licences, lineage, oms, weights
from pares.swarm.catalogue import sketch
from pares.swarm.coverage import everything, piece_map
from pares.swarm.files import header_of, trouble
from pares.swarm.merkle import piece_length, pieces
from pares.swarm.offered import Row
from pares.swarm.predicate import Revocation, Version
from pares.swarm.pulls import Pulls
from pares.swarm.sharing import Publication
from pares.swarm.version import Opened, check_header
from pares.transport.torrents import Swarming, TorrentSource
from pares.wire.messages import Held
from pares.wire.signing import PeerId

Fitting = Callable[[Header], tuple[Fit, Need]]
LOOKING = 2
"""Readers of weights at the same time; each is a process."""


class CommonsTold:
    """`fitting` says how models with these headers would do here now; `keep` writes one setting down."""

    def __init__(
        self,
        commons: Commons,
        pulls: Pulls,
        *,
        fitting: Callable[[], Fitting],
        keep: Callable[[str, object], Awaitable[object]],
    ) -> None:
        self._commons, self._pulls, self._fitting, self._keep = commons, pulls, fitting, keep
        self._looking = asyncio.Semaphore(LOOKING)

    # Versions

    async def versions(self) -> Sequence[told.VersionRow]:
        models, fit = await self._models(), self._fitting()
        rows = []
        for row in self._commons.offered().search():
            rows.append(self._row(row, models, fit))
            await asyncio.sleep(0)  # thousands would hold up everything else
        return rows

    async def version(self, version: str) -> told.VersionDetail:
        return await self._detail(self._commons.offered().find(version))

    async def envelope(self, version: str) -> bytes:
        return self._commons.statements.envelope(self._commons.offered().find(version).id)

    async def bundle(self, version: str) -> told.Bundle:
        commons = self._commons
        row = commons.offered().find(version)
        records = {file.name: await commons.library.files.get(bytes.fromhex(file.root)) for file in row.version.files}
        files = {name: r.path for name, r in records.items() if r is not None and r.pieces is None and not trouble(r)}
        if len(files) < len(records):
            raise Conflict(f"{row.version.name} is not here as a whole.", hint="Pull it first.")
        envelope = commons.statements.envelope(row.id)
        exported = await asyncio.to_thread(oms.export_bundle, commons.network.identity, envelope)
        return told.Bundle(
            files=files,
            model_sig=exported.bundle.decode(),
            model_pub=exported.key.decode(),
            statement=envelope.decode(),
        )

    async def lineage(self, version: str) -> told.Lineage:
        row = self._commons.offered().find(version)
        book = self._commons.network.circles_here.book
        removed = {peer for circle in book.circles.values() for peer in circle.store.membership.removed()}
        graph = lineage.Graph(self._commons.statements.all(), distrusted=removed - book.members())
        walked = await asyncio.to_thread(graph.walk, row.id)
        nodes = [
            told.LineageNode(
                id=node.id,
                name=node.name,
                kind=node.version.kind if node.version else None,
                publisher=self._who(node.opened.author) if node.opened else None,
                known=node.opened is not None,
                here=_here(self._commons.sharing.here.get(node.opened.digest)) if node.opened else "no",
                troubles=node.troubles,
            )
            for node in walked.nodes
        ]
        edges = [told.LineageEdge(**edge._asdict()) for edge in walked.edges]
        return told.Lineage(of=walked.of, nodes=tuple(nodes), edges=tuple(edges), cut=walked.cut)

    async def share(self, request: told.ShareRequest) -> told.VersionDetail:
        commons = self._commons
        circles = commons.members.circles()
        if request.circles:
            wanted = {commons.network.circles_here.find(circle).id for circle in request.circles}
            circles = [circle for circle in circles if circle.id in wanted]
        said = {name: getattr(request, name) for name in Publication.__dataclass_fields__}
        opened = await commons.sharing.share(request.model, circles, Publication(**said))
        return await self._detail(commons.offered().rows[opened.digest])

    async def unshare(self, request: told.UnshareRequest) -> None:
        commons = self._commons
        circles = commons.members.circles()
        if request.circles:
            wanted = {commons.network.circles_here.find(circle).id for circle in request.circles}
            circles = [circle for circle in circles if circle.id in wanted]
        await commons.sharing.unshare(commons.offered().find(request.version).id, circles, force=request.force)

    async def accept_licence(self, version: str) -> None:
        await self._commons.sharing.accept(self._commons.offered().find(version).version)

    async def endorse(self, version: str, text: str) -> told.Voice:
        return await self._speak(version, text, against=False)

    async def revoke(self, version: str, text: str) -> told.Voice:
        return await self._speak(version, text, against=True)

    async def verify(self, model: str) -> told.VersionDetail:
        commons = self._commons
        row = commons.offered().find(model)
        if row.id not in commons.sharing.here:
            raise NotFound(
                f"{row.version.name} is not here; only its statement is, and that is signed as it should be.",
                hint=f"Fetch it with `pares pull {row.version.name}`.",
            )
        for file in row.version.files:
            await commons.library.files.verify(bytes.fromhex(file.root))
        detail = await self._detail(row)
        wrong = [finding.message for finding in detail.findings if finding.ok is False]
        if wrong:
            raise VerificationFailed(
                f"{row.version.name} is not what its statement says. {wrong[0]}",
                hint="Ask its publisher, or remove it.",
            )
        return detail

    async def before_removing(self, model: str, *, force: bool) -> Callable[[], Awaitable[None]]:
        """Raises Conflict where a model is the last known copy of something this node gives away, unless `force`.

        What is returned is to be called when the model is gone: it is given away no more.
        """
        commons = self._commons
        entry = await commons.library.get(model)
        others = [e for e in await commons.library.list() if e.record.root and e.record.name != entry.record.name]
        root = entry.record.root
        given = [] if not root or any(e.record.root == root for e in others) else await commons.listing(root)
        lost = sorted({circle for opened in given for circle in commons.sharing.would_be_lost(opened.digest)})
        if lost and not force:
            raise Conflict(
                f"Nobody else in {', '.join(lost)} is known to hold {entry.record.name}: it would be lost there.",
                hint="Wait until somebody has fetched it, or use --force.",
                circles=lost,
            )

        async def afterwards() -> None:
            for opened in given:
                await commons.sharing.withdraw(opened.digest)

        return afterwards

    # The swarm

    async def swarm(self) -> told.Swarm:
        commons = self._commons
        traffic = await commons.library.files.content.traffic()
        records = {record.root: record for record in await commons.library.files.all()}
        names = await self._names_of_roots()
        running = {told_.root: told_ for told_ in commons.torrents.all()}
        peer_of = commons.peers_by_address()
        down = sum(each.downloaded for each in traffic.values()) + commons.uncounted()[0]
        up = sum(each.uploaded for each in traffic.values()) + commons.uncounted()[1]
        return told.Swarm(
            seeding=commons.settings.seeding,
            upload_limit=commons.settings.upload_limit,
            download_limit=commons.settings.download_limit,
            port=commons.torrents.tcp_port,
            downloaded=down,
            uploaded=up,
            kept_bytes=sum(record.size for record in records.values() if commons.keeper.keeps(record.root)),
            keep_bytes=commons.settings.keep_bytes,
            torrents=tuple(self._torrent(each, records.get(root), names, peer_of) for root, each in running.items()),
        )

    async def change_swarm(self, change: told.SwarmChange) -> told.Swarm:
        changed = {
            name: value
            for name in ("seeding", "upload_limit", "download_limit")
            if (value := getattr(change, name)) is not None
        }
        for name, value in changed.items():
            await self._keep(f"swarm.{name}", value)
        await self._commons.change(**changed)
        return await self.swarm()

    # Weights

    async def statistics(self, model: str, tensor: str) -> told.TensorStatistics:
        if not tensor:
            raise BadRequest("Which tensor?", param="tensor", hint="`pares inspect MODEL` lists them.")
        path = await self._path(model)
        async with self._looking:
            found = await weights.statistics(path, tensor)
        return msgspec.convert(found, told.TensorStatistics, from_attributes=True)

    async def difference(self, left: str, right: str) -> told.Difference:
        one, other = await self._path(left), await self._path(right)
        async with self._looking:
            found = await weights.difference(one, other)
        return told.Difference(
            left=left,
            right=right,
            equal=found.equal,
            changed=found.changed,
            layers=msgspec.convert(found.layers, tuple[told.LayerDifference, ...], from_attributes=True),
            tensors=msgspec.convert(found.tensors, tuple[told.TensorDifference, ...], from_attributes=True),
        )

    def figures(self) -> Mapping[str, tuple[str, float]]:
        torrents = self._commons.torrents.all()
        return {
            "versions": ("Versions that this node knows of", len(self._commons.statements.versions())),
            "swarm_files": ("Files that are fetched or given away", len(torrents)),
            "swarm_down_bytes_per_second": ("What comes in of them", sum(each.down_rate for each in torrents)),
            "swarm_up_bytes_per_second": ("What goes out of them", sum(each.up_rate for each in torrents)),
        }

    # Inside

    async def _path(self, name: str) -> Path:
        """Of a model here, or of a version that is here whole. Raises NotFound, ModelNotFound, Conflict."""
        commons = self._commons
        try:
            entry = await commons.library.get(name)
        except ParesError as error:
            try:
                row = commons.offered().find(name)
            except NotFound:
                raise error from None
            record = await commons.library.files.get(bytes.fromhex(row.version.files[0].root))
            if record is None or record.pieces is not None:
                raise Conflict(f"{row.version.name} is not here as a whole.", hint="Pull it first.") from None
            return Path(record.path)
        if entry.file is None or entry.problem:
            raise NotFound(entry.problem or "Its file is gone.") from None
        return Path(entry.file.path)

    async def _models(self) -> Mapping[str, str]:
        """Names of models by the root of their file; the first that has it."""
        found: dict[str, str] = {}
        for entry in await self._commons.library.list():
            if entry.record.root:
                found.setdefault(entry.record.root, entry.record.name)
        return found

    async def _names_of_roots(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """By root: what the file is called, and the versions that list it."""
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        for opened in self._commons.statements.versions():
            assert isinstance(opened.predicate, Version)
            for file in opened.predicate.files:
                name, versions = found.get(file.root, (opened.predicate.name, ()))
                found[file.root] = name, (*versions, opened.digest.hex())
        return found

    def _row(self, row: Row, models: Mapping[str, str], fits: Fitting) -> told.VersionRow:
        version = row.version
        held = self._commons.sharing.here.get(row.id)
        fit: Fit | None = None
        need: Need | None = None
        if version.kind != "adapter" and version.architecture.layers and version.architecture.embedding_length:
            fit, need = fits(sketch(version.architecture, version.name, row.size))
        return told.VersionRow(
            id=row.id.hex(),
            name=version.name,
            label=version.label,
            kind=version.kind,
            publisher=self._who(row.opened.author),
            licence=version.licence.spdx,
            architecture=version.architecture.name,
            parameters=version.architecture.parameters,
            quantization=version.architecture.quantization,
            layers=version.architecture.layers,
            size=row.size,
            created=_time(version.created),
            circles=tuple(circle.hex() for circle in row.circles),
            holders=len(row.holders),
            whole=row.whole,
            online=len(row.online),
            complete=row.complete,
            here=_here(held),
            model=models.get(version.files[0].root, "") if len(version.files) == 1 else "",
            shared=tuple(circle.hex() for circle in sorted(self._commons.sharing.shared_in(row.id))),
            endorsements=row.endorsements,
            conflict=row.conflict,
            trouble=row.trouble,
            fit=fit,
            need=need,
        )

    async def _detail(self, row: Row) -> told.VersionDetail:
        commons, version = self._commons, row.version
        records = {record.root.hex(): record for record in await commons.library.files.all()}
        files = tuple(
            told.VersionFile(
                name=file.name, root=file.root, sha256=file.sha256, size=file.size, here=_part(records.get(file.root))
            )
            for file in version.files
        )
        online = commons.members.online()
        holders = [
            told.Holder(peer=self._who(peer), online=peer in online, layers=held.layers, head=held.head)
            for peer, parts in row.holders.items()
            for held in parts
        ]
        if (mine := commons.sharing.here.get(row.id)) is not None:
            me = self._who(commons.members.me)
            holders.insert(0, told.Holder(peer=me, online=True, layers=mine.layers, head=mine.head, you=True))
        return told.VersionDetail(
            row=self._row(row, await self._models(), self._fitting()),
            predicate=msgspec.to_builtins(version),
            licence_text=licences.text_of(version.licence),
            licence_accepted=commons.sharing.is_accepted(version),
            files=files,
            holders=tuple(holders),
            voices=tuple(self._voice(voice.opened, row, counts=voice.counts) for voice in row.voices),
            findings=tuple(await self._findings(row, records.get(version.files[0].root))),
        )

    async def _findings(self, row: Row, record: FileRecord | None) -> Sequence[told.Finding]:
        version = row.version
        who = self._who(row.opened.author)
        found = [told.Finding(what="signature", ok=True, message=f"Signed by {who.name} ({who.words}).")]
        wrong: Sequence[str] = ()
        if record is None or (problem := trouble(record)):
            message = "Its file is not here, so its header was not compared with the statement."
            found.append(told.Finding(what="header", ok=None, message=message if record is None else problem))
        else:
            try:
                header = await asyncio.to_thread(header_of, record)
                wrong = check_header(version, header)
            except (ParesError, OSError) as error:
                wrong = [str(error)]
            found.append(
                told.Finding(
                    what="header",
                    ok=not wrong,
                    message=" ".join(wrong) or "What it says of the architecture is what the header of the file says.",
                )
            )
            whole = record.pieces is None
            found.append(
                told.Finding(
                    what="bytes",
                    ok=True if whole else None,
                    message="All bytes were checked against its root." if whole else "Only a part of it is here.",
                )
            )
        problems = licences.findings(version.licence)
        found.append(
            told.Finding(
                what="licence", ok=not problems, message=" ".join(problems) or f"It is under {version.licence.spdx}."
            )
        )
        if row.trouble:
            found.append(told.Finding(what="voices", ok=False, message=row.trouble))
        return found

    async def _speak(self, version: str, text: str, *, against: bool) -> told.Voice:
        row = self._commons.offered().find(version)
        opened = await self._commons.sharing.voice(row.id, text, against=against)
        return self._voice(opened, row, counts=True)

    def _voice(self, opened: Opened, row: Row, *, counts: bool) -> told.Voice:
        predicate = opened.predicate
        assert not isinstance(predicate, Version)
        against = isinstance(predicate, Revocation)
        own = opened.author == row.opened.author
        return told.Voice(
            id=opened.digest.hex(),
            kind="endorsement" if not against else "revocation" if own else "warning",
            by=self._who(opened.author),
            at=_time(predicate.at),
            text=predicate.reason if isinstance(predicate, Revocation) else predicate.text,
            withdrawn=not counts,
            yours=opened.author == self._commons.members.me,
        )

    def _torrent(
        self,
        now: Swarming,
        record: FileRecord | None,
        names: Mapping[str, tuple[str, tuple[str, ...]]],
        peer_of: Callable[[str], PeerId | None],
    ) -> told.TorrentRow:
        root = now.root.hex()
        name, versions = names.get(root, (root[:16], ()))
        size = record.size if record else now.wanted
        count = pieces(size) if size else 0
        fetched = now.root in self._commons.fetch.fetching
        pull = next((p.id for p in self._pulls.list() if fetched and p.name == name and p.state == "fetching"), "")
        poisoned = [p for p in self._commons.poisoned if p.root == now.root]
        error = now.error
        if poisoned and not error:
            peer = peer_of(address := poisoned[-1].address)
            source = self._commons.network.name_of(peer) if peer else address
            error = f"{source} sent a wrong piece and was banned for this file."
        return told.TorrentRow(
            root=root,
            name=name,
            versions=versions,
            size=size,
            piece_bytes=piece_length(size) if size else 0,
            pieces=piece_map(now.have, everything(size) if fetched else now.have, count) if size else "",
            state=now.state,
            done=now.done,
            wanted=now.wanted,
            down_bytes_per_s=now.down_rate,
            up_bytes_per_s=now.up_rate,
            downloaded=now.downloaded,
            uploaded=now.uploaded,
            wasted=now.wasted,
            sources=tuple(self._source(source, peer_of(source.address)) for source in now.sources),
            pull=pull,
            code=now.code or ("poisoned" if poisoned else ""),
            error=error,
        )

    def _source(self, source: TorrentSource, peer: PeerId | None) -> told.Source:
        tunnel = self._commons.tunnels.peer_of(source.address) is not None
        return told.Source(
            peer=self._who(peer) if peer else None,
            address=source.address,
            kind="tunnel" if tunnel else source.kind,
            have=source.have,
            down_bytes_per_s=source.down_rate,
            up_bytes_per_s=source.up_rate,
            downloaded=source.downloaded,
            uploaded=source.uploaded,
        )

    def _who(self, peer: PeerId | bytes) -> Who:
        return Who(peer.hex(), self._commons.network.name_of(PeerId(bytes(peer))), " ".join(words(bytes(peer))))


def _here(held: Held | None) -> told.Here:
    return "no" if held is None else "whole" if held.layers is None else "part"


def _part(record: FileRecord | None) -> told.Here:
    return "no" if record is None else "whole" if record.pieces is None else "part"


def _time(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
