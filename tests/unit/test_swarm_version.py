"""Statements on versions: what is signed, what is told of a model by its header, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from gguf import GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import NOW
from pares.errors import BadRequest, Conflict
from pares.inference.gguf import Header, read_header
from pares.swarm import licences
from pares.swarm.licences import declared, expression, meant_by, said_by, text_of, warning
from pares.swarm.predicate import Data, Evaluation, Licence, Parent, Revocation, Version
from pares.swarm.version import (
    PAYLOAD_TYPE,
    check_header,
    describe_version,
    guess_kind,
    open_statement,
    sign_endorsement,
    sign_revocation,
    sign_version,
)
from pares.wire.framing import ProtocolError
from pares.wire.messages import STATEMENT_BYTES
from pares.wire.signing import BadSignature, Identity, PeerId
from statements import ABOUT, ADA, APACHE, BEN, FULL, PLAIN, digest, dsse, file, version
from tiny import tiny_gemma3, tiny_llama, tiny_lora

TALKER = "{{ messages }}"


@pytest.fixture
def header(tmp_path: Path) -> Header:
    return read_header(tiny_llama(tmp_path / "tiny.gguf", layers=3, experts=4, template=TALKER))


def described(header: Header, base: Parent | None = None) -> Version:
    files = (file(size=header.file_bytes),)
    return describe_version(header, name="tiny", publisher=ADA.id, created=NOW, files=files, licence=APACHE, base=base)


def tampered(envelope: bytes, **changes: object) -> bytes:
    return rfc8785.dumps(json.loads(envelope) | changes)


def statement(**changes: object) -> dict[str, Any]:
    """The payload of a sound version of Ada's, with changes of its predicate."""
    payload: dict[str, Any] = json.loads(open_statement(sign_version(ADA, PLAIN)).payload)
    payload["predicate"] |= changes
    return payload


# What is signed


@pytest.mark.parametrize(("author", "what"), [(ADA, PLAIN), (BEN, FULL)])
def test_a_version_is_read_as_it_was_signed(author: Identity, what: Version) -> None:
    opened = open_statement(sign_version(author, what))
    assert (opened.kind, opened.author, opened.predicate) == ("version", author.id, what)
    assert opened.digest == opened.about == hashlib.sha256(opened.payload).digest()


def test_voices_name_the_version_that_they_are_about() -> None:
    measured = (Evaluation(suite="s", metric="m", value=1.5, by=BEN.id.hex(), at=NOW),)
    endorsement = open_statement(sign_endorsement(BEN, ABOUT, "tiny", text="Good.", evaluations=measured, at=NOW))
    assert (endorsement.kind, endorsement.about, endorsement.author) == ("endorsement", ABOUT, BEN.id)
    revocation = open_statement(sign_revocation(ADA, ABOUT, "tiny", reason="Bad.", at=NOW))
    assert (revocation.kind, revocation.about) == ("revocation", ABOUT)
    assert revocation.predicate == Revocation(by=ADA.id.hex(), at=NOW, reason="Bad.")


def test_any_tool_that_knows_dsse_and_in_toto_can_check_it() -> None:
    envelope = json.loads(sign_version(ADA, PLAIN))
    payload = base64.standard_b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    kind = PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    Ed25519PublicKey.from_public_bytes(ADA.id).verify(base64.standard_b64decode(signature["sig"]), signed)
    said = json.loads(payload)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [
        {
            "name": "tiny.gguf",
            "digest": {"sha256": PLAIN.files[0].sha256, "btv2": PLAIN.files[0].root},
            "annotations": {"bytes": PLAIN.files[0].size},
        }
    ]
    assert envelope["payloadType"] == "application/vnd.in-toto+json"


def test_the_same_version_is_the_same_bytes() -> None:
    assert sign_version(BEN, FULL) == sign_version(BEN, msgspec.convert(msgspec.to_builtins(FULL), type(FULL)))


def test_a_later_version_of_the_format_may_say_more() -> None:
    payload = rfc8785.dumps(statement(colour="blue") | {"more": [1]})
    opened = open_statement(dsse(ADA, payload))
    assert opened.predicate == PLAIN
    assert opened.digest == hashlib.sha256(payload).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"publisher": BEN.id.hex()},
        {"name": ""},
        {"created": 253_402_300_800},
        {"name": "ti\u202eny"},
        {"label": "two\nlines"},
        {"description": "x" * 4001},
        {"licence": Licence(spdx="MIT", text="\u3042" * 30_000)},
        {"licence": Licence(spdx="MIT", url="javascript:alert(1)")},
        {"licence": Licence(spdx="MIT", url="https://example.org/\n")},
        {"recipe": {"seed": 1 << 60}},
        {"recipe": {"rate": float("nan")}},
        {"recipe": {"rate": 1e20}},
        {"recipe": {"text": "\ud800"}},
        {"recipe": {"\ud800": 1}},
        {"files": (file(), file())},
        {"files": ()},
        {"kind": "adapter"},
        {"parents": (Parent(name="other"),)},
        {"kind": "merge", "parents": (Parent(),)},
        {"kind": "merge", "parents": tuple(Parent(name=f"p{n}") for n in range(17))},
        {"data": (Data(private="0" * 63),)},
    ],
)
def test_what_a_peer_would_refuse_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="cannot be signed"):
        sign_version(ADA, version(**changes))


