"""The OpenAPI 3.1 document, written from the table of routes and the types of bodies and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from pares import __version__
from pares.api.calls import Route
from pares.api.failures import ANTHROPIC, CONTROL, OLLAMA, OPENAI, Surface, surface_of
from pares.api.schemas import ErrorReply

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_REF = "#/components/schemas/{name}"


class OllamaError(msgspec.Struct, frozen=True):
    error: str


class AnthropicErrorBody(msgspec.Struct, frozen=True):
    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True):
    type: Literal["error"]
    error: AnthropicErrorBody


_ERRORS: Mapping[Surface, type] = {
    CONTROL: ErrorReply,
    OPENAI: ErrorReply,
    OLLAMA: OllamaError,
    ANTHROPIC: AnthropicError,
}


def _any(kind: type) -> dict[str, object]:
    """`object`: whatever JSON there is."""
    if kind is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


def document(routes: Iterable[Route]) -> dict[str, object]:
    """Everything in the table that is not of the page."""
    routes = [route for route in routes if route.summary]
    types: list[Any] = list(_ERRORS.values())
    for route in routes:
        types += [route.body, route.answer, *(kind for _, kind in route.also)]
    types = [kind for kind in types if kind is not None]
    schemas, components = msgspec.json.schema_components(types, schema_hook=_any, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pares",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "The control API of a node under /pares/v1, and what it speaks of OpenAI's (/v1) and "
            "Ollama's (/api). Sizes are bytes, times ISO 8601 in UTC, durations seconds (nanoseconds in /api).",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, object]:
    name = re.sub(r"\W+", "_", _PARAMETER.sub(r"\1", route.path))
    operation: dict[str, object] = {
        "operationId": f"{route.method.lower()}{name}",
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "responses": _responses(route, schemas),
    }
    parameters: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "schema": query.schema, "description": query.description}
        for query in route.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": schemas[repr(route.body)]}}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    if route.need != "nothing":
        operation["security"] = [{"key": []}] if route.need == "admin" else [{}, {"key": []}]
    return operation


def _responses(route: Route, schemas: Mapping[str, Any]) -> dict[str, object]:
    def told(description: str, kind: object, streams: tuple[str, ...] = ()) -> dict[str, object]:
        content = {media_type: {"schema": {"type": "string"}} for media_type in streams}
        if kind is not None:
            content = {"application/json": {"schema": schemas[repr(kind)]}} | content
        return {"description": description} | ({"content": content} if content else {})

    return {
        str(route.status): told(route.summary, route.answer, route.streams),
        **{str(status): told(route.summary, kind) for status, kind in route.also},
        "default": told("Refused", _ERRORS[surface_of(route.path)]),
    }


def _tag(path: str) -> str:
    if path.startswith("/pares/"):
        return "control"
    return "ollama" if path.startswith("/api/") else "openai"
