"""What the control API says of versions, the commons and the swarm. Keys, ids, digests and roots are hex."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pares.api.network import Who
from pares.api.schemas import Fit, Need
from pares.swarm.predicate import Data, Kind, Parent

Here = Literal["whole", "part", "no"]


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version that circles of this node offer, or that it knows otherwise."""

    id: str
    name: str
    label: str
    kind: Kind
    publisher: Who
    licence: str
    architecture: str
    parameters: int
    quantization: str
    layers: int
    size: int
    created: datetime
    circles: tuple[str, ...]
    """Ids of the circles in which it is offered."""
    holders: int
    """Members who hold it, or a part of it; you not counted."""
    whole: int
    """Of those, who hold all of it."""
    online: int
    """Of the holders, who are there now."""
    complete: bool
    """All of it can be had now: the holders that are there hold every layer together, or you do."""
    here: Here
    model: str = ""
    """Its name in the list of models here."""
    shared: tuple[str, ...] = ()
    """Ids of the circles in which this node gives it away."""
    endorsements: int = 0
    conflict: bool = False
    """Somebody else publishes another version under the same name."""
    trouble: str = ""
    """Why to be careful: revoked, warned of, not what it says."""
    fit: Fit | None = None
    need: Need | None = None


class Versions(msgspec.Struct, frozen=True):
    versions: tuple[VersionRow, ...]


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    peer: Who
    online: bool
    layers: tuple[int, int] | None
    """First, and the one after the last; null: the whole."""
    head: bool
    you: bool = False


class VersionFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    root: str
    sha256: str
    size: int
    here: Here


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """An endorsement, a warning, or its maker's own revocation."""

    id: str
    kind: Literal["endorsement", "warning", "revocation"]
    by: Who
    at: datetime
    text: str
    withdrawn: bool = False
    yours: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked."""

    what: str
    ok: bool | None
    """null: cannot be checked here, and `message` says why."""
    message: str


class VersionDetail(msgspec.Struct, frozen=True, kw_only=True):
    row: VersionRow
    predicate: Mapping[str, object]
    """What its publisher signed."""
    licence_text: str
    licence_accepted: bool
    files: tuple[VersionFile, ...]
    holders: tuple[Holder, ...]
    voices: tuple[Voice, ...]
    findings: tuple[Finding, ...]


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """A version's id; of a parent that is known in words only: `name:` and the words."""
    name: str
    kind: Kind | None
    publisher: Who | None
    known: bool
    """There is a signed statement of it here."""
    here: Here = "no"
    troubles: tuple[str, ...] = ()


class LineageEdge(msgspec.Struct, frozen=True, kw_only=True):
    child: str
    parent: str
    relation: Kind
    """What the child is to the parent."""
    state: Literal["checked", "stated", "missing", "wrong", "cycle", "revoked"]
    message: str


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """From one version to its roots, and to what is known to be made from it."""

    of: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    cut: bool = False
    """There is more of it than this."""


class ShareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Publish a model of this node, unless it is one already, and give it away in circles."""

    model: str
    circles: tuple[str, ...] = ()
    """Ids or names; empty: all circles of this node."""
    name: str = ""
    label: str = ""
    description: str = ""
    kind: Kind | None = None
    """None: as its header tells."""
    licence: str = ""
    """SPDX expression; empty: as its header or the catalogue tells."""
    licence_text: str = ""
    base: Parent | None = None
    parents: tuple[Parent, ...] = ()
    data: tuple[Data, ...] = ()
    recipe: Mapping[str, object] = {}


class UnshareRequest(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    circles: tuple[str, ...] = ()
    """Empty: everywhere."""
    force: bool = False
    """Also where nobody else of the circle holds it."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A version for the tools of OpenSSF Model Signing: what belongs beside its files."""

    files: Mapping[str, str]
    """Name of each file in the statement, and where it lies here."""
    model_sig: str
    """A sigstore bundle in JSON."""
    model_pub: str
    """The key by which it is checked, PEM."""
    statement: str
    """The publisher's own: a DSSE envelope in JSON."""


class VoiceRequest(msgspec.Struct, frozen=True, kw_only=True):
    text: Annotated[str, Meta(max_length=1000)] = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends or takes parts of a file."""

    peer: Who | None
    """A member, where it is known to be one."""
    address: str
    kind: Literal["peer", "tunnel", "web"]
    have: float
    """Share of the file that it has, 0 to 1."""
    down_bytes_per_s: int
    up_bytes_per_s: int
    downloaded: int
    uploaded: int


class TorrentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file that this node fetches or gives away."""

    root: str
    name: str
    versions: tuple[str, ...]
    size: int
    piece_bytes: int
    pieces: str
    """Runs of pieces: `12+ 3- 40+` is twelve here, three not, forty here; `~` for those that are not wanted."""
    state: Literal["checking", "fetching", "seeding", "paused", "failed"]
    done: int
    wanted: int
    down_bytes_per_s: int
    up_bytes_per_s: int
    downloaded: int
    uploaded: int
    wasted: int
    """Bytes that came and were wrong, or came twice."""
    sources: tuple[Source, ...]
    pull: str = ""
    """The id of the download that it belongs to."""
    code: str = ""
    error: str = ""


class Swarm(msgspec.Struct, frozen=True, kw_only=True):
    seeding: bool
    """Whether this node gives anything away."""
    upload_limit: int
    """Bytes per second; 0: none."""
    download_limit: int
    port: int
    """TCP; 0: the session is not running."""
    downloaded: int
    """Of all files, since this home exists."""
    uploaded: int
    kept_bytes: int
    """Disk used by what this node keeps for its circles."""
    keep_bytes: int
    """How much it may be."""
    torrents: tuple[TorrentRow, ...]


class SwarmChange(msgspec.Struct, frozen=True, omit_defaults=True):
    seeding: bool | None = None
    upload_limit: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None
    download_limit: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


class TensorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled from the weights of one tensor."""

    name: str
    type: str
    shape: tuple[int, ...]
    size: int
    sampled: int
    """Weights looked at."""
    least: float
    most: float
    mean: float
    deviation: float
    zeros: float
    """Share of weights that are zero."""
    odd: int
    """Weights that are not finite."""
    histogram: tuple[int, ...]
    """Counts in equal steps from `least` to `most`."""


class TensorDifference(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    layer: int
    """-1: none."""
    state: Literal["equal", "changed", "retyped", "reshaped", "only left", "only right"]
    relative: float | None
    """Norm of the difference over the norm of the left one; None where it cannot be computed."""


class LayerDifference(msgspec.Struct, frozen=True, kw_only=True):
    layer: int
    relative: float | None
    """Norm of the difference over the norm of the left one; None where no tensor of it can be compared."""
    changed: int
    tensors: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Which tensors differ between two models, and by how much."""

    left: str
    right: str
    equal: int
    changed: int
    layers: tuple[LayerDifference, ...]
    tensors: tuple[TensorDifference, ...]


class DifferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    left: str
    right: str
