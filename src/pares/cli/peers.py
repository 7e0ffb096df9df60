"""Peers: who is there, and what they are called here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, NoReturn

import typer

from pares.api.network import Peer, PeerChange, Peers
from pares.cli.client import Client, quote
from pares.cli.connect import run
from pares.cli.figures import since, table
from pares.cli.terminal import Terminal, on_one_line
from pares.cli.watching import display

LOOK_S = 2.0
NOBODY = "There is nobody in your circles but you. `pares invite` makes a link that lets somebody in."

peers = typer.Typer()

PeerName = Annotated[str, typer.Argument(metavar="PEER", help="Their name or id, as `pares peers` shows it.")]


@peers.callback(invoke_without_command=True)
def list_peers(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, until Ctrl-C.")] = False,
) -> None:
    """Show who of your circles is there, and how they are reached; name and block them.

    Online is who answered just now. PATH is direct, lan (in your own network) or relayed.
    """
    if ctx.invoked_subcommand is not None:
        return

    async def work(node: Client, out: Terminal) -> None:
        if watch:
            await _watch(node, out)
        found = (await node.get("/peers", Peers)).peers
        out.result(found, _listing(found))
        for line in _reasons(found):
            out.note(line)

    run(ctx, work)


@peers.command("block")
def block(ctx: typer.Context, peer: PeerName) -> None:
    """Have nothing to do with a peer any more. They are not told."""
    _change(ctx, peer, PeerChange(blocked=True), "{} is blocked.")


@peers.command("unblock")
def unblock(ctx: typer.Context, peer: PeerName) -> None:
    """Take a block back."""
    _change(ctx, peer, PeerChange(blocked=False), "{} is not blocked any more.")


@peers.command("name")
def name(
    ctx: typer.Context,
    peer: PeerName,
    new_name: Annotated[
        str, typer.Argument(metavar="NAME", help="What you call them; empty: as they call themselves.")
    ],
) -> None:
    """Give a peer a name of your own. Only you see it."""
    _change(ctx, peer, PeerChange(name=new_name), "They are now called {}.")


def _change(ctx: typer.Context, peer: str, change: PeerChange, text: str) -> None:
    async def work(node: Client, out: Terminal) -> None:
        now = await node.patch(f"/peers/{quote(peer)}", Peer, change)
        out.result(now, text.format(f"{on_one_line(now.name)} ({now.words})"))

    run(ctx, work)


async def _watch(node: Client, out: Terminal) -> NoReturn:
    """Show how the peers are, again and again, until cancelled."""
    import asyncio

    with display(out, lambda found: "\n".join([_listing(found), *_reasons(found)]), _Changes(out)) as show:
        while True:
            show((await node.get("/peers", Peers)).peers)
            await asyncio.sleep(LOOK_S)


class _Changes:
    """A line for whoever came, went, or is reached in another way."""

    def __init__(self, out: Terminal) -> None:
        self._out = out
        self._said: dict[str, str] = {}

    def __call__(self, found: Sequence[Peer]) -> None:
        for peer in found:
            how = f"{_presence(peer)} {peer.path} {_reason(peer)}".rstrip()
            if self._said.get(peer.id) != how:
                self._said[peer.id] = how
                self._out.show(f"{datetime.now():%H:%M:%S}   {on_one_line(peer.name)} ({peer.words}): {how}")


def _listing(found: Sequence[Peer]) -> str:
    rows = [
        (
            on_one_line(peer.name),
            peer.words,
            _presence(peer),
            "" if peer.rtt_ms is None else f"{peer.rtt_ms:.{0 if peer.rtt_ms >= 10 else 1}f} ms",
            peer.path,
            since(peer.since),
            on_one_line(", ".join(peer.offers)),
        )
        for peer in found
    ]
    return table(("NAME", "WORDS", "ONLINE", "RTT", "PATH", "SINCE", "OFFERS"), rows) if rows else NOBODY


def _reasons(found: Sequence[Peer]) -> list[str]:
    return [f"{on_one_line(peer.name)}: {_reason(peer)}" for peer in found if _reason(peer)]


def _reason(peer: Peer) -> str:
    return "" if peer.online else on_one_line(peer.reason)


def _presence(peer: Peer) -> str:
    return "blocked" if peer.blocked else "yes" if peer.online else "no"
