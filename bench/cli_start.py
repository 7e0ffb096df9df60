"""How long `pares --help` takes, next to an empty Python: median of N runs of each."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
TARGET_S = 0.3


def median_s(*command: str) -> float:
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    bare = median_s(sys.executable, "-c", "pass")
    for words in (("--help",), ("run", "--help"), ("version",)):
        took = median_s(sys.executable, "-m", "pares", *words)
        print(f"pares {' '.join(words):12} {took * 1000:5.0f} ms   empty Python {bare * 1000:4.0f} ms")
        if took > TARGET_S:
            print(f"  over the target of {TARGET_S * 1000:.0f} ms")
