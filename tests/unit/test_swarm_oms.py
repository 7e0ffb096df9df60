"""The export for the tools of OpenSSF Model Signing, by the form that `model-signing` 1.1 writes and reads."""

from __future__ import annotations

import base64
import hashlib
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from circles import NOW
from pares.errors import BadRequest
from pares.swarm.oms import LABEL, SigningKey, export_bundle
from pares.swarm.version import open_statement, sign_endorsement, sign_version
from pares.wire.framing import ProtocolError
from pares.wire.signing import Signed, opened
from statements import ABOUT, ADA, BEN, digest, file, version

TWO = version(files=(file("b.gguf"), file("a.gguf", 3)))


def test_a_bundle_has_the_form_and_the_signature_that_those_tools_check() -> None:
    exported = export_bundle(ADA, sign_version(ADA, TWO))
    bundle = json.loads(exported.bundle)
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"] == {
        "publicKey": {"hint": hashlib.sha256(exported.key).hexdigest()},
        "tlogEntries": [],
    }
    envelope = bundle["dsseEnvelope"]
    payload = base64.standard_b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    key = load_pem_public_key(exported.key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(
        base64.standard_b64decode(envelope["signatures"][0]["sig"]),
        b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload),
        ec.ECDSA(SHA256()),
    )
    statement = json.loads(payload)
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    resources = statement["predicate"]["resources"]
    assert [(r["name"], r["algorithm"], r["digest"]) for r in resources] == [
        ("a.gguf", "sha256", digest("sha256", "a.gguf")),
        ("b.gguf", "sha256", digest("sha256", "b.gguf")),
    ]
    whole = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    assert statement["subject"] == [{"name": "tiny", "digest": {"sha256": whole}}]


def test_it_carries_the_publishers_statement_and_the_nodes_word_for_the_key() -> None:
    envelope = sign_version(ADA, TWO)
    exported = export_bundle(BEN, envelope)
    payload = json.loads(base64.standard_b64decode(json.loads(exported.bundle)["dsseEnvelope"]["payload"]))
    beyond = payload["predicate"]["pares"]
    assert open_statement(json.dumps(beyond["statement"], separators=(",", ":")).encode()).author == ADA.id
    vouched = msgspec.convert(beyond["vouched"], Signed)
    assert (vouched.by, opened(LABEL, vouched, SigningKey).pem.encode()) == (BEN.id, exported.key)


def test_the_same_version_gives_the_same_bundle_and_each_node_its_own_key() -> None:
    envelope = sign_version(ADA, TWO)
    assert export_bundle(ADA, envelope) == export_bundle(ADA, envelope)
    assert export_bundle(ADA, envelope).key != export_bundle(BEN, envelope).key


def test_only_a_version_is_exported() -> None:
    with pytest.raises(BadRequest):
        export_bundle(ADA, sign_endorsement(ADA, ABOUT, "tiny", at=NOW))
    with pytest.raises(ProtocolError):
        export_bundle(ADA, b"{}")
