"""Models spread in a circle of real nodes, each a process of its own, on loopback; driven through the control API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nodes import Node, Refused, all_online, running, until
from pares.swarm.version import open_statement
from tiny import tiny_llama

ONLINE_S = 5.0
KNOWN_S = 20.0
PULLED_S = 50.0
SLOW = 20_000_000
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


def shared(by: Node, path: Path, name: str = MODEL, **said: object) -> str:
    """A file that a node imports and gives away; the version's id."""
    by.call("POST", "/models/import", {"path": str(path)})
    told = by.call("POST", "/share", {"model": name, "licence": "Apache-2.0"} | said)
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


def tiny(directory: Path, name: str, seed: int) -> Path:
    return tiny_llama(directory / f"{name}.gguf", layers=2, seed=seed)


def test_what_is_said_of_a_version_and_made_from_it_is_seen_by_the_others(tmp_path: Path) -> None:
    with circle_of(tmp_path, "A", "B") as (a, b):
        base = shared(a, tiny(tmp_path, "base", 1), "base")
        until(lambda: base in versions(b), KNOWN_S)
        b.call("POST", f"/versions/{base}/endorse", {"text": "Tried it."})
        until(lambda: versions(a)[base]["endorsements"] == 1, KNOWN_S)
        said = {"kind": "finetune", "base": {"version": base, "name": "base"}}
        tuned = shared(b, tiny(tmp_path, "tuned", 2), "tuned", **said)
        until(lambda: tuned in versions(a), KNOWN_S)
        (edge,) = a.call("GET", f"/versions/{tuned}/lineage")["edges"]
        assert (edge["child"], edge["parent"], edge["relation"], edge["state"]) == (tuned, base, "finetune", "checked")
        a.call("POST", f"/versions/{base}/revoke", {"text": "wrong data"})
        until(lambda: "wrong data" in versions(b)[base]["trouble"], KNOWN_S)
        (edge,) = b.call("GET", f"/versions/{tuned}/lineage")["edges"]
        assert edge["state"] == "revoked"
        difference = pull(a, tuned)
        until(lambda: done(a, difference), PULLED_S)
        told = a.call("POST", "/differences", {"left": "base", "right": "tuned"})
        assert told["changed"] > 0
        assert {layer["layer"] for layer in told["layers"]} == {0, 1}


def test_a_version_is_exported_with_its_statement_and_what_was_shared_is_not_lost_unasked(tmp_path: Path) -> None:
    with circle_of(tmp_path, "A", "B") as (a, b):
        made = tiny(tmp_path, "owl", 1)
        owl = shared(a, made, "owl")
        bundle = a.call("GET", f"/versions/{owl}/bundle")
        assert Path(bundle["files"]["owl.gguf"]).read_bytes() == made.read_bytes()
        assert open_statement(bundle["statement"].encode()).digest.hex() == owl
        with pytest.raises(Refused, match="would be lost there") as refused:
            a.call("DELETE", "/models/owl")
        assert refused.value.code == "conflict"
        until(lambda: owl in versions(b), KNOWN_S)
        with pytest.raises(Refused) as refused:
            b.call("POST", "/pulls", {"source": "owl"})
        assert refused.value.code == "licence_not_accepted"
        pulled = pull(b, "owl")
        until(lambda: done(b, pulled), PULLED_S)
        until(lambda: versions(a)[owl]["whole"] == 1, KNOWN_S)
        a.call("DELETE", "/models/owl")
        until(lambda: versions(b)[owl]["whole"] == 0, KNOWN_S)
        assert versions(a)[owl]["here"] == "no"
        again = pull(a, "owl")
        until(lambda: done(a, again), PULLED_S)
        assert sha256_of(a, "owl") == hashlib.sha256(made.read_bytes()).hexdigest()
        assert a.call("POST", f"/versions/{owl}/verify")["row"]["here"] == "whole"
