"""What the shell offers after TAB: read straight from the home, without a node and without heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pares.cli.terminal import Options


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of models on this machine; none where the database is not there or busy."""
    from pares.store.models import names

    return [name for name in names(_database(ctx)) if name.startswith(incomplete)]


def version_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of versions that this node has heard of, likewise."""
    from pares.store.versions import names

    return [name for name in names(_database(ctx)) if name.startswith(incomplete)]


def known_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Both."""
    return sorted({*model_names(ctx, incomplete), *version_names(ctx, incomplete)})


def setting_names(incomplete: str) -> list[str]:
    """Names of settings."""
    from pares.config import known_settings

    return [name for name in known_settings() if name.startswith(incomplete)]


def _database(ctx: typer.Context) -> Path:
    from pares.config import database_of, find_home

    return database_of(find_home(ctx.obj.home if isinstance(ctx.obj, Options) else None))


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its name, as `pares list` shows it.", autocompletion=model_names)
]
ModelNames = Annotated[
    list[str],
    typer.Argument(metavar="MODEL", help="Names, as `pares list` shows them.", autocompletion=model_names),
]
SettingName = Annotated[
    str, typer.Argument(metavar="NAME", help="As `pares config list` shows it.", autocompletion=setting_names)
]
VersionName = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="Its name, or its id or the beginning of it, as `pares find` shows it.",
        autocompletion=version_names,
    ),
]
