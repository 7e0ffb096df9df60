"""Our header parser against the `gguf` package's reader: seconds and memory, each run in a fresh process.

python bench/gguf_header.py MODEL.gguf [RUNS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import psutil


def measure(reader: str, model: Path) -> tuple[float, float]:
    """Seconds, and bytes resident over those of the process before (imports not counted)."""
    module, name = ("pares.inference.gguf", "read_header") if reader == "pares" else ("gguf", "GGUFReader")
    read = getattr(import_module(module), name)
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    header = read(model)
    seconds = time.perf_counter() - start
    resident = process.memory_info().rss - before
    assert header.tensors
    return seconds, resident


def median(reader: str, model: Path, runs: int) -> tuple[float, float]:
    """Medians of `runs` child processes."""
    command = [sys.executable, __file__, str(model), reader]
    results = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs)]
    seconds, resident = zip(*results, strict=True)
    return statistics.median(seconds), statistics.median(resident)


def main() -> None:
    """Print both and the ratio."""
    model = Path(sys.argv[1])
    last = sys.argv[2] if len(sys.argv) > 2 else "3"
    if not last.isdecimal():
        print(json.dumps(measure(last, model)))
        return
    print(f"{model.name}, median of {last}")
    rows = {reader: median(reader, model, int(last)) for reader in ("pares", "gguf")}
    for reader, (seconds, resident) in rows.items():
        print(f"{reader:6} {seconds:8.3f} s {resident / 1e6:8.1f} MB")
    ratios = [ours / theirs for ours, theirs in zip(*rows.values(), strict=True)]
    print(f"ratio  {ratios[0]:8.4f}   {ratios[1]:8.4f}")


if __name__ == "__main__":
    main()
