"""The part of Ollama's Modelfile that means something here: FROM, ADAPTER, SYSTEM, PARAMETER.

Grammar: one instruction per line, its name in any case; values as they stand, in double quotes, or between triple
double quotes over many lines; `#` begins a comment line. Reference: docs/modelfile of the Ollama project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from pares.errors import BadRequest, TooLarge

MAX_CHARACTERS = 1_000_000
MAX_NUMBER = 2**63 - 1

_INTEGERS = frozenset({"num_ctx", "num_predict", "seed", "top_k", "repeat_last_n"})
_NUMBERS = frozenset(
    {"temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"},
)
_IGNORED = {
    "template": "the chat template in the model file is used",
    "message": "write example turns into SYSTEM",
    "license": "the licence in the model file is shown",
    "requires": "it names a version of Ollama",
}
_INSTRUCTION = re.compile(r"[ \t]*(\w+)[ \t]+")
_BLANK = re.compile(r"[ \t]*(?:#.*)?")
_TRIPLE = '"""'


class Modelfile(msgspec.Struct, frozen=True):
    """What a Modelfile says, and what of it is not used here."""

    base: str
    """A model's name or a path."""
    adapter: str = ""
    """A name or a path."""
    system: str = ""
    defaults: Mapping[str, object] = {}
    """PARAMETER values by Ollama's names: numbers, and `stop` as a list of strings."""
    warnings: tuple[str, ...] = ()


def parse(text: str) -> Modelfile:
    """Read a Modelfile. Raises BadRequest with the line number, TooLarge."""
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(f"This Modelfile has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}.")
    values: dict[str, str] = {}
    defaults: dict[str, object] = {}
    stops: list[str] = []
    warnings: list[str] = []
    for line, instruction, value in _instructions(text):
        match instruction:
            case "from" | "adapter" | "system":
                if instruction in values:
                    warnings.append(f"Line {line}: a second {instruction.upper()} replaces the first.")
                values[instruction] = value
            case "parameter":
                key, _, argument = value.partition(" ")
                key, argument = key.lower(), _unquote(argument.strip(), line)
                if key == "stop":
                    stops.append(argument)
                elif key in _INTEGERS or key in _NUMBERS:
                    defaults[key] = _number(key, argument, line)
                else:
                    warnings.append(f"Line {line}: PARAMETER {key} is not used here.")
            case _ if instruction in _IGNORED:
                warnings.append(f"Line {line}: {instruction.upper()} is not used here: {_IGNORED[instruction]}.")
            case _:
                raise BadRequest(f"Line {line} of the Modelfile: there is no instruction {instruction!r}.")
    if not values.get("from"):
        raise BadRequest("This Modelfile has no FROM: it does not say which model it is made from.")
    if stops:
        defaults["stop"] = stops
    return Modelfile(values["from"], values.get("adapter", ""), values.get("system", ""), defaults, tuple(warnings))


def _instructions(text: str) -> list[tuple[int, str, str]]:
    """Line number, instruction in lower case, and value of each instruction."""
    found = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if _BLANK.fullmatch(line):
            continue
        match = _INSTRUCTION.match(line)
        if match is None:
            raise BadRequest(f"Line {start + 1} of the Modelfile is not an instruction with a value.")
        value = line[match.end() :].strip()
        if value.startswith(_TRIPLE):
            value = value.removeprefix(_TRIPLE)
            while _TRIPLE not in value:
                if number == len(lines):
                    raise BadRequest(f'Line {start + 1} of the Modelfile: the """ that begins here has no end.')
                value += "\n" + lines[number]
                number += 1
            value, _, rest = value.partition(_TRIPLE)
            if rest.strip():
                raise BadRequest(f'Line {number} of the Modelfile: there is more after the closing """.')
        elif match[1].lower() != "parameter":
            value = _unquote(value, start + 1)
        found.append((start + 1, match[1].lower(), value))
    return found


def _unquote(value: str, line: int) -> str:
    if not value.startswith('"'):
        return value
    if len(value) < 2 or not value.endswith('"'):
        raise BadRequest(f"Line {line} of the Modelfile: a quote that begins has no end on its line.")
    return value[1:-1].replace('\\"', '"').replace("\\n", "\n")


def _number(key: str, argument: str, line: int) -> int | float:
    try:
        value = int(argument) if key in _INTEGERS else float(argument)
    except ValueError:
        value = math.inf
    if not -MAX_NUMBER <= value <= MAX_NUMBER:  # neither nan
        kind = "a whole number" if key in _INTEGERS else "a number"
        raise BadRequest(f"Line {line} of the Modelfile: {key} must be {kind}, not {argument[:40]!r}.")
    return value
