"""Models and the node in Ollama's words: version, tags, ps, show, delete, copy, create."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from pares import __version__
from pares.api.calls import Call, reply
from pares.api.control.models import detail_of, removed
from pares.api.failures import OLLAMA, encode
from pares.api.ollama.inputs import model_name
from pares.api.ollama.schemas import CopyBody, CreateBody, Named, ShowBody
from pares.api.schemas import ModelDetail, ModelRow
from pares.api.streams import NDJSON, Stream, of_lines
from pares.errors import BadRequest
from pares.inference.header import GGUFArray
from pares.swarm.names import ADAPTER_MARK

SPOKEN_VERSION = "0.12.6"
"""The version of Ollama whose API this is: tools refuse to talk to one that seems older than what they need."""
NEVER = "9999-12-31T23:59:59Z"
MAX_SHOWN_ARRAY = 4096

_CAPABILITIES = {"completion": "completion", "tools": "tools", "thinking": "thinking", "insert": "insert"}


async def version(call: Call[None]) -> Response:
    return reply({"version": SPOKEN_VERSION, "pares": __version__})


async def tags(call: Call[None]) -> Response:
    """All that can be asked."""
    digests = {entry.record.name: entry.file.sha256 for entry in await call.services.library.list() if entry.file}
    rows = [row for row in await call.inventory.rows() if row.kind != "adapter" and not row.broken]
    return reply({"models": [_tag(row, digests.get(row.name, "")) for row in rows]})


def _tag(row: ModelRow, digest: str) -> dict[str, object]:
    return {
        "name": row.name,
        "model": row.name,
        "modified_at": row.added_at,
        "size": row.size,
        "digest": digest,
        "details": _details(row),
    }


def _details(row: ModelRow, parent: str = "") -> dict[str, object]:
    return {
        "parent_model": parent,
        "format": "gguf",
        "family": row.architecture,
        "families": [row.architecture],
        "parameter_size": _count(row.parameters),
        "quantization_level": row.quantization,
    }


def _count(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.2f}".rstrip("0").rstrip(".") + unit
    return str(parameters)


async def ps(call: Call[None]) -> Response:
    """What is in memory."""
    rows = {row.name.casefold(): row for row in await call.inventory.rows()}
    digests = {
        entry.record.name.casefold(): entry.file.sha256 for entry in await call.services.library.list() if entry.file
    }
    models = []
    for loaded in call.services.loaded():
        name = loaded.name.partition(ADAPTER_MARK)[0].casefold()
        row = rows.get(name)
        models.append(
            {
                "name": loaded.name,
                "model": loaded.name,
                "size": loaded.memory_bytes,
                "digest": digests.get(name, ""),
                "details": _details(row) if row else {},
                "expires_at": loaded.expires_at or NEVER,
                "size_vram": 0,
                "context_length": loaded.context,
            }
        )
    return reply({"models": models})


async def show(call: Call[ShowBody]) -> Response:
    """Everything about one model."""
    detail = await detail_of(call, model_name(call.body))
    row = detail.row
    header = await call.inventory.header(await call.inventory.path(row.name))
    info = {
        key: _shown(value) for key, value in header.metadata.items() if not key.startswith("tokenizer.chat_template")
    }
    info["general.parameter_count"] = row.parameters
    answer: dict[str, object] = {
        "modelfile": modelfile_of(detail),
        "parameters": "\n".join(f"{name:<30} {_quoted(each)}" for name, each in _parameters(detail.parameters)),
        "template": detail.templates.get("default", ""),
        "details": _details(row, detail.base),
        "model_info": info,
        "capabilities": ["embedding"]
        if detail.capabilities == ("embedding",)
        else [_CAPABILITIES[name] for name in detail.capabilities if name in _CAPABILITIES],
        "modified_at": row.added_at,
    }
    if detail.licence_text:
        answer["license"] = detail.licence_text
    if detail.system:
        answer["system"] = detail.system
    if call.body.verbose:
        answer["tensors"] = [{"name": t.name, "type": t.type, "shape": t.dims} for t in header.tensors]
    return reply(answer)


def _shown(value: object) -> object:
    """Ollama tells short arrays, and `null` for vocabularies."""
    if isinstance(value, GGUFArray):
        return list(value) if len(value) <= MAX_SHOWN_ARRAY and value.raw else None
    return value


def modelfile_of(detail: ModelDetail) -> str:
    """The Modelfile that would make this model."""
    lines = [f"FROM {detail.base or detail.path}"]
    if detail.adapter:
        lines.append(f"ADAPTER {detail.adapter}")
    if detail.system:
        lines.append(f'SYSTEM """{detail.system}"""')
    lines += [f"PARAMETER {name} {_quoted(each)}" for name, each in _parameters(detail.parameters)]
    return "\n".join(lines) + "\n"


def _parameters(given: Mapping[str, object]) -> list[tuple[str, object]]:
    """One line per value: `stop` has several."""
    return [
        (name, each)
        for name, value in given.items()
        for each in (value if isinstance(value, list | tuple) else (value,))
    ]


def _quoted(value: object) -> str:
    if not isinstance(value, str):
        return encode(value).decode()
    escaped = value.replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


async def delete(call: Call[Named]) -> Response:
    await removed(call, model_name(call.body))
    return Response(None, 200)


async def copy(call: Call[CopyBody]) -> Response:
    await call.services.library.copy(call.body.source, call.body.destination)
    return Response(None, 200)


async def create(call: Call[CreateBody]) -> Response | Stream:
    """A model from another one, with its own system prompt and parameters."""
    body = call.body
    text = body.modelfile or _modelfile(body)
    made = await call.services.library.create(model_name(body), text)
    warnings = [*made.warnings, *call.warnings]
    if body.modelfile is None:
        ignored = ("template", "license", "messages", "files", "adapters", "quantize")
        warnings += [f"{name!r} is not used here" for name in ignored if getattr(body, name)]
    lines = [{"status": f"warning: {each}"} for each in warnings] + [{"status": "success"}]
    if body.stream is False:
        return reply(lines[-1] | ({"warnings": warnings} if warnings else {}))
    return Stream(of_lines(encode(line) + b"\n" for line in lines), NDJSON, OLLAMA)


def _modelfile(body: CreateBody) -> str:
    if not body.from_:
        raise BadRequest("from is required.", param="from", hint="Name the model that this one is made from.")
    if "\n" in body.from_ or '"""' in (body.system or ""):
        raise BadRequest('from must be one line, and system without """.', param="from")
    lines = [f"FROM {body.from_}"]
    if body.system:
        lines.append(f'SYSTEM """{body.system}"""')
    for name, each in _parameters(msgspec.to_builtins(body.parameters or {})):
        if not name.isidentifier() or not isinstance(each, str | int | float):
            raise BadRequest(f"{name[:100]!r} is no parameter.", param="parameters")
        lines.append(f"PARAMETER {name} {_quoted(each)}")
    return "\n".join(lines)
