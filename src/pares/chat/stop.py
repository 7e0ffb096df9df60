"""Finding strings in a text that arrives in pieces, without ever letting go of half of one."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Matcher:
    """Looks for the one of `needles` that ends first (of those that end together, the longest).

    That rule gives the same result however the text is cut into pieces.
    """

    def __init__(self, needles: Iterable[str]) -> None:
        self.needles = tuple(dict.fromkeys(filter(None, needles)))
        self._longest = max(map(len, self.needles), default=0)
        first = "".join(re.escape(character) for character in sorted({needle[0] for needle in self.needles}))
        self._first = re.compile(f"[{first}]" if first else r"(?!)")

    def stirs(self, text: str) -> bool:
        """Whether a needle may begin in `text`: where none does, there is nothing to look for or to hold back."""
        return self._first.search(text) is not None

    def scan(self, text: str, *, ended: bool = False) -> tuple[int, str]:
        """How many characters of `text` are before the needle found, and the needle.

        Without one, how many cannot be the beginning of one (all of them when the text has `ended`), and "".
        """
        found = [(at + len(needle), at, needle) for needle in self.needles if (at := text.find(needle)) >= 0]
        if found:
            _, at, needle = min(found)
            return at, needle
        if not ended:
            for candidate in self._first.finditer(text, max(0, len(text) - self._longest + 1)):
                rest = text[candidate.start() :]
                if any(needle.startswith(rest) for needle in self.needles):
                    return candidate.start(), ""
        return len(text), ""
