"""docs/VERSIONS.md, its schemas, the golden bytes and the code say the same."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from pares.swarm import licences, predicate, version
from pares.swarm.catalogue import builtin
from pares.swarm.lineage import State
from pares.swarm.predicate import EndorsementStatement, RevocationStatement, VersionStatement
from pares.swarm.version import open_statement
from pares.wire.messages import STATEMENT_BYTES
from statements import VECTORS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "VERSIONS.md").read_text(encoding="utf-8")
RECORDED = json.loads((ROOT / "tests" / "vectors" / "versions.json").read_text())
KINDS: dict[str, type[msgspec.Struct]] = {
    "version": VersionStatement,
    "endorsement": EndorsementStatement,
    "revocation": RevocationStatement,
}
EXAMPLE = "version, with everything"


def any_json(kind: type) -> dict[str, object]:
    if kind is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


def schema(kind: str) -> dict[str, object]:
    """The JSON Schema of a payload."""
    described = msgspec.json.schema(KINDS[kind], schema_hook=any_json)
    written: dict[str, object] = json.loads(json.dumps(described))  # a default of () is []
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | written


def kept(kind: str) -> dict[str, object]:
    read: dict[str, object] = json.loads((ROOT / "docs" / f"{kind}.schema.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_that_of_the_code(kind: str) -> None:
    assert kept(kind) == schema(kind), f"write `schema({kind!r})` to docs/{kind}.schema.json"


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: r["what"])
def test_statements_are_signed_and_read_as_recorded(recorded: dict[str, str]) -> None:
    assert VECTORS[recorded["what"]].decode() == recorded["envelope"]
    opened = open_statement(recorded["envelope"].encode())
    assert (opened.payload.decode(), opened.digest.hex()) == (recorded["payload"], recorded["digest"])
    assert (opened.kind, opened.author.hex(), opened.about.hex()) == (
        recorded["kind"],
        recorded["author"],
        recorded["about"],
    )
    assert hashlib.sha256(recorded["payload"].encode()).hexdigest() == recorded["digest"]
    jsonschema_rs.validate(kept(recorded["kind"]), json.loads(recorded["payload"]))


def test_every_kind_of_statement_is_recorded() -> None:
    assert [recorded["what"] for recorded in RECORDED] == list(VECTORS)
    assert {recorded["kind"] for recorded in RECORDED} == set(KINDS)


def test_a_schema_refuses_what_the_code_refuses() -> None:
    for path, wrong in (("kind", "other"), ("publisher", "0" * 63), ("files", []), ("created", -1), ("licence", {})):
        statement = json.loads(open_statement(VECTORS[EXAMPLE]).payload)
        statement["predicate"][path] = wrong
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(kept("version"), statement)


def test_the_example_is_a_statement_of_the_golden_bytes() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert json.loads(example) == json.loads(open_statement(VECTORS[EXAMPLE]).payload)


def test_the_document_names_types_limits_states_and_texts() -> None:
    types = {predicate.VERSION_TYPE, predicate.ENDORSEMENT_TYPE, predicate.REVOCATION_TYPE}
    assert set(re.findall(r"pares://\w+/v\d+", DOCUMENT)) == types
    assert f"at most {STATEMENT_BYTES} bytes" in DOCUMENT
    assert f"nested at most {version.MAX_DEPTH} deep" in DOCUMENT
    assert version.PAYLOAD_TYPE in DOCUMENT
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)) == set(State.__args__)  # type: ignore[attr-defined]
    assert f"({', '.join(licences.TEXTS)})" in DOCUMENT


def test_fields_that_the_document_names_exist() -> None:
    structs = [kind for kind in vars(predicate).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    fields = {field.encode_name for kind in structs for field in msgspec.structs.fields(kind)}
    rules = DOCUMENT.split("## Lineage")[0].split("## `pares://version/v1`")[1]
    named = {part for words in re.findall(r"`([a-z0-9_.]+)`", rules) for part in words.split(".")}
    beyond = {"tokenizer", "chat_template", "adapter", "quantized", "finetune", "base", "pares"}
    assert named <= fields | beyond


def test_licences_of_the_catalogue_are_expressions() -> None:
    for offer in builtin():
        meant = licences.meant_by(offer.licence)
        assert licences.expression(meant) == meant
