"""The relay's words and limits: equal to iroh's in every byte, and safe against every other byte."""

from __future__ import annotations

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from pares.circle import relay_frames as frames
from pares.circle.relay_frames import FRAME_BYTES, VERSION_1, VERSION_2, Kind, Packet, Ping, Pong, Status
from pares.circle.relay_limits import Door
from pares.transport.bucket import Bucket
from pares.wire.framing import ProtocolError
from pares.wire.signing import BadSignature

KEY = Ed25519PrivateKey.from_private_bytes(bytes([42]) * 32)
ID = KEY.public_key().public_bytes_raw()
HEX_ID = "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"
HELLO = b"Hello World!".hex()

keys = st.binary(min_size=32, max_size=32)
datagrams = st.binary(min_size=1, max_size=2000)


def authentication(nonce: bytes, key: Ed25519PrivateKey = KEY) -> bytes:
    """As iroh's client makes it."""
    message = blake3(nonce, derive_key_context="iroh-relay handshake v1 challenge signature").digest()
    return b"\x01" + key.public_key().public_bytes_raw() + b"\x40" + key.sign(message)


def test_frames_to_clients_are_those_of_iroh_byte_for_byte() -> None:
    """The vectors are those of iroh-relay's own snapshot tests."""
    assert ID.hex() == HEX_ID
    one = Packet(Kind.SEND, bytes(32), memoryview(bytes.fromhex("03" + HELLO)))
    batch = Packet(Kind.SEND_BATCH, bytes(32), memoryview(bytes.fromhex("030006" + HELLO)))
    assert one.relayed(ID).hex() == "06" + HEX_ID + "03" + HELLO
    assert batch.relayed(ID).hex() == "07" + HEX_ID + "030006" + HELLO
    assert frames.gone(ID).hex() == "08" + HEX_ID
    assert frames.ping(b"\x2a" * 8).hex() == "09" + "2a" * 8
    assert frames.pong(b"\x2a" * 8).hex() == "0a" + "2a" * 8
    assert frames.restarting(10, 20).hex() == "0c0000000a00000014"
    assert frames.status(Status.SAME_KEY_CONNECTED, VERSION_2).hex() == "0d01"
    assert frames.status(Status.SAME_KEY_CONNECTED, VERSION_1).startswith(b"\x0bAnother endpoint")
    assert frames.challenge(bytes(16)) == bytes(17)
    assert frames.confirm() == b"\x02"
    assert frames.deny("not authorized") == b"\x03\x0enot authorized"


def test_frames_from_clients_are_read_as_iroh_writes_them() -> None:
    """Also from iroh-relay's snapshot tests."""
    one = frames.parse(bytes.fromhex("04" + HEX_ID + "03" + HELLO))
    batch = frames.parse(bytes.fromhex("05" + HEX_ID + "030006" + HELLO))
    assert one == Packet(Kind.SEND, ID, memoryview(bytes.fromhex("03" + HELLO)))
    assert batch == Packet(Kind.SEND_BATCH, ID, memoryview(bytes.fromhex("030006" + HELLO)))
    assert frames.parse(bytes.fromhex("09" + "2a" * 8)) == Ping(b"\x2a" * 8)
    assert frames.parse(bytes.fromhex("0a" + "2a" * 8)) == Pong(b"\x2a" * 8)


@given(keys, keys, st.integers(0, 3), st.one_of(st.none(), st.integers(1, 65535)), datagrams)
def test_what_is_relayed_differs_only_in_type_and_key(
    source: bytes, destination: bytes, ecn: int, segment: int | None, content: bytes
) -> None:
    payload = bytes([ecn]) + (b"" if segment is None else segment.to_bytes(2, "big")) + content
    kind = 4 if segment is None else 5
    packet = frames.parse(bytes([kind]) + destination + payload)
    assert isinstance(packet, Packet)
    assert packet.destination == destination
    assert packet.relayed(source) == bytes([kind + 2]) + source + payload


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x04" + bytes(33))
@example(b"\x04" + bytes(32) + b"\x04x")
@example(b"\x05" + bytes(32) + b"\x00\x00\x00x")
@example(b"\x04" + bytes(FRAME_BYTES))
@example(b"\x06" + bytes(50))
@example(b"\x09" + bytes(9))
@example(b"\x40\x04" + bytes(50))
def test_any_bytes_are_a_frame_or_a_fault(frame: bytes) -> None:
    try:
        packet = frames.parse(frame)
    except ProtocolError:
        return
    assert frame[0] in (4, 5, 9, 10)
    if isinstance(packet, Packet):
        assert len(packet.relayed(bytes(32))) == len(frame) <= FRAME_BYTES


