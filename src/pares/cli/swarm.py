"""The swarm: what is fetched and given away, and how much of it may be."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, NoReturn

import typer

from pares.api.commons import Source, Swarm, SwarmChange, TorrentRow
from pares.cli.client import Client
from pares.cli.connect import run
from pares.cli.figures import facts, rate, size, table
from pares.cli.terminal import Terminal, on_one_line
from pares.cli.watching import display
from pares.config import parse_count
from pares.errors import BadRequest

LOOK_S = 1.0

swarm = typer.Typer()


def bytes_per_second(text: str) -> int:
    """A rate from the command line, as an option's parser."""
    try:
        found = parse_count(text.removesuffix("/s"))
    except ValueError:
        found = -1
    if found < 0:
        raise typer.BadParameter(f"{text!r} is not a rate such as 500k or 10MB; 0 is none.")
    return found


@swarm.callback(invoke_without_command=True)
def show_swarm(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, until Ctrl-C.")] = False,
) -> None:
    """Show what is fetched and given away, and with whom; switch it, limit it.

    RATIO is what was given over what was fetched.
    """
    if ctx.invoked_subcommand is not None:
        return

    async def work(node: Client, out: Terminal) -> None:
        if watch:
            await _watch(node, out)
        found = await node.get("/swarm", Swarm)
        out.result(found, _listing(found))

    run(ctx, work)


@swarm.command("on")
def on(ctx: typer.Context) -> None:
    """Give away what is shared, from now on."""
    _change(ctx, SwarmChange(seeding=True))


@swarm.command("off")
def off(ctx: typer.Context) -> None:
    """Give nothing away until you switch it on again."""
    _change(ctx, SwarmChange(seeding=False))


@swarm.command("limit")
def limit(
    ctx: typer.Context,
    up: Annotated[
        int | None,
        typer.Option("--up", parser=bytes_per_second, metavar="RATE", help="Bytes per second given: 2MB; 0: no limit."),
    ] = None,
    down: Annotated[
        int | None,
        typer.Option("--down", parser=bytes_per_second, metavar="RATE", help="Bytes per second fetched, likewise."),
    ] = None,
) -> None:
    """Limit how fast is given and fetched, in all."""
    if up is None and down is None:
        raise BadRequest("Nothing was said to limit.", hint="For example: `pares swarm limit --up 2MB --down 10MB`.")
    _change(ctx, SwarmChange(upload_limit=up, download_limit=down))


def _change(ctx: typer.Context, change: SwarmChange) -> None:
    async def work(node: Client, out: Terminal) -> None:
        now = await node.patch("/swarm", Swarm, change)
        out.result(now, _switches(now))

    run(ctx, work)


async def _watch(node: Client, out: Terminal) -> NoReturn:
    import asyncio

    with display(out, _listing, _Changes(out)) as show:
        while True:
            show(await node.get("/swarm", Swarm))
            await asyncio.sleep(LOOK_S)


class _Changes:
    """A line for every file whose state changes, and for every tenth of it."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._said: dict[str, tuple[str, int]] = {}

    def __call__(self, found: Swarm) -> None:
        for row in found.torrents:
            now = row.state, 10 * row.done // row.wanted if row.wanted else 0
            if self._said.get(row.root) != now:
                self._said[row.root] = now
                cells = ", ".join(filter(None, _cells(row)[1:]))
                self._out.show(f"{datetime.now():%H:%M:%S}   {_name(row)}: {cells}")


def _switches(now: Swarm) -> str:
    limits = [
        f"{way} at most {rate(most)}" for way, most in (("up", now.upload_limit), ("down", now.download_limit)) if most
    ]
    return ("What is shared is given away" if now.seeding else "Nothing is given away") + "".join(
        f", {each}" for each in limits
    )


def _listing(found: Swarm) -> str:
    rows = found.torrents
    told = facts(
        [
            ("swarm", _switches(found)),
            ("fetching", rate(sum(row.down_bytes_per_s for row in rows))),
            ("giving", rate(sum(row.up_bytes_per_s for row in rows))),
            ("fetched", f"{size(found.downloaded)} so far"),
            ("given", f"{size(found.uploaded)} so far{_ratio(found.uploaded, found.downloaded, ', ratio ')}"),
            ("kept", f"{size(found.kept_bytes)} of {size(found.keep_bytes)} for your circles"),
            ("TCP port", found.port or "none: nothing is open"),
        ]
    )
    header = ("NAME", "STATE", "DONE", "DOWN", "UP", "RATIO", "PEERS", "NOTE")
    return f"{told}\n\n{table(header, map(_cells, rows))}" if rows else told


def _cells(row: TorrentRow) -> tuple[str, ...]:
    share = row.done / row.wanted if row.wanted else 1.0
    return (
        _name(row),
        row.state,
        f"{int(100 * share)} % of {size(row.wanted)}",
        rate(row.down_bytes_per_s),
        rate(row.up_bytes_per_s),
        _ratio(row.uploaded, row.downloaded),
        _peers(row.sources),
        on_one_line(row.error or (f"{size(row.wasted)} came in vain" if row.wasted else "")),
    )


def _name(row: TorrentRow) -> str:
    return on_one_line(row.name or row.root[:8])


def _ratio(given: int, fetched: int, before: str = "") -> str:
    return f"{before}{given / fetched:.2f}" if fetched else ""


def _peers(sources: Iterable[Source]) -> str:
    names = [on_one_line(source.peer.name) if source.peer else source.address for source in sources]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
