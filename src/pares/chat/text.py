"""Tokens to text: whole UTF-8 characters only, and no markup of the model's own."""

from __future__ import annotations

import codecs
from bisect import bisect_right

from pares.inference.generation import TokenId, Vocabulary


class Detokenizer:
    """Turns one answer's tokens into text, piece by piece.

    What comes out, put together, is what decoding all bytes at once would give, with U+FFFD for what is not UTF-8.
    Control tokens give no text, unless theirs is one of `markers`, which a parser waits for.
    """

    def __init__(self, vocabulary: Vocabulary, markers: frozenset[str] = frozenset()) -> None:
        self._pieces = vocabulary.pieces
        self._offsets = memoryview(vocabulary.offsets).cast("I")
        self._attributes = vocabulary.attributes
        self._markers = frozenset(marker.encode() for marker in markers)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._whole = True

    def feed(self, token: TokenId) -> str:
        """The characters that this token completes; may be empty. Raises IndexError for no token of the vocabulary."""
        piece = self._pieces[self._offsets[token] : self._offsets[token + 1]]
        if self._attributes[token] & Vocabulary.CONTROL:
            return self.close() + (piece.decode() if piece in self._markers else "")
        if self._whole:
            try:
                return piece.decode()
            except UnicodeDecodeError:
                self._whole = False
        text = self._decoder.decode(piece)
        self._whole = not self._decoder.getstate()[0]
        return text

    def close(self) -> str:
        """What is left of a character that was never completed."""
        if self._whole:
            return ""
        self._whole = True
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def token_of(vocabulary: Vocabulary, text: str) -> TokenId | None:
    """The token whose piece is exactly `text`, or None."""
    piece, offsets = text.encode(), memoryview(vocabulary.offsets).cast("I")
    at = vocabulary.pieces.find(piece) if piece else -1
    while at >= 0:
        token = bisect_right(offsets, at) - 1
        if vocabulary.piece(token) == piece:
            return TokenId(token)
        at = vocabulary.pieces.find(piece, at + 1)
    return None


def text_of(vocabulary: Vocabulary, token: int) -> str:
    """The text of a token such as `<s>`, for a template; empty for -1."""
    return vocabulary.piece(token).decode(errors="replace") if token >= 0 else ""
