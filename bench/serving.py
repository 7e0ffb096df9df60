"""Serving against the bare engine and against llama.cpp's own server: one thread, SmolLM2, alternating runs, medians.

`python bench/serving.py [--rounds 5] [--xllamacpp]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node import PROMPT, Address, bare, complete, complete_many, median, models, node

TOKENS = 256


@contextmanager
def xllamacpp(model: Path) -> Iterator[Address]:
    """llama.cpp's own server in its prebuilt form."""
    code = (
        "import sys, xllamacpp as x\n"
        "p = x.CommonParams(); p.model.path = sys.argv[1]; p.n_ctx = 16384; p.n_parallel = 8; p.kv_unified = True\n"
        "p.cpuparams.n_threads = 1; p.cpuparams_batch.n_threads = 1; p.port = 0; p.hostnames = ['127.0.0.1']\n"
        "p.verbosity = 0; p.warmup = True\n"
        "s = x.Server(p); print(s.listening_address, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        listening = next(line for line in iter(process.stdout.readline, b"") if b"127.0.0.1:" in line)
        yield Address(int(listening.decode().strip().rpartition(":")[2].strip("/")), "bench")
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--xllamacpp", action="store_true")
    args = parser.parse_args()
    model = models()["smollm2"]
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pares = stack.enter_context(node(home, model))
        llama = stack.enter_context(xllamacpp(model)) if args.xllamacpp else None
        results: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            results.setdefault(name, []).append(value)

        for _ in range(args.rounds):
            note("bare 1", bare(model, streams=1, tokens=TOKENS)["decode"])
            note("pares 1", asyncio.run(complete(pares, PROMPT, TOKENS)).tokens_per_s)
            note("bare 8, shared cells", bare(model, streams=8, tokens=96)["decode"])
            note("pares 8", asyncio.run(complete_many(pares, 8, 96)))
            note("bare 8, own cells", bare(model, streams=8, tokens=96, split_kv=True)["decode"])
            if llama:
                note("llama.cpp's server 1", asyncio.run(complete(llama, PROMPT, TOKENS)).tokens_per_s)
                note("llama.cpp's server 8", asyncio.run(complete_many(llama, 8, 96)))
        print(json.dumps({name: [round(v, 1) for v in values] for name, values in results.items()}))
        for ours_name, baseline in (
            ("pares 1", "bare 1"),
            ("pares 8", "bare 8, shared cells"),
            ("pares 8", "bare 8, own cells"),
            ("pares 1", "llama.cpp's server 1"),
            ("pares 8", "llama.cpp's server 8"),
        ):
            if baseline in results:
                ours, theirs = results[ours_name], results[baseline]
                ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
                print(f"{ours_name}: {median(ours):.1f} t/s; {baseline}: {median(theirs):.1f} t/s; ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
