"""Models on this machine: list, show, rm, cp, create, import."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pares.api import schemas
from pares.api.commons import VersionDetail, Versions
from pares.cli import versions
from pares.cli.client import PATIENT_S, Client, Modelfile, quote
from pares.cli.complete import ModelName, ModelNames, known_names
from pares.cli.connect import run
from pares.cli.figures import facts, quantity, size, table
from pares.cli.inspect import tensor_table
from pares.cli.terminal import Terminal
from pares.errors import ModelNotFound, NotFound

FILE_LINE = re.compile(r"^(\s*(?:FROM|ADAPTER)[ \t]+)(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)


def list_models(ctx: typer.Context) -> None:
    """List the models on this machine (also `ls`)."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get("/models", schemas.Models)
        out.result(found, _listing(found.models) if found.models else "No models yet. Get one with `pares pull`.")

    run(ctx, work)


def show(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Its name, or a version of your circles.", autocompletion=known_names),
    ],
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Print a Modelfile that makes it.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print its chat template.")] = False,
    licence: Annotated[bool, typer.Option("--licence", "--license", help="Print its licence.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List its tensors.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash its file again; exit code 7 if it changed.")] = False,
    envelope: Annotated[
        bool, typer.Option("--envelope", help="Print its signed statement, as it is passed on.")
    ] = False,
) -> None:
    """Show what a model is: architecture, size, fit, licence, hash.

    Of a version that your circles offer, also who says so, what was checked of it, and who has it.
    """

    async def work(node: Client, out: Terminal) -> None:
        address = f"/models/{quote(model)}"
        if envelope:
            statement = await node.get(f"/versions/{quote(model)}/envelope", msgspec.Raw)
            out.write(f"{bytes(statement).decode()}\n")
        elif verify:
            with out.waiting(f"Verifying {model}"):
                verified = await node.post(f"{address}/verify", schemas.Verification, wait_s=PATIENT_S)
            out.result(verified, f"{model} is what it should be (SHA-256 {verified.sha256}).")
        elif tensors:
            found = await node.get(f"{address}/tensors", schemas.Tensors)
            out.result(found, tensor_table(found))
        elif modelfile:
            made = await node.post(f"{node.url}/api/show", Modelfile, {"model": model})
            out.result(made, made.modelfile)
        else:
            detail = await _detail(node, model, version=not template)
            if template and isinstance(detail, schemas.ModelDetail):
                text = detail.templates.get("default", "")
                out.result({"template": text}, text or f"{model} has no chat template.")
            elif licence:
                text = detail.licence_text or detail.row.licence
                out.result({"license": text}, text or f"The file of {model} names no licence.")
            elif isinstance(detail, schemas.ModelDetail):
                out.result(detail, portrait(detail))
                await _note_version(node, out, detail.row.name)
            else:
                out.result(detail, versions.portrait(detail))

    run(ctx, work)


async def _note_version(node: Client, out: Terminal, model: str) -> None:
    for row in (await node.get("/versions", Versions)).versions:
        if row.model == model:
            out.note(f"It is the version {versions.named(row)}: see `pares show {row.id[:12]}`.")


async def _detail(node: Client, name: str, *, version: bool) -> schemas.ModelDetail | VersionDetail:
    """A model here, or else a version that circles offer, if that will do."""
    try:
        return await node.get(f"/models/{quote(name)}", schemas.ModelDetail)
    except ModelNotFound as missing:
        if not version:
            raise
        try:
            return await node.get(f"/versions/{quote(name)}", VersionDetail)
        except NotFound:
            raise missing from None


def remove(
    ctx: typer.Context,
    models: ModelNames,
    force: Annotated[bool, typer.Option("-f", "--force", help="Delete what stands on them too.")] = False,
) -> None:
    """Delete models, or what is there of an unfinished download.

    A file that you imported stays where it is.
    """

    async def work(node: Client, out: Terminal) -> int:
        if not out.confirm(f"Delete {', '.join(models)}?"):
            out.note("Nothing was deleted.")
            return 1
        how = "?force=true" if force else ""
        removed = [await node.delete(f"/models/{quote(model)}{how}", schemas.Removed) for model in models]
        freed = sum(one.bytes_freed for one in removed)
        names = ", ".join(one.name for one in removed)
        out.result({"removed": removed}, f"Deleted {names}: {size(freed)} are free again.")
        return 0

    run(ctx, work)


