"""docs/PROTOCOL.md names every struct, field, type and limit of `wire/messages.py`, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import inspect

from pares.circle import invites
from pares.swarm import statements, wanted
from pares.wire import framing, messages, signing

DOCUMENT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")


def number(value: int) -> str:
    return f"2^{value.bit_length() - 1}" if value > 1 << 30 and value & (value - 1) == 0 else str(value)


def limits(least: int | None, most: int | None) -> str:
    if most is None:
        raise AssertionError("a field without a limit")
    if least == most:
        return str(most)
    return f"{least or 0} to {number(most)}"


def described(of: inspect.Type) -> str:
    """A type and its limits in the words of the document."""
    match of:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType(ge=least, le=most):
            return f"integer, {limits(least, most)}"
        case inspect.BytesType(min_length=least, max_length=most):
            return f"{limits(least, most)} bytes"
        case inspect.StrType(min_length=least, max_length=most):
            return f"text, {limits(least, most)} characters"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            return f"list of {limits(least, most)}: {described(item)}"
        case inspect.TupleType(item_types=items):
            assert len(set(map(described, items))) == 1
            return f"list of {len(items)}: {described(items[0])}"
        case inspect.StructType(cls=kind):
            return f"[{kind.__name__}](#{kind.__name__.lower()})"
        case inspect.UnionType(types=types):
            return " or ".join(described(one) for one in types if not isinstance(one, inspect.NoneType))
    raise AssertionError(f"{of} has no words yet")


def rows(kind: type[msgspec.Struct]) -> list[tuple[str, str]]:
    described_struct = inspect.type_info(kind)
    assert isinstance(described_struct, inspect.StructType)
    return [
        (field.name, described(field.type) + ("" if field.required else "; may be missing"))
        for field in described_struct.fields
    ]


def structs() -> dict[str, type[msgspec.Struct]]:
    found = [*vars(messages).values(), signing.Signed, invites.Invitation, invites.InviteContact]
    kinds = [k for k in found if isinstance(k, type) and issubclass(k, msgspec.Struct)]
    return {kind.__name__: kind for kind in kinds if not kind.__name__.startswith("_")}


def kinds_of(*unions: object) -> set[type[msgspec.Struct]]:
    return {kind for union in unions for kind in get_args(union)}


def sections() -> dict[str, str]:
    parts = re.split(r"^### (\w+)$", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (re.split(r"^## ", text, flags=re.MULTILINE)[0] for text in parts[2::2]), strict=True))


def test_the_document_has_every_struct_and_no_other() -> None:
    assert set(sections()) == set(structs())


def test_every_field_stands_there_with_its_type_and_limit_and_no_other() -> None:
    for name, kind in structs().items():
        table = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", sections()[name], flags=re.MULTILINE)
        assert table == rows(kind), f"{name} is not as in the code"


def test_every_message_stands_there_with_its_tag() -> None:
    for kind in kinds_of(messages.CircleRequest, messages.CircleReply, messages.SwarmRequest, messages.SwarmReply):
        assert f"`type`: `{kind.__struct_config__.tag}`" in sections()[kind.__name__]


def test_labels_protocols_and_limits_stand_there() -> None:
    for protocol in (messages.CIRCLE, messages.SWARM, messages.BULK):
        assert f"`{protocol}`" in DOCUMENT
    for label, kind in messages.STATEMENTS.items():
        assert f"`{label}`, body of at most {messages.BODY_BYTES[label]} bytes" in sections()[kind.__name__]
    assert f"{framing.MESSAGE_BYTES} bytes" in DOCUMENT
    text = " ".join(DOCUMENT.split())
    assert f"{wanted.EACH} statements on the word of one member, {wanted.ALL} in all" in text
    assert f"A request has at most {statements.REQUEST_BYTES} bytes" in text
    for code in get_args(messages.RefusalCode):
        assert re.search(rf"^\| `{code}` \| .+ \|$", sections()["Refused"], flags=re.MULTILINE)
