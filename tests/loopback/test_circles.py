"""Circles of real nodes, each a process of its own, on loopback; driven through the control API."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodes import Node, Refused, all_online, node, running, until
from pares.circle import invites

JOINED_S = 3.0
NOTICED_S = 5.0
NAMES = ("Anna", "Béla", "Cleo", "Dora", "Emil")
OWN = "Own"
SETTINGS: dict[str, Any] = {"transport_loopback_only": True}
ON_LAN = {"circle_lan": True, "circle_lan_interfaces": "127.0.0.1"}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, ...]]:
    """Five nodes that know nothing of each other. With a circle of its own, each listens all the time."""
    directory = tmp_path_factory.mktemp("five")
    nodes = tuple(Node(directory / name, name, **SETTINGS) for name in NAMES)
    with running(*nodes):
        for each in nodes:
            each.create(OWN)
        yield nodes


@pytest.fixture(autouse=True)
def alone(five: tuple[Node, ...]) -> Iterator[None]:
    """Each test leaves them as it found them: running, and in no other circle."""
    yield
    for each in five:
        if each.process is None:
            each.start()
            each.ready()
        for id_, name in each.circles().items():
            if name != OWN:
                each.call("DELETE", f"/circles/{id_}")


@pytest.fixture
def circle(five: tuple[Node, ...]) -> str:
    """A circle of Anna's, to which all belong."""
    anna, *others = five
    id_ = anna.create("Friends")
    link = anna.invite(id_, uses=len(others))
    for each in others:
        each.join(link)
    until(all_online(*five), NOTICED_S)
    return id_


def test_two_then_five_join_by_link_within_three_seconds_and_all_see_each_other(five: tuple[Node, ...]) -> None:
    anna, *others = five
    id_ = anna.create("Kitchen table")
    link = anna.invite(id_, uses=4)
    for count, each in enumerate(others, 2):
        began = time.monotonic()
        assert each.join(link) <= JOINED_S
        until(all_online(*five[:count]), JOINED_S)
        assert time.monotonic() - began <= JOINED_S
    for each in five:
        assert each.members(id_) == set(NAMES)
        peers = each.peers()
        assert set(peers) == set(NAMES) - {each.name}, "the names are of their contacts"
        assert {peer["path"] for peer in peers.values()} == {"lan"}
        assert all(peer["rtt_ms"] > 0 and peer["circles"] == [id_] for peer in peers.values())
        assert each.call("GET", "/status")["network"] == "connected"


def test_a_killed_node_is_gone_and_back_on_another_port_within_five_seconds(
    five: tuple[Node, ...], circle: str
) -> None:
    *others, emil = five
    emil.kill()
    until(lambda: all("Emil" not in each.online() for each in others), NOTICED_S)
    assert all(each.peers()["Emil"]["reason"] for each in others)
    emil.start()
    until(lambda: emil.is_ready() and all("Emil" in each.online() for each in others), NOTICED_S)
    until(lambda: emil.online() == {each.name for each in others}, NOTICED_S)


def test_a_stopped_node_is_gone_at_once_and_says_why(five: tuple[Node, ...], circle: str) -> None:
    anna, *_, emil = five
    emil.stop()
    assert until(lambda: "Emil" not in anna.online(), 1.0) < 1.0
    assert anna.peers()["Emil"]["reason"] == "It was stopped."
    emil.start()
    emil.ready()
    until(all_online(*five), NOTICED_S)


def test_a_removed_member_notices_is_cut_off_and_can_be_invited_again(five: tuple[Node, ...], circle: str) -> None:
    anna, bela, *rest = five
    left = [anna, *rest]
    anna.call("DELETE", f"/circles/{circle}/members/{bela.id}")
    until(lambda: circle not in bela.circles(), NOTICED_S)
    until(lambda: not bela.peers(), NOTICED_S)
    until(lambda: all("Béla" not in each.peers() for each in left), NOTICED_S)
    bela.join(anna.invite(circle))
    until(all_online(*five), NOTICED_S)


def test_who_leaves_is_no_member_any_more_and_the_others_stay(five: tuple[Node, ...], circle: str) -> None:
    *others, emil = five
    emil.call("DELETE", f"/circles/{circle}")
    assert circle not in emil.circles()
    until(lambda: all(each.members(circle) == set(NAMES) - {"Emil"} for each in others), NOTICED_S)
    assert all_online(*others)()


