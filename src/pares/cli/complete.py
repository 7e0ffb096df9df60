"""What the shell offers after TAB: read straight from the home, without a node and without heavy imports."""

from __future__ import annotations

from typing import Annotated

import typer

from pares.cli.terminal import Options


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of models on this machine; none where the database is not there or busy."""
    from pares.config import database_of, find_home
    from pares.store.models import names

    path = database_of(find_home(ctx.obj.home if isinstance(ctx.obj, Options) else None))
    return [name for name in names(path) if name.startswith(incomplete)]


def setting_names(incomplete: str) -> list[str]:
    """Names of settings."""
    from pares.config import known_settings

    return [name for name in known_settings() if name.startswith(incomplete)]


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
