"""Parts of a model: layers are byte ranges of its file, byte ranges are pieces, and back. Pure.

A layer is every tensor `blk.N.*`; the head is every other one: token embedding, final norm, output matrix and whatever
else belongs to no layer. The header comes with every part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pares.errors import BadRequest
from pares.inference.header import Header, Tensor
from pares.swarm.coverage import Runs, covers, pieces_over, runs

_PART = re.compile(r"([0-9]{1,5})-([0-9]{1,5})(\+head)?")


SHARED = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
"""Factors of the rotary embedding: small, outside of the layers, and read by each of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """The header, the layers `[first, last)`, and with `head` also what belongs to no layer."""

    first: int
    last: int
    head: bool

    def __str__(self) -> str:
        """As `parse_part` reads it."""
        if self.first == self.last:
            return "head" if self.head else "header"
        return f"{self.first}-{self.last}{'+head' if self.head else ''}"


HEADER = Part(0, 0, False)
HEAD = Part(0, 0, True)


def parse_part(text: str) -> Part | None:
    """`header`, `head`, `10-20` (layers 10 to before 20), `10-20+head`; empty is None, the whole. Raises BadRequest."""
    match text:
        case "":
            return None
        case "header":
            return HEADER
        case "head":
            return HEAD
    found = _PART.fullmatch(text)
    if not found or int(found[1]) >= int(found[2]):
        raise BadRequest(
            f"{text[:40]!r} names no part of a model.",
            param="layers",
            hint="Say header, head, or layers such as 10-20 (10 to before 20) or 10-20+head.",
        )
    return Part(int(found[1]), int(found[2]), bool(found[3]))


def part_bytes(header: Header, part: Part | None) -> Runs:
    """The byte ranges of a part, the header's among them. Raises BadRequest if it has layers that the model has not."""
    if part is None:
        return ((0, header.file_bytes),)
    layers = header.block_count
    if part.last > layers:
        raise BadRequest(
            f"This model has {layers} layers; {part} asks for more.", param="layers", hint=f"Ask within 0-{layers}."
        )
    wanted = [*_layers(header)[part.first : part.last], *([_head(header)] if part.head else [])]
    return runs([(0, header.data_start), *(each for ranges in wanted for each in ranges)])


def part_pieces(header: Header, part: Part | None) -> Runs:
    """The pieces that cover a part, and no others. Raises BadRequest if it has layers that the model has not."""
    return pieces_over(part_bytes(header, part), header.file_bytes)


def header_pieces(header_bytes: int, size: int) -> Runs:
    """The pieces of a file of `size` bytes in which its first bytes lie, before anything is known of its tensors."""
    return pieces_over([(0, min(header_bytes, size))], size)


def held_layers(header: Header, have: Runs) -> Part | None:
    """The most that these pieces are good for: the longest range of whole layers, and the head if all of it is there.

    None where not even the header is whole. All pieces give all layers with the head.
    """
    size = header.file_bytes
    if not covers(have, header_pieces(header.data_start, size)):
        return None
    best = start = 0, 0
    for number, ranges in enumerate(_layers(header)):
        held = covers(have, pieces_over(ranges, size))
        start = (start[0], number + 1) if held else (number + 1, number + 1)
        best = max(best, start, key=lambda each: each[1] - each[0])
    return Part(*best, head=covers(have, pieces_over(_head(header), size)))


def _layers(header: Header) -> list[list[tuple[int, int]]]:
    """Byte ranges by layer, with those of what every layer reads."""
    shared = [_range(tensor) for tensor in header.tensors if tensor.name in SHARED]
    layers = [list(shared) for _ in range(header.block_count)]
    for tensor in header.tensors:
        if (number := _layer(header, tensor)) is not None:
            layers[number].append(_range(tensor))
    return layers


def _head(header: Header) -> Iterable[tuple[int, int]]:
    return [_range(tensor) for tensor in header.tensors if _layer(header, tensor) is None and tensor.name not in SHARED]


def _layer(header: Header, tensor: Tensor) -> int | None:
    match tensor.name.split(".", 2):
        case ["blk", number, _] if number.isdecimal() and len(number) < 6 and int(number) < header.block_count:
            return int(number)
    return None


def _range(tensor: Tensor) -> tuple[int, int]:
    return tensor.offset, tensor.offset + tensor.nbytes
