"""Downloads: pull. (asyncio is imported late: `pares --help` does not need it.)"""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import typer

from pares.api.schemas import PullChange, PullPlan, PullRequest, PullStatus
from pares.cli.client import Client, error_of, quote
from pares.cli.complete import version_names
from pares.cli.connect import run
from pares.cli.figures import duration, facts, size
from pares.cli.swarm import bytes_per_second
from pares.cli.terminal import Terminal, on_one_line, printable
from pares.errors import LicenceNotAccepted

LOOK_S = 0.25
LICENCE_LINES = 20
"""Of a licence, shown before the question."""

Priority = Literal["low", "normal", "high"]
PRIORITIES = get_args(Priority)
UNCHANGED = PullChange()


def pull(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A name of the catalogue, a version of your circles, https://…, hf:OWNER/REPO/FILE, or a file.",
            autocompletion=version_names,
        ),
    ],
    name: Annotated[str, typer.Option(help="What to call it here.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and fetch nothing.")] = False,
    layers: Annotated[
        str,
        typer.Option("--layers", metavar="A-B", help="Only a part: layers A to before B, A-B+head, head, or header."),
    ] = "",
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="You agree to its licence.")] = False,
    priority: Annotated[
        Priority | None, typer.Option("--priority", help="Beside other downloads; normal if not said.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", parser=bytes_per_second, metavar="RATE", help="Bytes per second at most: 2MB."),
    ] = None,
) -> None:
    """Fetch a model; goes on where it was interrupted.

    Looks for room on the disk before the first byte, and compares the hash after the last. From a circle it comes from
    all members who have it at once, and its licence is shown once. Priority and limit of a download that has begun are
    changed by asking for it again.
    """
    request = PullRequest(
        source=source,
        name=name,
        layers=layers,
        accept_licence=accept_licence,
        priority=PRIORITIES.index(priority or "normal"),
        limit_bytes_per_s=limit or 0,
    )
    change = PullChange(None if priority is None else request.priority, limit)

    async def work(node: Client, out: Terminal) -> int:
        if dry_run:
            plan = await plan_of(node, request)
            out.result(plan, _plan_text(plan))
            return 0 if plan.fits_disk else 4
        await fetch(node, out, request, change)
        return 0

    run(ctx, work)


async def plan_of(node: Client, request: PullRequest) -> PullPlan:
    """What a pull would take."""
    return await node.post("/pulls", PullPlan, _ready(request, dry_run=True))


async def fetch(
    node: Client, out: Terminal, request: PullRequest, change: PullChange = UNCHANGED, *, quietly: bool = False
) -> PullStatus:
    """Pull, show how far it is, and return when it is done. Cancelled: paused, and what is there stays.

    `change`: also where it has begun already.
    Raises LicenceNotAccepted if nobody could be asked, or did not agree.
    """
    import asyncio

    source = on_one_line(request.source)
    try:
        status = await node.post("/pulls", PullStatus, _ready(request))
    except LicenceNotAccepted:
        await _ask_for_licence(node, out, request)
        status = await node.post("/pulls", PullStatus, _ready(request, accept_licence=True))
    if change != UNCHANGED and (status.priority, status.limit_bytes_per_s) != (
        request.priority,
        request.limit_bytes_per_s,
    ):
        status = await node.patch(f"/pulls/{quote(status.id)}", PullStatus, change)
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


async def _ask_for_licence(node: Client, out: Terminal, request: PullRequest) -> None:
    """Show the beginning of a licence to whoever sits there, and ask once."""
    plan = await plan_of(node, request)
    source, licence = shlex.quote(request.source), on_one_line(plan.licence) or "a licence without a name"
    message = f"{on_one_line(plan.name)} is under {licence}, which you have not agreed to yet."
    read = f"`pares show {source} --licence` prints all of it"
    if out.options.yes or not out.interactive:
        raise LicenceNotAccepted(message, hint=f"{read}, `pares pull {source} --accept-licence` agrees to it.")
    lines = plan.licence_text.strip().splitlines()
    more = f"\n({len(lines) - LICENCE_LINES} more lines: {read}.)" if len(lines) > LICENCE_LINES else ""
    out.aside(printable("\n".join([message, "", *lines[:LICENCE_LINES]]) + more + "\n\n"))
    if not out.confirm("Do you agree to it?"):
        raise LicenceNotAccepted("You did not agree to the licence; nothing was fetched.")


def _ready(request: PullRequest, **changes: bool) -> PullRequest:
    """As the node needs it."""
    return msgspec.structs.replace(request, source=_whole_path(request.source), **changes)


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
            words = on_one_line(f"{status.name}: {status.state}" + (f" from {status.origin}" if status.origin else ""))
            progress.update(task, description=words, completed=status.bytes, total=status.total or None)

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
            origin = f" from {status.origin}" if status.origin and fetching else ""
            self._out.note(on_one_line(f"{status.name}: {status.state}{how_far}{origin}{left}"))


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
            ("licence", plan.licence + ("" if plan.licence_accepted else ", which you have not agreed to yet")),
            ("version", plan.version),
            ("held by", f"{plan.holders} of the members who are there" if plan.version else ""),
            ("SHA-256", plan.sha256),
        ]
    )
