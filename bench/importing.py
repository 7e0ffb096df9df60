"""What taking in a model file costs, against `sha256sum` of the same file in the same run; the file is in the cache.

* import: SHA-256, merkle root and piece hashes in one pass (`pares.swarm.disk.hash_file`).
* verify: every piece against its hash again (`Files.verify`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from pares.store.database import Database
from pares.swarm.files import Files

BLOCK = 1 << 20


def sha256sum(path: Path) -> float:
    """Seconds of the system's own program, its start included."""
    start = time.perf_counter()
    subprocess.run([shutil.which("sha256sum") or "sha256sum", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


async def measure(path: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of each, in turn, so that what else the machine does falls on all alike."""
    seconds: dict[str, list[float]] = {"sha256sum": [], "import": [], "verify": []}
    async with Database(path.with_name("bench.db")) as database:
        files = Files(database, path.parent)
        for _ in range(runs):
            seconds["sha256sum"].append(await asyncio.to_thread(sha256sum, path))
            start = time.perf_counter()
            record = await files.take(path, linked=True)
            taken = time.perf_counter()
            await files.verify(record.root)
            seconds["import"].append(taken - start)
            seconds["verify"].append(time.perf_counter() - taken)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=250)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        with path.open("wb") as file:
            for _ in range(options.mb * 10**6 // BLOCK):
                file.write(os.urandom(BLOCK))
        seconds = asyncio.run(measure(path, options.runs))
    base = statistics.median(seconds["sha256sum"])
    print(f"{options.mb} MB, median of {options.runs}")
    for what, times in seconds.items():
        median = statistics.median(times)
        print(f"{what:10} {median:7.3f} s  {options.mb / median:7.0f} MB/s  {median / base:5.2f} x sha256sum")


if __name__ == "__main__":
    main()
