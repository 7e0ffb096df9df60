"""Before talking: which model, fetched if it is not here, and in memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pares.api import schemas
from pares.cli.client import PATIENT_S, Client, error_of, quote
from pares.cli.pull import fetch, plan_of
from pares.cli.terminal import Terminal
from pares.config import find_home, write_whole
from pares.errors import ModelNotFound, NotFound

LAST_MODEL = "last-model"
AS_SET = schemas.LoadRequest()
"""A model is loaded as the settings say."""


async def obtain(node: Client, out: Terminal, model: str) -> str:
    """The name of a model that is on this machine: as given, or after fetching it or linking a file.

    It is remembered as the one last talked to. Raises ModelNotFound.
    """
    name = await _find(node, model) or await _fetch(node, out, model)
    with suppress(OSError):  # a comfort, no more
        write_whole(find_home(out.options.home) / LAST_MODEL, f"{name}\n")
    return name


async def _find(node: Client, model: str) -> str | None:
    file = Path(model).expanduser()
    if file.suffix == ".gguf" and file.is_file():
        request = schemas.ImportRequest(str(file.absolute()))
        return (await node.post("/models/import", schemas.Models, request, wait_s=PATIENT_S)).models[0].name
    try:
        return (await node.get(f"/models/{quote(model)}", schemas.ModelDetail)).row.name
    except ModelNotFound:
        return None


async def _fetch(node: Client, out: Terminal, model: str) -> str:
    request = schemas.PullRequest(model)
    plan = await plan_of(node, request)
    if plan.fit == "will not run" and plan.need is not None:
        hint = f"`pares pull {model}` fetches it all the same."
        raise error_of("not_enough_memory", f"{plan.name} will not run here: {plan.need.text}.", hint)
    return (await fetch(node, out, request, quietly=True)).name


async def load(node: Client, out: Terminal, model: str, how: schemas.LoadRequest = AS_SET) -> schemas.Loaded:
    """Have a model in memory."""
    with out.waiting(f"Loading {model}"):
        return await node.post(f"/models/{quote(model)}/load", schemas.Loaded, how, wait_s=PATIENT_S)


async def last_model(node: Client, out: Terminal) -> str:
    """The model this person talked to last: here, else on the page. Raises NotFound."""
    try:
        return (find_home(out.options.home) / LAST_MODEL).read_text("utf-8").strip()
    except FileNotFoundError:
        pass
    for conversation in (await node.get("/conversations", schemas.Conversations)).conversations:
        if conversation.model:
            return conversation.model
    raise NotFound("You have not talked to a model yet.", hint="Name one: `pares run MODEL`. `pares list` shows them.")
