"""How an error looks on each surface: the same error, in the words that its clients understand."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from starlette.responses import Response

from pares.api.schemas import ErrorBody
from pares.errors import Conflict, DoesNotFit, NotSupported, ParesError, QueueFull

log = logging.getLogger("pares.api")

encode = msgspec.json.Encoder().encode

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Surface:
    """One dialect of errors. `refusal` is a whole body; `breakage` ends a stream that has begun."""

    refusal: Callable[[ParesError], bytes]
    breakage: Callable[[ParesError], bytes]


def internal(problem: BaseException) -> ParesError:
    """A bug, told without its details: those are in the log, but for the message, which could quote a prompt."""
    where = "".join(traceback.format_tb(problem.__traceback__))
    log.error("request.crashed", extra={"kind": type(problem).__name__, "where": where})
    return ParesError("Something went wrong inside of the node.", hint="This is a bug: `pares logs` has the details.")


def error_type(error: ParesError) -> str:
    """OpenAI's `type` of an error."""
    return _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")


def error_body(error: ParesError) -> ErrorBody:
    """The inner object of OpenAI's shape."""
    return ErrorBody(
        message=error.message,
        type=error_type(error),
        code=error.code,
        param=getattr(error, "param", None),
        hint=error.hint,
        fields={name: _plain(value) for name, value in error.fields.items()},
    )


def error_headers(error: ParesError) -> dict[str, str]:
    """When to come back, how to get in, and whether trying again makes sense (the header OpenAI's clients look at)."""
    headers: dict[str, str] = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, DoesNotFit | Conflict):
        headers["X-Should-Retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def refusal(error: ParesError, surface: Surface) -> Response:
    """An error as an answer."""
    return Response(surface.refusal(error), error.status, error_headers(error), media_type="application/json")


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)


def _control(error: ParesError) -> bytes:
    return encode({"error": error_body(error)})


def _openai(error: ParesError) -> bytes:
    body = error_body(error)
    # The hint is part of the message: the clients of others show nothing else.
    told = {"message": str(error), "type": body.type, "param": body.param, "code": body.code}
    return encode({"error": {**told, "fields": body.fields} if body.fields else told})


def _ollama(error: ParesError) -> bytes:
    return encode({"error": str(error)})


def _anthropic(error: ParesError) -> bytes:
    kind = {"server_error": "api_error"}.get(error_type(error), error_type(error))
    return encode({"type": "error", "error": {"type": kind, "message": str(error)}})


OPENAI = Surface(_openai, lambda error: b"data: " + _openai(error) + b"\n\n")
OLLAMA = Surface(_ollama, lambda error: _ollama(error) + b"\n")
ANTHROPIC = Surface(_anthropic, lambda error: b"event: error\ndata: " + _anthropic(error) + b"\n\n")
CONTROL = Surface(_control, lambda error: b"event: error\ndata: " + encode(error_body(error)) + b"\n\n")


def surface_of(path: str) -> Surface:
    """The dialect that is spoken at an address, also at one that does not exist."""
    if path.startswith("/pares/"):
        return CONTROL
    if path.startswith("/api/"):
        return OLLAMA
    return ANTHROPIC if path.startswith("/v1/messages") else OPENAI


def unsupported(what: str, param: str, hint: str = "") -> NotSupported:
    """Something that the other API has and this one does not."""
    return NotSupported(f"{what} is not supported here.", param=param, hint=hint)
