"""Models on this machine: list, look into, load, import, name, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.control import vocabulary
from pares.api.schemas import (
    CatalogueRows,
    CopyRequest,
    Created,
    CreateRequest,
    ImportRequest,
    LoadRequest,
    ModelDetail,
    Models,
    Removed,
    TensorRow,
    Tensors,
    Verification,
)
from pares.errors import BadRequest, NotFound, VerificationFailed
from pares.inference.header import GGUFArray, Header, Value
from pares.swarm.names import ADAPTER_MARK

LONG_TEXT = 2000
MAX_TOKENS_A_PAGE = 1000


async def listed(call: Call[None]) -> Response:
    return reply(Models(await call.inventory.rows()))


async def catalogue(call: Call[None]) -> Response:
    return reply(CatalogueRows(await call.inventory.catalogue()))


async def detail(call: Call[None]) -> Response:
    return reply(await detail_of(call, call.path("name")))


async def tensors(call: Call[None]) -> Response:
    header = await call.inventory.header(await call.inventory.path(call.path("name")))
    rows = (TensorRow(t.name, t.type, t.dims, t.elements, t.nbytes, t.offset, _layer(t.name)) for t in header.tensors)
    return reply(Tensors(tuple(rows)))


async def tokens(call: Call[None]) -> Response:
    offset, limit = call.number("offset", 0), call.number("limit", 100, low=1, high=MAX_TOKENS_A_PAGE)
    path = await call.inventory.path(call.path("name"))
    return reply(await asyncio.to_thread(vocabulary.page, path, call.query("search")[:200], offset, limit))


async def load(call: Call[LoadRequest]) -> Response:
    return reply(await call.services.load(call.path("name"), call.body))


async def unload(call: Call[None]) -> Response:
    await call.services.unload(call.path("name"))
    return Response(None, 204)


async def verify(call: Call[None]) -> Response:
    """Its bytes, and the statement on it where it is a version. Raises VerificationFailed."""
    name = call.path("name")
    expected = (await call.services.library.resolve(name)).sha256
    sha256 = await call.services.library.verify(name)
    for row in await call.services.commons.versions():
        if row.model.casefold() == name.casefold():
            found = (await call.services.commons.version(row.id)).findings
            if wrong := [finding.message for finding in found if finding.ok is False]:
                raise VerificationFailed(f"{name} is not what its statement says. {wrong[0]}")
    return reply(Verification(sha256, expected, ok=True))


async def remove(call: Call[None]) -> Response:
    return reply(await removed(call, call.path("name"), force=call.query("force") in ("1", "true")))


async def removed(call: Call[object], name: str, *, force: bool = False) -> Removed:
    """Remove a model, out of memory first, and what was fetched of it so far. Raises ModelNotFound, Conflict."""
    shared: Callable[[], Awaitable[None]] | None = None
    with suppress(NotFound):  # not loaded, or not even here: a download that has begun
        shared = await call.services.commons.before_removing(name, force=force)
        await call.services.unload((await call.services.library.get(name)).record.name)
    gone = await call.services.pulls.remove(name, force=force)
    if shared is not None:
        await shared()
    return Removed(gone.names[0], gone.bytes_freed)


async def import_(call: Call[ImportRequest]) -> Response:
    """Raises BadRequest if nothing of what lies there can be used."""
    found = await call.services.library.import_path(Path(call.body.path), call.body.name)
    names = {name.casefold() for name in (*found.added, *found.known)}
    if not names:
        path, reason = next(iter(found.refused.items()), (call.body.path, "There are no model files there."))
        raise BadRequest(f"{path}: {reason}", param="path", hint="Name a .gguf file, or a folder that has some.")
    return reply(Models(tuple(row for row in await call.inventory.rows() if row.name.casefold() in names)))


async def copy(call: Call[CopyRequest]) -> Response:
    record = await call.services.library.copy(call.body.source, call.body.name)
    return reply(await call.inventory.row(record.name))


async def create(call: Call[CreateRequest]) -> Response:
    made = await call.services.library.create(call.body.name, call.body.modelfile)
    return reply(Created(made.name, made.warnings))


async def detail_of(call: Call[object], name: str) -> ModelDetail:
    """Everything about one model. Raises ModelNotFound, BrokenModelFile, NotFound for a file that is gone."""
    library = call.services.library
    entry = await library.get(name)
    record = entry.record
    file = entry.file or record
    header = await call.inventory.header(await call.inventory.path(name))
    known = await library.resolve(record.name) if not header.is_adapter else None
    loaded = next((one for one in call.services.loaded() if one.name in (record.name, file.name)), None)
    return ModelDetail(
        row=await call.inventory.row(record.name),
        path=file.path,
        sha256=file.sha256,
        origin=file.origin,
        context_trained=header.context_length,
        layers=header.block_count,
        embedding_length=header.embedding_length,
        vocabulary=header.vocab_size,
        facts={key: _shown(v) for key, v in header.metadata.items() if not key.startswith("tokenizer.")},
        tokenizer={
            key.removeprefix("tokenizer."): _shown(v)
            for key, v in header.metadata.items()
            if key.startswith("tokenizer.") and not key.startswith("tokenizer.chat_template")
        },
        templates=header.templates,
        loaded=loaded,
        capabilities=capabilities(header),
        licence_text=_licence(header),
        system=known.system if known else "",
        parameters=known.defaults if known else {},
        alias_of=record.base + (f"{ADAPTER_MARK}{record.adapter}" if record.adapter else "")
        if record.kind == "alias"
        else "",
        base=record.base,
        adapter=record.adapter,
    )


def _licence(header: Header) -> str:
    keys = ("general.license.name", "general.license", "general.license.link")
    return "\n".join(text for key in keys if (text := header.text(key)))


def capabilities(header: Header) -> tuple[str, ...]:
    """What the file is made for, as its header tells."""
    if header.is_adapter:
        return ()
    if not header.is_causal:
        return ("embedding",)
    templates: Mapping[str, str] = header.templates
    text = "\n".join(templates.values())
    can = {
        "chat": bool(templates),
        "completion": True,
        "embedding": True,
        "tools": "tools" in text,
        "thinking": "<think>" in text or "enable_thinking" in text or "reasoning_content" in text,
        "insert": any(f"tokenizer.ggml.{key}_token_id" in header.metadata for key in ("fim_pre", "prefix")),
    }
    return tuple(name for name, able in can.items() if able)


def _shown(value: Value) -> object:
    if isinstance(value, GGUFArray):
        return f"[... {len(value)} items]"
    if isinstance(value, str) and len(value) > LONG_TEXT:
        return f"{value[:LONG_TEXT]} [... {len(value)} characters]"
    return value


def _layer(name: str) -> int:
    match name.split(".", 2):
        case ["blk", number, _] if number.isdecimal():
            return int(number)
    return -1
