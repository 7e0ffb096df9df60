"""The file that holds who a node is, and carries it elsewhere: the seed of its Ed25519 key (RFC 8032), as text.

The public key stands beside the seed: it says whose file this is, and as it follows from the seed, it is the checksum.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path

from pares.errors import BadRequest, LocalError, NotSupported, VerificationFailed
from pares.store.files import write_whole
from pares.wire.signing import KEY_BYTES, Identity

log = logging.getLogger(__name__)

FILE_NAME = "identity"
"""Its place in the home."""
VERSION = 1
MOST_CHARACTERS = 4096


def load_or_make(path: Path) -> bytes:
    """The home's seed, made if there is none; the caller holds the home. A file that others could read is mended.

    Raises what `load` raises.
    """
    try:
        seed = load(path)
    except FileNotFoundError:
        seed = secrets.token_bytes(KEY_BYTES)
        save(path, seed)
        return seed
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)
        log.warning("identity.others_could_read", extra={"path": str(path)})
    return seed


def load(path: Path) -> bytes:
    """The seed in a home's file. Raises FileNotFoundError, and VerificationFailed for a damaged one, which stays."""
    try:
        return read(path)
    except LocalError as error:
        raise VerificationFailed(
            f"The identity of this node, {path}, cannot be used: {error.message}",
            hint="It was left as it is. Put a copy back with `pares key import FILE`; or move the file away, then the "
            "node makes a new identity, and is a stranger to its circles.",
        ) from error


def read(path: Path) -> bytes:
    """The seed in a file from anywhere. Raises like `import_text`, and OSError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return import_text(file.read(MOST_CHARACTERS))


def save(path: Path, seed: bytes) -> None:
    """Write a seed where only the owner can read it, whole or not at all. What was there is gone."""
    write_whole(path, export_text(seed))


def export_text(seed: bytes) -> str:
    """A seed as the text of its file."""
    return (
        "# Who a Pares node is. Whoever has this file is that node to its peers: keep it secret. "
        "`pares key import FILE` takes it in.\n"
        f"pares-identity {VERSION}\nseed {seed.hex()}\nid {Identity(seed).id.hex()}\n"
    )


def import_text(text: str) -> bytes:
    """The seed in such a text.

    Raises BadRequest for another kind of text, NotSupported for a later version, VerificationFailed for a damaged one.
    """
    lines = (line.partition(" ") for line in text.splitlines())
    told = {name: value.strip() for name, _, value in lines}
    version = told.get("pares-identity", "")
    if not version:
        raise BadRequest("This is not the identity of a node.", hint="`pares key export FILE` writes such a file.")
    if version != str(VERSION):
        raise NotSupported(f"It is in format {version}; this Pares reads {VERSION}.", hint="Use a newer Pares.")
    try:
        seed = bytes.fromhex(told.get("seed", ""))
        whole = Identity(seed).id.hex() == told.get("id", "").lower()
    except ValueError:
        seed, whole = b"", False
    if not whole:
        raise VerificationFailed("It is damaged: seed and id do not belong together.", hint="Use another copy.")
    return seed
