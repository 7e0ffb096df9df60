"""What is shown again and again until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pares.cli.terminal import Terminal, printable

Shown = TypeVar("Shown")


@contextmanager
def display(
    out: Terminal, text: Callable[[Shown], str], elsewhere: Callable[[Shown], None]
) -> Iterator[Callable[[Shown], None]]:
    """Show what it is given: in place on a terminal, one line per value with `--json`, else as `elsewhere` does it."""
    if out.options.json:
        yield out.json_line
    elif not sys.stdout.isatty():
        yield elsewhere
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(no_color=out.options.no_color or None)
        with Live(console=console, auto_refresh=False) as live:
            yield lambda value: live.update(
                Text(printable(text(value)), no_wrap=True, overflow="ellipsis"), refresh=True
            )
