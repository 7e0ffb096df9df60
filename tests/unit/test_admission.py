"""What a stranger may take from a node: handshakes and memory, bounded whatever they do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.transport.admission import ADDRESSES, Admission, Meter, source_of
from pares.transport.link import ip_of, is_lan
from pares.transport.settings import Settings

SETTINGS = Settings()


def test_an_address_begins_at_its_rate_and_others_are_not_held_up() -> None:
    admission = Admission(Settings(half_done=10_000, half_done_per_address=10_000, connections_per_address=10_000))
    begun = 0
    for tick in range(1000):
        begun += admission.ask("a", proven=True, now=tick / 100) == "admit"
        assert tick % 100 or admission.ask(f"other {tick}", proven=True, now=tick / 100) == "admit"
    assert begun == SETTINGS.handshake_burst + 9.99 * SETTINGS.handshakes_per_s // 1


def test_a_forged_address_takes_nothing_from_its_owner() -> None:
    admission = Admission(SETTINGS)
    verdicts = [admission.ask("victim", proven=False, now=0) for _ in range(1000)]
    assert verdicts.count("admit") <= SETTINGS.half_done_per_address / 2
    assert verdicts[-1] == "prove"
    assert admission.ask("victim", proven=True, now=0) == "admit"


def test_forged_addresses_together_leave_half_of_the_handshakes_to_proven_ones() -> None:
    admission = Admission(SETTINGS)
    verdicts = [admission.ask(f"forged {n}", proven=False, now=0) for n in range(1000)]
    assert verdicts.count("admit") == SETTINGS.half_done / 2
    assert admission.ask("honest", proven=True, now=0) == "admit"


def test_what_is_over_makes_room_again() -> None:
    admission = Admission(Settings(connections=4, handshake_burst=100))
    for _ in range(4):
        assert admission.ask("a", proven=True, now=0) == "admit"
        admission.done("a")
    assert admission.ask("b", proven=True, now=0) == "refuse"
    admission.ended("a")
    assert admission.ask("b", proven=True, now=0) == "admit"


asks = st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from(["ask", "done", "ended"]), st.floats(0, 10))


@given(st.lists(asks, max_size=300))
def test_no_order_of_events_passes_a_limit(events: list[tuple[int, bool, str, float]]) -> None:
    limits = Settings(
        connections=12, connections_per_address=5, half_done=6, half_done_per_address=3, handshake_burst=8
    )
    admission = Admission(limits)
    half_done: list[str] = []
    done: list[str] = []
    now = 0.0
    for number, proven, event, later in events:
        now += later
        source = f"10.0.0.{number}"
        if event == "ask":
            if admission.ask(source, proven=proven, now=now) == "admit":
                half_done.append(source)
        elif event == "done" and source in half_done:
            half_done.remove(source)
            done.append(source)
            admission.done(source)
        elif event == "ended" and source in done:
            done.remove(source)
            admission.ended(source)
        assert len(half_done) <= limits.half_done
        assert half_done.count(source) <= limits.half_done_per_address
        assert len(half_done) + len(done) == admission.open <= limits.connections
        assert (half_done + done).count(source) <= limits.connections_per_address


def test_only_so_many_addresses_are_remembered() -> None:
    admission = Admission(SETTINGS)
    for number in range(3 * ADDRESSES):
        if admission.ask(f"{number}", proven=True, now=0) == "admit":
            admission.done(f"{number}")
            admission.ended(f"{number}")
    assert len(admission._rates) == ADDRESSES
    assert not admission._open
    assert not admission._half_done


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    assert source_of("[2001:db8::1]:1") == source_of("[2001:db8::ffff]:2") != source_of("[2001:db8:0:1::1]:1")
    assert source_of("192.0.2.1:1") == source_of("192.0.2.1:2") == source_of("[::ffff:192.0.2.1]:3")


@pytest.mark.parametrize(
    ("address", "lan"),
    [
        ("192.168.1.5:1", True),
        ("10.0.0.1:65535", True),
        ("172.31.0.1:1", True),
        ("172.32.0.1:1", False),
        ("169.254.1.1:1", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("[fe80::1%eth0]:1", True),
        ("[fd00::1]:1", True),
        ("[::ffff:10.0.0.1]:1", True),
        ("203.0.113.1:1", False),
        ("100.64.0.1:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_which_addresses_are_of_the_local_network(address: str, lan: bool) -> None:
    assert is_lan(address) is lan


@given(st.text(max_size=70) | st.from_regex(r"\A[0-9.:\[\]%a-f]{0,40}\Z"))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        ip_of(text)
    except ValueError:
        return


def test_the_meter_tells_filling_memory_from_reading_slowly() -> None:
    meter = Meter()
    for _ in range(1000):
        meter.read(64 * 1024)
        meter.sent(64 * 1024)
    wire = 1000 * 64 * 1024
    assert meter.unread(int(wire * 1.1 + wire * 0.05)) < 0
    assert meter.unread(wire * 2) > 2**24
