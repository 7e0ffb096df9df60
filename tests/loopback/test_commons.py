"""Models spread in a circle of real nodes, each a process of its own, on loopback; driven through the control API."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nodes import Node, Refused, all_online, node, running, until

ONLINE_S = 5.0
KNOWN_S = 20.0
PULLED_S = 50.0
SLOW = 12_000_000
"""Bytes per second: a few seconds for the 98 MB of SmolLM2."""
MODEL = "smol"
SETTINGS: dict[str, Any] = {"transport_loopback_only": True, "swarm_reserve_bytes": 0, "swarm_keep": False}


@pytest.fixture
def weights(smollm2: Path, tmp_path: Path) -> Path:
    """SmolLM2 under a name that no catalogue knows."""
    made = tmp_path / f"{MODEL}.gguf"
    made.symlink_to(smollm2)
    return made


@contextmanager
def circle_of(directory: Path, *names: str, **settings: object) -> Iterator[tuple[Node, ...]]:
    """Nodes that are in one circle and see each other."""
    nodes = tuple(Node(directory / name, name, **(SETTINGS | settings)) for name in names)
    with running(*nodes):
        first, *others = nodes
        link = first.invite(first.create("Friends", internet=False), uses=max(len(others), 1))
        for each in others:
            each.join(link)
        until(all_online(*nodes), ONLINE_S)
        yield nodes


def shared(by: Node, path: Path) -> str:
    """A file that a node imports and gives away; the version's id."""
    by.call("POST", "/models/import", {"path": str(path)})
    told = by.call("POST", "/share", {"model": MODEL, "licence": "Apache-2.0"})
    return str(told["row"]["id"])


def versions(of: Node) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in of.call("GET", "/versions")["versions"]}


def pull(of: Node, source: str, **how: object) -> str:
    """Begin; the id."""
    return str(of.call("POST", "/pulls", {"source": source, "accept_licence": True} | how)["id"])


def state(of: Node, pulled: str) -> dict[str, Any]:
    found: dict[str, Any] = of.call("GET", f"/pulls/{pulled}")
    return found


def done(of: Node, pulled: str) -> bool:
    now = state(of, pulled)
    assert now["state"] != "failed", now
    return bool(now["state"] == "done")


def has(of: Node, pulled: str, share: float) -> bool:
    now = state(of, pulled)
    assert now["state"] != "failed", now
    return bool(now["total"] and now["bytes"] >= share * now["total"])


def sha256_of(of: Node, model: str = MODEL) -> str:
    path = Path(of.call("GET", f"/models/{model}")["path"])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_pull_at_once_the_first_holder_dies_and_returns_and_all_end_with_the_same_bits(
    tmp_path: Path, weights: Path
) -> None:
    with circle_of(tmp_path, "A", "B", "C", swarm_upload_limit=SLOW) as (a, b, c):
        version = shared(a, weights)
        until(lambda: version in versions(b) and version in versions(c), KNOWN_S)
        assert versions(b)[version]["whole"] == 1
        pulls = {b: pull(b, version), c: pull(c, version)}
        until(lambda: all(has(of, pulled, 0.4) for of, pulled in pulls.items()), PULLED_S)
        a.kill()
        before = {of: state(of, pulled)["bytes"] for of, pulled in pulls.items()}
        until(lambda: all(state(of, pulled)["bytes"] > before[of] for of, pulled in pulls.items()), PULLED_S)
        a.start()
        a.ready()
        for of, pulled in pulls.items():
            until(lambda of=of, pulled=pulled: done(of, pulled), PULLED_S)  # type: ignore[misc]
        wanted = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert sha256_of(b) == sha256_of(c) == wanted
        until(lambda: versions(a)[version]["whole"] == 2, KNOWN_S)
        begun = b.call("POST", "/conversations", {"model": MODEL})
        assert begun["row"]["model"] == MODEL
        loaded = b.call("POST", f"/models/{MODEL}/load", {}, timeout_s=60)
        assert loaded["state"] == "ready"
