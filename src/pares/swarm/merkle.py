"""The hash tree of a file as BitTorrent v2 has it (BEP 52). Pure.

Leaves are the SHA-256 of 16 KiB blocks, the last one as short as it is; a tree is filled up with leaves of 32 zero
bytes to a power of two. The *layer* is the row of hashes each of which covers one piece, without those that would cover
nothing but padding. A file of one piece has no layer: its root covers it.
"""

from __future__ import annotations

from hashlib import sha256

BLOCK = 16 << 10
HASH = 32

_PIECE_LENGTHS = ((10**9, 256 << 10), (16 * 10**9, 1 << 20), (256 * 10**9, 4 << 20))
_LARGEST_PIECE = 16 << 20

_PADDING = [bytes(HASH)]
"""Roots of trees that hold nothing but padding, by height."""
for _ in range(63):
    _PADDING.append(sha256(_PADDING[-1] * 2).digest())


def piece_length(size: int) -> int:
    """Bytes of a piece of a file of so many bytes: it follows from the size alone, so that everybody cuts alike."""
    return next((length for below, length in _PIECE_LENGTHS if size < below), _LARGEST_PIECE)


def pieces(size: int) -> int:
    """Number of pieces; the last one may be short."""
    return -(-size // piece_length(size))


def piece_span(piece: int, size: int) -> tuple[int, int]:
    """First byte of a piece, and the one after its last."""
    length = piece_length(size)
    return piece * length, min((piece + 1) * length, size)


def root_of_layer(layer: bytes, size: int) -> bytes:
    """The root above the layer of a file of more than one piece. Raises ValueError for a layer of another length."""
    count = pieces(size)
    if count < 2 or len(layer) != HASH * count:
        raise ValueError(f"{len(layer)} bytes are not the layer of {count} pieces")
    hashes = [layer[at : at + HASH] for at in range(0, len(layer), HASH)]
    return _climb(hashes, _piece_height(size), _height(size))


def is_layer(layer: bytes, root: bytes, size: int) -> bool:
    """Whether this is the layer of the file with that root and size. Of a file of one piece it is empty."""
    if pieces(size) < 2:
        return not layer
    return len(layer) == HASH * pieces(size) and root_of_layer(layer, size) == root


def piece_hash(data: bytes, size: int) -> bytes:
    """Of one whole piece of a file of `size` bytes: as in the layer, or the root if it is the only one."""
    view = memoryview(data)
    leaves = [sha256(view[at : at + BLOCK]).digest() for at in range(0, len(view), BLOCK)]
    return _climb(leaves, 0, min(_piece_height(size), _height(size)))


class FileHasher:
    """Computes root and layer of a file from its bytes in order; holds one piece's leaves and the layer so far."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._height = min(_piece_height(size), _height(size))
        self._rest = bytearray()
        self._leaves: list[bytes] = []
        self._layer: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises ValueError if there are more than the file's size."""
        view = memoryview(data)
        self._seen += len(view)
        if self._seen > self._size:
            raise ValueError(f"more than {self._size} bytes")
        if self._rest:
            missing = BLOCK - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) == BLOCK:
                self._leaf(self._rest)
                self._rest.clear()
        whole = len(view) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self._leaf(view[at : at + BLOCK])
        self._rest += view[whole:]

    def finish(self) -> tuple[bytes, bytes]:
        """Root and layer. Raises ValueError for an empty file, and if bytes are missing."""
        if self._seen != self._size or not self._size:
            raise ValueError(f"{self._seen} of {self._size} bytes")
        if self._rest:
            self._leaf(self._rest)
        if self._leaves:
            self._piece()
        if pieces(self._size) == 1:
            return self._layer[0], b""
        return _climb(self._layer, _piece_height(self._size), _height(self._size)), b"".join(self._layer)

    def _leaf(self, block: memoryview | bytearray) -> None:
        self._leaves.append(sha256(block).digest())
        if len(self._leaves) == 1 << self._height:
            self._piece()

    def _piece(self) -> None:
        self._layer.append(_climb(self._leaves, 0, self._height))
        self._leaves = []


def _piece_height(size: int) -> int:
    """Of the tree over one whole piece; leaves have none."""
    return (piece_length(size) // BLOCK).bit_length() - 1


def _height(size: int) -> int:
    """Of the tree over the file."""
    return (-(-size // BLOCK) - 1).bit_length()


def _climb(hashes: list[bytes], height: int, top: int) -> bytes:
    """The root at height `top` over hashes at `height`, with padding on their right."""
    for level in range(height, top):
        if len(hashes) % 2:
            hashes = [*hashes, _PADDING[level]]
        hashes = [sha256(left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    (root,) = hashes
    return root
