"""What the node takes before any model: seconds to start, memory, processor at rest, disk of the installation."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil

from node import median, wait_for_node

IDLE_S = 10.0
EXTRAS = ("dev", "bench")


def start(home: Path) -> tuple[float, float, float, float]:
    """Seconds until the node answers, until the page is there; resident MB; processor at rest in percent of a core."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pares", "--home", str(home), "up", "--port", "0", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = wait_for_node(home, process)
        ready = time.perf_counter() - began
        for path in ("", "app/main.js", "style.css"):
            urllib.request.urlopen(f"{address.url}/{path}").read()
        page = time.perf_counter() - began
        node = psutil.Process(process.pid)
        node.cpu_percent()
        percent = node.cpu_percent(IDLE_S)
        return ready, page, node.memory_info().rss / 1e6, percent
    finally:
        process.terminate()
        process.wait(20)


def installed_mb() -> tuple[float, float]:
    """Of a fresh environment with Pares and nothing else, without pip itself; and how much of it are copies."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        before = _bytes(Path(folder))
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", str(Path(__file__).parent.parent)]
        subprocess.run(pip, check=True)
        sizes = Counter((path.name.partition(".so")[0], path.stat().st_size) for path in Path(folder).rglob("*.so*"))
        copies = sum((count - 1) * size for (_, size), count in sizes.items())
        return (_bytes(Path(folder)) - before) / 1e6, copies / 1e6


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-install", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        runs = [start(Path(home) / str(n)) for n in range(args.rounds)]
    ready, page, memory, percent = (median(list(column)) for column in zip(*runs, strict=True))
    print(f"ready after {ready:.2f} s, page fetched after {page:.2f} s")
    print(f"resident {memory:.0f} MB, at rest {percent:.1f} % of a core")
    if not args.no_install:
        size, copies = installed_mb()
        print(f"installed: {size:.0f} MB, of which {copies:.0f} MB are copies of the same libraries under other names")


if __name__ == "__main__":
    main()