def test_a_recipe_of_bottomless_depth_is_not_signed() -> None:
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(BadRequest):
        sign_version(ADA, version(recipe=deep))


def test_an_empty_reason_takes_nothing_back() -> None:
    with pytest.raises(BadRequest):
        sign_revocation(ADA, ABOUT, "tiny", reason="", at=NOW)


# What is refused


def test_a_statement_over_the_limit_is_not_even_read() -> None:
    with pytest.raises(ProtocolError, match=f"{STATEMENT_BYTES} are allowed"):
        open_statement(b" " * (STATEMENT_BYTES + 1))


def test_a_changed_payload_is_not_signed() -> None:
    other = base64.standard_b64encode(rfc8785.dumps(statement(label="v2"))).decode()
    with pytest.raises(BadSignature):
        open_statement(tampered(sign_version(ADA, PLAIN), payload=other))


def test_nobody_speaks_for_somebody_else() -> None:
    mine = json.loads(sign_version(ADA, PLAIN))
    (signature,) = mine["signatures"]
    with pytest.raises(BadSignature):
        open_statement(tampered(rfc8785.dumps(mine), signatures=[signature | {"keyid": BEN.id.hex()}]))
    with pytest.raises(ProtocolError, match="as its author"):
        open_statement(dsse(BEN, rfc8785.dumps(statement())))


def test_a_signature_for_another_type_of_payload_is_worth_nothing() -> None:
    payload = rfc8785.dumps(statement())
    with pytest.raises(ProtocolError):
        open_statement(dsse(ADA, payload, "application/json"))
    with pytest.raises(BadSignature):
        open_statement(tampered(dsse(ADA, payload, "application/json"), payloadType=PAYLOAD_TYPE))


def test_a_predicate_under_another_type_is_refused() -> None:
    for kind in ("pares://endorsement/v1", "pares://revocation/v1", "pares://version/v2", "https://slsa.dev/x"):
        with pytest.raises(ProtocolError):
            open_statement(dsse(ADA, rfc8785.dumps(statement() | {"predicateType": kind})))
    with pytest.raises(ProtocolError):
        open_statement(dsse(ADA, rfc8785.dumps(statement() | {"_type": "https://in-toto.io/Statement/v0.1"})))


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_signature(count: int) -> None:
    signatures = json.loads(sign_version(ADA, PLAIN))["signatures"] + json.loads(sign_version(BEN, FULL))["signatures"]
    with pytest.raises(ProtocolError):
        open_statement(tampered(sign_version(ADA, PLAIN), signatures=signatures[:count]))


def test_a_statement_has_one_form_only() -> None:
    envelope = sign_version(ADA, PLAIN)
    fields = json.loads(envelope)
    payload = base64.standard_b64decode(fields["payload"])
    loose = (
        json.dumps(fields).encode(),
        envelope + b"\n",
        envelope.replace(b'"sig"', b'"more":1,"sig"'),
        tampered(envelope, more=1),
        tampered(envelope, payload=base64.urlsafe_b64encode(b"\xff\xfe\xfd" + payload).decode()),
        dsse(ADA, json.dumps(json.loads(payload)).encode()),
        dsse(ADA, payload + b" "),
        dsse(ADA, payload.replace(b'"created":', b'"created":1,"created":')),
        dsse(ADA, payload.replace(str(NOW).encode(), f"{NOW}.0".encode())),
        dsse(ADA, payload.replace(b"tiny", b"t\\u0069ny")),
    )
    for other in loose:
        with pytest.raises(ProtocolError):
            open_statement(other)


def test_depth_is_limited() -> None:
    for depth in (40, 900, 11_000):
        payload = rfc8785.dumps(statement(recipe=0)).replace(
            b'"recipe":0', b'"recipe":' + b'{"a":' * depth + b"0" + b"}" * depth
        )
        with pytest.raises(ProtocolError):
            open_statement(dsse(ADA, payload[:45_000]))
    nested: Any = 0
    for _ in range(28):
        nested = {"a": nested}
    assert open_statement(dsse(ADA, rfc8785.dumps(statement(recipe=nested)))).kind == "version"


