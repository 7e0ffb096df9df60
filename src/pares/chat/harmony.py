"""The answers of gpt-oss: messages on channels, `<|channel|>analysis<|message|>...<|end|><|start|>assistant...`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pares.chat.markup import Calls, Parser
from pares.chat.messages import CallArguments, Reasoning
from pares.chat.stop import Matcher

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKERS = frozenset({START, CHANNEL, MESSAGE, "<|constrain|>", *ENDS})
FINAL = f"{CHANNEL}final{MESSAGE}"
"""What the prompt ends with when the answer has to begin at once."""
MAX_HEADER = 512
"""Characters in front of a message; what is longer is no header, but text."""
MAX_ARGUMENTS = 1 << 20

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([\w.:/-]{1,128})")


def speaks_harmony(source: str) -> bool:
    """Whether a template is of this kind."""
    return CHANNEL in source and MESSAGE in source


class Harmony(Parser):
    """Analysis is reasoning, commentary to a function is a call, all else is text.

    `begun`: the prompt ends inside of the final message.
    """

    def __init__(self, stop: Iterable[str], calls: Calls, *, begun: bool = False) -> None:
        super().__init__(stop, calls)
        self._bounds = Matcher((START, CHANNEL, *ENDS))
        self._marks = Matcher((START, CHANNEL, *ENDS, *self._stop))
        self._left = 0
        if begun:
            self._enter(self._text, self._marks)
        else:
            self._enter(self._header)

    def _header(self) -> bool:
        rest = self._buffer.lstrip()
        markup = rest.startswith("<|") or "<|".startswith(rest) or rest.startswith("to=") or "to=".startswith(rest)
        at = self._buffer.find(MESSAGE, 0, MAX_HEADER)
        if markup and at < 0 and not self._ended and len(self._buffer) < MAX_HEADER:
            return False
        if not markup or at < 0:
            self._say(min(len(self._buffer), MAX_HEADER) if markup else 0)
            return self._enter(self._text, self._marks)
        header = self._take(at + len(MESSAGE))
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient and recipient[1] in self.calls.names:
            self._out.append(self.calls.begin(recipient[1]))
            self._left = MAX_ARGUMENTS
            return self._enter(self._arguments)
        if channel and channel[1] == "analysis":
            return self._enter(self._analysis)
        return self._enter(self._text, self._marks)

    def _text(self) -> bool:
        safe, found = self._marks.scan(self._buffer, ended=self._ended)
        self._say(safe)
        return self._stop_at(found) if found in self._stop else self._bound(found)

    def _analysis(self) -> bool:
        safe, found = self._bounds.scan(self._buffer, ended=self._ended)
        if safe:
            self._out.append(Reasoning(self._take(safe)))
        return self._bound(found)

    def _arguments(self) -> bool:
        safe, found = self._bounds.scan(self._buffer, ended=self._ended)
        if length := min(safe, self._left):
            self._out.append(CallArguments(self.calls.begun - 1, self._take(length)))
            self._left -= length
        if safe > length:
            self.cut = self.done = True
        elif found and not self.calls.parallel:
            self.done = True
        return self._bound(found)

    def _bound(self, found: str) -> bool:
        if not found:
            return False
        if found in ENDS:
            self._take(len(found))
        return self._enter(self._header)
