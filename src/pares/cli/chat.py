"""Talking to a model: run, chat, ask."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from pares.api.schemas import (
    ChatSettings,
    Conversation,
    ConversationChange,
    Conversations,
    LoadRequest,
    MessageNode,
    ReplyRequest,
)
from pares.cli.answer import Answer
from pares.cli.client import Client, quote
from pares.cli.complete import ModelName, model_names
from pares.cli.connect import run
from pares.cli.dialogue import Dialogue, speak
from pares.cli.figures import duration, facts
from pares.cli.ready import last_model, load, obtain
from pares.cli.terminal import Terminal
from pares.config import parse_count, parse_seconds
from pares.errors import BadRequest, NodeUnreachable, NotFound


def _tokens(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number of tokens such as 8192 or 8k.") from None


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time such as 30s, 5m or -1.") from None


Prompt = Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to say; without it you chat.")]
Format = Annotated[Literal["json"] | None, typer.Option("--format", help="The answer is JSON.")]
KeepAlive = Annotated[
    float | None,
    typer.Option("--keepalive", parser=_seconds, metavar="TIME", help="How long it stays in memory; -1: always."),
]
Think = Annotated[bool | None, typer.Option("--think/--no-think", help="Let a model that can think do so, or not.")]
HideThinking = Annotated[bool, typer.Option("--hidethinking", help="Do not show what it thinks.")]
Context = Annotated[int | None, typer.Option("--ctx", parser=_tokens, metavar="TOKENS", help="Size of the context.")]
Temperature = Annotated[float | None, typer.Option("--temp", min=0.0, help="Temperature; 0: the likeliest words.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed gives the same answer.")]
System = Annotated[str, typer.Option("-s", "--system", help="Who the model is and how it should answer.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="The same text bit for bit with the same seed, whatever else is computed.")
]
NoWordWrap = Annotated[bool, typer.Option("--nowordwrap", help="Do not break lines between words.")]


def run_model(
    ctx: typer.Context,
    model: ModelName,
    prompt: Prompt = None,
    form: Format = None,
    keep_alive: KeepAlive = None,
    think: Think = None,
    hide_thinking: HideThinking = False,
    context: Context = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = "",
    exact: Exact = False,
    no_word_wrap: NoWordWrap = False,
) -> None:
    """Chat with a model, or get one answer; a model of the catalogue is fetched first.

    What is piped in follows the prompt. With -v you see how long it took.
    """
    dialogue = Dialogue(
        model,
        system,
        {"num_ctx": context, "temperature": temperature, "seed": seed},
        json_only=form is not None,
        think=think,
        show_reasoning=not hide_thinking,
        wrap=not no_word_wrap,
        keep_alive_s=keep_alive,
    )
    how = LoadRequest(context, "exact" if exact else None, keep_alive)
    _converse(ctx, dialogue, how, _with_piped(" ".join(prompt or ())))


def chat(
    ctx: typer.Context,
    prompt: Prompt = None,
    form: Format = None,
    keep_alive: KeepAlive = None,
    think: Think = None,
    hide_thinking: HideThinking = False,
    context: Context = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = "",
    exact: Exact = False,
    no_word_wrap: NoWordWrap = False,
) -> None:
    """Chat with the model you talked to last: `pares run` without its name."""
    answer = (form, keep_alive, think, hide_thinking, context, temperature, seed, system, exact, no_word_wrap)
    run_model(ctx, "", prompt, *answer)


def ask(
    ctx: typer.Context,
    question: Annotated[list[str] | None, typer.Argument(metavar="QUESTION", help="What you want to know.")] = None,
    go_on: Annotated[bool, typer.Option("-c", "--continue", help="Go on with your latest conversation.")] = False,
    model: Annotated[
        str,
        typer.Option("-m", "--model", metavar="MODEL", help="Default: the last one.", autocompletion=model_names),
    ] = "",
    system: System = "",
    files: Annotated[
        list[Path] | None,
        typer.Option("-f", "--file", help="Put this text file before the question.", exists=True, dir_okay=False),
    ] = None,
    schema: Annotated[
        str, typer.Option("--schema", metavar="JSON|FILE", help="The answer is JSON of this JSON schema.")
    ] = "",
    no_word_wrap: NoWordWrap = False,
) -> None:
    """Ask a question; you find the conversation on the page."""
    parts = [file.read_text("utf-8", errors="replace") for file in files or ()]
    text = _with_piped("\n\n".join([*parts, " ".join(question or ())]).strip())
    if not text:
        raise BadRequest("There is no question.", hint='`pares ask "Why is the sky blue?"`')
    wishes = Wishes(model, system, _schema(schema))

    async def work(node: Client, out: Terminal) -> None:
        conversation = await (_latest if go_on else _new)(node, out, wishes)
        message = await _reply(node, out, conversation, text, wrap=not no_word_wrap)
        if out.options.json:
            out.json_line({"conversation_id": conversation.row.id, "message": message})
        elif out.options.verbose:
            out.note(f"\n{_timings(message)}")

    run(ctx, work)


@dataclass(frozen=True)
class Wishes:
    """How a conversation that the node keeps should be."""

    model: str = ""
    system: str = ""
    schema: Mapping[str, object] | None = None


def _converse(ctx: typer.Context, dialogue: Dialogue, how: LoadRequest, text: str) -> None:
    """One answer if there is something to say, else a conversation, if there is a person."""

    async def work(node: Client, out: Terminal) -> None:
        if not text and not out.interactive:
            raise BadRequest("There is no prompt.", hint='For example: pares run MODEL "Why is the sky blue?"')
        dialogue.model = await obtain(node, out, dialogue.model or await last_model(node, out))
        await load(node, out, dialogue.model, how)
        dialogue.verbose = out.options.verbose
        if not text:
            from pares.cli.repl import talk

            await talk(node, out, dialogue)
            return
        reply = await speak(node, out, dialogue, text)
        if out.options.json:
            out.json_line(reply)
        elif out.options.verbose:
            out.note(f"\n{reply.timings()}")

    run(ctx, work)


def _with_piped(text: str) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    return "\n\n".join(part for part in (text, piped) if part)


def _schema(text: str) -> Mapping[str, object] | None:
    """A JSON schema, given as text or as the name of a file."""
    if not text:
        return None
    try:
        source = text if text.lstrip().startswith("{") else Path(text).read_bytes()
        return msgspec.json.decode(source, type=dict[str, object])
    except (OSError, msgspec.DecodeError) as error:
        message = f"The schema cannot be read: {error}."
        raise BadRequest(message, hint="It is a JSON object, or the name of a file with one.") from error


async def _new(node: Client, out: Terminal, wishes: Wishes) -> Conversation:
    change = ConversationChange(
        model=await obtain(node, out, wishes.model or await last_model(node, out)),
        system=wishes.system or None,
        settings=ChatSettings(schema=wishes.schema) if wishes.schema is not None else None,
    )
    return await node.post("/conversations", Conversation, change)


async def _latest(node: Client, out: Terminal, wishes: Wishes) -> Conversation:
    rows = (await node.get("/conversations", Conversations)).conversations
    if not rows:
        raise NotFound("There is no conversation to go on with.", hint="Ask without -c.")
    address = f"/conversations/{quote(rows[0].id)}"
    conversation = await node.get(address, Conversation)
    if wishes == Wishes():
        return conversation
    schema = conversation.settings.schema if wishes.schema is None else wishes.schema
    change = ConversationChange(
        model=await obtain(node, out, wishes.model) if wishes.model else None,
        system=wishes.system or None,
        settings=msgspec.structs.replace(conversation.settings, schema=schema),
    )
    return await node.patch(address, Conversation, change)


async def _reply(node: Client, out: Terminal, conversation: Conversation, text: str, *, wrap: bool) -> MessageNode:
    """Say `text` at the end of a conversation and show the answer as it comes; the node keeps both."""
    answer = Answer(out, wrap=wrap)
    request = ReplyRequest(conversation.leaf, text)
    try:
        async with aclosing(node.events(f"/conversations/{quote(conversation.row.id)}/reply", request)) as events:
            async for name, data in events:
                if name == "finished":
                    return msgspec.json.decode(data, type=MessageNode)
                _show(answer, name, msgspec.json.decode(data, type=_Progress))
    finally:
        answer.end()
    raise NodeUnreachable("The node ended the answer before it was complete.", hint="`pares logs` may tell why.")


class _Progress(msgspec.Struct):
    """What the events of a reply tell, whichever it is."""

    text: str = ""
    progress: float = 0.0
    place: int = 0


def _show(answer: Answer, event: str, told: _Progress) -> None:
    match event:
        case "text":
            answer.say(told.text)
        case "reasoning":
            answer.think(told.text)
        case "loading":
            answer.wait(f"Loading the model: {told.progress:.0%}")
        case "queued":
            answer.wait(f"Waiting: number {told.place} in the queue")


def _timings(message: MessageNode) -> str:
    return facts(
        [
            ("prompt", f"{message.prompt_tokens} tokens"),
            ("answer", f"{message.generated_tokens} tokens, {message.tokens_per_s:.1f} tokens/s"),
            ("first token", f"after {duration(message.first_token_s)}"),
        ]
    )
