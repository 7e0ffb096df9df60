"""Which links a node keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pares.circle.overlay import FAR, INCOMING, MESH, OUTGOING, RETRY_MOST_S, RETRY_S, Overlay
from pares.wire.signing import PeerId


def peers(count: int) -> list[PeerId]:
    return [PeerId(number.to_bytes(32, "big")) for number in range(count)]


def test_few_members_are_all_linked() -> None:
    everybody = peers(MESH)
    assert set(Overlay(everybody[0], b"s").choose(everybody, (), (), 0)) == set(everybody[1:])
    assert Overlay(everybody[0], b"s").admits(MESH, 100)


@given(st.integers(MESH + 1, 60), st.binary(max_size=16))
def test_of_many_each_node_chooses_a_few_and_stays_with_them(count: int, secret: bytes) -> None:
    everybody = peers(count)
    overlay = Overlay(everybody[0], secret)
    chosen = overlay.choose(everybody, (), (), 0)
    assert len(set(chosen)) == OUTGOING
    assert everybody[0] not in chosen
    assert set(overlay.choose([*everybody, PeerId(b"n" * 32)], chosen, (), 0)) == set(chosen)


def test_nobody_can_tell_whom_a_node_chooses() -> None:
    everybody = peers(50)
    assert len({tuple(Overlay(everybody[0], bytes([n])).choose(everybody, (), (), 0)) for n in range(20)}) == 20


def test_who_fails_is_replaced_and_tried_again_later_and_later() -> None:
    everybody = peers(30)
    overlay = Overlay(everybody[0], b"s")
    first = overlay.choose(everybody, (), (), 0)
    overlay.failed(first[0], 0)
    second = overlay.choose(everybody, first[1:], (), 0)
    assert first[0] not in second
    assert set(first[1:]) < set(second)
    assert overlay.next_try(first[0]) == RETRY_S
    for _ in range(40):
        overlay.failed(first[0], 100)
    assert overlay.next_try(first[0]) == 100 + RETRY_MOST_S
    overlay.worked(first[0])
    assert overlay.choose(everybody, (), (), 100) == first
    overlay.failed(first[0], 100)
    overlay.try_all_again()
    assert overlay.choose(everybody, (), (), 100) == first, "from another network everybody is worth a try"


def test_those_present_come_first() -> None:
    everybody = peers(40)
    present = set(everybody[30:])
    assert set(Overlay(everybody[0], b"s").choose(everybody, (), present, 0)) <= present


def test_incoming_links_have_a_cap() -> None:
    overlay = Overlay(peers(1)[0], b"s")
    assert overlay.admits(50, INCOMING - 1)
    assert not overlay.admits(50, INCOMING)


def test_in_a_circle_kept_in_parts_most_links_are_near_and_one_is_far() -> None:
    everybody = peers(200)
    near = set(everybody[100:150])
    chosen = Overlay(everybody[0], b"s").choose(everybody, (), (), 0, near)
    assert len(near.intersection(chosen)) == OUTGOING - FAR
    assert len(chosen) == OUTGOING
