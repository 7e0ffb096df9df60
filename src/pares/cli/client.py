"""HTTP to a node: typed requests and replies, and the node's errors as the classes they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, Self, TypeVar
from urllib.parse import quote as percent_encoded

import msgspec

from pares.api.schemas import NodeStatus
from pares.errors import LocalError, NodeUnreachable, ParesError

if TYPE_CHECKING:
    from httpx2 import TransportError

T = TypeVar("T")

CONTROL = "/pares/v1"
CONNECT_S = 5.0
PING_S = 10.0
ORDINARY_S = 60.0
PATIENT_S = 3600.0
"""Between two signs of life of something that takes long: loading, hashing, the first token of a long prompt."""

quote = partial(percent_encoded, safe="")
"""A name as one part of an address."""


class Address(msgspec.Struct, frozen=True):
    """What the running node writes into its home, where only its owner can read it."""

    pid: int
    url: str
    token: str
    version: str
    started_at: datetime


class Modelfile(msgspec.Struct, frozen=True):
    modelfile: str


class ChatMessage(msgspec.Struct, omit_defaults=True):
    role: Literal["system", "user", "assistant"]
    content: str
    thinking: str = ""


class ChatChunk(msgspec.Struct, frozen=True):
    """A line of `/api/chat`. The last one is `done` and has the counts, and the durations in nanoseconds."""

    message: ChatMessage | None = None
    done: bool = False
    done_reason: str = ""
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    error: str = ""


class Client:
    """Speaks to one node; paths are those of the control API, whole addresses lead to the others.

    All methods raise the node's errors, and NodeUnreachable if it does not answer.
    """

    def __init__(self, url: str, token: str) -> None:
        import httpx2  # here, so that `pares --help` does not wait for it

        self.url = url
        self._library = httpx2
        self._http = httpx2.AsyncClient(
            base_url=url + CONTROL,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=httpx2.Timeout(ORDINARY_S, connect=CONNECT_S),
            trust_env=False,  # a proxy is not for this machine,
            verify=False,  # and plain HTTP needs no certificates: loading them takes longer than most answers
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def status(self) -> NodeStatus | None:
        """How the node is; None if nobody listens there."""
        try:
            return await self._call("GET", "/status", NodeStatus, wait_s=PING_S)
        except NodeUnreachable as error:
            if isinstance(error.__cause__, self._library.ConnectError):
                return None
            raise

    async def get(self, path: str, kind: type[T]) -> T:
        return await self._call("GET", path, kind)

    async def post(self, path: str, kind: type[T], body: object = None, *, wait_s: float = ORDINARY_S) -> T:
        return await self._call("POST", path, kind, body, wait_s)

    async def patch(self, path: str, kind: type[T], body: object) -> T:
        return await self._call("PATCH", path, kind, body)

    async def delete(self, path: str, kind: type[T]) -> T:
        return await self._call("DELETE", path, kind)

    async def lines(self, path: str, body: object) -> AsyncGenerator[str, None]:
        """A streamed answer, line by line. Close it (`aclosing`) to stop what makes it."""
        timeout = self._library.Timeout(PATIENT_S, connect=CONNECT_S)
        try:
            async with self._http.stream("POST", path, content=_encoded(body), timeout=timeout) as response:
                if response.is_error:
                    raise error_in(await response.aread(), response.status_code)
                async for line in response.aiter_lines():
                    yield line
        except self._library.TransportError as error:
            raise self._silent(error) from error

    async def events(self, path: str, body: object) -> AsyncGenerator[tuple[str, str], None]:
        """A streamed answer as named events with their data. Raises what an `error` event tells."""
        name, data = "message", ""
        async with aclosing(self.lines(path, body)) as lines:
            async for line in lines:
                field, _, value = line.partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    data += value.removeprefix(" ")
                elif not line and data:
                    if name == "error":
                        raise _told(msgspec.json.decode(data, type=_Told))
                    yield name, data
                    name, data = "message", ""

    async def _call(self, method: str, path: str, kind: type[T], body: object = None, wait_s: float = ORDINARY_S) -> T:
        timeout = self._library.Timeout(wait_s, connect=CONNECT_S)
        try:
            response = await self._http.request(method, path, content=_encoded(body), timeout=timeout)
        except self._library.TransportError as error:
            raise self._silent(error) from error
        if response.is_error:
            raise error_in(response.content, response.status_code)
        return msgspec.json.decode(response.content or b"null", type=kind)

    def _silent(self, error: TransportError) -> NodeUnreachable:
        reason = str(error) or type(error).__name__
        return NodeUnreachable(
            f"The node at {self.url} does not answer ({reason}).", hint="`pares logs` and `pares status` may tell why."
        )


def _encoded(body: object) -> bytes | None:
    return None if body is None else msgspec.json.encode(body)


# Errors: from what the node says to the class that it raised.


class _Told(msgspec.Struct):
    message: str
    code: str | None = None
    hint: str = ""


class _Refusal(msgspec.Struct):
    error: _Told | str


@cache
def _kinds() -> list[type[ParesError]]:
    """The error tree, parents first."""
    found: list[type[ParesError]] = [LocalError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def error_of(code: str, message: str, hint: str = "") -> ParesError:
    """An error by its code, as it was raised in another process."""
    kind = next((kind for kind in _kinds() if kind.code == code), LocalError)
    error = kind.__new__(kind)
    ParesError.__init__(error, message.removesuffix(hint).rstrip(), hint=hint)
    return error


def _told(told: _Told) -> ParesError:
    return error_of(told.code or "", told.message, told.hint)


def error_in(content: bytes, status: int = 500) -> ParesError:
    """The error that an answer, or a program with `--json`, tells of."""
    try:
        said = msgspec.json.decode(content, type=_Refusal).error
    except msgspec.DecodeError:
        said = f"The node answered with the status {status}."
    if isinstance(said, _Told):
        return _told(said)
    # Ollama's shape has no code: its status is as close as one gets.
    return error_of(next((kind.code for kind in _kinds() if kind.status == status), ""), said)
