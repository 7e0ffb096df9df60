"""Signed statements on versions: made, and opened again. `docs/VERSIONS.md` is the specification. Pure.

An in-toto Statement v1 in the canonical JSON of RFC 8785, in a DSSE envelope, signed with the Ed25519 key of a node.
A statement has one form only: what is not canonical, envelope or payload, is refused, so that equal digests mean equal
bytes everywhere. securesystemslib speaks DSSE; it is imported on first use, because that takes 40 ms and more.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Meta

from pares.errors import BadRequest
from pares.inference.header import Header
from pares.swarm.licences import said_by
from pares.swarm.predicate import (
    ENDORSEMENT_TYPE,
    MAX_PARENTS,
    REVOCATION_TYPE,
    STATEMENT_TYPE,
    VERSION_TYPE,
    Architecture,
    Data,
    Endorsement,
    EndorsementStatement,
    Evaluation,
    File,
    FileDigest,
    FileFacts,
    FileSubject,
    Hex32,
    Kind,
    Licence,
    Parent,
    Revocation,
    RevocationStatement,
    Statement,
    Version,
    VersionDigest,
    VersionStatement,
    VersionSubject,
)
from pares.wire.framing import ProtocolError
from pares.wire.messages import STATEMENT_BYTES
from pares.wire.signing import BadSignature, Identity, PeerId, can_be_owned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_DEPTH = 32
"""Objects and lists inside of each other in a statement, at most."""
UNQUANTIZED = frozenset({"F64", "F32", "F16", "BF16"})


class UnknownKind(ProtocolError):
    """A sound envelope of something newer, or of somebody else's: no fault of who passes it on."""


_TYPES = frozenset((VERSION_TYPE, ENDORSEMENT_TYPE, REVOCATION_TYPE))


class Opened(NamedTuple):
    """A statement whose signature and form were checked. Whether its content is true is another matter."""

    digest: bytes
    """SHA-256 of the payload: the statement's name, and of a version its id."""
    kind: Literal["version", "endorsement", "revocation"]
    about: bytes
    """The version's digest; its own for a version."""
    author: PeerId
    predicate: Version | Endorsement | Revocation
    payload: bytes


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: Hex32
    sig: Annotated[str, Meta(max_length=88)]


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"] = msgspec.field(name="payloadType")
    signatures: Annotated[tuple[_Signature, ...], Meta(min_length=1, max_length=1)]


def sign_version(identity: Identity, version: Version) -> bytes:
    """The envelope. Raises BadRequest for a version that nobody would accept, and says why."""
    subject = _subjects(version.files)
    return _signed(identity, VersionStatement(type=STATEMENT_TYPE, subject=subject, predicate=version))


def sign_endorsement(
    identity: Identity, about: bytes, name: str, *, text: str = "", evaluations: tuple[Evaluation, ...] = (), at: int
) -> bytes:
    """Stand for the version of this digest and name. Raises BadRequest."""
    predicate = Endorsement(by=identity.id.hex(), at=at, text=text, evaluations=evaluations)
    subject = _subject(about, name)
    return _signed(identity, EndorsementStatement(type=STATEMENT_TYPE, subject=subject, predicate=predicate))


def sign_revocation(identity: Identity, about: bytes, name: str, *, reason: str, at: int) -> bytes:
    """Take back one's own version or endorsement, or warn of somebody else's version. Raises BadRequest."""
    predicate = Revocation(by=identity.id.hex(), at=at, reason=reason)
    subject = _subject(about, name)
    return _signed(identity, RevocationStatement(type=STATEMENT_TYPE, subject=subject, predicate=predicate))


def open_statement(envelope: bytes) -> Opened:
    """Read and check an envelope from anywhere. Raises ProtocolError, BadSignature where nobody owns the signature."""
    if len(envelope) > STATEMENT_BYTES:
        raise ProtocolError(f"A statement of {len(envelope)} bytes came; {STATEMENT_BYTES} are allowed.")
    payload, author = _verified(envelope)
    statement = _statement(payload)
    if problem := _contradiction(statement, author.hex()):
        raise ProtocolError(f"A statement of {author.hex()[:8]} contradicts itself: {problem}.")
    digest = hashlib.sha256(payload).digest()
    if isinstance(statement, VersionStatement):
        return Opened(digest, "version", digest, author, statement.predicate, payload)
    about = bytes.fromhex(statement.subject[0].digest.sha256)
    kind: Literal["endorsement", "revocation"] = (
        "endorsement" if isinstance(statement, EndorsementStatement) else "revocation"
    )
    return Opened(digest, kind, about, author, statement.predicate, payload)


