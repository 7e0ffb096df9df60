"""The text of an answer, taken apart as it arrives: what to show, what was thought, which tools to call.

A parser is a state machine over a buffer that holds no more than what may still become a marker. However the same text
is cut into pieces, the same comes out. Anything that only looks like markup is given back as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pares.chat.messages import CallArguments, CallBegun, Reasoning
from pares.chat.reasoning import Tags
from pares.chat.stop import Matcher
from pares.chat.tools import Family, header_begins, header_in, loose_calls

MAX_HEADER = 16_384
"""Characters in which the name of a tool has to be written."""
MAX_ARGUMENTS = 1 << 20
"""Characters of one call's arguments."""
MAX_NESTING = 128
"""Levels of lists and objects in one call's arguments."""
_AFTER_CALL = " \t\r\n,;]}"
_TAIL = 256


class Said(NamedTuple):
    """Text to show, and where in the answer's characters it began."""

    text: str
    start: int


Item = Said | Reasoning | CallBegun | CallArguments


class Calls:
    """Counts the calls of one answer and gives them their ids."""

    def __init__(self, names: Iterable[str], new_id: Callable[[], str], *, parallel: bool) -> None:
        self.names = frozenset(names)
        self.parallel = parallel
        self.begun = 0
        self._new_id = new_id

    def begin(self, name: str) -> CallBegun:
        """The next call."""
        self.begun += 1
        return CallBegun(self.begun - 1, self._new_id(), name)


class Parser:
    """What all parsers share: the buffer, the loop over states, and how an answer may end from within."""

    def __init__(self, stop: Iterable[str], calls: Calls) -> None:
        self.calls = calls
        self.done = False
        """No more text is wanted: a stop string was found, or the one call that was allowed is complete."""
        self.stopped_by = ""
        self.cut = False
        """A call was longer than any that is let through."""
        self._stop = tuple(stop)
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._out: list[Item] = []
        self._state: Callable[[], bool] = self._quiet
        self._calm: Matcher | None = None
        """While only text is coming: what could begin something else."""

    def feed(self, text: str) -> list[Item]:
        """Take in more text, give what has become certain."""
        if not text:
            return []
        if self._calm is not None and not self._buffer and not self._calm.stirs(text):
            said = Said(text, self._at)
            self._at += len(text)
            return [said]
        self._buffer += text
        return self._run()

    def close(self) -> list[Item]:
        """The text has ended: give what was held back."""
        self._ended = True
        return self._run()

    def _run(self) -> list[Item]:
        while not self.done and self._state():
            pass
        out, self._out = self._out, []
        return out

    def _quiet(self) -> bool:
        return False

    def _take(self, count: int) -> str:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._at += count
        return taken

    def _say(self, count: int) -> None:
        if count:
            at = self._at
            self._out.append(Said(self._take(count), at))

    def _enter(self, state: Callable[[], bool], calm: Matcher | None = None) -> bool:
        self._state, self._calm = state, calm
        return True

    def _stop_at(self, needle: str) -> bool:
        self.stopped_by, self.done, self._calm = needle, True, None
        return False


