"""What goes to the person or the script: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from pares.config import wants_color

Style = Literal["red", "yellow", "dim"]
ANSI: Mapping[Style, int] = {"red": 31, "yellow": 33, "dim": 2}
CONTROL = {code: None for code in (*range(32), *range(127, 160)) if code not in b"\n\t"}


def printable(text: str) -> str:
    """Text without what a terminal obeys instead of showing it: models and their files must not steer it."""
    return text.translate(CONTROL)


def on_one_line(text: str) -> str:
    """A name that somebody else chose, so that it cannot look like another line, or turn the letters around."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@dataclass
class Options:
    """The options that every verb understands, before or after it."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    offline: bool = False
    no_color: bool = False
    home: Path | None = None


class Terminal:
    """Prints as the options say. With `--json` stdout holds JSON only: one object, or one per line for what goes on."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def interactive(self) -> bool:
        """Whether a person sits there and can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.options.json

    @property
    def animated(self) -> bool:
        """Whether something that moves makes sense."""
        return sys.stderr.isatty() and not self.options.json and not self.options.quiet

    def result(self, value: object, text: str) -> None:
        """The result of a verb: `value` for programs, `text` for people."""
        if self.options.json:
            self.json_line(value)
        elif text:
            self.show(text)

    def show(self, text: str) -> None:
        """Text and a line break on stdout."""
        self.write(f"{printable(text) if sys.stdout.isatty() else text}\n")

    def json_line(self, value: object) -> None:
        """One JSON value on one line."""
        self.write(msgspec.json.encode(value).decode() + "\n")

    def write(self, text: str) -> None:
        """Text on stdout, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line that is not the result."""
        if not self.options.quiet:
            self.aside(f"{printable(text)}\n")

    def warn(self, text: str) -> None:
        """A line that people should see even with `-q`."""
        self.aside(f"{self.styled('Warning:', 'yellow')} {printable(text)}\n")

    def aside(self, text: str) -> None:
        """Text on stderr, at once."""
        sys.stderr.write(text)
        sys.stderr.flush()

    def error(self, code: str, message: str, hint: str = "") -> None:
        """What happened, why, and what to do now."""
        if self.options.json:
            self.json_line({"error": {"code": code, "message": message, "hint": hint}})
        else:
            lines = (f"{self.styled('Error:', 'red')} {printable(message)}", printable(hint))
            self.aside("".join(f"{line}\n" for line in lines if line))

    def styled(self, text: str, style: Style) -> str:
        """Text for stderr, coloured if that is wanted and possible."""
        if self.options.no_color or not sys.stderr.isatty() or not wants_color():
            return text
        return f"\x1b[{ANSI[style]}m{text}\x1b[0m"

    def confirm(self, question: str, *, unasked: bool = True) -> bool:
        """Ask, if there is somebody to ask and `-y` was not given. `unasked` is the answer where nobody can be."""
        if self.options.yes or not self.interactive:
            return self.options.yes or unasked
        self.aside(f"{printable(question)} [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Say what is being waited for, and for how long already."""
        if not self.animated:
            if self.options.verbose:
                self.note(f"{text} …")
            yield
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, no_color=self.options.no_color or None)
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(text, total=None)
            yield
