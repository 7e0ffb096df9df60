"""Downloads: pull. (asyncio is imported late: `pares --help` does not need it.)"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pares.api.schemas import PullPlan, PullRequest, PullStatus
from pares.cli.client import Client, error_of, quote
from pares.cli.connect import run
from pares.cli.figures import duration, facts, size
from pares.cli.terminal import Terminal, printable

LOOK_S = 0.25


def pull(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A name of the catalogue, https://…, hf:OWNER/REPO/FILE, or a file.")
    ],
    name: Annotated[str, typer.Option(help="What to call it here.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and fetch nothing.")] = False,
) -> None:
    """Fetch a model; goes on where it was interrupted.

    Looks for room on the disk before the first byte, and compares the hash after the last.
    """

    async def work(node: Client, out: Terminal) -> int:
        if dry_run:
            plan = await plan_of(node, source, name)
            out.result(plan, _plan_text(plan))
            return 0 if plan.fits_disk else 4
        await fetch(node, out, source, name)
        return 0

    run(ctx, work)


async def plan_of(node: Client, source: str, name: str = "") -> PullPlan:
    """What a pull would take."""
    return await node.post("/pulls", PullPlan, PullRequest(_whole_path(source), name, dry_run=True))


async def fetch(node: Client, out: Terminal, source: str, name: str = "", *, quietly: bool = False) -> PullStatus:
    """Pull, show how far it is, and return when it is done. Cancelled: paused, and what is there stays."""
    import asyncio

    status = await node.post("/pulls", PullStatus, PullRequest(_whole_path(source), name))
    try:
        with _display(out, quietly=quietly) as display:
            async with aclosing(_follow(node, status)) as steps:
                async for status in steps:
                    display(status)
    except asyncio.CancelledError:
        await node.post(f"/pulls/{quote(status.id)}/pause", PullStatus)
        out.note(f"Paused at {size(status.bytes)}. `pares pull {source}` goes on from there.")
        raise
    if status.state != "done":
        message = status.error or f"The download of {status.name} was {status.state}."
        raise error_of(status.code or "conflict", message, f"`pares pull {source}` goes on where it stopped.")
    return status


async def _follow(node: Client, status: PullStatus) -> AsyncGenerator[PullStatus, None]:
    """Every change, until it ends."""
    import asyncio

    yield status
    while status.state not in ("done", "failed", "paused"):
        await asyncio.sleep(LOOK_S)
        seen, status = status, await node.get(f"/pulls/{quote(status.id)}", PullStatus)
        if status != seen:
            yield status


@contextmanager
def _display(out: Terminal, *, quietly: bool) -> Iterator[Callable[[PullStatus], None]]:
    if out.options.json:
        yield (lambda status: None) if quietly else out.json_line
    elif out.animated:
        with _bar(out) as display:
            yield display
    else:
        yield _Tenths(out)


@contextmanager
def _bar(out: Terminal) -> Iterator[Callable[[PullStatus], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, no_color=out.options.no_color or None)) as progress:
        task = progress.add_task("", total=None)

        def display(status: PullStatus) -> None:
            words = f"{status.name}: {status.state}" + (f" from {status.origin}" if status.origin else "")
            progress.update(task, description=printable(words), completed=status.bytes, total=status.total or None)

        yield display


class _Tenths:
    """A line whenever the state changes, and one every 10 %."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._said: tuple[str, int] | None = None

    def __call__(self, status: PullStatus) -> None:
        tenth = 10 * status.bytes // status.total if status.total and status.state == "fetching" else 0
        if self._said != (status.state, tenth):
            self._said = status.state, tenth
            fetching = status.state == "fetching"
            how_far = f" {10 * tenth} % of {size(status.total)}" if status.total and fetching else ""
            left = f", {duration(status.eta_s)} left" if status.eta_s and fetching else ""
            self._out.note(f"{status.name}: {status.state}{how_far}{left}")


def _whole_path(source: str) -> str:
    """The node has another working directory: a file that is here gets its whole path."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.is_file() else source


def _plan_text(plan: PullPlan) -> str:
    enough = "enough" if plan.fits_disk else f"{size(plan.disk_needed - plan.disk_free)} too little"
    return facts(
        [
            ("model", plan.name),
            ("size", size(plan.size)),
            ("disk", f"needs {size(plan.disk_needed)}, {size(plan.disk_free)} free: {enough}"),
            ("fit", plan.fit),
            ("memory", plan.need.text if plan.need else ""),
            ("licence", plan.licence),
            ("SHA-256", plan.sha256),
        ]
    )
