"""How a circle's gossip costs and spreads, in virtual time over the product's own code (`tests/simulated_circle.py`).

Nothing is timed: all follows from the seed. Bytes are those sent and received, with 60 per packet for IP, UDP and
QUIC, acknowledgements and keep-alives included.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulated_circle import Circle, spread


def changes(circle: Circle, count: int) -> None:
    """One contact after the other, watched until everybody has it."""
    times, copies = [], []
    for number in range(count):
        name = circle.change((number * 7 + 1) % len(circle.nodes))
        heard = circle.heard[name]
        circle.run(300, until=lambda heard=heard: len(heard) == len(circle.nodes))  # type: ignore[misc]  # bound now
        times.append(np.array(heard) - heard[0])
        copies.append(circle.copies[name] / len(circle.nodes))
    for title, of in (("half", 50), ("99 %", 99), ("all", 100)):
        print(f"  {title:>5} have it after (s)   median {np.median([np.percentile(t, of) for t in times]):6.1f}")
    print(f"  copies received per node  median {np.median(copies):6.2f}")


def churn(circle: Circle) -> None:
    """Half of the nodes leave at once; the others carry on; they return with new addresses."""
    everybody = range(len(circle.nodes))
    gone = circle.chance.sample(everybody, len(circle.nodes) // 2)
    for number in gone:
        circle.leave(number)
    circle.run(120)
    stayed = [number for number in everybody if number not in set(gone)]
    alone = sum(not circle.nodes[number].links for number in stayed)
    for number in gone:
        circle.come_back(number)
        circle.change(number)
    before = circle.bytes
    seconds = circle.until_agreed(900)
    each = (circle.bytes - before) / len(circle.nodes)
    print(f"  2 min after half left: {alone} of the others without a link")
    print(f"  all returned with new addresses: all agree after {seconds:.1f} s, {each / 1024:.0f} KiB per node")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="*", default=[50, 200, 1000])
    parser.add_argument("--large", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for members in options.members:
        print(f"{members} members", flush=True)
        circle = Circle(members, options.seed)
        circle.run(120)
        rate = circle.rate(120)
        print(f"  at rest: {rate:.0f} B/s per node, {rate * 60 / 1024:.0f} KiB per minute")
        changes(circle, 10)
        churn(circle)
    for members in options.large:
        heard, copies = spread(members, 2_048, options.seed)
        reached = heard[np.isfinite(heard)]
        half, most, last = np.percentile(reached, [50, 99, 100])
        print(f"{members} members, each record kept by {len(heard)} around its signer (coarse)")
        share = 100 * len(reached) / len(heard)
        print(f"  half {half:.1f} s, 99 % {most:.1f} s, last {last:.1f} s, {share:.1f} % reached")
        print(f"  {copies:.2f} copies sent per keeper", flush=True)


if __name__ == "__main__":
    main()