def test_the_subjects_are_the_files() -> None:
    good = statement()
    for subject in (
        [],
        good["subject"] * 2,
        [good["subject"][0] | {"name": "other.gguf"}],
        [good["subject"][0] | {"annotations": {"bytes": 1}}],
        [good["subject"][0] | {"digest": {"sha256": digest(1), "btv2": PLAIN.files[0].root}}],
    ):
        with pytest.raises(ProtocolError):
            open_statement(dsse(ADA, rfc8785.dumps(good | {"subject": subject})))


@pytest.mark.parametrize(
    "name", ["../up", "a/b", ".hidden", "a\\b", "a\n", "a\0", "", "x" * 129, "C:x", "\u0430.gguf", "a b"]
)
def test_a_file_name_cannot_be_a_path(name: str) -> None:
    with pytest.raises(BadRequest):
        sign_version(ADA, version(files=(msgspec.structs.replace(file(), name=name),)))


def test_digests_are_digests() -> None:
    for wrong in (digest(1).upper(), digest(1) + "\n", digest(1)[:-1], digest(1) + "0"):
        with pytest.raises(BadRequest):
            sign_version(ADA, version(files=(msgspec.structs.replace(file(), root=wrong),)))


def test_nobody_signs_as_a_key_that_nobody_owns() -> None:
    for key in (bytes(32), b"\1" + bytes(31), b"\1" + bytes(30) + b"\x80"):
        fields = json.loads(sign_version(ADA, PLAIN))
        fields["payload"] = base64.b64encode(rfc8785.dumps(statement(publisher=key.hex()))).decode()
        for point in (bytes(32), b"\1" + bytes(31), key):
            fields["signatures"] = [{"keyid": key.hex(), "sig": base64.b64encode(point + bytes(32)).decode()}]
            with pytest.raises(BadSignature):
                open_statement(rfc8785.dumps(fields))


# What the header tells


def test_the_facts_come_from_the_header(header: Header) -> None:
    made = described(header)
    facts = made.architecture
    assert (facts.name, facts.layers, facts.embedding_length, facts.vocabulary) == ("llama", 3, 256, 320)
    assert (facts.experts, facts.experts_used, facts.heads, facts.kv_heads) == (4, 2, 4, 2)
    assert (facts.key_length, facts.value_length, facts.feed_forward_length) == (64, 64, 512)
    assert (facts.parameters, facts.tensor_bytes, facts.header_bytes) == (
        header.parameters,
        header.tensor_bytes,
        header.data_start,
    )
    outside = sum(tensor.elements for tensor in header.tensors if not tensor.name.startswith("blk."))
    assert sum(facts.parameters_per_layer) == header.parameters - outside
    assert made.chat_template_sha256 == hashlib.sha256(TALKER.encode()).hexdigest()
    assert made.kind == "base"
    assert check_header(made, header) == ()
    assert open_statement(sign_version(ADA, made)).predicate == made


def test_what_is_said_otherwise_than_in_the_header_is_told(header: Header, tmp_path: Path) -> None:
    made = described(header)
    forged = msgspec.structs.replace(
        made,
        architecture=msgspec.structs.replace(
            made.architecture, parameters=7, layers=2, parameters_per_layer=(1, 2), quantization="Q8_0"
        ),
        chat_template_sha256=None,
        files=(file(size=1),),
    )
    told = " ".join(check_header(forged, header))
    for word in ("Parameters: the statement says 7", "Layers", "Quantization", "Chat template", "Size", "others than"):
        assert word in told
    gemma = read_header(tiny_gemma3(tmp_path / "gemma.gguf"))
    assert any(line.startswith("Name: the statement says llama") for line in check_header(made, gemma))
    lora = read_header(tiny_lora(tmp_path / "lora.gguf", tiny_llama(tmp_path / "base.gguf")))
    assert "Kind: the statement says base, the header adapter." in check_header(made, lora)


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    header = read_header(tiny_lora(tmp_path / "lora.gguf", tiny_llama(tmp_path / "base.gguf", layers=3)))
    with pytest.raises(BadRequest, match="what it was made from"):
        described(header)
    made = described(header, base=Parent(version=digest("base")))
    assert (made.kind, made.architecture.layers, made.architecture.name) == ("adapter", 3, "llama")
    assert len(made.architecture.parameters_per_layer) == 3
    assert open_statement(sign_version(ADA, made)).predicate == made
    assert check_header(made, header) == ()


def written(path: Path, bases: int, file_type: int = 0, **texts: str) -> Header:
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(file_type)
    if bases:
        writer.add_base_model_count(bases)
    for number in range(bases):
        writer.add_base_model_name(number, f"Base {number}")
        writer.add_base_model_organization(number, "Some\nLab")
    for key, text in texts.items():
        writer.add_string(key.replace("_", "."), text)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


