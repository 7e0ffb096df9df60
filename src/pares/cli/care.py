"""Looking after the node: doctor, logs, path, version."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pares import __version__
from pares.api.schemas import Check, Checks, LogLine, LogLines, ModelDetail, NodeStatus, Settings
from pares.cli.client import Client, quote
from pares.cli.complete import model_names
from pares.cli.connect import run, terminal
from pares.cli.terminal import Terminal
from pares.config import find_home

LOOK_S = 0.5
SECRET = re.compile(
    r"((?:token|key|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+)?)[^\s\"'&,}]+", re.IGNORECASE
)
SIGNS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}


def doctor(
    ctx: typer.Context,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write a zip to show to somebody who helps you.")
    ] = False,
) -> None:
    """Check what could be wrong. Exit code 1 if there is a problem."""

    async def work(node: Client, out: Terminal) -> int:
        found = await node.get("/doctor", Checks)
        out.result(found, "\n".join(map(_check_text, found.checks)))
        if bundle:
            path = await _write_bundle(node, found)
            out.note(f"Wrote {path}: no prompts, answers or keys, and your name blotted out. Look before you send it.")
        return int(any(check.state == "problem" for check in found.checks))

    run(ctx, work)


def logs(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=1000, help="How many of the latest.")] = 100,
) -> None:
    """Show the node's log. Prompts and answers are never in it."""

    async def work(node: Client, out: Terminal) -> None:
        import asyncio

        last = 0
        while True:
            for line in (await node.get(f"/logs?after={last}&limit={lines}", LogLines)).lines:
                last = line.id
                out.result(line, _line_text(line))
            if not follow:
                return
            await asyncio.sleep(LOOK_S)

    run(ctx, work)


def path(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Print where its file is.", autocompletion=model_names)
    ] = "",
) -> None:
    """Print where everything of your node lies, or a model's file."""
    out = terminal(ctx)
    if not model:
        home = str(find_home(out.options.home))
        out.result({"path": home}, home)
        return

    async def work(node: Client, out: Terminal) -> None:
        file = (await node.get(f"/models/{quote(model)}", ModelDetail)).path
        out.result({"path": file}, file)

    run(ctx, work)


def version(ctx: typer.Context) -> None:
    """Print the version of Pares."""
    terminal(ctx).result({"version": __version__}, __version__)


def _check_text(check: Check) -> str:
    hint = f"\n{' ' * 10}{check.hint}" if check.hint else ""
    return f"{SIGNS[check.state]:10}{check.name}: {check.message}{hint}"


def _line_text(line: LogLine) -> str:
    fields = " ".join(f"{name}={value}" for name, value in line.fields.items())
    return f"{line.time} {line.level:7} {line.event} {fields}".rstrip()


async def _write_bundle(node: Client, found: Checks) -> Path:
    told = await node.get("/status", NodeStatus)
    parts: Mapping[str, object] = {
        "status.json": told,
        "checks.json": found,
        "settings.json": await node.get("/settings", Settings),
        "log.json": await node.get("/logs?limit=1000", LogLines),
    }
    path = Path(f"pares-doctor-{datetime.now():%Y%m%d-%H%M%S}.zip")
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, blot_out(msgspec.json.format(msgspec.json.encode(part)).decode(), told.machine.name))
    return path


def blot_out(text: str, machine: str) -> str:
    """JSON text without the person's and the machine's name, and without anything that opens a door."""
    home = Path.home()
    names = {str(home): "~", json.dumps(str(home))[1:-1]: "~", home.name: "USER", machine: "MACHINE"}
    for name, instead in names.items():
        if len(name) > 2:
            text = re.sub(re.escape(name), instead, text, flags=re.IGNORECASE)
    return SECRET.sub(r"\1…", text)