def describe_version(
    header: Header,
    *,
    name: str,
    publisher: PeerId,
    created: int,
    files: tuple[File, ...],
    licence: Licence,
    kind: Kind | None = None,
    label: str = "",
    description: str = "",
    source: str = "",
    base: Parent | None = None,
    parents: tuple[Parent, ...] = (),
    data: tuple[Data, ...] = (),
    recipe: Mapping[str, object] | None = None,
    evaluations: tuple[Evaluation, ...] = (),
) -> Version:
    """A version of the model with this header: what the header tells comes from there.

    Without a kind it is guessed; without base and parents they are those that the header names, in words. Raises
    BrokenModelFile for a header that contradicts itself, BadRequest where a parent is needed and none is known.
    """
    kind = kind or guess_kind(header)
    if base is None and not parents and kind != "base":
        named = _named_parents(header)
        base, parents = (named[0], named[1:MAX_PARENTS]) if named else (None, ())
    version = Version(
        name=name,
        publisher=publisher.hex(),
        created=created,
        kind=kind,
        files=files,
        architecture=architecture_of(header),
        licence=licence,
        label=label,
        description=description,
        source=source,
        base=base,
        parents=parents,
        chat_template_sha256=_template_digest(header),
        data=data,
        recipe=recipe or {},
        evaluations=evaluations,
    )
    if problem := _wrong_parents(version):
        raise BadRequest(f"This cannot be published: {problem}.", param="base", hint="Say what it was made from.")
    return version


def guess_kind(header: Header) -> Kind:
    """What a model is, as far as its header tells."""
    if header.is_adapter:
        return "adapter"
    match header.base_models:
        case ():
            return "base"
        case (_,):
            return "finetune" if header.quantization in UNQUANTIZED else "quantized"
    return "merge"


def architecture_of(header: Header) -> Architecture:
    """All facts that a version states of the weights. Raises BrokenModelFile."""
    per_layer: dict[int, int] = {}
    for tensor in header.tensors:
        match tensor.name.split(".", 2):
            case ["blk", number, _] if number.isdecimal() and len(number) < 5:
                per_layer[int(number)] = per_layer.get(int(number), 0) + tensor.elements
    layers = header.block_count or max(per_layer, default=-1) + 1  # an adapter does not say how many
    return Architecture(
        name=header.architecture,
        parameters=header.parameters,
        layers=layers,
        parameters_per_layer=tuple(per_layer.get(layer, 0) for layer in range(layers)),
        embedding_length=header.embedding_length,
        feed_forward_length=max(header.per_layer("feed_forward_length"), default=0),
        heads=max(header.head_counts, default=0),
        kv_heads=max(header.head_counts_kv, default=0),
        key_length=header.key_length,
        value_length=header.value_length,
        sliding_window=header.sliding_window,
        vocabulary=header.vocab_size,
        context=header.context_length,
        experts=header.expert_count,
        experts_used=header.expert_used_count,
        quantization=header.quantization,
        tensor_bytes=header.tensor_bytes,
        header_bytes=header.data_start,
    )


def check_header(version: Version, header: Header) -> tuple[str, ...]:
    """What the statement says otherwise than the header of its (first) file, in sentences. Raises BrokenModelFile."""
    found = []
    true = architecture_of(header)
    for field in msgspec.structs.fields(Architecture):
        stated, computed = getattr(version.architecture, field.name), getattr(true, field.name)
        if stated == computed or stated == field.default:
            continue
        said = f"{stated}, the header {computed}" if field.name != "parameters_per_layer" else "others than the header"
        found.append(f"{field.name.replace('_', ' ').capitalize()}: the statement says {said}.")
    if (version.kind == "adapter") != header.is_adapter:
        found.append(f"Kind: the statement says {version.kind}, the header {header.kind}.")
    if version.files[0].size != header.file_bytes:
        found.append(f"Size: the statement says {version.files[0].size} bytes, the file has {header.file_bytes}.")
    if version.chat_template_sha256 != _template_digest(header):
        found.append("Chat template: the one in the header is not the one that the statement names.")
    if (licence := said_by(header)) and licence != version.licence.spdx:
        found.append(f"Licence: the statement says {version.licence.spdx}, the header {licence}.")
    return tuple(found)


def _signed(identity: Identity, statement: Statement) -> bytes:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    try:
        payload = rfc8785.dumps(msgspec.to_builtins(statement))
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        private = Ed25519PrivateKey.from_private_bytes(identity.seed)
        envelope.sign(CryptoSigner(private, _public(identity.id.hex())))
        signed = rfc8785.dumps(envelope.to_dict())
        open_statement(signed)  # nothing leaves that a peer would refuse
    except (ValueError, RecursionError, ProtocolError) as error:
        raise BadRequest(f"This cannot be signed: {error}", hint="Shorten or mend what is said there.") from error
    return signed


