"""Models in memory: ps, stop."""

from __future__ import annotations

from types import NoneType

import typer

from pares.api.schemas import Loaded, NodeStatus
from pares.cli.client import Client, quote
from pares.cli.complete import ModelName
from pares.cli.connect import run
from pares.cli.figures import size, table, until
from pares.cli.terminal import Terminal


def ps(ctx: typer.Context) -> None:
    """List the models in memory."""

    async def work(node: Client, out: Terminal) -> None:
        loaded = (await node.get("/status", NodeStatus)).loaded
        header = ("NAME", "STATE", "MEMORY", "CONTEXT", "PROFILE", "KERNELS", "RUNNING", "WAITING", "TOKENS/S", "UNTIL")
        text = table(header, map(_cells, loaded)) if loaded else "No model is in memory."
        out.result({"loaded": loaded}, text)

    run(ctx, work)


def stop(ctx: typer.Context, model: ModelName) -> None:
    """Take a model out of memory. What it is answering ends."""

    async def work(node: Client, out: Terminal) -> None:
        await node.post(f"/models/{quote(model)}/unload", NoneType)
        out.result({"name": model}, f"{model} is no longer in memory.")

    run(ctx, work)


def _cells(loaded: Loaded) -> tuple[str, ...]:
    return (
        loaded.name,
        f"loading {loaded.progress:.0%}" if loaded.state == "loading" else loaded.state,
        size(loaded.memory_bytes),
        str(loaded.context),
        loaded.profile,
        loaded.fingerprint[:8],
        str(loaded.running),
        str(loaded.waiting),
        f"{loaded.tokens_per_s:.1f}" if loaded.tokens_per_s else "",
        until(loaded.expires_at),
    )