def test_the_founders_new_name_for_a_circle_spreads_and_a_members_does_not(five: tuple[Node, ...], circle: str) -> None:
    anna, bela, *rest = five
    bela.call("PATCH", f"/circles/{circle}", {"name": "Mine"})
    anna.call("PATCH", f"/circles/{circle}", {"name": "Family"})
    until(lambda: all(each.circles()[circle] == "Family" for each in rest), NOTICED_S)
    assert bela.circles()[circle] == "Mine"


def test_an_invite_works_once_and_not_after_it_was_withdrawn(five: tuple[Node, ...]) -> None:
    anna, bela, cleo, *_ = five
    id_ = anna.create("Few")
    once = anna.invite(id_)
    bela.join(once)
    assert refused(cleo, once) == (
        403,
        "Anna does not let this node in: This invite has been used up. Ask for a new one.",
    )
    made = anna.call("POST", f"/circles/{id_}/invites", {})
    anna.call("DELETE", f"/circles/{id_}/invites/{made['id']}")
    assert refused(cleo, made["link"])[0] == 403
    assert id_ not in cleo.circles()


def test_an_invite_that_has_expired_lets_nobody_in_whatever_the_link_says(tmp_path: Path) -> None:
    with (
        node(tmp_path, "Anna", **SETTINGS, transport_port=free_port()) as anna,
        node(tmp_path, "Béla", **SETTINGS) as bela,
    ):
        link = anna.invite(anna.create("Once"))
        anna.stop()
        with closing(sqlite3.connect(anna.home / "pares.sqlite")) as database, database:
            database.execute("UPDATE invites SET expires = 1700000000")
        anna.start()
        anna.ready()
        assert refused(bela, link)[0] == 403
        stale = invites.link(msgspec.structs.replace(invites.parse(link, 0), expires=1_700_000_000))
        assert refused(bela, stale)[0] == 400


def test_a_guest_cannot_invite(five: tuple[Node, ...]) -> None:
    anna, bela, *_ = five
    id_ = anna.create("Visit")
    bela.join(anna.invite(id_, role="guest"))
    with pytest.raises(Refused) as told:
        bela.invite(id_)
    assert told.value.status == 403


def test_members_of_different_circles_of_a_node_do_not_meet(five: tuple[Node, ...]) -> None:
    anna, bela, cleo, *_ = five
    one, other = anna.create("Work"), anna.create("Home")
    bela.join(anna.invite(one))
    cleo.join(anna.invite(other))
    until(lambda: anna.online() == {"Béla", "Cleo"}, NOTICED_S)
    until(lambda: set(bela.peers()) == set(cleo.peers()) == {"Anna"}, NOTICED_S)
    assert (bela.members(one), cleo.members(other)) == ({"Anna", "Béla"}, {"Anna", "Cleo"})
    with pytest.raises(Refused):
        bela.call("GET", f"/circles/{other}")
    bela.join(anna.invite(other))
    until(all_online(anna, bela, cleo), NOTICED_S)
    assert anna.peers()["Béla"]["circles"] == bela.peers()["Anna"]["circles"]


def test_into_a_commons_comes_who_has_the_link_of_any_member(five: tuple[Node, ...]) -> None:
    anna, bela, cleo, dora, _ = five
    id_ = anna.create("Market", open=True)
    link = anna.invite(id_)
    bela.join(link)
    cleo.join(link)
    dora.join(bela.invite(id_))
    until(all_online(anna, bela, cleo, dora), NOTICED_S)
    until(lambda: dora.members(id_) == {"Anna", "Béla", "Cleo", "Dora"}, NOTICED_S)


def test_all_start_again_at_once_on_new_ports_and_find_each_other_on_the_local_network(
    five: tuple[Node, ...], circle: str
) -> None:
    for each in five:
        each.stop()
        each.settings |= ON_LAN
    for each in five:
        each.start()
    for each in five:
        each.ready()
    until(all_online(*five), 2 * NOTICED_S)


def free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(who: Node, link: str) -> tuple[int, str]:
    """Status and message with which joining by a link is refused."""
    with pytest.raises(Refused) as told:
        who.join(link)
    return told.value.status, told.value.message
