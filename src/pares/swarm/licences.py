"""Licences of models: which one a header or a person means, its text, and whether two go together.

Licences are SPDX expressions; one that SPDX does not know, such as the terms of Gemma, is a `LicenseRef-...`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

from pares.errors import BadRequest, Conflict
from pares.inference.header import Header
from pares.swarm.predicate import Licence

if TYPE_CHECKING:
    from license_expression import LicenseExpression, Licensing  # type: ignore[import-untyped]

MAX_EXPRESSION = 200
MAX_DEPTH = 8
TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "Apache-2.0": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
        "CC-BY-4.0": "2a82ac9bbc3e3ee066908381e8d373896db5a6025d083fbd59692fe9ccfb9111",
        "CC0-1.0": "a2010f343487d3f7618affe54f789f5487602331c0a8d03f49e9a7c547cf0499",
        "MIT": "b85dcd3e453d05982552c52b5fc9e0bdd6d23c6f8e844b984a88af32570b0cc0",
    }
)
"""Licences whose text comes with Pares, and the text's SHA-256: statements leave these out."""

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-4.0",
        "CC0-1.0",
        "CDLA-Permissive-2.0",
        "ISC",
        "MIT",
        "MIT-0",
        "Unlicense",
        "Zlib",
    }
)
"""What is made from a work under one of these may be given away under other terms."""

_PAGES: Mapping[str, str] = MappingProxyType(
    {
        "LicenseRef-gemma": "https://ai.google.dev/gemma/terms",
        "LicenseRef-llama2": "https://ai.meta.com/llama/license/",
        "LicenseRef-llama3": "https://www.llama.com/llama3/license/",
        "LicenseRef-llama3.1": "https://www.llama.com/llama3_1/license/",
        "LicenseRef-llama3.2": "https://www.llama.com/llama3_2/license/",
        "LicenseRef-llama3.3": "https://www.llama.com/llama3_3/license/",
        "LicenseRef-llama4": "https://www.llama.com/llama4/license/",
    }
)
_SAID_OTHERWISE: Mapping[str, str] = MappingProxyType(
    {name.removeprefix("LicenseRef-"): name for name in _PAGES}
    | {
        "apache 2.0": "Apache-2.0",
        "apache license 2.0": "Apache-2.0",
        "apache license, version 2.0": "Apache-2.0",
        "mit license": "MIT",
        "cc": "",
        "other": "",
        "unknown": "",
        "none": "",
        "llama 2 community": "LicenseRef-llama2",
        "llama 3 community": "LicenseRef-llama3",
        "llama 3.1 community": "LicenseRef-llama3.1",
        "llama 3.2 community": "LicenseRef-llama3.2",
        "llama 3.3 community": "LicenseRef-llama3.3",
        "llama 4 community": "LicenseRef-llama4",
    }
)
_REFERENCE = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_TOKEN = re.compile(r"[()]|[A-Za-z0-9][A-Za-z0-9.:-]*\+?")
_WORDS = re.compile(r"[^A-Za-z0-9.]+")


def expression(text: str) -> str:
    """A valid SPDX expression as SPDX writes it, `Apache-2.0 OR MIT` for `apache-2.0 or mit`. Raises BadRequest."""
    text = _SAID_OTHERWISE.get(text.strip().casefold(), text.strip())
    parsed = _parsed(text)
    if parsed is not None and all(_REFERENCE.fullmatch(key) for key in _spdx().unknown_license_keys(parsed)):
        return str(parsed)
    raise BadRequest(
        f"{text[:MAX_EXPRESSION]!r} is not a licence that SPDX knows.",
        param="licence",
        hint="Name it as on https://spdx.org/licenses, or as `LicenseRef-its-name`, with its text.",
    )


def meant_by(words: str) -> str:
    """The expression for what headers and catalogues say: `LicenseRef-...` for what is unknown; empty for nothing."""
    words = words.strip()[:MAX_EXPRESSION]
    words = _SAID_OTHERWISE.get(words.casefold(), words)
    try:
        return expression(words) if words else ""
    except BadRequest:
        name = _WORDS.sub("-", words.casefold()).strip("-.")
        return expression(f"LicenseRef-{name}"[:MAX_EXPRESSION]) if name else ""


