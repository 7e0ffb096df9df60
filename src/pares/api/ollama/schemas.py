"""What clients of Ollama's API send. Fields that are not here are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from pares.inference.generation import MAX_TOP_LOGPROBS

Json = Mapping[str, object]
Name = Annotated[str, msgspec.Meta(max_length=512)]
Top = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A body that names a model, under either of its two names."""

    model: Name = ""
    name: Name = ""


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: Json | str = {}


class CalledTool(msgspec.Struct, frozen=True):
    function: CalledFunction
    id: str = ""


class OllamaMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: tuple[str, ...] | None = None
    tool_calls: tuple[CalledTool, ...] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: Json | None = None


class ToolSpec(msgspec.Struct, frozen=True):
    function: Function
    type: str = "function"


class _Generation(Named, frozen=True, kw_only=True):
    stream: bool | None = None
    format: str | Json | None = None
    """`json`, or a JSON schema."""
    options: Json | None = None
    keep_alive: float | str | None = None
    """Seconds, or a duration such as `5m`; negative: for ever."""
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    truncate: bool | None = None
    shift: bool | None = None


class ChatBody(_Generation, frozen=True, kw_only=True):
    """POST /api/chat"""

    messages: tuple[OllamaMessage, ...] | None = None
    tools: tuple[ToolSpec, ...] | None = None


class GenerateBody(_Generation, frozen=True, kw_only=True):
    """POST /api/generate"""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: tuple[int, ...] | None = None
    raw: bool | None = None
    images: tuple[str, ...] | None = None


class EmbedBody(Named, frozen=True, kw_only=True):
    """POST /api/embed"""

    input: str | tuple[str, ...] = ()
    truncate: bool | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    options: Json | None = None
    keep_alive: float | str | None = None


class EmbeddingsBody(Named, frozen=True, kw_only=True):
    """POST /api/embeddings, the older one"""

    prompt: str = ""
    options: Json | None = None
    keep_alive: float | str | None = None


class ShowBody(Named, frozen=True, kw_only=True):
    """POST /api/show"""

    verbose: bool | None = None


class PullBody(Named, frozen=True, kw_only=True):
    """POST /api/pull"""

    stream: bool | None = None
    insecure: bool | None = None


class CopyBody(msgspec.Struct, frozen=True):
    """POST /api/copy"""

    source: Name
    destination: Name


class CreateBody(Named, frozen=True, kw_only=True):
    """POST /api/create: FROM, SYSTEM and PARAMETER of a Modelfile as JSON, or the Modelfile itself."""

    from_: Name = msgspec.field(default="", name="from")
    modelfile: str | None = None
    system: str | None = None
    parameters: Json | None = None
    template: str | None = None
    license: str | tuple[str, ...] | None = None
    messages: tuple[OllamaMessage, ...] | None = None
    files: Json | None = None
    adapters: Json | None = None
    quantize: str | None = None
    stream: bool | None = None
