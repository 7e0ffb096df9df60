"""A model's vocabulary, for looking at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pares.api.schemas import TokenRow, Tokens
from pares.inference.gguf import read_header
from pares.inference.header import GGUFArray

Kind = Literal["normal", "unknown", "control", "user defined", "unused", "byte"]
_KINDS: dict[object, Kind] = {1: "normal", 2: "unknown", 3: "control", 4: "user defined", 5: "unused", 6: "byte"}


def page(path: Path, search: str, offset: int, limit: int) -> Tokens:
    """Tokens whose text contains `search`, from number `offset` on; blocking. Raises BrokenModelFile, OSError."""
    pieces, kinds = _vocabulary(path, path.stat().st_mtime_ns)
    wanted = search.casefold()
    found = [
        index
        for index, piece in enumerate(pieces)
        if not wanted or wanted in piece.decode("utf-8", "replace").casefold()
    ]
    rows = (
        TokenRow(
            index, pieces[index].decode("utf-8", "replace"), pieces[index].hex(), _KINDS.get(kinds[index], "normal")
        )
        for index in found[offset : offset + limit]
    )
    return Tokens(len(found), tuple(rows))


@lru_cache(maxsize=1)
def _vocabulary(path: Path, changed_ns: int) -> tuple[list[bytes], bytes]:
    """The bytes of each token, and its kind; the one looked at last is kept."""
    metadata = read_header(path).metadata
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, GGUFArray):
        return [], b""
    kinds = (
        bytes(kind if isinstance(kind, int) and 0 <= kind < 256 else 1 for kind in types)
        if isinstance(types, GGUFArray)
        else b""
    )
    kinds = kinds.ljust(len(tokens), b"\x01")
    byte_level = metadata.get("tokenizer.ggml.model") == "gpt2"
    return list(_pieces(tokens, kinds, byte_level=byte_level)), kinds


def _pieces(tokens: GGUFArray, kinds: bytes, *, byte_level: bool) -> Iterator[bytes]:
    letters = _byte_letters()
    for token, kind in zip(tokens, kinds, strict=False):
        text = str(token)
        if _KINDS.get(kind) == "byte" and len(text) == 6:  # <0x0A>
            try:
                yield bytes.fromhex(text[3:5])
            except ValueError:
                yield text.encode()
        elif kind != 1:
            yield text.encode("utf-8", "replace")
        elif byte_level:
            yield b"".join(letters.get(letter) or letter.encode("utf-8", "replace") for letter in text)
        else:
            yield text.replace("▁", " ").encode("utf-8", "replace")


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, bytes]:
    """GPT-2's way to write any byte as a visible letter: those that are stay, the others count up from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): bytes([byte]) for byte in visible} | {
        chr(0x100 + number): bytes([byte]) for number, byte in enumerate(hidden)
    }
