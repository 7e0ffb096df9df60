"""An answer on its way to the terminal: wrapped at words, thinking apart."""

from __future__ import annotations

import shutil
import sys

from pares.cli.terminal import Terminal, printable


class WordWrap:
    """Breaks a text that arrives in pieces before the word that would cross `width`; its own line breaks stay."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._spaces = ""
        self._word = ""

    def feed(self, piece: str) -> str:
        """What can be shown now. A word that may go on waits for its end."""
        from rich.cells import cell_len

        shown = ""
        for character in piece:
            if character == "\n":
                shown += self.flush() + "\n"
                self._column = 0
            elif character == " ":
                shown += self._place_word()
                self._spaces += " "
            elif cell_len(character) > 1:  # Chinese, Japanese and Korean break anywhere
                shown += self._place_word()
                self._word = character
                shown += self._place_word()
            else:
                self._word += character
                if len(self._word) >= self._width:
                    shown += self._place_word()
        return shown

    def flush(self) -> str:
        """What is left."""
        shown = self._place_word() + self._spaces
        self._column += len(self._spaces)
        self._spaces = ""
        return shown

    def _place_word(self) -> str:
        from rich.cells import cell_len

        if not self._word:
            return ""
        length = cell_len(self._word)
        breaks = self._column > 0 and self._column + len(self._spaces) + length > self._width
        gap = "\n" if breaks else self._spaces
        self._column = length if breaks else self._column + len(gap) + length
        shown = gap + self._word
        self._spaces = self._word = ""
        return shown


class Answer:
    """Shows an answer as it comes, and keeps it. With `--json` it is only kept."""

    def __init__(self, out: Terminal, *, wrap: bool = True, show_reasoning: bool = True) -> None:
        self.text = ""
        self.reasoning = ""
        self._out = out
        self._silent = out.options.json
        self._show_reasoning = show_reasoning and not out.options.quiet
        self._wrap = WordWrap(shutil.get_terminal_size().columns) if wrap and sys.stdout.isatty() else None
        self._waiting = False
        self._thinking = False

    def wait(self, what: str) -> None:
        """Say why there is nothing yet, where that can be taken back."""
        if self._out.animated:
            self._out.aside(f"\r\x1b[K{what}")
            self._waiting = True

    def think(self, piece: str) -> None:
        """More of what the model thinks: on stderr, it is not the answer."""
        if not piece:
            return
        self._clear()
        self.reasoning += piece
        if self._show_reasoning and not self._silent:
            if not self._thinking:
                self._out.aside("Thinking …\n")
                self._thinking = True
            self._out.aside(self._out.styled(printable(piece), "dim"))

    def say(self, piece: str) -> None:
        """More of the answer."""
        if not piece:
            return
        self._clear()
        self._end_thinking()
        self.text += piece
        if self._silent:
            return
        shown = printable(piece) if sys.stdout.isatty() else piece
        self._out.write(self._wrap.feed(shown) if self._wrap else shown)

    def end(self) -> None:
        """The answer is over, or was stopped."""
        self._clear()
        self._end_thinking()
        if self.text and not self._silent:
            rest = self._wrap.flush() if self._wrap else ""
            self._out.write(rest + ("" if self.text.endswith("\n") else "\n"))

    def _clear(self) -> None:
        if self._waiting:
            self._out.aside("\r\x1b[K")
            self._waiting = False

    def _end_thinking(self) -> None:
        if self._thinking:
            self._out.aside("\n… done thinking.\n\n")
            self._thinking = False
