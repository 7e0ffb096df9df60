"""The prompt of `pares run`: lines that begin with / are commands, everything else is for the model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Protocol

import msgspec

from pares.api.schemas import Created, CreateRequest, ModelDetail
from pares.cli.client import Client, Modelfile, quote
from pares.cli.dialogue import Dialogue, speak
from pares.cli.figures import facts
from pares.cli.models import portrait
from pares.cli.ready import load, obtain
from pares.cli.terminal import Terminal
from pares.config import find_home
from pares.errors import BadRequest, ParesError

FENCE = '"""'
HELP = """\
/set system TEXT           who the model is and how it should answer
/set parameter NAME VALUE  temperature, top_p, seed, num_predict, …
/set format json           answers are JSON; /set noformat ends that
/set think | nothink       let a model that can think do so, or not
/set verbose | quiet       say how long an answer took, or not
/set wordwrap | nowordwrap break lines between words, or not
/show [info|system|parameters|template|license|modelfile]
/save NAME                 keep the model, the system text and the parameters under a name
/load MODEL                talk to another model
/clear                     forget what was said
/bye                       leave, as does Ctrl-D
Put text of several lines between \"\"\" and \"\"\". Ctrl-C stops an answer."""


class Prompter(Protocol):
    """Where lines come from: a prompt_toolkit session. Raises EOFError and KeyboardInterrupt."""

    async def prompt_async(self, message: str) -> str: ...


async def talk(node: Client, out: Terminal, dialogue: Dialogue, prompter: Prompter | None = None) -> None:
    """Read and answer until the person leaves."""
    prompter = prompter or _session(out)
    conversation = _Conversation(node, out, dialogue)
    out.note(f"You are talking to {dialogue.model}. /? helps, /bye leaves.")
    while True:
        try:
            text, is_command = await _read(prompter)
        except KeyboardInterrupt:
            out.note("Ctrl-D or /bye leaves.")
            continue
        except EOFError:
            return
        if text in ("/bye", "/exit"):
            return
        try:
            await _stoppable(conversation.obey(text) if is_command else conversation.say(text))
        except ParesError as error:
            out.error(error.code, error.message, error.hint)


def _session(out: Terminal) -> Prompter:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    path = find_home(out.options.home) / "history"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return PromptSession(history=FileHistory(path))


async def _read(prompter: Prompter) -> tuple[str, bool]:
    """What was entered, and whether it is a command. A fence lets it go over several lines."""
    line = (await prompter.prompt_async(">>> ")).strip()
    start, fence, text = line.partition(FENCE)
    if not fence:
        return line, line.startswith("/")
    while FENCE not in text:
        text += "\n" + await prompter.prompt_async("... ")
    return start + text[: text.rindex(FENCE)].strip("\n"), start.startswith("/")


async def _stoppable(work: Coroutine[object, object, None]) -> None:
    """Do the work; Ctrl-C stops it instead of the program, twice stops the program."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if task.cancelling():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        await asyncio.wait([task])
    finally:
        signal.signal(signal.SIGINT, before)
        task.cancel()
    if not task.cancelled():
        task.result()


class _Conversation:
    """What the commands change."""

    def __init__(self, node: Client, out: Terminal, dialogue: Dialogue) -> None:
        self._node = node
        self._out = out
        self._dialogue = dialogue

    async def say(self, text: str) -> None:
        """Ask the model."""
        if not text:
            return
        reply = await speak(self._node, self._out, self._dialogue, text)
        if self._dialogue.verbose:
            self._out.note(f"\n{reply.timings()}")

    async def obey(self, line: str) -> None:
        """Do what a command says. Raises BadRequest for one that is not known."""
        dialogue = self._dialogue
        match line.split(maxsplit=2):
            case ["/?" | "/help", *_]:
                self._out.note(HELP)
            case ["/clear"]:
                dialogue.messages.clear()
            case ["/load", model]:
                dialogue.model = await obtain(self._node, self._out, model)
                await load(self._node, self._out, dialogue.model)
                dialogue.messages.clear()
                self._out.note(f"You are talking to {dialogue.model} now.")
            case ["/save", name]:
                created = await self._node.post("/models/create", Created, CreateRequest(name, self._modelfile()))
                self._out.note(f"Saved. `pares run {created.name}` goes on like this.")
            case ["/show", *what]:
                self._out.show(await self._shown(what[0] if what else "info"))
            case ["/set", what, *value]:
                self._set(what, value[0] if value else "")
            case _:
                raise BadRequest(f"There is no command {line.split()[0]}.", hint="/? shows all of them.")

    def _set(self, what: str, value: str) -> None:
        dialogue = self._dialogue
        match what, value.split(maxsplit=1):
            case "system", _:
                dialogue.system = value
            case "parameter", [name, number]:
                dialogue.options[name] = _value(number)
            case "format", ["json"]:
                dialogue.json_only = True
            case "noformat", []:
                dialogue.json_only = False
            case (("think" | "nothink"), []):
                dialogue.think = what == "think"
            case (("verbose" | "quiet"), []):
                dialogue.verbose = what == "verbose"
            case (("wordwrap" | "nowordwrap"), []):
                dialogue.wrap = what == "wordwrap"
            case _:
                raise BadRequest(f"`/set {what} {value}` means nothing.", hint="/? shows what can be set.")
        self._out.note("Set.")

    async def _shown(self, what: str) -> str:
        address = f"/models/{quote(self._dialogue.model)}"
        match what:
            case "system":
                return self._dialogue.system or "There is no system text."
            case "parameters":
                return facts(self._dialogue.options.items()) or "All parameters are the model's own."
            case "modelfile":
                return (
                    await self._node.post(f"{self._node.url}/api/show", Modelfile, {"model": self._dialogue.model})
                ).modelfile
        detail = await self._node.get(address, ModelDetail)
        match what:
            case "template":
                return detail.templates.get("default", "This model has no chat template.")
            case "license" | "licence":
                return detail.licence_text or detail.row.licence or "The file names no licence."
            case "info":
                return portrait(detail)
        raise BadRequest(f"There is no {what} to show.", hint="/? shows what there is.")

    def _modelfile(self) -> str:
        dialogue = self._dialogue
        lines = [f"FROM {dialogue.model}"]
        if dialogue.system:
            lines.append(f"SYSTEM {FENCE}{dialogue.system}{FENCE}")
        lines += [f"PARAMETER {name} {value}" for name, value in dialogue.options.items() if value is not None]
        return "\n".join(lines) + "\n"


def _value(text: str) -> object:
    """A number where it is one."""
    try:
        return msgspec.json.decode(text, type=int | float | bool)
    except msgspec.DecodeError:
        return text
