"""Two kinds of keys: API keys of programs (new, ls, rm), and the one that the node itself is known by (show, ...)."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Annotated, Literal

import typer

from pares.api import schemas
from pares.cli.client import Client, quote
from pares.cli.connect import run, terminal
from pares.cli.figures import facts, table
from pares.cli.terminal import Terminal
from pares.config import find_home
from pares.errors import Conflict, NotFound, VerificationFailed

key = typer.Typer(help="API keys (new, ls, rm), and the key of the node itself (show, export, import).")


@key.callback(invoke_without_command=True)
def _key(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_keys(ctx)


# API keys


@key.command("new")
def new_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything, not only use models.")] = False,
) -> None:
    """Make an API key for a program. It is shown this once."""

    async def work(node: Client, out: Terminal) -> None:
        scopes: tuple[Literal["infer", "admin"], ...] = ("infer", "admin") if admin else ("infer",)
        made = await node.post("/keys", schemas.NewKey, schemas.KeyRequest(name, scopes))
        out.result(made, made.key)
        out.note("Keep it now: it is not shown again.")

    run(ctx, work)


@key.command("ls")
def list_keys(ctx: typer.Context) -> None:
    """List the API keys."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get("/keys", schemas.Keys)
        rows = [_key_cells(one) for one in found.keys]
        header = ("ID", "NAME", "MAY", "MADE", "LAST USED", "STATE")
        out.result(found, table(header, rows) if rows else "There are no API keys.")

    run(ctx, work)


@key.command("rm")
def remove_key(
    ctx: typer.Context, ids: Annotated[list[str], typer.Argument(metavar="ID", help="As `pares key ls` shows them.")]
) -> None:
    """Revoke API keys: what uses them is locked out at once."""

    async def work(node: Client, out: Terminal) -> int:
        if not out.confirm(f"Revoke {', '.join(ids)}?"):
            out.note("Nothing was revoked.")
            return 1
        for one in ids:
            await node.delete(f"/keys/{quote(one)}", NoneType)
        out.result({"revoked": ids}, f"Revoked {', '.join(ids)}.")
        return 0

    run(ctx, work)


def _key_cells(one: schemas.Key) -> tuple[str, ...]:
    state = "revoked" if one.revoked else ""
    return one.id, one.name, " ".join(one.scopes), one.created_at[:10], (one.last_used_at or "never")[:10], state


# The node's own key: who it is to its peers.


@key.command("show")
def show_identity(ctx: typer.Context) -> None:
    """Show who your node is to its peers: its id, and five words for it."""
    out = terminal(ctx)
    who = _who(_seed_of(find_home(out.options.home)))
    out.result(who, facts(who.items()))


@key.command("export")
def export_identity(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.", dir_okay=False)],
) -> None:
    """Write who your node is to a file, to keep a copy or to move it to another machine."""
    from pares.store import identity

    out = terminal(ctx)
    seed = _seed_of(find_home(out.options.home))
    if file.exists() and not out.confirm(f"Replace {file}?", unasked=False):
        raise Conflict(f"{file} is there already.", hint="Choose another name, or replace it with -y.")
    identity.save(file, seed)
    out.result({"file": str(file.absolute()), **_who(seed)}, f"Wrote {file}.")
    out.note("Whoever has this file is your node to its peers: keep it where nobody else can read it.")


@key.command("import")
def import_identity(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `pares key export` wrote.", exists=True, dir_okay=False)
    ],
) -> None:
    """Make your node the one that a file tells of. No node may be running at your home.

    Never run the same one on two machines: peers would reach now this, now that.
    """
    from pares.store import identity
    from pares.store.files import claimed

    out = terminal(ctx)
    home = find_home(out.options.home)
    seed = identity.read(file)
    who = _who(seed)
    with claimed(home):
        before = _before(home)
        question = (
            f"Your node becomes {who['words']} and is no longer {before.get('words')}, as its circles know it. Do it?"
        )
        if before.get("id", who["id"]) != who["id"] and not out.confirm(question, unasked=False):
            raise Conflict(f"{home} has an identity already.", hint="`pares key export` it, then replace it with -y.")
        identity.save(home / identity.FILE_NAME, seed)
    out.result(who, f"Your node is {who['words']}.")


def _who(seed: bytes) -> dict[str, str]:
    from pares.circle.words import words
    from pares.wire.signing import Identity

    public = Identity(seed).id
    return {"id": public.hex(), "words": " ".join(words(public))}


def _seed_of(home: Path) -> bytes:
    from pares.store import identity

    try:
        return identity.load(home / identity.FILE_NAME)
    except FileNotFoundError:
        raise NotFound(
            f"There is no node at {home} yet.", hint="`pares up` makes one; `pares key import FILE` takes one in."
        ) from None


def _before(home: Path) -> dict[str, str]:
    try:
        return _who(_seed_of(home))
    except NotFound:
        return {}
    except VerificationFailed:
        return {"id": "", "words": "what a damaged file tells"}
