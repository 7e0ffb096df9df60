"""The command line: parse, call the node, print. What takes long to import is imported where it is used."""

from __future__ import annotations

import sys


def main() -> None:
    """The command `pares`."""
    from pares.cli.app import run

    sys.exit(run(sys.argv[1:]))
