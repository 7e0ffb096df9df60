"""What can be set: config, key, completion."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Literal

import typer

from pares.api import schemas
from pares.cli.client import Client, quote
from pares.cli.complete import SettingName
from pares.cli.connect import configure, run, terminal
from pares.cli.figures import table
from pares.cli.terminal import Terminal
from pares.config import FILE_NAME, change, describe, find_home, find_setting, load

config = typer.Typer(help="List and change settings.")
key = typer.Typer(help="List, make and revoke keys for programs that use your node.")


@config.callback(invoke_without_command=True)
def _config(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_settings(ctx)


@key.callback(invoke_without_command=True)
def _key(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_keys(ctx)


@config.command("list")
def list_settings(ctx: typer.Context) -> None:
    """List all settings: value, and where it comes from."""
    out = terminal(ctx)
    settings = describe(configure(out))
    rows = ((s.name, _text(s.value), s.source, s.description) for s in settings)
    out.result(schemas.Settings(settings), table(("NAME", "VALUE", "FROM", "MEANING"), rows))


@config.command("get")
def get_setting(ctx: typer.Context, name: SettingName) -> None:
    """Print the value of a setting."""
    out = terminal(ctx)
    find_setting(name)
    (setting,) = (s for s in describe(configure(out)) if s.name == name)
    out.result(setting, _text(setting.value))


@config.command("set")
def set_setting(
    ctx: typer.Context,
    name: SettingName,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="For example 11435, 64k, 5m, true, or a,b,c.")],
) -> None:
    """Write a setting into the file of your node."""
    _change(ctx, name, value)


@config.command("unset")
def unset_setting(ctx: typer.Context, name: SettingName) -> None:
    """Take a setting out of the file: back to its default."""
    _change(ctx, name, None)


@config.command("path")
def settings_path(ctx: typer.Context) -> None:
    """Print where the file is."""
    out = terminal(ctx)
    path = str(find_home(out.options.home) / FILE_NAME)
    out.result({"path": path}, path)


def _change(ctx: typer.Context, name: str, value: str | None) -> None:
    out = terminal(ctx)
    home = find_home(out.options.home)
    change(home, name, value)
    loaded = load(home)
    (setting,) = (s for s in describe(loaded) if s.name == name)
    out.result(setting, f"{name} is {_text(setting.value)} ({setting.source}).")
    if setting.source == "environment":
        out.warn(f"{setting.environment} in the environment is stronger than the file.")
    if setting.restart_needed and loaded.node_file.exists():
        out.note("A node that is running takes it up when it starts again.")


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case _:
            return "none" if value is None else str(value)


@key.command("new")
def new_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything, not only use models.")] = False,
) -> None:
    """Make a key. It is shown this once."""

    async def work(node: Client, out: Terminal) -> None:
        scopes: tuple[Literal["infer", "admin"], ...] = ("infer", "admin") if admin else ("infer",)
        made = await node.post("/keys", schemas.NewKey, schemas.KeyRequest(name, scopes))
        out.result(made, made.key)
        out.note("Keep it now: it is not shown again.")

    run(ctx, work)


@key.command("ls")
def list_keys(ctx: typer.Context) -> None:
    """List the keys."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get("/keys", schemas.Keys)
        rows = [_key_cells(one) for one in found.keys]
        header = ("ID", "NAME", "MAY", "MADE", "LAST USED", "STATE")
        out.result(found, table(header, rows) if rows else "There are no keys.")

    run(ctx, work)


@key.command("rm")
def remove_key(
    ctx: typer.Context, ids: Annotated[list[str], typer.Argument(metavar="ID", help="As `pares key ls` shows them.")]
) -> None:
    """Revoke keys: what uses them is locked out at once."""

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


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell", "pwsh"], typer.Argument(metavar="SHELL")],
) -> None:
    """Print a script that makes your shell complete `pares`.

    For example, in ~/.bashrc: eval "$(pares completion bash)"
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # made there, exported nowhere

    script = get_completion_script(prog_name="pares", complete_var="_PARES_COMPLETE", shell=shell)
    terminal(ctx).result({"script": script}, script)
