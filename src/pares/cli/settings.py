"""What can be set: config, completion."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pares.api import schemas
from pares.cli.complete import SettingName
from pares.cli.connect import configure, terminal
from pares.cli.figures import table
from pares.config import FILE_NAME, change, describe, find_home, find_setting, load

config = typer.Typer(help="List and change settings.")


@config.callback(invoke_without_command=True)
def _config(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_settings(ctx)


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
