"""All verbs, and the options that every one of them understands."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from io import TextIOWrapper
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # made there, exported nowhere
from typer.core import TyperGroup, TyperOption
from typer.main import get_group

from pares import __version__
from pares.cli import (
    care,
    chat,
    circles,
    inspect,
    keys,
    lifecycle,
    memory,
    models,
    peers,
    pull,
    settings,
    sharing,
    swarm,
    versions,
)
from pares.cli.terminal import Options, Terminal
from pares.errors import LocalError, ParesError

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

HELP = "Open-weight models on your own machine. Without a verb: start the node and open its page."
EPILOG = "The options above work with every verb, before it or after it."
INTERRUPTED = 130
UNWRITABLE = (errno.ENOSPC, errno.EIO)
"""What writing the output may fail with, other than a reader who has seen enough."""

SECTIONS: Mapping[str, Mapping[str, Callable[..., None] | typer.Typer]] = {
    "Talk": {"run": chat.run_model, "chat": chat.chat, "ask": chat.ask},
    "Models": {
        "pull": pull.pull,
        "import": models.import_files,
        "list": models.list_models,
        "show": models.show,
        "cp": models.copy,
        "create": models.create,
        "rm": models.remove,
        "ps": memory.ps,
        "stop": memory.stop,
        "inspect": inspect.inspect,
        "diff": inspect.diff,
        "verify": versions.verify,
    },
    "Commons": {
        "find": versions.find,
        "share": sharing.share,
        "unshare": sharing.unshare,
        "lineage": versions.lineage,
        "export": versions.export,
        "endorse": versions.endorse,
        "revoke": versions.revoke,
        "swarm": swarm.swarm,
    },
    "Circles": {"circle": circles.circle, "invite": circles.invite, "join": circles.join, "peers": peers.peers},
    "Node": {
        "up": lifecycle.up,
        "down": lifecycle.down,
        "status": lifecycle.status,
        "doctor": care.doctor,
        "logs": care.logs,
        "path": care.path,
        "version": care.version,
        "completion": settings.completion,
    },
    "Settings": {"config": settings.config, "key": keys.key},
}
ALIASES = {"ls": models.list_models, "search": versions.find, "serve": lifecycle.up, "start": lifecycle.up}


class Verbs(TyperGroup):
    """The verbs, in sections."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the part of the help that lists them."""
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in verbs])


def _remember(ctx: typer.Context, param: typer.CallbackParam, value: bool | Path | None) -> None:
    """Note an option that was given, before or after the verb."""
    if value and param.name:
        setattr(ctx.obj, param.name, value)


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


def _shared(*names: str, what: str, metavar: str | None = None) -> object:
    """An option that every verb has."""
    return typer.Option(*names, help=what, metavar=metavar, callback=_remember, expose_value=False)


def _root(
    ctx: typer.Context,
    json: Annotated[bool, _shared("--json", what="Results, progress and errors as JSON.")] = False,
    quiet: Annotated[bool, _shared("-q", "--quiet", what="Nothing but results and errors.")] = False,
    verbose: Annotated[bool, _shared("-v", "--verbose", what="More, such as how long an answer took.")] = False,
    yes: Annotated[bool, _shared("-y", "--yes", what="Do it without asking.")] = False,
    home: Annotated[Path | None, _shared("--home", what="Where the node's things lie.", metavar="DIR")] = None,
    offline: Annotated[bool, _shared("--offline", what="Send nothing beyond this machine.")] = False,
    no_color: Annotated[bool, _shared("--no-color", what="No colours.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        lifecycle.up(ctx)


def command() -> TyperGroup:
    """The whole command line."""
    completion_init()  # or the shells' requests for completion are not understood
    app = typer.Typer(
        cls=Verbs,
        help=HELP,
        epilog=EPILOG,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, verb in (pair for verbs in SECTIONS.values() for pair in verbs.items()):
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name)
        else:
            app.command(name)(verb)
    for name, verb in ALIASES.items():
        app.command(name, hidden=True)(verb)
    root = get_group(app)
    _share(root, [p for p in root.params if isinstance(p, TyperOption) and p.name in Options.__dataclass_fields__])
    return root


def _share(group: TyperGroup, options: Sequence[TyperOption]) -> None:
    """Let every verb understand the options that all have, without repeating them in its help."""
    for verb in group.commands.values():
        for option in options:
            again = copy(option)
            again.hidden = True
            verb.params.append(again)
        if isinstance(verb, TyperGroup):
            _share(verb, options)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    options = Options(json="--json" in takewhile(lambda argument: argument != "--", arguments))
    out = Terminal(options)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # models write letters that not every terminal has
    try:
        code = command().main(list(arguments), prog_name="pares", standalone_mode=False, obj=options)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "pares"
        out.error("usage", error.format_message(), f"`{where} --help` shows how it goes.")
        return error.exit_code
    except (ParesError, ExceptionGroup) as error:
        told = _first(error)
        out.error(told.code, told.message, told.hint)
        return told.exit_code
    except OSError as error:
        if error.filename is None:
            if error.errno not in UNWRITABLE:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries once more when it ends
            error.filename = "stdout"
        out.error(LocalError.code, f"{error.filename}: {error.strerror}.")
        return LocalError.exit_code
    if code == INTERRUPTED and options.json:
        out.error("interrupted", "You stopped it.")
    return code if isinstance(code, int) else 0


def _first(error: ParesError | ExceptionGroup[Exception]) -> ParesError:
    """The error itself where a task group put it into a group. Raises what is not ours."""
    while isinstance(error, ExceptionGroup):
        ours, others = error.split(ParesError)
        if others is not None or ours is None:
            raise error
        error = ours.exceptions[0]
    return error
