"""A version as the tools of OpenSSF Model Signing (`model-signing`) read it: `model.sig` beside its files. Pure.

They check a sigstore bundle v0.3 offline, with a key that they are given, but know no Ed25519. So it is signed with a
P-256 key that follows from the node's own, and the node's key vouches for that one inside of the bundle, next to the
publisher's statement: their predicate may hold more than they read.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any, NamedTuple

import msgspec
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pares.errors import BadRequest
from pares.swarm.predicate import STATEMENT_TYPE, Version
from pares.swarm.version import PAYLOAD_TYPE, open_statement
from pares.wire.signing import Identity

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE_FILE = "model.sig"
KEY_FILE = "model.pub"
LABEL = "oms-key/1"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class SigningKey(msgspec.Struct, frozen=True):
    """Signed under `LABEL`: whatever this P-256 key signs as a model signature, the node says."""

    pem: Annotated[str, msgspec.Meta(max_length=1024)]


class Exported(NamedTuple):
    """What to write into `SIGNATURE_FILE` and `KEY_FILE`."""

    bundle: bytes
    key: bytes


def export_bundle(identity: Identity, envelope: bytes) -> Exported:
    """This node's model signature for the files of a version; the same bytes each time.

    To check it: `model_signing verify key --signature model.sig --public_key model.pub FOLDER`, where the folder has
    the version's files under their names. Raises BadRequest for what is no version; ProtocolError as `open_statement`.
    """
    opened = open_statement(envelope)
    if not isinstance(opened.predicate, Version):
        raise BadRequest(f"Of a statement of the kind {opened.kind} there is no model signature.")
    key = _key(identity)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    vouched = identity.sign(LABEL, SigningKey(pem.decode()))
    beyond = {"statement": msgspec.json.decode(envelope), "vouched": msgspec.to_builtins(vouched)}
    payload = rfc8785.dumps(_statement(opened.predicate, beyond))
    bundle: dict[str, Any] = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.standard_b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "", "sig": base64.standard_b64encode(_signature(key, payload)).decode()}],
        },
    }
    return Exported(rfc8785.dumps(bundle), pem)


def _statement(version: Version, beyond: dict[str, Any]) -> dict[str, Any]:
    files = sorted(version.files, key=lambda file: file.name)
    digest = hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": version.name, "digest": {"sha256": digest}}],
        "predicateType": SIGNATURE_TYPE,
        "predicate": {
            "resources": [{"name": file.name, "algorithm": "sha256", "digest": file.sha256} for file in files],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE, KEY_FILE],
            },
            "pares": beyond,
        },
    }


def _key(identity: Identity) -> ec.EllipticCurvePrivateKey:
    """HKDF to 16 bytes more than the order has, so that the remainder is as good as uniform (FIPS 186-5, A.2.1)."""
    wide = HKDF(SHA256(), length=48, salt=None, info=b"pares/" + LABEL.encode()).derive(identity.seed)
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def _signature(key: ec.EllipticCurvePrivateKey, payload: bytes) -> bytes:
    from securesystemslib.dsse import Envelope

    return key.sign(Envelope(payload, PAYLOAD_TYPE, {}).pae(), ec.ECDSA(SHA256(), deterministic_signing=True))
