"""A key in five words, for people to compare. Pure."""

from __future__ import annotations

import hashlib
from functools import cache

WORDS = 5
BITS = 11


def words(key: bytes) -> tuple[str, ...]:
    """Five words of the BIP 39 English list: the first 55 bits of the SHA-256 of the key.

    Enough to notice a wrong friend, or one in the middle, when the words are read out: to find a key with the words of
    a given one takes some 2^55 tries (a thousand processor-years and more). They are for eyes and ears; programs
    compare whole keys.
    """
    number = int.from_bytes(hashlib.sha256(key).digest()[:7], "big") >> (56 - WORDS * BITS)
    return tuple(_list()[number >> BITS * place & (1 << BITS) - 1] for place in reversed(range(WORDS)))


@cache
def _list() -> list[str]:
    from mnemonic import Mnemonic  # here, so that a command that shows no words starts without it

    return list(Mnemonic("english").wordlist)
