"""The command line: parse, call the node, print. What takes long to import is imported where it is used."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """The command `pares`."""
    try:
        from pares.cli.app import run

        if sys.stdout is None:  # started with it closed
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process runs
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before anything else could take it
        code = 128 + signal.SIGINT
    sys.exit(code)
