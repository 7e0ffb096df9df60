"""Any bytes a peer sends: each decoder gives a value within its limits or ProtocolError, fast, in little memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circles import CIRCLE_VECTORS, MESSAGE_VECTORS, NOW, person
from pares.circle.gossip import Gossip
from pares.circle.invites import Invitation
from pares.circle.records import Store
from pares.circle.statements import checked
from pares.wire.framing import MESSAGE_BYTES, ProtocolError, frame, size_of
from pares.wire.messages import (
    BODY_BYTES,
    STATEMENTS,
    CircleReply,
    CircleRequest,
    Delta,
    Digests,
    Label,
    Record,
    Summaries,
    SwarmReply,
    SwarmRequest,
)
from pares.wire.signing import _LOW_ORDER, Identity, Signed, decoded, opened

DECODERS: list[Any] = [
    CircleRequest,
    CircleReply,
    SwarmRequest,
    SwarmReply,
    Record,
    Signed,
    Invitation,
    *STATEMENTS.values(),
]
VALID = [msgspec.msgpack.encode(message) for message in MESSAGE_VECTORS] + [r.signed.body for r in CIRCLE_VECTORS]

BOMBS = [
    b"\x91" * 200_000,
    b"\x81\xa1a" * 80_000 + b"\xc0",
    b"\x82\xa4type\xa5delta\xa7records" + b"\x91" * 200_000,
    b"\x82\xa4type\xa5delta\xa1x" + b"\x91" * 200_000 + b"\xc0",
    b"\x82\xa4type\xa5delta\xa7records\xdd\xff\xff\xff\xff",
    b"\x82\xa4type\xa5delta\xa5wants\xc6\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff" * 50_000,
    b"\x82\xa4type\xa5hello\xa4name\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x82\xa4type\xa5hello\xa4name\xa2\xff\xfe",
    b"\x81\xa4type\xa9summaries" + b"\x00" * 1000,
    b"\x82\xa4type\xa5fetch\xa7digests\xdd\xff\xff\xff\xff",
    b"\x82\xa4type\xaastatements\xa9envelopes\xdc\xff\xff" + b"\xc4\x02{}" * 60_000,
    b"\x82\xa4type\xabpiecehashes\xa6hashes\xc6\xff\xff\xff\xff",
    b"\x82\xa6circle\xc0\xa5holds" + b"\x91" * 200_000,
    b"\x82\xa4type\xa9summaries\xa7buckets\xdd\x00\x03\x00\x00" + b"\x00" * 0x30000,
]


def read(body: bytes) -> None:
    for kind in DECODERS:
        try:
            value = decoded(body, kind)
        except ProtocolError:
            continue
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind) == value


def mutated(body: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, size, new in cuts:
        at %= len(body) + 1
        body = body[:at] + new + body[at + size :]
    return body


MUTATIONS = st.builds(
    mutated,
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | MUTATIONS)
def test_any_bytes_give_a_value_or_a_protocol_error(body: bytes) -> None:
    read(body)


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_bombs_cost_neither_time_nor_memory(number: int) -> None:
    tracemalloc.start()
    begun = time.monotonic()
    read(BOMBS[number])
    seconds, (_, peak) = time.monotonic() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 32 * MESSAGE_BYTES


@given(st.binary(min_size=4, max_size=4))
def test_the_size_of_a_frame_is_checked_before_anything_is_read(prefix: bytes) -> None:
    size = int.from_bytes(prefix, "big")
    if 0 < size <= MESSAGE_BYTES:
        assert size_of(prefix) == size
    else:
        with pytest.raises(ProtocolError, match="are allowed"):
            size_of(prefix)


@given(st.binary(max_size=100))
def test_frames_hold_what_was_put_in(body: bytes) -> None:
    if body:
        framed = frame(body)
        assert framed[4 : 4 + size_of(framed[:4])] == body
    else:
        with pytest.raises(ValueError, match="0 bytes"):
            frame(body)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(CIRCLE_VECTORS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
    st.sampled_from(list(STATEMENTS)),
    st.binary(min_size=32, max_size=32) | st.none(),
    st.binary(min_size=64, max_size=64) | st.none(),
)
def test_a_record_is_what_its_author_signed_or_refused(
    record: Record, cuts: list[tuple[int, int, bytes]], label: Label, by: bytes | None, signature: bytes | None
) -> None:
    body = mutated(record.signed.body, cuts) or b"\0"
    other = Signed(body, by or record.signed.by, signature or record.signed.signature)
    changed = Record(label=label, signed=other)
    if changed == record:
        assert checked(changed).record == record
    else:
        with pytest.raises(ProtocolError):
            checked(changed)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(STATEMENTS)), st.binary(max_size=300) | MUTATIONS)
def test_a_well_signed_body_of_any_bytes_does_no_harm(label: Label, body: bytes) -> None:
    """A member may sign nonsense."""
    author = person(0)
    rubbish = Record(label=label, signed=_signed(author, label, body or b"\0"))
    store = Store(CIRCLE_VECTORS[0], me=person(2).id, secret=b"")
    for record in (*CIRCLE_VECTORS, rubbish):
        try:
            store.add(record, NOW)
        except ProtocolError:
            assert record is rubbish
    assert len(store) <= len(CIRCLE_VECTORS) + 1
    store.membership.members()


def _signed(author: Identity, label: str, body: bytes) -> Signed:
    return Signed(body, author.id, author._key.sign(b"pares/" + label.encode() + b"\0" + body))


def test_nobody_signs_as_a_key_that_nobody_owns() -> None:
    """Under a key of low order, a signature of zeros (or of the neutral point) fits one body in at most eight."""
    for key in _LOW_ORDER:
        for sign in (0, 0x80):
            by = key[:-1] + bytes([key[-1] | sign])
            for point in (bytes(32), b"\1" + bytes(31), by):
                for attempt in range(16):
                    forged = Signed(bytes([attempt]), by, point + bytes(32))
                    with pytest.raises(ProtocolError, match="is not signed by"):
                        opened("title/1", forged, STATEMENTS["title/1"])


def test_a_body_over_the_limit_of_its_label_is_not_even_verified() -> None:
    for label, most in BODY_BYTES.items():
        large = Signed(bytes(most + 1), person(0).id, bytes(64))
        with pytest.raises(ProtocolError, match="are allowed"):
            checked(Record(label=label, signed=large))  # type: ignore[arg-type]  # a key of the table


@settings(max_examples=200, deadline=None)
@given(MUTATIONS)
def test_whatever_decodes_leaves_gossip_whole(body: bytes) -> None:
    gossip = Gossip(Store(CIRCLE_VECTORS[0], me=person(0).id, secret=b""))
    peer = person(1).id
    gossip.link(peer)
    try:
        message = decoded(body, CircleRequest | CircleReply)  # type: ignore[arg-type]  # a union decodes as well
        if isinstance(message, Digests):
            gossip.answer_digests(peer, message, NOW)
        elif isinstance(message, Summaries):
            gossip.follow(peer, gossip.digests(), message, NOW)
        elif isinstance(message, Delta):
            gossip.answer_delta(peer, message, NOW)
    except ProtocolError:
        pass
    assert sorted(gossip.store._keys) == gossip.store._keys
    assert len(gossip.store._keys) == len(list(gossip.store.entries())) == len(gossip.store)
