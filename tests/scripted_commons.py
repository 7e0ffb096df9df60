"""Versions, what circles offer, and the swarm, for tests of the API and the page: a world in memory that tests move."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

import msgspec

from pares.api.commons import (
    Bundle,
    Difference,
    Finding,
    Holder,
    LayerDifference,
    Lineage,
    LineageEdge,
    LineageNode,
    ShareRequest,
    Swarm,
    SwarmChange,
    TensorDifference,
    TensorStatistics,
    TorrentRow,
    UnshareRequest,
    VersionDetail,
    VersionFile,
    VersionRow,
    Voice,
)
from pares.api.network import Who
from pares.errors import Conflict, NotFound, ParesError
from pares.store.events import Events
from pares.swarm.predicate import Architecture, Data, Evaluation, File, Kind, Licence, Parent, Version
from scripted_network import key_of, who

APACHE = "Apache License\nVersion 2.0, January 2004\n\nYou may use, change and pass on this model."
SIGNED = Finding(what="signature", ok=True, message="The statement is signed by the key that it names.")
HEADER = Finding(what="header", ok=None, message="Its header is not here yet, so its facts cannot be compared.")
QUIET = Swarm(
    seeding=True,
    upload_limit=1_000_000,
    download_limit=0,
    port=0,
    downloaded=0,
    uploaded=0,
    kept_bytes=0,
    keep_bytes=20_000_000_000,
    torrents=(),
)


class NobodyElse:
    """In place of the node's own commons beside a scripted one: nothing to be pulled from circles, no swarm."""

    fetch = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def find(self, text: str) -> None:
        return None

    async def listing(self, file: str) -> tuple[()]:
        return ()


