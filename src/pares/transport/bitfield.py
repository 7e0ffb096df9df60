"""Sets of pieces: as runs for the rooms, as bitfields for pipe and disk; the first piece in the highest bit (BEP 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Runs = tuple[tuple[int, int], ...]
"""Pieces as [first, after last), ascending, without gaps of nothing between two."""


def packed(flags: Sequence[bool]) -> bytes:
    """One bit for each."""
    return _bytes("".join("1" if flag else "0" for flag in flags))


def unpacked(bits: bytes, count: int) -> list[bool]:
    """The first `count` of them."""
    return [digit == "1" for digit in _digits(bits)[:count]]


def runs_of(bits: bytes) -> Runs:
    """The pieces whose bits are set."""
    return tuple(match.span() for match in re.finditer("1+", _digits(bits)))


def bits_of(runs: Iterable[tuple[int, int]], count: int) -> bytes:
    """A bitfield of `count` pieces. Raises ValueError for a run that is empty or outside of it."""
    digits = bytearray(b"0" * count)
    for first, end in runs:
        if not 0 <= first < end <= count:
            raise ValueError(f"pieces {first} to {end} of {count}")
        digits[first:end] = b"1" * (end - first)
    return _bytes(digits.decode())


def _digits(bits: bytes) -> str:
    return f"{int.from_bytes(bits):0{8 * len(bits)}b}" if bits else ""


def _bytes(digits: str) -> bytes:
    size = -(-len(digits) // 8)
    return int(digits.ljust(8 * size, "0"), 2).to_bytes(size) if digits else b""
