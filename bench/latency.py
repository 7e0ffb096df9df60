"""Two waits that people notice, on one thread with SmolLM2.

* The longest gap between two tokens of a running answer while somebody's prompt of 2,000 tokens is read, against the
  time that bare llama.cpp takes for one chunk of prompt of the size Pares cuts here.
* The time to the first token of a second turn on a history of 1,500 tokens, against that of the cold first turn.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from itertools import pairwise
from pathlib import Path

from node import PROMPT, Address, Stream, bare, complete, median, models, node
from pares.inference.settings import Settings

STEP = 32
WORDS = [
    "river",
    "stone",
    "bread",
    "light",
    "window",
    "seven",
    "garden",
    "morning",
    "paper",
    "silver",
    "quiet",
    "road",
    "winter",
    "apple",
    "letter",
]


def words(count: int, seed: int) -> str:
    """A text of about so many tokens, another one for every seed."""
    chance = random.Random(seed)
    return " ".join(chance.choices(WORDS, k=count))


async def gap(address: Address, seed: int) -> tuple[float, float]:
    """Longest gap of a stream alone, and while a long prompt comes in."""
    started = asyncio.Event()
    running = asyncio.create_task(complete(address, PROMPT, 400, started=started))
    await started.wait()
    long = await complete(address, words(2000, seed), 1)
    stream: Stream = await running
    gaps = [(later - earlier, later) for earlier, later in pairwise(stream.arrivals)]
    beside = max(size for size, at in gaps if long.asked <= at <= long.arrivals[0] + 0.2)
    alone = max(size for size, at in gaps if not long.asked <= at <= long.arrivals[0] + 0.2)
    return alone, beside


async def turns(address: Address, seed: int) -> tuple[float, float]:
    """Seconds to the first token of a first turn of 1,500 tokens, and of the second turn."""
    history = words(1500, seed)
    first = await complete(address, history, 16)
    second = await complete(address, f"{history}{first.text} And then? {words(20, seed + 1)}", 4)
    return first.first_s, second.first_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = models()["smollm2"]
    prefill = median([bare(model, tokens=2, prompt_tokens=1024)["prefill"] for _ in range(rounds)])
    chunk_s = max(STEP, Settings().step_target_s * prefill // STEP * STEP) / prefill
    with tempfile.TemporaryDirectory() as home, node(Path(home), model) as address:
        gaps = [asyncio.run(gap(address, 100 + n)) for n in range(rounds)]
        waits = [asyncio.run(turns(address, 1000 + 2 * n)) for n in range(rounds)]
    alone, beside = median([a for a, _ in gaps]), median([b for _, b in gaps])
    print(f"bare llama.cpp reads {prefill:.0f} tokens/s: {1000 * chunk_s:.0f} ms for one chunk")
    print(f"longest gap: alone {1000 * alone:.0f} ms, beside a prompt of 2,000 tokens {1000 * beside:.0f} ms", end="")
    print(f" = {beside / chunk_s:.2f} chunks")
    ratio = median([second / first for first, second in waits])
    first, second = median([f for f, _ in waits]), median([s for _, s in waits])
    print(f"first token: first turn {first:.2f} s, second turn {second:.2f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
