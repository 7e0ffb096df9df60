"""What the unauthenticated may make a node remember and do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.circle.lan import ADDRESSES, Limits, Sightings, _announced
from pares.wire.signing import PeerId

FRIEND = PeerId(b"f" * 32)


def stranger(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def is_friend(peer: PeerId) -> bool:
    return peer == FRIEND


addresses = st.lists(st.builds("10.0.0.{}:{}".format, st.integers(1, 20), st.integers(1, 9)), max_size=12)
records = st.lists(
    st.tuples(st.one_of(st.just(FRIEND), st.integers(0, 40).map(stranger)), addresses, st.floats(0, 30)), max_size=200
)


@given(records)
def test_whatever_comes_the_table_stays_in_its_limits(records: list[tuple[PeerId, list[str], float]]) -> None:
    limits = Limits(peers=10, peers_per_address=3, ttl_s=100, reports=2, window_s=50)
    table = Sightings(is_friend, limits)
    now = 0.0
    reports: list[float] = []
    for peer, where, later in records:
        now += later
        if table.saw(peer, where, now):
            assert peer == FRIEND
            reports.append(now)
        assert len(table) <= limits.peers
        claims = [{a.rpartition(":")[0] for a in table.where(stranger(n), now)} for n in range(41)]
        for host in set().union(*claims):
            assert sum(host in hosts for hosts in claims) <= limits.peers_per_address + 1
        assert len(table.where(FRIEND, now)) <= ADDRESSES
        assert sum(now - at < limits.window_s for at in reports) <= limits.reports


def test_a_flood_of_strangers_neither_displaces_a_friend_nor_keeps_one_out() -> None:
    table = Sightings(is_friend)
    for number in range(1000):
        table.saw(stranger(number), [f"10.1.{number // 250}.{number % 250}:1"], 0)
    assert table.saw(FRIEND, ["10.0.0.1:4433"], 1)
    for number in range(1000, 3000):
        table.saw(stranger(number), ["10.0.0.1:4433", f"10.2.{number // 250}.{number % 250}:1"], 2)
    assert table.where(FRIEND, 3) == ("10.0.0.1:4433",)
    assert len(table) == Limits().peers


def test_a_friend_is_reported_again_only_at_a_new_address() -> None:
    table = Sightings(is_friend)
    assert table.saw(FRIEND, ["10.0.0.1:1"], 0)
    assert not table.saw(FRIEND, ["10.0.0.1:1"], 1)
    assert table.saw(FRIEND, ["10.0.0.2:1"], 2)
    assert table.where(FRIEND, 2) == ("10.0.0.2:1", "10.0.0.1:1")
    table.gone(FRIEND.hex()[:16])
    assert table.where(FRIEND, 2) == ()
    assert table.saw(FRIEND, ["10.0.0.1:1"], 3)
    assert table.where(FRIEND, 3 + Limits().ttl_s) == ()


def test_false_goodbyes_do_not_raise_the_number_of_reports() -> None:
    table = Sightings(is_friend)
    reports = 0
    for second in range(50):
        reports += table.saw(FRIEND, ["10.0.0.1:1"], second)
        table.gone(FRIEND.hex()[:16])
    assert reports == Limits().reports


@pytest.mark.parametrize(
    ("address", "there", "on_loopback"),
    [
        ("192.168.1.2:4433", True, True),
        ("169.254.1.2:4433", True, True),
        ("127.0.0.1:4433", False, True),
        ("8.8.8.8:53", False, False),
        ("224.0.0.251:5353", False, False),
        ("0.0.0.0:1", False, False),
        ("255.255.255.255:1", False, False),
        ("[fe80::1]:1", False, False),
        ("host.example:1", False, False),
    ],
)
def test_only_addresses_of_a_local_network_are_announced_and_believed(
    address: str, there: bool, on_loopback: bool
) -> None:
    assert _announced(address, loopback=False) == there
    assert _announced(address, loopback=True) == on_loopback
