"""What a conversation consists of, and the pieces in which an answer arrives. No HTTP shapes: those are the API's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pares.inference.generation import Sampling, TokenId, Usage

Role = Literal["system", "user", "assistant", "tool"]
StopReason = Literal["stop", "length", "tool_calls"]


class ToolCall(msgspec.Struct, frozen=True):
    """The model asks to run a function. `arguments` is JSON text, exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. `reasoning` is what a thinking model wrote before its answer."""

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """For role `tool`: which call this answers."""
    name: str = ""


class Tool(msgspec.Struct, frozen=True):
    """A function the model may ask for. `parameters` is a JSON schema of its arguments object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = {}


class ChatRequest(msgspec.Struct, frozen=True):
    """One answer to a conversation. `tool_choice` is `auto`, `none`, `required`, or `tool:NAME`."""

    messages: Sequence[Message]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None: as long as the context lasts."""
    stop: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    schema: Mapping[str, object] | None = None
    """The answer is JSON of this schema; `{}` is any JSON object."""
    thinking: bool | None = None
    """Ask a model that can think to do so or not; None leaves it to its template."""
    continue_last: bool = False
    """The last message is an unfinished assistant turn: go on with it, without a new turn."""
    reasoning_effort: str = ""
    """How hard to think, in the words of the model's template (such as `low`, `medium`, `high`); empty: its default."""


class CompletionRequest(msgspec.Struct, frozen=True):
    """Text or tokens to go on with, no template. `suffix` asks for fill-in-the-middle, where the model knows how."""

    prompt: str | Sequence[TokenId]
    suffix: str = ""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    schema: Mapping[str, object] | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token, its bytes, its log-probability, and the most likely ones at its place."""

    token: TokenId
    piece: bytes
    logprob: float
    top: tuple[tuple[TokenId, bytes, float], ...] = ()


class Text(msgspec.Struct, frozen=True):
    """More of the answer. Whole UTF-8 characters only. `logprobs` has one entry per token that `text` came from."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Reasoning(msgspec.Struct, frozen=True):
    """More of what the model thinks before the answer."""

    text: str


class CallBegun(msgspec.Struct, frozen=True):
    """A tool call begins; `index` counts from 0."""

    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


class Finished(msgspec.Struct, frozen=True):
    """The last piece of every answer. `stopped_by` is the stop string that ended it, if one did."""

    reason: StopReason
    usage: Usage
    stopped_by: str = ""


Piece = Text | Reasoning | CallBegun | CallArguments | Finished


class Answer(msgspec.Struct, frozen=True):
    """All pieces of an answer put together."""

    message: Message
    reason: StopReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    stopped_by: str = ""