@given(st.binary(min_size=16, max_size=16))
def test_only_the_owner_of_a_key_proves_it(nonce: bytes) -> None:
    answer = authentication(nonce)
    assert frames.proven_key(answer, nonce) == ID
    other = bytes([nonce[0] ^ 1]) + nonce[1:]
    with pytest.raises(BadSignature):
        frames.proven_key(answer, other)
    with pytest.raises(BadSignature):
        frames.proven_key(answer[:1] + bytes(32) + answer[33:], nonce)


@given(st.binary(max_size=120))
@example(authentication(bytes(16))[:-1])
@example(authentication(bytes(16)) + b"\x00")
@example(b"\x01" + b"\xff" * 32 + b"\x40" + bytes(64))
def test_no_bytes_prove_a_key_by_chance(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.proven_key(answer, bytes(16))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1000)), max_size=50))
def test_a_bucket_never_lets_through_more_than_burst_and_rate_allow(steps: list[tuple[float, int]]) -> None:
    now, taken = 0.0, 0
    bucket = Bucket(100, 50, now)
    for pause, amount in steps:
        now += pause
        taken += amount
        wait = bucket.take(amount, now)
        now += wait
        assert taken <= 50 + 100 * now + 1e-6
        assert wait <= max(0, amount) / 100 + 1e-6


def test_what_cannot_be_paid_at_once_is_not_taken() -> None:
    bucket = Bucket(1, 2, 0)
    assert [bucket.try_take(1, 0) for _ in range(3)] == [True, True, False]
    assert not bucket.full(1)
    assert bucket.full(2)
    assert bucket.try_take(2, 2)


def test_the_door_counts_the_neighbours_of_a_network_together() -> None:
    door = Door(total=100, per_address=2, per_second=100)
    assert [door.admit(f"2001:db8::{n}", 0) for n in (1, 2, 3)] == [None, None, "address_full"]
    assert door.admit("2001:db8:0:1::1", 0) is None
    assert [door.admit(a, 0) for a in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")] == [None, None, "address_full"]
    assert door.admit("fe80::1%eth0", 0) is None
    door.leave("2001:db8::2")
    assert door.admit("2001:db8::3", 0) is None
    assert door.inside == 6


def test_the_door_refuses_who_knocks_too_often_and_forgets_who_stopped() -> None:
    door = Door(total=10_000, per_address=1000, per_second=5)
    assert [door.admit("192.0.2.1", 0) for _ in range(21)] == [None] * 20 + ["address_rate"]
    assert door.admit("192.0.2.2", 0) is None
    assert door.admit("192.0.2.1", 1) is None


def test_the_door_remembers_a_bounded_number_of_addresses() -> None:
    door = Door(total=1_000_000, per_address=1, per_second=1)
    admitted = [door.admit(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0) for n in range(5000)]
    assert admitted[:4096] == [None] * 4096
    assert set(admitted[4096:]) == {"address_rate"}
    assert door.admit("192.0.2.1", 5) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=200))
def test_the_door_never_holds_more_than_it_may(steps: list[tuple[bool, int]]) -> None:
    door, inside = Door(total=6, per_address=2, per_second=1000), [0] * 6
    for now, (comes, house) in enumerate(steps):
        address = f"192.0.2.{house}"
        if comes and door.admit(address, now) is None:
            inside[house] += 1
        elif not comes and inside[house]:
            door.leave(address)
            inside[house] -= 1
        assert sum(inside) == door.inside <= 6
        assert max(inside) <= 2
