"""POST /v1/responses, without a memory: every request brings the whole conversation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.failures import OPENAI, Surface, unsupported
from pares.api.openai.chat import SERVED_BY
from pares.api.openai.inputs import Held, effort_of, hold, now_s, text_of, thinking_of, tool_choice_of
from pares.api.openai.response_events import ResponseEvents
from pares.api.openai.schemas import InputItem, ResponseBody, ResponseTool
from pares.api.streams import SSE, Stream
from pares.chat.completion import chat
from pares.chat.messages import ChatRequest, Message, Role, Tool, ToolCall
from pares.errors import BadRequest
from pares.store.database import new_id

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


async def create(call: Call[ResponseBody]) -> Response | Stream:
    """Answer, at once or as events."""
    body = call.body
    if body.previous_response_id or body.store or body.background:
        param = "previous_response_id" if body.previous_response_id else "store" if body.store else "background"
        raise unsupported(param, param, "Nothing is kept here between requests: send the whole conversation as input.")
    events = ResponseEvents()
    running = _events(call, question_of(body), events)
    if body.stream:
        return Stream(running, SSE, Surface(OPENAI.refusal, events.failed), SERVED_BY)
    async with aclosing(running):
        async for _ in running:
            pass
    return reply(events.response, headers=SERVED_BY)


def question_of(body: ResponseBody) -> ChatRequest:
    """All of a question that does not depend on the model. Raises BadRequest, NotSupported."""
    tools = tools_of(body.tools or ())
    effort = body.reasoning.effort if body.reasoning else None
    return ChatRequest(
        messages=messages_of(body),
        max_tokens=body.max_output_tokens,
        tools=tools,
        tool_choice=tool_choice_of(body.tool_choice, tools),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        schema=_schema(body),
        thinking=thinking_of(effort),
        reasoning_effort=effort_of(effort),
    )


async def _events(
    call: Call[ResponseBody], question: ChatRequest, events: ResponseEvents
) -> AsyncGenerator[bytes, None]:
    logprobs = call.body.top_logprobs
    if logprobs is None:
        logprobs = 0 if "message.output_text.logprobs" in (call.body.include or ()) else -1
    async with hold(call, logprobs=logprobs) as held:
        events.response |= _response(call.body, held)
        pieces = call.metrics.watch(held.used.name, chat(held.used.model, held.ask(question)))
        begun = False
        async with aclosing(pieces):
            async for piece in pieces:
                begin = () if begun else events.begin()
                begun = True
                yield b"".join((*begin, *events.take(piece)))
        yield events.end(await _usage(events, held), now_s())


async def _usage(events: ResponseEvents, held: Held) -> dict[str, object]:
    usage = events.usage
    thought = await held.used.model.tokenize(events.reasoning, special=False, bos=False) if events.reasoning else ()
    prompt, generated = (usage.prompt_tokens, usage.generated_tokens) if usage else (0, 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens if usage else 0, "cache_write_tokens": 0},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": min(len(thought), generated)},
        "total_tokens": prompt + generated,
    }


def _response(body: ResponseBody, held: Held) -> dict[str, object]:
    choice = body.tool_choice
    sampling = held.options.sampling
    return {
        "id": f"resp_{new_id()}",
        "object": "response",
        "created_at": now_s(),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": held.used.name,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": body.text.format if body.text and body.text.format else {"type": "text"}},
        "tool_choice": choice if isinstance(choice, str) else choice or "auto",
        "tools": body.tools or (),
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        **held.note,
    }


def messages_of(body: ResponseBody) -> Sequence[Message]:
    """Items as messages. Calls join the assistant's turn before them. Raises BadRequest, NotSupported."""
    messages = [Message("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*messages, Message("user", body.input)]
    if not body.input:
        raise BadRequest("input must have at least one item.", param="input")
    reasoning = ""
    for index, item in enumerate(body.input):
        where = f"input[{index}]"
        match item.type:
            case "message":
                role = _ROLES.get(item.role or "")
                if role is None:
                    raise BadRequest(f"A role is one of {', '.join(_ROLES)}.", param=f"{where}.role")
                text = text_of(item.content, where)
                messages.append(Message(role, text, reasoning if role == "assistant" else ""))
                reasoning = ""
            case "reasoning":
                reasoning += text_of(item.content, where)
            case "function_call":
                _add_call(messages, item, reasoning)
                reasoning = ""
            case "function_call_output":
                messages.append(Message("tool", text_of(item.output, where), tool_call_id=item.call_id or ""))
            case _:
                raise unsupported(f"An item of the type {item.type[:100]!r}", f"{where}.type")
    return messages


def _add_call(messages: list[Message], item: InputItem, reasoning: str) -> None:
    call = ToolCall(item.call_id or item.id or "", item.name or "", item.arguments or "")
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant" and not reasoning:
        messages[-1] = Message("assistant", last.content, last.reasoning, (*last.tool_calls, call))
    else:
        messages.append(Message("assistant", "", reasoning, (call,)))


def tools_of(given: Sequence[ResponseTool]) -> tuple[Tool, ...]:
    for tool in given:
        if tool.type != "function" or not tool.name:
            raise unsupported(f"A tool of the type {tool.type[:100]!r}", "tools", "Describe it as a function.")
    return tuple(Tool(tool.name or "", tool.description or "", tool.parameters or {}) for tool in given)


def _schema(body: ResponseBody) -> dict[str, object] | None:
    wanted = body.text.format if body.text else None
    match wanted.type if wanted else "text":
        case "text":
            return None
        case "json_object":
            return {}
        case "json_schema":
            return dict((wanted.schema if wanted else None) or {})
    raise BadRequest("text.format must be text, json_object or json_schema.", param="text.format.type")
