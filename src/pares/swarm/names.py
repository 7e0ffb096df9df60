"""Names of models: what is one, and which ones look alike. Names are compared without regard to case."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from pares.errors import BadRequest

MAX_NAME = 128
ADAPTER_MARK = "+"

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*(?::{_SEGMENT})?")
_LATEST = ":latest"


def clean_name(text: str) -> str:
    """The name without the `:latest` that other tools append. Raises BadRequest if it cannot be a name."""
    name = text.strip()
    if name.lower().endswith(_LATEST):
        name = name[: -len(_LATEST)]
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BadRequest(
            f"{text[:MAX_NAME]!r} cannot be a model's name.",
            param="name",
            hint=f"Use letters, digits and . _ - / with an optional :tag, at most {MAX_NAME} characters.",
        )
    return name


def split_adapter(name: str) -> tuple[str, str]:
    """`base+adapter` as its two names; the second is empty where there is no adapter. Raises BadRequest."""
    base, mark, adapter = name.partition(ADAPTER_MARK)
    return clean_name(base), clean_name(adapter) if mark else ""


def name_of_file(file_name: str) -> str:
    """A name for a model that is known only by its file: `Qwen3-0.6B-Q8_0.gguf` is `qwen3-0.6b-q8_0`."""
    stem = re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE).lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[:MAX_NAME]
    return name or "model"


def file_of_name(name: str) -> str:
    """The file in which a model of that name is kept. Not one to one: `a/b` and `a:b` share it."""
    return f"{name_of_file(name)}.gguf"


def free_name(wanted: str, taken: set[str]) -> str:
    """The name, or, if it is taken, with the first number behind it that makes it free."""
    names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """At most three names that a person may have meant, the likeliest first."""
    by_key = {each.casefold(): each for each in known}
    wanted = name.casefold()
    close = get_close_matches(wanted, by_key, n=3, cutoff=0.5)
    starting = [key for key in sorted(by_key) if len(wanted) >= 3 and key.startswith(wanted)]
    return tuple(by_key[key] for key in dict.fromkeys([*starting, *close]))[:3]