def _public(keyid: str) -> SSlibKey:
    """The key that a key id names: the id is the key itself, so no other can be meant."""
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    return SSlibKey(keyid, "ed25519", "ed25519", {"public": keyid})


def _verified(envelope: bytes) -> tuple[bytes, PeerId]:
    """Payload and author."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        outer = msgspec.json.decode(envelope, type=_Envelope)
        dsse = Envelope.from_dict(msgspec.to_builtins(outer))
        canonical = rfc8785.dumps(dsse.to_dict())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"An envelope could not be read: {error}") from error
    if canonical != envelope:
        raise ProtocolError("An envelope is not in its canonical form.")
    keyid = outer.signatures[0].keyid
    author = PeerId(bytes.fromhex(keyid))
    try:
        if not can_be_owned(author):
            raise VerificationError
        dsse.verify([_public(keyid)], threshold=1)
    except VerificationError:
        raise BadSignature(f"A statement on a version is not signed by {keyid[:8]}.") from None
    return dsse.payload, author


def _statement(payload: bytes) -> Statement:
    try:
        value = msgspec.json.decode(payload)
        if not _is_shallow(value):
            raise ProtocolError(f"A statement is nested deeper than {MAX_DEPTH} levels.")
        if rfc8785.dumps(value) != payload:
            raise ProtocolError("A statement is not in its canonical form.")
        if isinstance(value, dict) and isinstance(kind := value.get("predicateType"), str) and kind not in _TYPES:
            raise UnknownKind("A statement is of a kind that this version of Pares does not know.")
        return msgspec.convert(value, Statement)  # type: ignore[no-any-return]  # a union converts as well
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"A statement could not be read: {error}") from error


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return True
    return False


def _inside(value: object) -> list[object]:
    match value:
        case dict():
            return list(value.values())
        case list():
            return value
    return []


def _contradiction(statement: Statement, author: str) -> str:
    """What in a well-formed statement cannot be; empty for a sound one."""
    if isinstance(statement, VersionStatement):
        version = statement.predicate
        named, problem = version.publisher, _wrong_version(version, statement.subject)
        lines = [version.name, version.label, version.source, version.licence.spdx, version.licence.url]
        lines += [version.architecture.name, version.architecture.quantization]
        lines += [parent.name for parent in parents_of(version)]
    else:
        named, problem = statement.predicate.by, ""
        lines = [statement.subject[0].name]
    if named != author:
        return f"it names {named[:8]} as its author"
    if not all(line.isprintable() for line in lines):
        return "a name in it has signs that cannot be seen"
    return problem


def _wrong_version(version: Version, subject: tuple[FileSubject, ...]) -> str:
    if subject != _subjects(version.files):
        return "its subjects are not its files"
    if len({file.name for file in version.files}) < len(version.files):
        return "two of its files have one name"
    if len(version.architecture.parameters_per_layer) not in (0, version.architecture.layers):
        return "its parameters are counted for another number of layers"
    return _wrong_parents(version)


def _wrong_parents(version: Version) -> str:
    parents = parents_of(version)
    if any(not (parent.version or parent.name) for parent in parents):
        return "a parent has neither digest nor name"
    if version.kind == "base" and parents:
        return "it is a base, and was made from something"
    if version.kind != "base" and not parents:
        return f"its kind is {version.kind}, and it does not say what it was made from"
    return ""


def parents_of(version: Version) -> tuple[Parent, ...]:
    """All that a version was made from, the base first."""
    return (version.base, *version.parents) if version.base else version.parents


def _subjects(files: tuple[File, ...]) -> tuple[FileSubject, ...]:
    return tuple(
        FileSubject(
            name=file.name,
            digest=FileDigest(sha256=file.sha256, btv2=file.root),
            annotations=FileFacts(bytes=file.size),
        )
        for file in files
    )


def _subject(about: bytes, name: str) -> tuple[VersionSubject, ...]:
    return (VersionSubject(name=name, digest=VersionDigest(sha256=about.hex())),)


def _named_parents(header: Header) -> tuple[Parent, ...]:
    words = (f"{model.organization}/{model.name}".strip("/ ") or model.url for model in header.base_models)
    lines = ("".join(letter if letter.isprintable() else " " for letter in line[:200]).strip() for line in words)
    return tuple(Parent(name=line) for line in lines if line)


def _template_digest(header: Header) -> str | None:
    template = header.templates.get("default")
    return hashlib.sha256(template.encode()).hexdigest() if template else None
