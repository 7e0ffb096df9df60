"""From a request to the text that the model continues, and to the parser that understands what it will write."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from pares.chat import harmony, reasoning, template, tools
from pares.chat.harmony import Harmony
from pares.chat.markup import Calls, Markup, Parser
from pares.chat.messages import ChatRequest, Tool
from pares.chat.reasoning import Tags
from pares.chat.text import text_of
from pares.errors import BadRequest
from pares.inference.generation import ModelFacts, Vocabulary

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
MAX_TOOLS = 1024
_TOOL_NAME = re.compile(r"[\w.:/-]{1,128}")


class Prompt(msgspec.Struct, frozen=True):
    """What the model is given, and how its answer is to be read."""

    text: str
    stop: tuple[str, ...]
    """The request's stop strings, and those that a model without a template needs."""
    schema: dict[str, object] | None
    """What the answer has to be, enforced by a grammar; None: anything."""
    grammar_trigger: str
    """The grammar holds after this string only; empty: from the first token on."""
    parser: Callable[[Callable[[], str]], Parser]
    """Makes the parser of one answer, given a source of ids for calls."""
    markers: frozenset[str]
    """Texts of control tokens that the parser has to see."""


def prompt_for(facts: ModelFacts, vocabulary: Vocabulary, request: ChatRequest, now: datetime) -> Prompt:
    """Check a request and write its prompt. Raises BadRequest, and BrokenModelFile for a hostile template."""
    offered, enforced = _tools_of(request)
    check_stop(request.stop)
    if not request.messages:
        raise BadRequest("There are no messages to answer.", param="messages")
    source = template.choose(facts.templates, tools=bool(offered))
    speaks_harmony = harmony.speaks_harmony(source)
    tags = reasoning.tags_of(source)
    schema = _schema_of(request, offered, enforced)
    text = _rendered(source, vocabulary, request, offered, now, constrained=schema is not None)
    if speaks_harmony:
        text, thinking = _in_final_channel(text, request, constrained=schema is not None), False
    else:
        text, thinking = _begun(text, request, source, tags, constrained=schema is not None)
    trigger = tags.close if tags and thinking and schema is not None else ""
    stop = (*request.stop, *(template.PLAIN_STOP if source == template.PLAIN else ()))
    names = [tool.name for tool in enforced or offered]
    family = tools.BARE if schema is not None else tools.family_of(source) or tools.HERMES

    def parser(new_id: Callable[[], str]) -> Parser:
        # A grammar ends a call that it enforces by itself, and then the generation ends as all do.
        calls = Calls(names, new_id, parallel=request.parallel_tool_calls or schema is not None)
        if speaks_harmony and schema is None:
            return Harmony(stop, calls, begun=request.continue_last)
        return Markup(
            stop,
            calls,
            tags=tags,
            family=family if names else None,
            thinking=thinking,
            strip=source == template.PLAIN and not request.continue_last,
        )

    markers = harmony.MARKERS if speaks_harmony else (tools.MARKERS if names else frozenset()) | reasoning.markers(tags)
    return Prompt(text, stop, schema, trigger, parser, markers)


def _in_final_channel(text: str, request: ChatRequest, *, constrained: bool) -> str:
    if request.continue_last:
        return text + harmony.FINAL + request.messages[-1].content
    return text + harmony.FINAL if constrained else text


def _begun(text: str, request: ChatRequest, source: str, tags: Tags | None, *, constrained: bool) -> tuple[str, bool]:
    """The prompt with what of the answer is given already, and whether it ends inside of the reasoning."""
    if request.continue_last:
        # The plain template leaves the blank after its colon to the model.
        blank = " " if source == template.PLAIN else ""
        return reasoning.continued(text + blank, tags, request.messages[-1])
    if tags and constrained and request.thinking:
        return reasoning.opened(text, tags), True
    if tags and (constrained or request.thinking is False):
        return reasoning.closed(text, tags), False
    return text, reasoning.is_open(text, tags)


def check_stop(stop: Sequence[str]) -> None:
    """Raises BadRequest for more, or longer, stop strings than are looked for."""
    if len(stop) > MAX_STOPS or any(len(string) > MAX_STOP_LENGTH for string in stop):
        raise BadRequest(
            f"At most {MAX_STOPS} stop strings of at most {MAX_STOP_LENGTH} characters are looked for.", param="stop"
        )


def _tools_of(request: ChatRequest) -> tuple[Sequence[Tool], Sequence[Tool]]:
    """The tools to offer, and those of which one has to be called."""
    if len(request.tools) > MAX_TOOLS or len({tool.name for tool in request.tools}) < len(request.tools):
        raise BadRequest(f"There may be at most {MAX_TOOLS} tools, each with a name of its own.", param="tools")
    for tool in request.tools:
        if not _TOOL_NAME.fullmatch(tool.name):
            raise BadRequest(
                f"{tool.name[:128]!r} is no name for a tool: letters, digits and _ . : / - only, at most 128.",
                param="tools",
            )
    choice, _, name = request.tool_choice.partition(":")
    if choice not in {"auto", "none", "required", "tool"} or (name and choice != "tool"):
        raise BadRequest(f"There is no tool choice {request.tool_choice!r}.", param="tool_choice")
    if choice == "none":
        return (), ()
    enforced = [tool for tool in request.tools if choice == "required" or (choice == "tool" and tool.name == name)]
    if choice in {"required", "tool"} and not enforced:
        wanted = f"the tool {name!r}" if choice == "tool" else "any tool"
        raise BadRequest(f"The request has to call {wanted}, but does not describe it.", param="tool_choice")
    return request.tools, enforced


def _schema_of(request: ChatRequest, offered: Sequence[Tool], enforced: Sequence[Tool]) -> dict[str, object] | None:
    if enforced:
        return tools.call_schema(enforced)
    if request.schema is None:
        return None
    answer = dict(request.schema) or {"type": "object"}
    return {"anyOf": [answer, tools.call_schema(offered)]} if offered else answer


def _rendered(
    source: str,
    vocabulary: Vocabulary,
    request: ChatRequest,
    offered: Sequence[Tool],
    now: datetime,
    *,
    constrained: bool,
) -> str:
    messages = list(request.messages)
    if request.continue_last and messages.pop().role != "assistant":
        raise BadRequest("Only an answer can be continued: the last message is not the assistant's.", param="messages")
    if tools.family_of(source) is None and not harmony.speaks_harmony(source):
        messages, offered = tools.in_plain_text(messages, offered), ()
    variables: dict[str, object] = {
        "add_generation_prompt": True,
        "bos_token": text_of(vocabulary, vocabulary.bos),
        "eos_token": text_of(vocabulary, vocabulary.eos),
    }
    # A grammar that holds from the first token on leaves no room for reasoning.
    thinking = False if constrained and request.thinking is None else request.thinking
    if thinking is not None:
        variables |= {"enable_thinking": thinking, "thinking": thinking}
    if request.reasoning_effort:
        variables["reasoning_effort"] = request.reasoning_effort
    return template.render(source, messages, offered, now=now, **variables)
