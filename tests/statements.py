"""Statements on versions for tests: made of nothing, signed with fixed keys."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from circles import NOW, person
from pares.swarm.predicate import Architecture, Data, Evaluation, File, Licence, Parent, Version
from pares.swarm.version import PAYLOAD_TYPE, sign_endorsement, sign_revocation, sign_version
from pares.wire.signing import Identity

ADA, BEN = person(0), person(1)
LLAMA = Architecture(
    name="llama",
    parameters=134_515_008,
    layers=2,
    parameters_per_layer=(3_540_096, 3_540_096),
    embedding_length=576,
    vocabulary=49_152,
    context=8192,
    quantization="Q4_1",
    tensor_bytes=96_700_000,
    header_bytes=1_700_000,
)
APACHE = Licence(spdx="Apache-2.0")


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def file(name: str = "tiny.gguf", size: int = 98_362_432) -> File:
    return File(name=name, root=digest("root", name), sha256=digest("sha256", name), size=size)


def version(author: Identity = ADA, **changes: object) -> Version:
    """A base, but for the changes."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "publisher": author.id.hex(),
        "created": NOW,
        "kind": "base",
        "files": (file(),),
        "architecture": LLAMA,
        "licence": APACHE,
    }
    return Version(**(fields | changes))


def dsse(identity: Identity, payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """Any payload in a canonical envelope, soundly signed."""
    envelope = Envelope(payload, kind, {})
    public = SSlibKey(identity.id.hex(), "ed25519", "ed25519", {"public": identity.id.hex()})
    envelope.sign(CryptoSigner(Ed25519PrivateKey.from_private_bytes(identity.seed), public))
    return rfc8785.dumps(envelope.to_dict())


FULL = version(
    BEN,
    name="tiny-tales",
    kind="adapter",
    files=(file("tiny-tales.gguf", 4_194_304),),
    licence=Licence(spdx="LicenseRef-tales", text="Do as you like.", text_sha256=digest(1), url="https://example.org/"),
    label="round 7",
    description="Tells tales.\nShort ones.",
    source="https://example.org/tiny-tales",
    base=Parent(version=digest("base"), name="tiny"),
    parents=(Parent(name="tiny-tales, round 6"),),
    chat_template_sha256=digest("template"),
    data=(
        Data(
            croissant={
                "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
                "@type": "Dataset",
                "dct:conformsTo": "http://mlcommons.org/croissant/1.0",
                "name": "Fables",
            }
        ),
        Data(private=digest("salt", "data"), note="Letters of three households."),
    ),
    recipe={"rank": 8, "alpha": 16, "learning_rate": 0.0002, "targets": ["attn_q", "attn_v"]},
    evaluations=(Evaluation(suite="tales-100", metric="perplexity", value=12.5, by=ADA.id.hex(), at=NOW),),
)
PLAIN = version()
ABOUT = bytes.fromhex(digest("about"))
VECTORS = {
    "version, the least": sign_version(ADA, PLAIN),
    "version, with everything": sign_version(BEN, FULL),
    "endorsement": sign_endorsement(BEN, ABOUT, "tiny", text="Runs well here.", at=NOW + 1),
    "revocation": sign_revocation(ADA, ABOUT, "tiny", reason="The template was wrong.", at=NOW + 2),
}
