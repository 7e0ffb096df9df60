"""Tokens become whole characters, and markup of the model's own stays out of sight."""

from __future__ import annotations

from chat_scripts import CONTROL, vocabulary
from hypothesis import given
from hypothesis import strategies as st

from pares.chat.text import Detokenizer, text_of, token_of
from pares.inference.generation import TokenId, Vocabulary

VOCABULARY = vocabulary()


def tokens_of(data: bytes) -> list[TokenId]:
    return [TokenId(byte) for byte in data]


@given(st.text(max_size=30).map(str.encode) | st.binary(max_size=30))
def test_bytes_one_by_one_decode_as_all_at_once(data: bytes) -> None:
    detokenizer = Detokenizer(VOCABULARY)
    parts = [detokenizer.feed(token) for token in tokens_of(data)]
    assert "".join(parts) + detokenizer.close() == data.decode(errors="replace")


@given(st.lists(st.binary(max_size=5), max_size=8))
def test_any_cut_into_pieces_decodes_as_all_at_once(pieces: list[bytes]) -> None:
    detokenizer = Detokenizer(Vocabulary.of(pieces, bytes(len(pieces))))
    parts = [detokenizer.feed(TokenId(token)) for token in range(len(pieces))]
    assert "".join(parts) + detokenizer.close() == b"".join(pieces).decode(errors="replace")


@given(st.text(max_size=20))
def test_no_character_comes_before_it_is_complete(text: str) -> None:
    detokenizer, sent, told = Detokenizer(VOCABULARY), b"", ""
    for token in tokens_of(text.encode()):
        sent += bytes([token])
        told += detokenizer.feed(token)
        assert text.startswith(told)
        assert len(sent) - len(told.encode()) <= 3


def test_invalid_byte_becomes_a_replacement_as_soon_as_it_is_known_to_be_one() -> None:
    detokenizer = Detokenizer(VOCABULARY)
    assert [detokenizer.feed(TokenId(byte)) for byte in b"\xf0\x9fa"] == ["", "", "�a"]
    assert detokenizer.feed(TokenId(0xC3)) == ""
    assert detokenizer.close() == "�"
    assert detokenizer.close() == ""


def test_control_token_is_shown_only_where_a_parser_looks_for_it() -> None:
    think, end = token_of(VOCABULARY, "<think>"), token_of(VOCABULARY, "<|im_end|>")
    assert think is not None
    assert end is not None
    detokenizer = Detokenizer(VOCABULARY, frozenset({"<think>"}))
    assert [detokenizer.feed(token) for token in (TokenId(65), think, end, TokenId(66))] == ["A", "<think>", "", "B"]
    assert Detokenizer(VOCABULARY).feed(think) == ""


def test_control_token_ends_a_broken_character() -> None:
    end = token_of(VOCABULARY, "<|im_end|>")
    assert end is not None
    detokenizer = Detokenizer(VOCABULARY)
    assert [detokenizer.feed(token) for token in (TokenId(0xE2), end, TokenId(65))] == ["", "�", "A"]


def test_tokens_are_found_by_their_whole_piece_only() -> None:
    for index, text in enumerate(CONTROL):
        assert token_of(VOCABULARY, text) == 256 + index
    across = Vocabulary.of([b"<thi", b"nk>", b"x<think>", b"<think>"], bytes(4))
    assert token_of(across, "<think>") == 3
    assert token_of(across, "k><think") is None
    assert token_of(across, "") is None
    assert (text_of(VOCABULARY, VOCABULARY.bos), text_of(VOCABULARY, -1)) == ("<s>", "")
