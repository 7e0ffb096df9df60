"""All figures of docs/BENCHMARKS.md, one script after the other. A quiet machine is half of the measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    ["serving.py", "--xllamacpp"],
    ["latency.py"],
    ["exact.py"],
    ["footprint.py"],
    ["cli_start.py"],
    ["chat_overhead.py"],
    ["sse_overhead.py"],
    ["gguf_header.py"],
    ["transport.py"],
    ["tunnel.py"],
    ["joining.py"],
    ["gossip.py"],
    ["importing.py"],
    ["discovery.py"],  # as root, like the next: they make network namespaces
    ["swarm.py"],
)


def main() -> None:
    folder = Path(__file__).parent
    for name, *options in SCRIPTS:
        print(f"\n{name} {' '.join(options)}".rstrip(), flush=True)
        subprocess.run([sys.executable, folder / name, *options], check=True)


if __name__ == "__main__":
    main()
