"""What is said of versions: the content of the statements, as `docs/VERSIONS.md` specifies it. Pure.

A statement is an in-toto Statement v1 with one of three predicates. In JSON, digests and keys are hex; what has its
default value is left out, and unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VERSION_TYPE = "pares://version/v1"
ENDORSEMENT_TYPE = "pares://endorsement/v1"
REVOCATION_TYPE = "pares://revocation/v1"
STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"

Kind = Literal["base", "quantized", "finetune", "adapter", "merge"]
Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""The length too: `$` also matches before a last line break."""
Short = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Unix = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Seconds, up to the end of the year 9999: what calendars know."""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
MAX_FILES = 64
MAX_PARENTS = 16
MAX_LAYERS = 1024


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of a version. Its id is the merkle root of BEP 52 with its size."""

    name: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$")]
    """For people; it never becomes a path."""
    root: Hex32
    sha256: Hex32
    size: Annotated[int, Meta(gt=0, le=1 << 40)]


class Parent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version was made from: by the digest of its statement where there is one, else in words."""

    version: Hex32 | None = None
    name: Short = ""


class Architecture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Computed from the header of the GGUF, so that whoever has the header can check it."""

    name: Short
    """As llama.cpp names it."""
    parameters: Count
    layers: Annotated[int, Meta(ge=0, le=MAX_LAYERS)]
    parameters_per_layer: Annotated[tuple[Count, ...], Meta(max_length=MAX_LAYERS)] = ()
    embedding_length: Count = 0
    feed_forward_length: Count = 0
    heads: Count = 0
    """Attention heads of a layer, the most that any has; likewise the next."""
    kv_heads: Count = 0
    key_length: Count = 0
    value_length: Count = 0
    sliding_window: Count = 0
    vocabulary: Count = 0
    context: Count = 0
    """Tokens it was trained with."""
    experts: Count = 0
    experts_used: Count = 0
    quantization: Short = ""
    tensor_bytes: Count = 0
    header_bytes: Count = 0
    """Where the weights begin in the (first) file."""


class Licence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    spdx: Annotated[str, Meta(min_length=1, max_length=200)]
    """An SPDX expression; `LicenseRef-...` for one that SPDX does not know."""
    text: Annotated[str, Meta(max_length=40_000)] = ""
    text_sha256: Hex32 | None = None
    url: Annotated[str, Meta(max_length=200, pattern="^(https?://.*)?$")] = ""


class Data(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it was trained or tuned on: a Croissant description, or a commitment to data that stays private."""

    croissant: Mapping[str, object] | None = None
    private: Hex32 | None = None
    """SHA-256 of a salt and the data's own digest: it can be opened later, and says nothing now."""
    note: Text = ""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    suite: Short
    metric: Short
    value: float
    by: Hex32
    """The key of who measured it."""
    at: Unix
    note: Short = ""


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One state of a model. The statement's digest is its id."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    publisher: Hex32
    created: Unix
    kind: Kind
    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=MAX_FILES)]
    architecture: Architecture
    licence: Licence
    label: Short = ""
    """The publisher's word for this state, such as `v2` or `round 7`."""
    description: Text = ""
    source: Short = ""
    """Where its publisher has it from."""
    base: Parent | None = None
    parents: Annotated[tuple[Parent, ...], Meta(max_length=MAX_PARENTS)] = ()
    chat_template_sha256: Hex32 | None = None
    data: Annotated[tuple[Data, ...], Meta(max_length=16)] = ()
    recipe: Mapping[str, object] = {}
    """How it was made, as SLSA's `externalParameters`."""
    evaluations: Annotated[tuple[Evaluation, ...], Meta(max_length=64)] = ()


class Endorsement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The signer stands for a version: has tried it, knows who made it."""

    by: Hex32
    at: Unix
    text: Text = ""
    evaluations: Annotated[tuple[Evaluation, ...], Meta(max_length=16)] = ()


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The signer takes back their own version or endorsement; of somebody else's version it is a warning."""

    by: Hex32
    at: Unix
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    sha256: Hex32
    btv2: Hex32
    """The merkle root of BEP 52."""


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    bytes: Annotated[int, Meta(gt=0, le=1 << 40)]


class FileSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the version, as the predicate lists it."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    digest: FileDigest
    annotations: FileFacts


class VersionDigest(msgspec.Struct, frozen=True, kw_only=True):
    sha256: Hex32
    """Of the version's statement: of what is signed, without the envelope."""


class VersionSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A version that somebody speaks about. What it is called is for people; the digest counts."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    digest: VersionDigest


class _Statement(msgspec.Struct, frozen=True, kw_only=True, tag_field="predicateType"):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")


class VersionStatement(_Statement, frozen=True, tag=VERSION_TYPE):
    """Signed by the publisher. The subjects are the predicate's files, in order."""

    subject: Annotated[tuple[FileSubject, ...], Meta(min_length=1, max_length=MAX_FILES)]
    predicate: Version


class EndorsementStatement(_Statement, frozen=True, tag=ENDORSEMENT_TYPE):
    """Signed by the one who stands for the version."""

    subject: Annotated[tuple[VersionSubject, ...], Meta(min_length=1, max_length=1)]
    predicate: Endorsement


class RevocationStatement(_Statement, frozen=True, tag=REVOCATION_TYPE):
    """Signed by the publisher, or by one who warns or takes an endorsement back."""

    subject: Annotated[tuple[VersionSubject, ...], Meta(min_length=1, max_length=1)]
    predicate: Revocation


Statement = VersionStatement | EndorsementStatement | RevocationStatement
