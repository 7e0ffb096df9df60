"""What clients of OpenAI's API send. Fields that are not here are ignored with a warning.

The fields that mean nothing on a machine of one's own (`user`, `metadata`, ...) are here so that they pass silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from pares.inference.generation import MAX_TOP_LOGPROBS

MAX_CHOICES = 16
MAX_INPUTS = 2048

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]
Top = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)]
Token = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Json = Mapping[str, object]


class Part(msgspec.Struct, frozen=True):
    """Part of a message. Text is taken; pictures and sounds are refused."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class Function(msgspec.Struct, frozen=True):
    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class ToolSpec(msgspec.Struct, frozen=True):
    function: Function | None = None
    type: str = "function"


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str = ""


class CalledTool(msgspec.Struct, frozen=True):
    function: CalledFunction
    id: str = ""
    type: str = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[CalledTool, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class ToolChoice(msgspec.Struct, frozen=True):
    type: str = "function"
    function: NamedFunction | None = None
    name: str | None = None
    """Where it stands in /v1/responses."""


class JsonSchema(msgspec.Struct, frozen=True):
    schema: Json | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str
    json_schema: JsonSchema | None = None
    schema: Json | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling: OpenAI's, then those of other local servers."""

    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    logit_bias: Mapping[int, float] | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    num_ctx: int | None = None
    options: Json | None = None
    """Ollama's, tolerated: the fields beside it win."""
    user: str | None = None
    metadata: Json | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


KNOBS = [
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "top_k",
    "min_p",
    "repeat_penalty",
    "repetition_penalty",
    "repeat_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "num_ctx",
]


class ChatBody(_Knobs, frozen=True, kw_only=True):
    """POST /v1/chat/completions"""

    model: Name
    messages: tuple[ChatMessage, ...]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: tuple[ToolSpec, ...] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    reasoning_effort: str | None = None
    thinking: bool | None = None
    """Ask a model that can think to do so, or not to."""
    chat_template_kwargs: Json | None = None
    """`enable_thinking`, as other local servers take it."""
    continue_final_message: bool | None = None
    """Go on with the last message, an assistant's."""
    add_generation_prompt: bool | None = None


class CompletionBody(_Knobs, frozen=True, kw_only=True):
    """POST /v1/completions"""

    model: Name
    prompt: str | tuple[str | Token | tuple[Token, ...], ...] | None = None
    suffix: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: Top | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/embeddings"""

    model: Name
    input: str | tuple[str | Token | tuple[Token, ...], ...]
    encoding_format: str | None = None
    dimensions: Count | None = None
    user: str | None = None


class InputItem(msgspec.Struct, frozen=True):
    """An item of the input of /v1/responses: a message, a call, its output, or reasoning."""

    type: str = "message"
    role: str | None = None
    content: str | tuple[Part, ...] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | tuple[Part, ...] | None = None


class ResponseTool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, frozen=True):
    type: str = "text"
    name: str | None = None
    schema: Json | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningConfig(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class ResponseBody(_Knobs, frozen=True, kw_only=True):
    """POST /v1/responses"""

    model: Name
    input: str | tuple[InputItem, ...]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    tools: tuple[ResponseTool, ...] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    include: tuple[str, ...] | None = None
    top_logprobs: Top | None = None
    truncation: str | None = None