class ScriptedCommons:
    """`CommonsServices`. The methods at the end move the world; what they change is told as events."""

    def __init__(self, events: Events, me: Who) -> None:
        self._events = events
        self.me = me
        self.details: dict[str, VersionDetail] = {}
        self.edges: list[LineageEdge] = []
        self.words_only: dict[str, LineageNode] = {}
        self.samples: dict[tuple[str, str], TensorStatistics] = {}
        self.differences: dict[tuple[str, str], Difference] = {}
        self.now = QUIET
        self.shares: list[ShareRequest] = []
        self.refusal: ParesError | None = None
        """What the next share, stop of it, or removal of a model, ends with."""

    # What the API asks

    async def versions(self) -> Sequence[VersionRow]:
        return sorted((detail.row for detail in self.details.values()), key=lambda row: (row.name, row.size))

    async def version(self, version: str) -> VersionDetail:
        found = [id_ for id_, detail in self.details.items() if id_.startswith(version) or detail.row.name == version]
        if len(found) > 1:
            raise Conflict(f"{version!r} means several versions.", hint="Name one by its id.")
        if not found:
            raise NotFound(f"There is no version {version!r} in your circles.")
        return self.details[found[0]]

    async def envelope(self, version: str) -> bytes:
        return msgspec.json.encode({"payload": (await self.version(version)).row.id, "signatures": []})

    async def bundle(self, version: str) -> Bundle:
        row = (await self.version(version)).row
        if row.here != "whole":
            raise Conflict(f"{row.name} is not here as a whole.", hint="Pull it first.")
        return Bundle(files={}, model_sig="{}", model_pub="", statement="{}")

    async def lineage(self, version: str) -> Lineage:
        of = (await self.version(version)).row.id
        reached = {of}
        while more := {end for edge in self.edges for end in (edge.child, edge.parent) if _touches(edge, reached)}:
            if more <= reached:
                break
            reached |= more
        edges = tuple(edge for edge in self.edges if _touches(edge, reached))
        return Lineage(of=of, nodes=tuple(self._node(id_) for id_ in sorted(reached)), edges=edges)

    async def share(self, request: ShareRequest) -> VersionDetail:
        self._refuse()
        self.shares.append(request)
        known = next((each for each in self.details.values() if each.row.model == request.model), None)
        if known is None:
            name = request.name or request.model
            made = self.offers(
                name, by=self.me.name, label=request.label, licence=request.licence, model=request.model, here="whole"
            )
            known = self.details[made]
        self.changes(known.row.id, shared=request.circles, circles=request.circles)
        return self.details[known.row.id]

    async def unshare(self, request: UnshareRequest) -> None:
        row = (await self.version(request.version)).row
        if not request.force:
            self._refuse()
        self.changes(row.id, shared=tuple(id_ for id_ in row.shared if request.circles and id_ not in request.circles))

    async def accept_licence(self, version: str) -> None:
        detail = await self.version(version)
        self.details[detail.row.id] = msgspec.structs.replace(detail, licence_accepted=True)

    async def endorse(self, version: str, text: str) -> Voice:
        return self.says((await self.version(version)).row.id, "endorsement", self.me.name, text)

    async def revoke(self, version: str, text: str) -> Voice:
        detail = await self.version(version)
        mine = detail.row.publisher == self.me
        return self.says(detail.row.id, "revocation" if mine else "warning", self.me.name, text)

    async def verify(self, model: str) -> VersionDetail:
        here = next((each for each in self.details.values() if each.row.model == model), None)
        return here or await self.version(model)

    async def before_removing(self, model: str, *, force: bool) -> Callable[[], Awaitable[None]]:
        if not force:
            self._refuse()

        async def gone() -> None:
            for detail in list(self.details.values()):
                if detail.row.model == model:
                    self.changes(detail.row.id, model="", here="no", shared=())

        return gone

    async def swarm(self) -> Swarm:
        return self.now

    async def change_swarm(self, change: SwarmChange) -> Swarm:
        given = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not None}
        self.moves(**given)
        return self.now

    async def statistics(self, model: str, tensor: str) -> TensorStatistics:
        if (model, tensor) not in self.samples:
            raise NotFound(f"{model} has no tensor {tensor!r}.")
        return self.samples[model, tensor]

    async def difference(self, left: str, right: str) -> Difference:
        if (left, right) not in self.differences:
            raise Conflict("The two have nothing in common.", hint="Compare versions of one architecture.")
        return self.differences[left, right]

    def figures(self) -> Mapping[str, tuple[str, float]]:
        return {"versions": ("Versions that circles offer", len(self.details))}

    # How the world moves

    def offers(
        self,
        name: str,
        *,
        by: str = "Ada",
        circles: Sequence[str] = (),
        licence: str = "Apache-2.0",
        licence_text: str = APACHE,
        **facts: Any,  # noqa: ANN401 (fields of VersionRow)
    ) -> str:
        """Somebody of that name publishes a version; its id."""
        publisher = who(by)
        id_ = key_of(f"{name} {by} {len(self.details)}")
        row = VersionRow(
            **{
                "id": id_,
                "name": name,
                "label": "v1",
                "kind": "quantized",
                "publisher": publisher,
                "licence": licence,
                "architecture": "llama",
                "parameters": 134_515_008,
                "quantization": "Q4_1",
                "layers": 30,
                "size": 98_362_432,
                "created": datetime.now(UTC) - timedelta(days=3),
                "circles": tuple(circles),
                "holders": 1,
                "whole": 1,
                "online": 1,
                "complete": True,
                "here": "no",
                "fit": "runs well",
            }
            | facts  # type: ignore[arg-type]
        )
        stated = _stated(row, licence_text)
        file = stated.files[0]
        self.details[id_] = VersionDetail(
            row=row,
            predicate=msgspec.to_builtins(stated),
            licence_text=licence_text,
            licence_accepted=False,
            files=(VersionFile(name=file.name, root=file.root, sha256=file.sha256, size=file.size, here=row.here),),
            holders=(Holder(peer=publisher, online=True, layers=None, head=True),),
            voices=(),
            findings=(SIGNED, HEADER),
        )
        self._tell()
        return id_

    def changes(self, version: str, **facts: Any) -> None:  # noqa: ANN401 (fields of VersionRow)
        """A row says otherwise from now on."""
        detail = self.details[version]
        self.details[version] = msgspec.structs.replace(detail, row=msgspec.structs.replace(detail.row, **facts))
        self._tell()

    def tells(self, version: str, **facts: Any) -> None:  # noqa: ANN401 (fields of VersionDetail)
        """More is known of a version. What is given under `predicate` is laid over what was signed."""
        detail = self.details[version]
        if "predicate" in facts:
            facts["predicate"] = {**detail.predicate, **facts["predicate"]}
        self.details[version] = msgspec.structs.replace(detail, **facts)
        self._tell()

    def says(self, version: str, kind: Literal["endorsement", "warning", "revocation"], by: str, text: str) -> Voice:
        """Somebody stands for a version, warns of it, or takes it back."""
        detail, person = self.details[version], who(by)
        at = datetime.now(UTC)
        id_ = key_of(f"{version} {kind} {by} {len(detail.voices)}")
        voice = Voice(id=id_, kind=kind, by=person, at=at, text=text, yours=person == self.me)
        facts: dict[str, Any] = {"endorsements": detail.row.endorsements + (kind == "endorsement")}
        if kind != "endorsement":
            facts["trouble"] = f"{by} {'took it back' if kind == 'revocation' else 'warns'}: {text}"
        self.tells(version, voices=(*detail.voices, voice))
        self.changes(version, **facts)
        return voice

    def derives(
        self,
        child: str,
        parent: str,
        relation: Kind,
        state: Literal["checked", "stated", "missing", "wrong", "cycle", "revoked"] = "checked",
        message: str = "Its statement names this parent.",
    ) -> None:
        """A version was made from another one, or from one that is known by its name only."""
        if parent not in self.details:
            parent = f"name:{parent}"
            self.words_only[parent] = LineageNode(
                id=parent, name=parent[5:], kind=None, publisher=None, known=False, troubles=("Nobody published it.",)
            )
        self.edges.append(LineageEdge(child=child, parent=parent, relation=relation, state=state, message=message))
        self._tell()

    def moves(self, *torrents: TorrentRow, **facts: Any) -> None:  # noqa: ANN401 (fields of Swarm)
        """The swarm stands otherwise; torrents take the place of those with the same root."""
        rows = {torrent.root: torrent for torrent in (*self.now.torrents, *torrents)}
        self.now = msgspec.structs.replace(self.now, torrents=tuple(rows.values()), **facts)
        self._events.publish("swarm", {})

    def samples_as(self, model: str, tensor: str, **facts: Any) -> None:  # noqa: ANN401 (fields of TensorStatistics)
        """What looking at the weights of a tensor finds."""
        found: dict[str, Any] = {"type": "F32", "shape": (576,), "size": 2304, "sampled": 576, "odd": 0}
        found |= {"least": -0.5, "most": 0.75, "mean": 0.1, "deviation": 0.2, "zeros": 0.25}
        found["histogram"] = (1, 4, 9, 20, 40, 80, 40, 20, 9, 4)
        self.samples[model, tensor] = TensorStatistics(name=tensor, **found | facts)

    def differs(self, left: str, right: str, norms: Sequence[float]) -> None:
        """Two models differ by this much in each layer."""
        tensors = tuple(
            TensorDifference(
                name=f"blk.{i}.ffn_up.weight", layer=i, state="changed" if norm else "equal", relative=norm
            )
            for i, norm in enumerate(norms)
        )
        layers = tuple(
            LayerDifference(layer=i, relative=norm, changed=int(norm > 0), tensors=9) for i, norm in enumerate(norms)
        )
        other = TensorDifference(name="output.weight", layer=-1, state="only right", relative=None)
        changed = sum(norm > 0 for norm in norms)
        self.differences[left, right] = Difference(
            left=left,
            right=right,
            equal=9 * len(norms) - changed,
            changed=changed,
            layers=layers,
            tensors=(*tensors, other),
        )

    # Inside

    def _node(self, id_: str) -> LineageNode:
        if id_ in self.words_only:
            return self.words_only[id_]
        row = self.details[id_].row
        troubles = (row.trouble,) if row.trouble else ()
        return LineageNode(
            id=id_, name=row.name, kind=row.kind, publisher=row.publisher, known=True, here=row.here, troubles=troubles
        )

    def _refuse(self) -> None:
        if self.refusal:
            refusal, self.refusal = self.refusal, None
            raise refusal

    def _tell(self) -> None:
        self._events.publish("versions", {})


