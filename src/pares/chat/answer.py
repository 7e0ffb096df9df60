"""One answer as it arrives: tokens in, pieces out, each log-probability with the text its token stands for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pares.chat.markup import Item, Parser, Said
from pares.chat.messages import CallArguments, CallBegun, Reasoning, Text, TokenLogprob
from pares.chat.text import Detokenizer
from pares.inference.generation import Step, TokenId, Vocabulary


class _Noted(NamedTuple):
    """A token's log-probability, and the characters of the answer that the token covers."""

    start: int
    end: int
    logprob: TokenLogprob


class Reader:
    """Reads one answer with a parser."""

    def __init__(self, vocabulary: Vocabulary, parser: Parser, markers: frozenset[str] = frozenset()) -> None:
        self.parser = parser
        self._vocabulary = vocabulary
        self._detokenizer = Detokenizer(vocabulary, markers)
        self._length = 0
        self._noted: deque[_Noted] = deque()

    def feed(self, step: Step) -> list[Text | Reasoning | CallBegun | CallArguments]:
        """Take in one token, give what has become certain."""
        assert step.token is not None
        text = self._detokenizer.feed(step.token)
        if step.logprob is not None and (text or not self._vocabulary.is_control(step.token)):
            self._note(step, step.token, step.logprob, len(text))
        self._length += len(text)
        return self._pieces(self.parser.feed(text)) if text else []

    def close(self) -> list[Text | Reasoning | CallBegun | CallArguments]:
        """The generation has ended: give what was held back."""
        rest = self._detokenizer.close()
        return self._pieces((self.parser.feed(rest) if rest else []) + self.parser.close())

    def _pieces(self, items: Iterable[Item]) -> list[Text | Reasoning | CallBegun | CallArguments]:
        return [Text(item.text, self._take(item)) if isinstance(item, Said) else item for item in items]

    def _note(self, step: Step, token: TokenId, logprob: float, length: int) -> None:
        piece = self._vocabulary.piece
        top = tuple((other, piece(other), theirs) for other, theirs in step.top)
        noted = TokenLogprob(token, piece(token), logprob, top)
        self._noted.append(_Noted(self._length, self._length + length, noted))

    def _take(self, said: Said) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of the tokens that this text came from, those of markup in front of it left out."""
        if not self._noted:
            return ()
        end, taken = said.start + len(said.text), []
        while self._noted and self._noted[0].start < end:
            noted = self._noted.popleft()
            if noted.end > said.start or noted.start >= said.start:
                taken.append(noted.logprob)
        return tuple(taken)
