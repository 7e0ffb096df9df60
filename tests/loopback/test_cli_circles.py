"""Circles, peers and the node's own key on the command line, against a node that answers by script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import segno

from pares.api import network, schemas
from pares.cli import circles, peers
from pares.errors import BadRequest, Forbidden, NodeUnreachable, NotFound, PeersUnreachable
from pares.store import identity
from pares.store.files import claimed
from scripted_node import Call, Person, ScriptedNode, scripted_node

NOW = datetime.now(UTC)
ANNA = network.Who("aa" * 32, "Anna", "abandon ability able about above")
SINCE = NOW - timedelta(hours=5)
CIRCLE = network.Circle(
    id="c1" * 32, name="Friends", title="Friends", role="founder", open=False, internet=True, founder=ANNA,
    members=2, online=1, since=NOW, can_invite=True,
)  # fmt: skip
MEMBERS = (
    network.Member(id=ANNA.id, name="Anna", words=ANNA.words, role="founder", since=NOW, you=True),
    network.Member(
        id="bb" * 32, name="Béla", words="zoo zone", role="guest", invited_by=ANNA.id, since=NOW, online=True
    ),
)
INVITE = network.Invite(
    id="i1", circle=CIRCLE.id, link="pares://join/abc", qr="<svg/>", role="member", uses_left=1,
    expires_at=NOW + timedelta(hours=24, seconds=30),
)  # fmt: skip
DETAIL = network.CircleDetail(circle=CIRCLE, members=MEMBERS, invites=(INVITE,))
PREVIEW = network.JoinPreview(
    circle=CIRCLE.id, name="Friends", open=False, inviter=ANNA, role="member", expires_at=INVITE.expires_at,
    shares=("Your node's name.", "Its addresses."),
)  # fmt: skip
BELA = network.Peer(
    id="bb" * 32, name="Béla", words="zoo zone", online=True, path="direct", rtt_ms=12.3, since=SINCE,
    circles=(CIRCLE.id,), offers=("relay", "64 GB memory"),
)  # fmt: skip
AWAY = network.Peer(id="cc" * 32, name="Cleo", words="yard year", online=False, since=SINCE, reason="No answer.")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def node(home: Path) -> Iterator[ScriptedNode]:
    with scripted_node(home) as node:
        node.script |= {
            "GET /circles": network.Circles((CIRCLE,)),
            "GET /circles/Friends": DETAIL,
            f"GET /circles/{CIRCLE.id}": DETAIL,
            f"POST /circles/{CIRCLE.id}/invites": INVITE,
            "POST /circles/join/preview": PREVIEW,
            "POST /circles/join": network.Joined(CIRCLE, 0.42),
            "GET /peers": network.Peers((BELA, AWAY)),
        }
        yield node


@pytest.fixture
def pares(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return Call(home, capsys, monkeypatch)


@pytest.fixture
def asked(pares: Call, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(monkeypatch)


def change_status(node: ScriptedNode, **changes: object) -> None:
    status = node.script["GET /status"]
    assert isinstance(status, schemas.NodeStatus)
    node.script["GET /status"] = msgspec.structs.replace(status, **changes)


# Circles


def test_a_circle_is_made_as_it_was_asked_for(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /circles"] = CIRCLE
    assert pares("circle", "new", "Friends").out.endswith("pares invite Friends\n")
    told = pares("circle", "new", "Friends", "--open", "--local-only", "--copies", "3", "--json").json
    assert (told["id"], told["name"]) == (CIRCLE.id, "Friends")
    assert node.asked("POST /circles") == [
        {"name": "Friends", "open": False, "internet": True, "copies": 2},
        {"name": "Friends", "open": True, "internet": False, "copies": 3},
    ]


def test_circles_are_listed(node: ScriptedNode, pares: Call) -> None:
    lines = pares("circle", "ls").out.splitlines()
    assert lines[1].split("   ") == ["Friends", "c1c1c1c1", "founder", *lines[1].split("   ")[3:]]
    assert re.split(r" {3,}", lines[1])[3:6] == ["2", "1", "by invitation"]
    assert pares("circle").out == pares("circle", "ls").out
    assert pares("circle", "ls", "--json").json["circles"][0]["id"] == CIRCLE.id
    node.script["GET /circles"] = network.Circles(())
    assert "pares join LINK" in pares("circle", "ls").out


def test_a_circle_is_shown_with_members_who_invited_them_and_invites(node: ScriptedNode, pares: Call) -> None:
    told, members, invites = pares("circle", "show", "Friends").out.split("\n\n")
    assert f"Anna ({ANNA.words})" in told
    rows = [re.split(r" {3,}", line) for line in members.splitlines()]
    day = f"{NOW:%Y-%m-%d}"
    assert rows[2] == ["Béla", "zoo zone", "guest", "Anna", day, "yes"]
    assert rows[1][-1] == "you"
    assert re.split(r" {3,}", invites.splitlines()[1]) == ["i1", "member", "1", "24 h"]
    assert len(pares("circle", "show", "Friends", "--json").json["members"]) == 2
    node.script["GET /circles/x"] = NotFound("There is no circle x.")
    assert pares("circle", "show", "x").code == 3


def test_leaving_asks_and_a_no_changes_nothing(node: ScriptedNode, pares: Call, asked: Person) -> None:
    node.script[f"DELETE /circles/{CIRCLE.id}"] = None
    said = asked("n\n", "circle", "leave", "Friends")
    assert (said.code, node.asked(f"DELETE /circles/{CIRCLE.id}")) == (1, [])
    assert "Leave Friends (2 members)?" in said.err
    assert asked("y\n", "circle", "leave", "Friends").out == "You have left Friends.\n"
    assert asked("", "circle", "leave", "Friends", "-y").code == 0


def test_a_circle_is_renamed_for_all_by_its_founder_and_for_oneself_by_others(node: ScriptedNode, pares: Call) -> None:
    node.script["PATCH /circles/Friends"] = msgspec.structs.replace(CIRCLE, name="Pals", title="Pals")
    assert pares("circle", "rename", "Friends", "Pals").out == "It is now called Pals for everybody.\n"
    assert node.asked("PATCH /circles/Friends") == [{"name": "Pals"}]
    node.script["PATCH /circles/Friends"] = msgspec.structs.replace(CIRCLE, name="Pals", role="member")
    assert "its own name is Friends" in pares("circle", "rename", "Friends", "Pals").out


def test_removing_a_member_asks_with_their_words(node: ScriptedNode, pares: Call, asked: Person) -> None:
    node.script[f"DELETE /circles/{CIRCLE.id}/members/{'bb' * 32}"] = None
    node.script[f"DELETE /circles/{CIRCLE.id}/members/Nobody"] = NotFound("There is no member Nobody.")
    for name in ("Béla", "bbbb"):
        said = asked("y\n", "circle", "remove", "Friends", name)
        assert (said.code, said.out) == (0, "Removed Béla (zoo zone) from Friends.\n")
        assert "Remove Béla (zoo zone) from Friends, for everybody?" in said.err
    assert pares("circle", "remove", "Friends", "Nobody").code == 3


# Invite and join


def test_an_invite_is_its_link_and_what_it_allows_is_said_beside_it(node: ScriptedNode, pares: Call) -> None:
    said = pares("invite")
    assert said.out == "pares://join/abc\n", "a pipe gets the link alone"
    assert "Lets one in as member within 24 h." in said.err
    assert "pares invite --withdraw i1" in said.err
    assert pares("invite", "--json").json["link"] == "pares://join/abc"
    node.script["POST /circles/Friends/invites"] = INVITE
    pares("invite", "Friends", "--expires", "30m", "--uses", "3", "--role", "guest")
    assert node.asked("POST /circles/Friends/invites") == [{"expires_s": 1800, "uses": 3, "role": "guest"}]
    assert node.asked(f"POST /circles/{CIRCLE.id}/invites")[0] == {"expires_s": 86400, "uses": 1, "role": "member"}


@pytest.mark.parametrize("arguments", [("--expires", "soon"), ("--uses", "0"), ("--role", "founder")])
def test_an_invite_that_means_nothing_is_not_made(node: ScriptedNode, pares: Call, arguments: tuple[str, str]) -> None:
    assert pares("invite", *arguments).code == 2


def test_without_a_name_there_must_be_one_circle(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /circles"] = network.Circles((CIRCLE, msgspec.structs.replace(CIRCLE, name="Family")))
    said = pares("invite")
    assert said.code == 2
    assert "Friends, Family" in said.err
    node.script["GET /circles"] = network.Circles(())
    assert pares("invite").code == 3


def test_the_qr_code_is_the_link(
    node: ScriptedNode, pares: Call, asked: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    link, *picture = pares("invite", "--qr").out.splitlines()
    rows = [[blocks[c][half] for c in line] for line in picture for half in (0, 1)]
    code = segno.make(link, error="l", micro=False)
    assert [list(row) for row in code.matrix_iter(border=2)] == rows[: len(list(code.matrix_iter(border=2)))]

    monkeypatch.setenv("COLUMNS", "80")
    coloured = asked("", "invite").out
    assert coloured.splitlines()[1] == f"\x1b[97;40m{picture[0]}\x1b[0m", "dark on light, whatever the terminal is"
    assert asked("", "invite", "--no-color").out.splitlines()[1] == picture[0]
    monkeypatch.setenv("COLUMNS", "20")
    assert asked("", "invite").out == "pares://join/abc\n", "broken lines are no picture"


def test_an_invite_waits_until_somebody_has_joined(
    node: ScriptedNode, pares: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circles, "LOOK_S", 0)
    bela = network.Who("bb" * 32, "Béla", "zoo zone")
    used = msgspec.structs.replace(INVITE, uses_left=0, joined=(bela,))
    steps = [DETAIL, DETAIL, msgspec.structs.replace(DETAIL, invites=(used,))]
    node.script[f"GET /circles/{CIRCLE.id}"] = [*steps]
    assert pares("invite", "--wait").out == "pares://join/abc\nBéla (zoo zone) joined.\n"
    node.script[f"GET /circles/{CIRCLE.id}"] = [*steps]
    lines = [msgspec.json.decode(line) for line in pares("invite", "--wait", "--json").out.splitlines()]
    assert [len(line["joined"]) for line in lines] == [0, 1]


def test_waiting_ends_when_nobody_can_come_any_more(
    node: ScriptedNode, pares: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circles, "LOOK_S", 0)
    node.script[f"GET /circles/{CIRCLE.id}"] = msgspec.structs.replace(DETAIL, invites=())
    assert pares("invite", "--wait").code == PeersUnreachable.exit_code
    node.script[f"POST /circles/{CIRCLE.id}/invites"] = msgspec.structs.replace(INVITE, expires_at=NOW)
    assert pares("invite", "--wait").code == PeersUnreachable.exit_code


def test_an_invite_is_withdrawn(node: ScriptedNode, pares: Call) -> None:
    node.script[f"DELETE /circles/{CIRCLE.id}/invites/i1"] = None
    assert pares("invite", "--withdraw", "i1", "--json").json == {"withdrawn": "i1"}
    assert node.asked(f"POST /circles/{CIRCLE.id}/invites") == []


def test_joining_shows_what_it_is_and_asks_once(node: ScriptedNode, pares: Call, asked: Person) -> None:
    said = asked("n\n", "join", "pares://join/abc")
    assert (said.code, node.asked("POST /circles/join")) == (1, [])
    for shown in ("Friends", f"Anna ({ANNA.words})", "member, if you join within 24 h", "Its addresses."):
        assert shown in said.err
    assert said.err.count("[y/N]") == 1
    said = asked("y\n", "join", "pares://join/abc")
    assert (said.code, said.out) == (0, "You are in Friends after 0.4 s: 2 members, 1 of them online.\n")
    assert node.asked("POST /circles/join") == [{"link": "pares://join/abc"}]


def test_joining_with_yes_asks_nothing(node: ScriptedNode, pares: Call) -> None:
    told = pares("join", " pares://join/abc\n", "-y", "--json").json
    assert (told["circle"]["id"], told["seconds"]) == (CIRCLE.id, 0.42)
    node.script["POST /circles/join/preview"] = msgspec.structs.replace(PREVIEW, already=True)
    assert pares("join", "pares://join/abc", "-y").out == "You are in Friends already.\n"
    assert len(node.asked("POST /circles/join")) == 1


def test_joining_that_fails_says_why_and_what_to_do(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /circles/join"] = PeersUnreachable("Anna does not answer.", hint="Ask whether her node is up.")
    said = pares("join", "pares://join/abc", "-y")
    assert said.code == 5
    assert said.err.endswith("Error: Anna does not answer.\nAsk whether her node is up.\n")
    node.script["POST /circles/join"] = Forbidden("This invite was used already.")
    assert pares("join", "pares://join/abc", "-y").code == 8
    node.script["POST /circles/join/preview"] = BadRequest("This is not a link of Pares.")
    assert pares("join", "https://example.org", "-y").code == 2


def test_a_node_that_ends_with_the_command_is_warned_about(node: ScriptedNode, pares: Call) -> None:
    change_status(node, passing=True)
    assert "`pares up`" in pares("invite").err
    assert "`pares up`" in pares("join", "pares://join/abc", "-y").err


def test_a_name_can_neither_steer_the_terminal_nor_look_like_another_line(node: ScriptedNode, asked: Person) -> None:
    evil = network.Who(ANNA.id, "Eve\ninvited by   Anna\x1b[2J\u202e", "zoo zone")
    node.script["POST /circles/join/preview"] = msgspec.structs.replace(PREVIEW, name="A\nB\x1b[2J", inviter=evil)
    err = asked("n\n", "join", "pares://join/abc").err
    assert not set(err) & set("\x1b\u202e")
    assert len(re.findall(r"^invited by", err, re.MULTILINE)) == 1
    node.script["GET /peers"] = network.Peers((msgspec.structs.replace(BELA, name="a\nb\x1b]0;x\x07", path=""),))
    assert len(asked("", "peers").out.splitlines()) == 2


# Peers


def test_peers_are_listed_and_say_why_they_are_not_there(node: ScriptedNode, pares: Call) -> None:
    said = pares("peers")
    rows = [re.split(r" {3,}", line) for line in said.out.splitlines()]
    assert rows[0] == ["NAME", "WORDS", "ONLINE", "RTT", "PATH", "SINCE", "OFFERS"]
    assert rows[1] == ["Béla", "zoo zone", "yes", "12 ms", "direct", "5 h", "relay, 64 GB memory"]
    assert rows[2][:3] == ["Cleo", "yard year", "no"]
    assert said.err == "Cleo: No answer.\n"
    told = pares("peers", "--json").json
    assert [(p["id"], p["name"], p["online"], p["path"], p["rtt_ms"]) for p in told] == [
        ("bb" * 32, "Béla", True, "direct", 12.3),
        ("cc" * 32, "Cleo", False, "", None),
    ]
    node.script["GET /peers"] = network.Peers(())
    assert "pares invite" in pares("peers").out
    assert pares("peers", "--json").json == []


@pytest.fixture
def until_the_node_ends(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LOOK_S", 0)
    gone = msgspec.structs.replace(BELA, online=False, path="", rtt_ms=None, reason="No answer.")
    steps = [(BELA,), (BELA,), (gone,)]
    node.script["GET /peers"] = [*(network.Peers(step) for step in steps), NodeUnreachable("It ended.")]


@pytest.mark.usefixtures("until_the_node_ends")
def test_watching_without_a_terminal_prints_a_line_for_every_change(pares: Call) -> None:
    lines = [line[11:] for line in pares("peers", "--watch").out.splitlines()]
    assert lines == ["Béla (zoo zone): yes direct", "Béla (zoo zone): no  No answer."]


@pytest.mark.usefixtures("until_the_node_ends")
def test_watching_as_json_is_a_list_per_line(pares: Call) -> None:
    first, _, third, _ = (msgspec.json.decode(line) for line in pares("peers", "--json", "--watch").out.splitlines())
    assert (first[0]["online"], third[0]["online"]) == (True, False)


@pytest.mark.usefixtures("until_the_node_ends")
def test_watching_on_a_terminal_is_a_table_that_moves(asked: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    said = asked("", "peers", "--watch")
    assert (said.code, said.out.count("NAME")) == (1, 4), "three steps, and the last stays when it ends"
    assert "Béla: No answer." in said.out


def test_a_peer_is_blocked_unblocked_and_named(node: ScriptedNode, pares: Call) -> None:
    node.script["PATCH /peers/Béla"] = BELA
    assert pares("peers", "block", "Béla").out == "Béla (zoo zone) is blocked.\n"
    assert pares("peers", "unblock", "Béla").code == 0
    assert pares("peers", "name", "Béla", "").out == "They are now called Béla (zoo zone).\n"
    assert pares("peers", "name", "Béla", "B", "--json").json["name"] == "Béla"
    changes = [(c["name"], c["blocked"]) for c in node.asked("PATCH /peers/Béla") if isinstance(c, dict)]
    assert changes == [(None, True), (None, False), ("", None), ("B", None)]


# Status


def test_status_says_connected_only_when_the_node_is(node: ScriptedNode, pares: Call) -> None:
    change_status(node, id="ab" * 32, words=ANNA.words)
    assert "network   in no circle" in pares("status").out
    change_status(node, network="connecting", circles=1)
    assert "network   not connected: no peer of 1 circle has answered yet" in pares("status").out
    change_status(node, network="connected", circles=2, peers_online=1)
    assert "network   connected with 1 peer of 2 circles" in pares("status").out
    change_status(node, network="offline", peers_online=0)
    assert "network   offline, in 2 circles" in pares("status").out
    assert pares("status", "--json").json["id"] == "ab" * 32


# The node's own key


def test_the_key_of_a_node_is_exported_and_imported_elsewhere(home: Path, pares: Call, tmp_path: Path) -> None:
    assert pares("key", "show").code == 3, "there is none before the first start"
    identity.load_or_make(home / identity.FILE_NAME)
    who = pares("key", "show", "--json").json
    assert len(who["words"].split()) == 5
    file = tmp_path / "key.txt"
    assert pares("key", "export", str(file), "--json").json == {"file": str(file), **who}
    assert file.stat().st_mode & 0o777 == 0o600
    other = str(tmp_path / "other")
    assert pares("--home", other, "key", "import", str(file)).out == f"Your node is {who['words']}.\n"
    assert pares("--home", other, "key", "show", "--json").json == who
    assert pares("--home", other, "key", "import", str(file)).code == 0, "it is that already"


def test_a_file_and_an_identity_that_are_there_are_replaced_only_when_told(
    home: Path, pares: Call, asked: Person, tmp_path: Path
) -> None:
    seed = identity.load_or_make(home / identity.FILE_NAME)
    file = tmp_path / "key.txt"
    file.write_text("something dear")
    assert (pares("key", "export", str(file)).code, file.read_text()) == (1, "something dear")
    assert asked("n\n", "key", "export", str(file)).code == 1
    assert file.read_text() == "something dear"
    assert asked("y\n", "key", "export", str(file)).code == 0
    assert identity.read(file) == seed

    identity.save(file, bytes(32))
    said = pares("key", "import", str(file))
    assert (said.code, identity.load(home / identity.FILE_NAME)) == (1, seed)
    assert "-y" in said.err
    assert asked("n\n", "key", "import", str(file)).code == 1
    assert pares("key", "import", str(file), "-y").code == 0
    assert identity.load(home / identity.FILE_NAME) == bytes(32)


def test_a_damaged_identity_is_mended_by_an_import(home: Path, pares: Call, tmp_path: Path) -> None:
    (home / identity.FILE_NAME).write_text("rubbish")
    assert pares("key", "show").code == 7
    identity.save(tmp_path / "copy", bytes(32))
    assert pares("key", "import", str(tmp_path / "copy")).code == 1
    assert pares("key", "import", str(tmp_path / "copy"), "-y").code == 0
    assert pares("key", "show").code == 0


def test_what_is_no_identity_is_not_taken_in(home: Path, pares: Call, tmp_path: Path) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(b"GGUF\xff\x00")
    said = pares("key", "import", str(wrong))
    assert (said.code, (home / identity.FILE_NAME).exists()) == (2, False)
    assert "not the identity of a node" in said.err
    assert pares("key", "import", str(tmp_path / "nothing")).code == 2


def test_no_identity_is_changed_under_a_running_node(home: Path, pares: Call, tmp_path: Path) -> None:
    identity.save(tmp_path / "copy", bytes(32))
    with claimed(home):
        assert pares("key", "import", str(tmp_path / "copy"), "-y").code == 6
    assert not (home / identity.FILE_NAME).exists()