def torrent(name: str, *, version: str = "", **facts: Any) -> TorrentRow:  # noqa: ANN401 (fields of TorrentRow)
    """A file of 48 pieces that is being fetched."""
    stands: dict[str, Any] = {
        "root": key_of(f"root of {name}"),
        "name": name,
        "versions": (version,) if version else (),
        "size": 50_000_000,
        "piece_bytes": 1 << 20,
        "pieces": "12+ 3- 9+ 16- 8~",
        "state": "fetching",
        "done": 22_020_096,
        "wanted": 41_943_040,
        "down_bytes_per_s": 2_400_000,
        "up_bytes_per_s": 350_000,
        "downloaded": 22_500_000,
        "uploaded": 9_000_000,
        "wasted": 0,
        "sources": (),
    }
    return TorrentRow(**stands | facts)


def _touches(edge: LineageEdge, reached: set[str]) -> bool:
    return edge.child in reached or edge.parent in reached


def _stated(row: VersionRow, licence_text: str) -> Version:
    """What the publisher of such a row has signed."""
    root = key_of(f"root of {row.id}")
    return Version(
        name=row.name,
        publisher=row.publisher.id,
        created=int(row.created.timestamp()),
        kind=row.kind,
        files=(File(name="model.gguf", root=root, sha256=key_of(root), size=row.size),),
        architecture=Architecture(
            name=row.architecture,
            parameters=row.parameters,
            layers=row.layers,
            parameters_per_layer=(row.parameters // max(1, row.layers),) * row.layers,
            context=2048,
            vocabulary=49_152,
            quantization=row.quantization,
        ),
        licence=Licence(spdx=row.licence or "LicenseRef-none", text=licence_text),
        label=row.label,
        description="Small, and good at short answers.",
        source="hf:example/model",
        base=Parent(name="SmolLM2-135M"),
        chat_template_sha256=hashlib.sha256(b"template").hexdigest(),
        data=(Data(note="Public texts of the web."),),
        recipe={"tool": "llama-quantize", "type": row.quantization},
        evaluations=(
            Evaluation(
                suite="HellaSwag", metric="acc_norm", value=0.431, by=row.publisher.id, at=int(row.created.timestamp())
            ),
        ),
    )