@pytest.mark.parametrize(
    ("bases", "file_type", "kind"), [(0, 15, "base"), (1, 1, "finetune"), (1, 15, "quantized"), (2, 15, "merge")]
)
def test_the_kind_is_guessed_from_what_the_header_names(tmp_path: Path, bases: int, file_type: int, kind: str) -> None:
    header = written(tmp_path / "x.gguf", bases, file_type)
    assert guess_kind(header) == kind
    made = described(header)
    assert [parent.name for parent in (made.base, *made.parents) if parent] == [
        f"Some Lab/Base {number}" for number in range(bases)
    ]
    assert open_statement(sign_version(ADA, made)).predicate == made


# Licences


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("MIT or apache-2.0", "MIT OR Apache-2.0"),
        ("gemma", "LicenseRef-gemma"),
        ("Gemma", "LicenseRef-gemma"),
        ("llama3.2", "LicenseRef-llama3.2"),
        ("Llama 3.2 Community", "LicenseRef-llama3.2"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("Some / strange (terms", "LicenseRef-some-strange-terms"),
        ("other", ""),
        (" ", ""),
        ("((((", ""),
        ("x" * 5000, f"LicenseRef-{'x' * 189}"),
    ],
)
def test_what_headers_say_is_a_licence_or_a_reference(words: str, meant: str) -> None:
    assert meant_by(words) == meant
    assert not meant or expression(meant) == meant


@pytest.mark.parametrize("text", ["nonsense", "MIT AND", "(MIT", "", "MIT" * 100, "LicenseRef-", "LicenseRef-a b"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="not a licence that SPDX knows"):
        expression(text)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40)
    | st.text("()+:-.WITHORANDmit0 ", max_size=40)
    | st.lists(st.sampled_from(["MIT", "and", "OR", "WITH", "(", ")", "GPL-2.0+", "LicenseRef-x", "0+"])).map(" ".join)
)
def test_any_words_for_a_licence_are_understood_or_refused(words: str) -> None:
    meant = meant_by(words)
    assert not meant or expression(meant) == meant
    assert len(licences.findings(Licence(spdx=words))) < 2
    assert warning("MIT", words) in ("", warning("MIT", words))


def test_a_licence_comes_from_its_publisher_or_the_header_or_the_catalogue(tmp_path: Path) -> None:
    header = written(tmp_path / "x.gguf", 0, general_license="gemma")
    assert said_by(header) == "LicenseRef-gemma"
    assert declared("", header=header) == Licence(spdx="LicenseRef-gemma", url="https://ai.google.dev/gemma/terms")
    assert declared("mit", header=header).spdx == "MIT"
    assert declared("gemma").spdx == "LicenseRef-gemma"
    bare = written(tmp_path / "y.gguf", 0)
    assert declared("", header=bare, words="Llama 3.2 Community").spdx == "LicenseRef-llama3.2"
    with pytest.raises(Conflict, match="names no licence"):
        declared("", header=bare)
    told = check_header(described(header), header)
    assert told == ("Licence: the statement says Apache-2.0, the header LicenseRef-gemma.",)


@pytest.mark.parametrize("name", licences.TEXTS)
def test_texts_that_come_with_pares_are_the_pinned_ones(name: str) -> None:
    licence = declared(name)
    assert licence == Licence(spdx=name, text_sha256=licences.TEXTS[name])
    text = text_of(licence)
    assert hashlib.sha256(text.encode()).hexdigest() == licences.TEXTS[name]
    assert declared(name, text=text) == licence
    assert text_of(Licence(spdx=name)) == text
    assert text_of(Licence(spdx=name, text_sha256=digest("another"))) == ""


def test_pares_is_under_the_apache_licence_that_it_brings() -> None:
    assert (Path(__file__).parents[2] / "LICENSE").read_text() == text_of(Licence(spdx="Apache-2.0"))


def test_a_text_of_its_own_goes_into_the_statement() -> None:
    licence = declared("LicenseRef-house", text="Be kind.")
    assert (licence.text, text_of(licence)) == ("Be kind.", "Be kind.")
    assert licences.findings(licence) == ()
    assert len(licences.findings(Licence(spdx="what", text="Be kind.", text_sha256=digest(1)))) == 2


def test_terms_that_may_bind_what_is_made_are_pointed_out() -> None:
    assert warning("MIT", "Apache-2.0") == ""
    assert warning("LicenseRef-gemma", "LicenseRef-gemma") == ""
    assert "LicenseRef-gemma" in warning("MIT", "LicenseRef-gemma")
    assert warning("MIT", "CC-BY-NC-4.0")
    assert warning("MIT", "((")
    assert warning("MIT", "Apache-2.0 AND LicenseRef-x")


def test_the_author_of_a_statement_is_a_peer() -> None:
    assert open_statement(sign_version(ADA, PLAIN)).author == PeerId(bytes.fromhex(PLAIN.publisher))
