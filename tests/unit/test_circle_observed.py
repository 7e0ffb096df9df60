"""As what address others see a node: one liar decides nothing, and what makes no sense is not passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circles import person
from pares.circle.observed import KEPT, Observations

HOME, AWAY, OTHER_PORT = "198.51.100.7:4433", "203.0.113.9:4433", "198.51.100.7:4434"


def seen(*addresses: str) -> Observations:
    """Each by another peer."""
    observations = Observations()
    for number, address in enumerate(addresses):
        observations.note(person(number).id, address)
    return observations


def test_an_address_is_told_only_when_two_peers_see_it() -> None:
    assert seen(HOME).agreed() == ()
    assert seen(HOME, AWAY).agreed() == ()
    assert seen(AWAY, HOME, HOME).agreed() == (HOME,)


def test_a_peer_has_one_voice_however_often_it_speaks() -> None:
    observations, liar = seen(HOME, HOME), person(9).id
    for port in range(1024, 1100):
        observations.note(liar, f"203.0.113.9:{port}")
        observations.note(liar, f"203.0.113.9:{port}")
    assert observations.agreed() == (HOME,)


def test_who_has_gone_has_no_voice() -> None:
    observations = seen(HOME, HOME)
    observations.forget(person(1).id)
    assert observations.agreed() == ()


@pytest.mark.parametrize(
    "address",
    ["", "rubbish", "example.org:4433", "198.51.100.7", "0.0.0.0:4433", "224.0.0.1:4433", "255.255.255.255:4433",
     "198.51.100.7:53", "198.51.100.7:0", "[::]:4433", "[ff02::1]:4433"],
)  # fmt: skip
def test_what_is_no_address_of_a_node_is_never_told(address: str) -> None:
    assert seen(address, address, address).agreed() == ()


@pytest.mark.parametrize("address", ["192.168.1.2:4433", "127.0.0.1:4433", "10.0.0.1:4433", "[fe80::1]:4433"])
def test_private_addresses_say_nothing_of_the_way_from_outside(address: str) -> None:
    observations = seen(address, address)
    assert observations.agreed() == observations.seen() == ()
    assert observations.nat([address]) == "unknown"


def test_the_kind_of_nat_follows_from_who_sees_what() -> None:
    own = ["192.168.1.2:4433"]
    assert seen().nat(own) == "unknown"
    assert seen(HOME).nat(own) == "unknown"
    assert seen(HOME, HOME).nat(own) == "friendly"
    assert seen(HOME, OTHER_PORT).nat(own) == "symmetric"
    assert seen(HOME, HOME).nat([HOME]) == "none"


@given(st.lists(st.tuples(st.integers(0, 300), st.text(max_size=70) | st.sampled_from([HOME, AWAY])), max_size=500))
def test_memory_is_bounded_whatever_is_said(said: list[tuple[int, str]]) -> None:
    observations = Observations()
    for number, address in said:
        observations.note(person(number).id, address)
    assert len(observations.seen()) <= KEPT
    assert len(observations.agreed()) <= 4
    assert set(observations.agreed()) <= set(observations.seen())
