"""The exact profile against the fast one: decoding and reading, one thread, SmolLM2 (Q4_1) and Gemma (Q4_K_M)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path

from latency import words
from node import PROMPT, complete, median, models, node


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for name, model in models().items():
        with contextlib.ExitStack() as stack:
            nodes = {}
            for profile in ("fast", "exact"):
                home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                nodes[profile] = stack.enter_context(
                    node(home, model, inference_profile=profile, inference_context=4096)
                )
            decode: dict[str, list[float]] = {"fast": [], "exact": []}
            read: dict[str, list[float]] = {"fast": [], "exact": []}
            for n in range(rounds):
                for profile, address in nodes.items():
                    decode[profile].append(asyncio.run(complete(address, PROMPT, 200)).tokens_per_s)
                    read[profile].append(1 / asyncio.run(complete(address, words(1000, n), 1)).first_s)
        for what, speeds in (("decode", decode), ("read 1,000 tokens", read)):
            ratio = median([e / f for e, f in zip(speeds["exact"], speeds["fast"], strict=True)])
            print(f"{name}, {what}: exact / fast = {ratio:.3f}")


if __name__ == "__main__":
    main()
