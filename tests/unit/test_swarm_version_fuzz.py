"""Any bytes for a statement: it is what its author signed, whole, or a ProtocolError, fast and in little memory."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import tracemalloc

import msgspec
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import person
from pares.swarm.version import PAYLOAD_TYPE, Opened, open_statement
from pares.wire.framing import ProtocolError
from pares.wire.messages import STATEMENT_BYTES
from statements import ADA, BEN, VECTORS, dsse

ENVELOPES = list(VECTORS.values())
PAYLOADS = [open_statement(envelope).payload for envelope in ENVELOPES]
CUTS = st.lists(
    st.tuples(
        st.integers(0, 8192),
        st.integers(0, 8),
        st.binary(max_size=6)
        | st.sampled_from([b'"', b"[", b"{", b"}", b"]", b",", b"\\u0000", b"1e9", b"null", b"="]),
    ),
    min_size=1,
    max_size=4,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e6, 1e6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def changed(body: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, size, new in cuts:
        at %= len(body) + 1
        body = body[:at] + new + body[at + size :]
    return body


def refused_or_whole(envelope: bytes) -> Opened | None:
    try:
        opened = open_statement(envelope)
    except ProtocolError:
        return None
    assert opened.digest == hashlib.sha256(opened.payload).digest()
    assert rfc8785.dumps(json.loads(opened.payload)) == opened.payload
    assert msgspec.convert(msgspec.to_builtins(opened.predicate), type(opened.predicate)) == opened.predicate
    return opened


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.builds(changed, st.sampled_from(ENVELOPES), CUTS))
def test_any_bytes_are_a_statement_that_was_signed_or_refused(envelope: bytes) -> None:
    if refused_or_whole(envelope):
        assert envelope in ENVELOPES


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ENVELOPES), st.integers(0, 1 << 16))
def test_a_truncated_statement_is_refused(envelope: bytes, size: int) -> None:
    with pytest.raises(ProtocolError):
        open_statement(envelope[: size % len(envelope)])


@settings(max_examples=300, deadline=None)
@given(st.builds(changed, st.sampled_from(PAYLOADS), CUTS) | st.binary(max_size=100))
def test_a_well_signed_payload_of_any_bytes_does_no_harm(payload: bytes) -> None:
    """A member may sign nonsense."""
    opened = refused_or_whole(dsse(ADA, payload))
    assert opened is None or (opened.payload, opened.author) == (payload, ADA.id)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PAYLOADS), st.lists(st.integers(0, 20), max_size=4), JSON)
def test_any_value_in_any_place_of_a_statement_does_no_harm(payload: bytes, way: list[int], value: object) -> None:
    statement = place = json.loads(payload)
    for step in way:
        inside = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if not inside:
            break
        key = inside[step % len(inside)]
        if step is way[-1] or not isinstance(place[key], dict | list):
            place[key] = value
            break
        place = place[key]
    refused_or_whole(dsse(BEN, rfc8785.dumps(statement)))


@given(st.sampled_from(ENVELOPES), st.integers(0, 5))
def test_a_statement_of_another_signer_is_refused(envelope: bytes, number: int) -> None:
    opened = open_statement(envelope)
    if person(number).id != opened.author:
        with pytest.raises(ProtocolError):
            open_statement(dsse(person(number), opened.payload))
        fields = json.loads(envelope)
        fields["signatures"][0]["keyid"] = person(number).id.hex()
        with pytest.raises(ProtocolError):
            open_statement(rfc8785.dumps(fields))


@given(st.sampled_from(PAYLOADS), st.sampled_from(PAYLOADS), st.sampled_from(ENVELOPES))
def test_a_signature_fits_its_own_statement_only(payload: bytes, other: bytes, envelope: bytes) -> None:
    """Nor may it be replayed for the same words under another type."""
    own = open_statement(envelope).payload
    retyped = json.loads(own) | {"predicateType": json.loads(other)["predicateType"]}
    for carried in (payload, rfc8785.dumps(retyped)):
        fields = json.loads(envelope) | {"payload": base64.standard_b64encode(carried).decode()}
        assert (refused_or_whole(rfc8785.dumps(fields)) is not None) == (carried == own)


FITS = STATEMENT_BYTES - 300
INSIDE = FITS * 3 // 4 - 300
BOMBS = [
    b"[" * STATEMENT_BYTES,
    b'{"payload":' * (STATEMENT_BYTES // 11),
    b'{"payload":"' + b"A" * FITS,
    b'{"payload":"","payloadType":"' + PAYLOAD_TYPE.encode() + b'","signatures":[' + b"{}," * 20_000 + b"{}]}",
    b'{"payload":' + b"1" * FITS + b"}",
    b'{"payload":"' + b"\\u0041" * (FITS // 6) + b'"}',
    *(
        dsse(ADA, payload)
        for payload in (
            b"[" * (INSIDE // 2) + b"]" * (INSIDE // 2),
            b'{"a":' * (INSIDE // 6) + b"1" + b"}" * (INSIDE // 6),
            b"[" + b"[]," * (INSIDE // 3 - 1) + b"[]]",
            b"[" + b"1," * (INSIDE // 2 - 1) + b"1]",
            b"1" * INSIDE,
            b"1e" + b"9" * INSIDE,
            b'"' + b"\\u0000" * (INSIDE // 6) + b'"',
            b"{" + b",".join(b'"%d":0' % number for number in range(5000)) + b"}",
            PAYLOADS[0].replace(b'"files":[', b'"files":[' + b"{}," * 10_000),
        )
    ),
]


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_bombs_cost_neither_time_nor_memory(number: int) -> None:
    assert len(BOMBS[number]) <= STATEMENT_BYTES
    tracemalloc.start()
    begun = time.monotonic()
    assert refused_or_whole(BOMBS[number]) is None
    seconds, (_, peak) = time.monotonic() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 64 * STATEMENT_BYTES
