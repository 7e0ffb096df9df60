"""What a JSON schema may ask for, before a grammar is made of it.

llama.cpp unrolls every count and follows every reading of an ambiguous pattern at once: schemas of a few bytes can
take all memory, overflow its stack, or hold a worker for hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pares.errors import BadRequest

MAX_COUNT = 1000
"""The most characters, items or repeats that a schema can ask for by number."""
MAX_BRANCHES = 16
"""Places in one pattern where there is more than one way on, repeats counted: llama.cpp's time grows as a power."""
MAX_ALL_BRANCHES = 200
"""The same in all patterns together."""
MAX_NODES = 20_000

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_PARTS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(?P<times>[^}]*)\}|.", re.DOTALL)


def check(schema: Mapping[str, object]) -> None:
    """Raises BadRequest for a schema that would take too much to enforce."""
    branches = 0.0
    for nodes, (name, value) in enumerate(_fields(schema)):
        if nodes >= MAX_NODES:
            raise _refused(f"it has more than {MAX_NODES} parts")
        if name in _COUNTS and isinstance(value, int | float) and not 0 <= value <= MAX_COUNT:
            raise _refused(f"{name} must be from 0 to {MAX_COUNT}")
        if name == "pattern" and isinstance(value, str):
            here = _branches(value)
            branches += here
            if here > MAX_BRANCHES or branches > MAX_ALL_BRANCHES:
                most = f"more than {MAX_BRANCHES} choices, or {MAX_ALL_BRANCHES} together (repeats count)"
                raise _refused(f"its patterns have {most}")


def _refused(why: str) -> BadRequest:
    return BadRequest(f"This JSON schema cannot be enforced: {why}.", param="response_format", hint="Make it simpler.")


def _fields(value: object) -> Iterator[tuple[str, object]]:
    """Every field and element of a schema; those of lists without a name."""
    left = [value]
    while left:
        fields: Iterator[tuple[str, object]] = iter(())
        match left.pop():
            case Mapping() as mapping:
                fields = iter(mapping.items())
            case list() as items:
                fields = (("", item) for item in items)
        for name, inner in fields:
            yield name, inner
            left.append(inner)


def _branches(pattern: str) -> float:
    """How often a pattern has more than one way on: quantifiers and alternatives, those in a repeat each time anew.

    A float, as repeats of repeats soon are astronomical. What is no pattern at all is refused elsewhere.
    """
    groups = [0.0]
    last = 0.0
    for part in _PARTS.finditer(pattern):
        match part[0]:
            case "(":
                groups.append(0.0)
                last = 0.0
            case ")" if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
            case "*" | "+" | "?" | "|":
                groups[-1] += 1
                last += 1
            case _ if part["times"] is not None:
                each, last = last, last * _most(part["times"]) + part["times"].count(",")
                groups[-1] += last - each
            case _:
                last = 0.0
    return sum(groups)


def _most(times: str) -> int:
    """The larger number of a repeat, read as generously as the converter reads it."""
    numbers = [number.strip() for number in times.split(",")]
    try:
        most = max(int(number or 0) for number in numbers)
    except ValueError:  # Python's limit of digits, too
        raise _refused(f"{{{times[:40]}}} is no repeat") from None
    if most > MAX_COUNT:
        raise _refused(f"{{{times[:40]}}} repeats more than {MAX_COUNT} times")
    return most
