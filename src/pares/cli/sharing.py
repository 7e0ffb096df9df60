"""Give models away: share, unshare."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import NoneType
from typing import Annotated, TypeVar

import msgspec
import typer

from pares.api.commons import ShareRequest, UnshareRequest, VersionDetail
from pares.api.network import Circles
from pares.cli.client import PATIENT_S, Client, quote
from pares.cli.complete import ModelName, VersionName
from pares.cli.connect import run
from pares.cli.terminal import Terminal, on_one_line
from pares.cli.versions import named
from pares.errors import NotFound
from pares.swarm.predicate import Data, Kind, Parent

Content = TypeVar("Content")


def share(
    ctx: typer.Context,
    model: ModelName,
    circles: Annotated[
        list[str], typer.Option("--circle", metavar="CIRCLE", help="Where; more than once for several. Default: all.")
    ] = [],  # noqa: B006 (typer copies it)
    name: Annotated[str, typer.Option(help="What it is called there. Default: as here.")] = "",
    label: Annotated[str, typer.Option(help="Your word for this state of it, such as v2.")] = "",
    description: Annotated[str, typer.Option(help="What it is, in a few sentences.")] = "",
    licence: Annotated[str, typer.Option("--licence", metavar="SPDX", help="Default: as its file says.")] = "",
    licence_file: Annotated[
        Path | None,
        typer.Option("--licence-file", metavar="FILE", help="Its text.", exists=True, dir_okay=False, readable=True),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What it is to its base. Default: as its file tells.")
    ] = None,
    base: Annotated[str, typer.Option(metavar="VERSION", help="What it was made from: a version, or in words.")] = "",
    parents: Annotated[
        list[str], typer.Option("--parent", metavar="VERSION", help="Likewise, for each model of a merge.")
    ] = [],  # noqa: B006
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE.json", help="What it was trained on.", exists=True, dir_okay=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE.json", help="How it was made.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Publish a model under your node's key, and give it away in your circles.

    What you say of it is signed and cannot be changed, only taken back (`pares revoke`). The file of --data holds a
    Croissant description, or {"private": COMMITMENT, "note": TEXT}, or a list of such.
    """

    async def work(node: Client, out: Terminal) -> None:
        request = ShareRequest(
            model=model,
            circles=tuple(circles),
            name=name,
            label=label,
            description=description,
            kind=kind,
            licence=licence,
            licence_text=licence_file.read_text("utf-8") if licence_file else "",
            base=await _parent(node, base) if base else None,
            parents=tuple([await _parent(node, each) for each in parents]),
            data=_declared(data) if data else (),
            recipe=_read(recipe, dict[str, object], "--recipe") if recipe else {},
        )
        with out.waiting(f"Sharing {model}"):
            detail = await node.post("/share", VersionDetail, request, wait_s=PATIENT_S)
        row = detail.row
        names = {each.id: on_one_line(each.name) for each in (await node.get("/circles", Circles)).circles}
        where = ", ".join(names.get(each, each[:8]) for each in row.shared)
        others = f"There they get it with: pares pull {shlex.quote(on_one_line(row.name))}"
        out.result(detail, f"{named(row)} is given away in {where} as {on_one_line(row.licence)}. {others}")

    run(ctx, work)


def unshare(
    ctx: typer.Context,
    version: VersionName,
    circles: Annotated[
        list[str], typer.Option("--circle", metavar="CIRCLE", help="Where; more than once for several. Default: all.")
    ] = [],  # noqa: B006
    force: Annotated[bool, typer.Option("-f", "--force", help="Also where nobody else holds all of it.")] = False,
) -> None:
    """Give a version away no more. It stays here, and with everybody who has it."""

    async def work(node: Client, out: Terminal) -> None:
        await node.post("/unshare", NoneType, UnshareRequest(version=version, circles=tuple(circles), force=force))
        where = ", ".join(map(on_one_line, circles))
        text = f"{on_one_line(version)} is given away no more" + (f" in {where}." if where else ".")
        out.result({"unshared": version, "circles": circles}, text)

    run(ctx, work)


async def _parent(node: Client, text: str) -> Parent:
    """A version that is known here, by its id; else what it is called. Raises Conflict where that means several."""
    try:
        row = (await node.get(f"/versions/{quote(text)}", VersionDetail)).row
    except NotFound:
        return Parent(name=text)
    return Parent(version=row.id, name=row.name)


def _declared(file: Path) -> tuple[Data, ...]:
    """What a file says of the data: in our own shape, or as Croissant, which is JSON-LD."""
    found = _read(file, object, "--data")
    each = found if isinstance(found, list) else [found]
    wrapped = [{"croissant": one} if isinstance(one, dict) and "@context" in one else one for one in each]
    try:
        return msgspec.convert(wrapped, tuple[Data, ...])
    except msgspec.ValidationError as error:
        raise typer.BadParameter(
            f"{file} says it otherwise than it can be read: {error}.", param_hint="--data"
        ) from None


def _read(file: Path, kind: type[Content], option: str) -> Content:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"{file} cannot be read as JSON: {error}.", param_hint=option) from None