def said_by(header: Header) -> str:
    """The licence that a header names; empty where it names none. Raises BrokenModelFile."""
    return meant_by(header.text("general.license")) or meant_by(header.text("general.license.name"))


def declared(spdx: str, *, header: Header | None = None, words: str = "", text: str = "", url: str = "") -> Licence:
    """The licence of a version: what its publisher says, else the header, else `words` (of a catalogue).

    Raises Conflict where nobody names one: nothing is given away without. BadRequest for what is not an expression.
    """
    named = expression(spdx) if spdx.strip() else (said_by(header) if header else "") or meant_by(words)
    if not named:
        raise Conflict(
            "This model names no licence, so nobody would know whether they may use it.",
            hint="Say under which one it is, such as `--licence Apache-2.0`.",
        )
    link = header.text("general.license.link") if header else ""
    digest = hashlib.sha256(text.encode()).hexdigest() if text else TEXTS.get(named)
    url = url or (link if len(link) <= 200 and link.startswith("https://") else "") or _PAGES.get(named, "")
    return Licence(spdx=named, text=text if digest != TEXTS.get(named) else "", text_sha256=digest, url=url)


def text_of(licence: Licence) -> str:
    """The text that was agreed on: of the statement, else of Pares; empty where there is only a link or a name."""
    here = TEXTS.get(licence.spdx)
    if licence.text or here is None or licence.text_sha256 not in (None, here):
        return licence.text
    return resources.files("pares.swarm").joinpath("licence_texts", f"{licence.spdx}.txt").read_text("utf-8")


def findings(licence: Licence) -> tuple[str, ...]:
    """What is wrong with the licence in somebody's statement, in sentences."""
    found = []
    try:
        expression(licence.spdx)
    except BadRequest as error:
        found.append(error.message)
    if licence.text and hashlib.sha256(licence.text.encode()).hexdigest() != licence.text_sha256:
        found.append("The licence's text is not the one whose hash the statement names.")
    return tuple(found)


def warning(licence: str, of_parent: str) -> str:
    """Why what was made from a version under `of_parent` may not go under `licence`; empty where nothing is known.

    The rule: permissive terms let go; any others go on to what is made, so another licence is a question. It is a hint
    to read both, not a judgement.
    """
    if licence == of_parent or _lets_go(of_parent):
        return ""
    return (
        f"What it was made from is under {of_parent}, whose terms may bind what is made from it; "
        f"this is under {licence}. Read both."
    )


@lru_cache(maxsize=256)
def _lets_go(text: str) -> bool:
    parsed = _parsed(text)
    return parsed is not None and all(str(symbol) in PERMISSIVE for symbol in parsed.symbols)


def _parsed(text: str) -> LicenseExpression | None:
    """None for what is no expression. The library fails in ways of its own on what has not the form of one."""
    from license_expression import ExpressionError

    try:
        return _spdx().parse(text) if _is_wellformed(text) else None
    except ExpressionError:
        return None


def _is_wellformed(text: str) -> bool:
    """Whether names and operators take turns, and what is opened is closed."""
    if len(text) > MAX_EXPRESSION or _TOKEN.sub("", text).strip(" "):
        return False
    depth, named = 0, False
    for token in _TOKEN.findall(text):
        match token.upper():
            case "(" if not named and depth < MAX_DEPTH:
                depth += 1
            case ")" if named and depth:
                depth -= 1
            case "AND" | "OR" | "WITH" if named:
                named = False
            case "(" | ")" | "AND" | "OR" | "WITH":
                return False
            case _ if named:
                return False
            case _:
                named = True
    return named and not depth


@cache
def _spdx() -> Licensing:
    from license_expression import get_spdx_licensing  # 45 ms with its index of licences

    return get_spdx_licensing()