def copy(
    ctx: typer.Context,
    model: ModelName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The second name.")],
) -> None:
    """Give a model a second name; its file is not copied."""

    async def work(node: Client, out: Terminal) -> None:
        row = await node.post("/models/copy", schemas.ModelRow, schemas.CopyRequest(model, name))
        out.result(row, f"{model} is now also called {row.name}.")

    run(ctx, work)


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the new model is called.")],
    file: Annotated[
        Path, typer.Option("-f", "--file", help="The Modelfile.", exists=True, dir_okay=False, readable=True)
    ] = Path("Modelfile"),
) -> None:
    """Make a model from a Modelfile: FROM, PARAMETER, SYSTEM, ADAPTER."""

    async def work(node: Client, out: Terminal) -> None:
        text = _with_whole_paths(file.read_text("utf-8"), file.absolute().parent)
        created = await node.post("/models/create", schemas.Created, schemas.CreateRequest(name, text))
        for warning in created.warnings:
            out.warn(warning)
        out.result(created, f"Made {created.name}. Try it: pares run {created.name}")

    run(ctx, work)


def import_files(
    ctx: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="GGUF files, or folders that hold some.", exists=True)
    ],
    name: Annotated[str, typer.Option(help="What the model is called, for a single file.")] = "",
) -> None:
    """Use model files where they lie, without copying them."""
    if name and len(paths) > 1:
        raise typer.BadParameter("a name is for a single file.", param_hint="--name")

    async def work(node: Client, out: Terminal) -> None:
        rows: list[schemas.ModelRow] = []
        for path in paths:
            request = schemas.ImportRequest(str(path.absolute()), name)
            rows += (await node.post("/models/import", schemas.Models, request, wait_s=PATIENT_S)).models
        out.result(schemas.Models(tuple(rows)), _listing(rows) if rows else "There is no GGUF file in there.")

    run(ctx, work)


def _with_whole_paths(modelfile: str, folder: Path) -> str:
    """The node has another working directory than the Modelfile has: files that are there get their whole path."""

    def whole(line: re.Match[str]) -> str:
        path = folder / Path(line[2].strip("\"'")).expanduser()
        return f"{line[1]}{path.resolve()}" if path.is_file() else line[0]

    return FILE_LINE.sub(whole, modelfile)


def _state(row: schemas.ModelRow) -> str:
    if row.broken or row.missing:
        return row.broken or "its file is gone"
    return "in memory" if row.loaded else "linked" if row.linked else ""


def _listing(rows: Iterable[schemas.ModelRow]) -> str:
    header = ("NAME", "SIZE", "QUANT", "PARAMETERS", "FIT", "ADDED", "STATE")
    return table(
        header,
        (
            (r.name, size(r.size), r.quantization, quantity(r.parameters), r.fit, r.added_at[:10], _state(r))
            for r in rows
        ),
    )


def portrait(detail: schemas.ModelDetail) -> str:
    """All that is worth knowing about a model, on one screen."""
    row = detail.row
    return facts(
        [
            ("name", row.name),
            ("stands for", detail.alias_of or detail.base),
            ("adapter", detail.adapter),
            ("state", _state(row)),
            ("profile", detail.loaded.profile if detail.loaded else ""),
            ("exact here", (detail.loaded.exact or "yes") if detail.loaded else ""),
            ("fingerprint", detail.loaded.fingerprint if detail.loaded else ""),
            ("architecture", row.architecture),
            ("parameters", quantity(row.parameters)),
            ("quantization", row.quantization),
            ("trained context", f"{detail.context_trained} tokens"),
            ("layers", detail.layers),
            ("embedding", detail.embedding_length),
            ("vocabulary", f"{detail.vocabulary} tokens"),
            ("can do", ", ".join(detail.capabilities)),
            ("fit", row.fit),
            ("memory", row.need.text if row.need else ""),
            ("licence", row.licence),
            ("size", size(row.size)),
            ("file", detail.path),
            ("SHA-256", detail.sha256 or "being computed"),
            ("origin", detail.origin),
            ("system", detail.system),
            *((f"  {name}", value) for name, value in detail.parameters.items()),
        ]
    )
