"""Strings are found in text that arrives in pieces, and nothing else is held back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pares.chat.stop import Matcher

letters = st.text("ab.", max_size=24)
needles = st.lists(st.text("ab.", min_size=1, max_size=5), max_size=4)


def streamed(matcher: Matcher, pieces: list[str]) -> tuple[str, str]:
    """What is let through before the first needle, and that needle."""
    told, held = "", ""
    for piece in pieces:
        held += piece
        safe, found = matcher.scan(held)
        told, held = told + held[:safe], held[safe:]
        if found:
            return told, found
    safe, found = matcher.scan(held, ended=True)
    return told + held[:safe], found


def reference(needles: list[str], text: str) -> tuple[str, str]:
    """The needle that ends first; of two that do, the longer."""
    for end in range(1, len(text) + 1):
        hits = [needle for needle in needles if text[:end].endswith(needle)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, ""


@given(needles, st.lists(letters, max_size=6))
def test_any_cut_gives_what_the_whole_text_gives(needles: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    assert streamed(Matcher(needles), pieces) == reference(needles, text)
    assert streamed(Matcher(needles), list(text)) == reference(needles, text)


@given(needles, letters)
def test_held_back_is_only_what_may_become_a_needle(needles: list[str], text: str) -> None:
    safe, found = Matcher(needles).scan(text)
    held = text[safe:]
    assert found or not held or any(needle.startswith(held) and needle != held for needle in needles)


@given(needles, letters)
def test_text_that_stirs_nothing_is_let_through_whole(needles: list[str], text: str) -> None:
    matcher = Matcher(needles)
    if not matcher.stirs(text):
        assert matcher.scan(text) == (len(text), "")


def test_empty_needles_are_none() -> None:
    assert Matcher(["", ""]).needles == ()
    assert not Matcher([]).stirs("anything\n")
    assert Matcher(["]", "^", "\\", "-"]).stirs("a-b")