class Markup(Parser):
    """Text with reasoning between `tags` and calls as a `family` of models writes them; neither if None.

    Reasoning is recognised before any text only, so that an answer may speak about the tags. `thinking`: the prompt
    ends inside of the reasoning. `strip`: white space in front of the answer is the prompt's, not the answer's.
    """

    def __init__(
        self,
        stop: Iterable[str],
        calls: Calls,
        *,
        tags: Tags | None = None,
        family: Family | None = None,
        thinking: bool = False,
        strip: bool = False,
    ) -> None:
        super().__init__(stop, calls)
        self._family = family
        self._stops = Matcher(self._stop)
        self._marks = Matcher((*self._stop, family.open if family else ""))
        self._thought = Matcher((tags.close,) if tags else ())
        self._openings: dict[str, Callable[[], bool]] = {}
        if tags:
            self._openings[tags.open] = self._think
        if family and family.open:
            self._openings[family.open] = self._header
        self._strip = strip
        self._marker = ""
        self._begun_thinking = False
        self._scan = _ArgumentsScan()
        if thinking:
            self._enter(self._think)
        elif self._openings or family or strip:
            self._enter(self._start)
        else:
            self._enter(self._text, self._marks)

    def _start(self) -> bool:
        """Before any text: reasoning, a call, or the first of the text."""
        rest = self._buffer.lstrip()
        blank = len(self._buffer) - len(rest)
        if self._strip:
            self._take(blank)
            blank = 0
        elif self._stops.scan(self._buffer[:blank], ended=True)[1]:
            return self._enter(self._text, self._marks)
        if not rest:
            return self._ended and self._enter(self._text, self._marks)
        for marker, state in self._openings.items():
            if rest.startswith(marker):
                self._take(blank + len(marker))
                self._marker = marker
                return self._enter(state)
            if not self._ended and marker.startswith(rest):
                return False
        if self._family and rest[0] in "{[":
            self._marker = ""
            return self._enter(self._header)
        self._strip = False
        return self._enter(self._text, self._marks)

    def _text(self) -> bool:
        safe, found = self._marks.scan(self._buffer, ended=self._ended)
        self._say(safe)
        if not found:
            return False
        if self._family and found == self._family.open and found not in self._stop:
            self._marker = self._take(len(found))
            return self._enter(self._header)
        return self._stop_at(found)

    def _think(self) -> bool:
        """Reasoning, without the white space at its ends."""
        if not self._begun_thinking:
            self._take(len(self._buffer) - len(self._buffer.lstrip()))
        safe, found = self._thought.scan(self._buffer, ended=self._ended)
        body = self._buffer[:safe].rstrip()
        if body:
            self._begun_thinking = True
            self._out.append(Reasoning(self._take(len(body))))
        if not found:
            return False
        self._take(safe - len(body) + len(found))
        self._begun_thinking, self._strip = False, True
        return self._enter(self._start)

    def _header(self) -> bool:
        """The beginning of a call: up to where its arguments begin, or up to where it cannot be one."""
        assert self._family is not None
        header = header_in(self._buffer, MAX_HEADER)
        if header is not None and header.name in self.calls.names:
            self._out.append(self.calls.begin(header.name))
            self._take(header.length)
            self._scan = _ArgumentsScan(inside_object=header.inside_object)
            return self._enter(self._arguments)
        open_ended = not self._ended and len(self._buffer) < MAX_HEADER
        if header is None and open_ended and header_begins(self._buffer):
            return False
        end = len(self._buffer) if self._ended else 0
        if self._marker and self._family.close:
            end = self._buffer.find(self._family.close, 0, MAX_HEADER)
            if end < 0 and open_ended:
                return False
            end = len(self._buffer) if end < 0 else end
        calls = loose_calls(self._buffer[:end], self.calls.names) if end <= MAX_HEADER else []
        if not self.calls.parallel:
            del calls[1:]
        for name, arguments in calls:
            begun = self.calls.begin(name)
            self._out += [begun, CallArguments(begun.index, arguments)]
        if calls:
            self._take(end)
            return self._called()
        if self._marker:
            self._out.append(Said(self._marker, self._at - len(self._marker)))
        self._strip = False
        return self._enter(self._text, self._marks)

    def _arguments(self) -> bool:
        length, complete, self.cut = self._scan.take(self._buffer, ended=self._ended)
        if length:
            self._out.append(CallArguments(self.calls.begun - 1, self._take(length)))
        if self.cut:
            self.done = True
        if not complete:
            return False
        return self._enter(self._tail) if self._scan.inside_object and self.calls.parallel else self._called()

    def _tail(self) -> bool:
        """The rest of the object around the arguments."""
        assert self._family is not None
        ends = [("}", 1)] + ([(self._family.close, 0)] if self._family.close else [])
        found = [(at, keep) for end, keep in ends if (at := self._buffer.find(end, 0, _TAIL)) >= 0]
        if found:
            at, keep = min(found)
            self._take(at + keep)
        elif len(self._buffer) < _TAIL and not self._ended:
            return False
        return self._called()

    def _called(self) -> bool:
        self.done = not self.calls.parallel
        return self._enter(self._between)

    def _between(self) -> bool:
        """After a call: its closing marker and what stands between calls."""
        assert self._family is not None
        rest = self._buffer.lstrip(_AFTER_CALL)
        self._take(len(self._buffer) - len(rest))
        close = self._family.close
        if not rest or (close and not self._ended and close.startswith(rest) and close != rest):
            return False
        if close and rest.startswith(close):
            self._take(len(close))
        self._strip = True
        return self._enter(self._start)


class _ArgumentsScan:
    """Finds the end of a JSON object that arrives in pieces; knows of strings and brackets, and of nothing else."""

    _OUTSIDE = re.compile(r'["{}\[\]]')
    _QUOTED = re.compile(r'["\\]')

    def __init__(self, *, inside_object: bool = False) -> None:
        self.inside_object = inside_object
        self._depth = 0
        self._quoted = False
        self._left = MAX_ARGUMENTS

    def take(self, text: str, *, ended: bool) -> tuple[int, bool, bool]:
        """How many characters belong to the arguments, whether that completes them, whether a limit was passed."""
        at, complete, too_deep = 0, False, False
        while mark := (self._QUOTED if self._quoted else self._OUTSIDE).search(text, at):
            at, character = mark.end(), mark[0]
            if character == '"':
                self._quoted = not self._quoted
            elif character == "\\":
                if at == len(text) and not ended:
                    return self._spend(at - 1), False, self._left <= 0
                at += 1
            else:
                self._depth += 1 if character in "{[" else -1
                complete, too_deep = self._depth == 0, self._depth > MAX_NESTING
                if complete or too_deep:
                    break
        length = at if complete or too_deep else len(text)
        whole = length <= self._left
        return self._spend(length), complete and whole, too_deep or not whole

    def _spend(self, length: int) -> int:
        spent = min(length, self._left)
        self._left -= spent
        return spent
