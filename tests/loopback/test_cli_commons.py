"""Versions, sharing, the swarm and the inside of models on the command line, against a node that answers by script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from pares.api import commons as told
from pares.api import network, schemas
from pares.cli import swarm
from pares.errors import Conflict, LicenceNotAccepted, ModelNotFound, NotFound, VerificationFailed
from pares.store.events import Events
from pares.swarm.predicate import Data, Parent
from scripted_commons import ScriptedCommons, torrent
from scripted_network import who
from scripted_node import DETAIL, Call, Person, Said, ScriptedNode, pull, scripted_node

NOW = datetime.now(UTC)
ADA = who("Ada")
FRIENDS, FAMILY = "c1" * 32, "c2" * 32
CIRCLE = network.Circle(
    id=FRIENDS, name="Friends", title="Friends", role="member", open=False, internet=True, founder=ADA,
    members=2, online=1, since=NOW, can_invite=True,
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def world() -> ScriptedCommons:
    return ScriptedCommons(Events(), who("desk"))


@pytest.fixture
def node(home: Path) -> Iterator[ScriptedNode]:
    with scripted_node(home) as node:
        node.script |= {
            "GET /circles": network.Circles((CIRCLE,)),
            "GET /circles/Friends": network.CircleDetail(circle=CIRCLE, members=(), invites=()),
        }
        yield node


@pytest.fixture
def pares(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return Call(home, capsys, monkeypatch)


@pytest.fixture
def asked(pares: Call, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(monkeypatch)


def offered(node: ScriptedNode, world: ScriptedCommons) -> None:
    """The node tells what the world is now."""
    rows = tuple(detail.row for detail in world.details.values())
    node.script["GET /versions"] = told.Versions(rows)
    for detail in world.details.values():
        node.script[f"GET /versions/{detail.row.name}"] = detail
        node.script[f"GET /versions/{detail.row.id}"] = detail


def cells(said: Said) -> list[list[str]]:
    return [re.split(r" {3,}", line) for line in said.out.splitlines()]


# Find and show


def test_what_circles_offer_is_listed_with_who_holds_it_and_what_to_be_careful_about(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    world.offers("smol", circles=(FRIENDS,), holders=3, whole=2, online=1)
    world.offers("smol", by="Béla", conflict=True, complete=False, here="part", shared=(FRIENDS,))
    bad = world.offers("worse")
    world.says(bad, "revocation", "Ada", "It was\ntrained wrongly.")
    offered(node, world)
    header, *rows = pares("find").out.splitlines()
    assert header.split()[:4] == ["NAME", "LABEL", "ID", "KIND"]
    assert "2 whole, 1 in part, 1 online" in rows[0]
    assert rows[0].endswith("runs well")
    assert "part, shared" in rows[1]
    assert rows[1].endswith("somebody else publishes another version of this name; parts of it cannot be had now")
    assert rows[2].endswith("Ada took it back: It was trained wrongly.")
    assert pares("search").out == pares("find").out
    assert [row["name"] for row in pares("find", "--json").json["versions"]] == ["smol", "smol", "worse"]
    node.script["GET /versions"] = told.Versions(())
    assert "pares share MODEL" in pares("find").out


def test_a_search_is_narrowed_by_words_circle_licence_architecture_publisher_and_fit(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    world.offers("smol-chat", circles=(FRIENDS,))
    world.offers("gem", by="Béla", architecture="gemma3", licence="MIT", circles=(FAMILY,), fit="will not run")
    offered(node, world)

    def names(*arguments: str) -> list[str]:
        return [row["name"] for row in pares("find", *arguments, "--json").json["versions"]]

    assert names("CHAT ada") == ["smol-chat"]
    assert names("--circle", "Friends") == ["smol-chat"]
    assert names("--licence", "mit") == ["gem"]
    assert names("--architecture", "llama") == ["smol-chat"]
    assert names("--publisher", "béla") == names("--publisher", who("Béla").id[:6]) == ["gem"]
    assert names("--fits") == ["smol-chat"]
    assert names("ada", "--licence", "MIT") == []
    assert "Nothing in your circles is like that." in pares("find", "nothing").out


def test_show_tells_of_a_version_what_is_no_model_here(node: ScriptedNode, pares: Call, world: ScriptedCommons) -> None:
    id_ = world.offers("smol-chat")
    world.says(id_, "endorsement", "Béla", "I use it daily.")
    missing = ModelNotFound("smol-chat")
    node.script["GET /models/smol-chat"] = missing
    holder = told.Holder(peer=who("Béla"), online=False, layers=(10, 20), head=True)
    world.tells(id_, holders=(holder, told.Holder(peer=ADA, online=True, layers=(0, 0), head=False)))
    offered(node, world)
    said = pares("show", "smol-chat").out
    assert f"Ada ({ADA.words})" in said
    assert "Apache-2.0, you did not agree to it yet" in said
    assert re.search(r"Béla \(.*\) +layers 10 to 19, head +no", said)
    assert re.search(r"Ada \(.*\) +header +yes", said)
    assert re.search(r"ok +signature +The statement is signed", said)
    assert re.search(r"unknown +header", said)
    assert re.search(r"Béla \(.*\) +stands for it +\d{4}-\d\d-\d\d +I use it daily\.", said)
    assert "HellaSwag" in said
    assert pares("show", "smol-chat", "--json").json["row"]["id"] == id_
    assert pares("show", "smol-chat", "--licence").out.startswith("Apache License\nVersion 2.0")
    assert pares("show", "smol-chat", "--template").code == 3
    node.script["GET /versions/smol-chat"] = NotFound("There is no such version.")
    assert "There is no model named 'smol-chat' here." in pares("show", "smol-chat").err


def test_show_names_the_version_that_a_model_is(node: ScriptedNode, pares: Call, world: ScriptedCommons) -> None:
    node.script["GET /models/smol"] = DETAIL
    assert pares("show", "smol").err == ""
    id_ = world.offers("tiny", model="smol", here="whole", holders=0)
    world.offers("other", model="another")
    offered(node, world)
    assert pares("show", "smol").err == f"It is the version tiny v1 ({id_[:8]}) by Ada: see `pares show {id_[:12]}`.\n"
    assert "nobody else" in pares("find", "tiny").out


def test_the_signed_statement_is_printed_as_it_is(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /versions/smol/envelope"] = msgspec.Raw(b'{"payload":"e30=",  "signatures":[]}')
    for more in ((), ("--json",)):
        assert pares("show", "smol", "--envelope", *more).out == '{"payload":"e30=",  "signatures":[]}\n'


# Share


def test_share_says_of_a_model_what_it_was_told(
    node: ScriptedNode, pares: Call, world: ScriptedCommons, tmp_path: Path
) -> None:
    base = world.offers("SmolLM2-135M")
    made = world.offers("smol", by="desk", shared=(FRIENDS, FAMILY), licence="MIT")
    offered(node, world)
    node.script["POST /share"] = world.details[made]
    node.script["GET /versions/other"] = NotFound("There is no such version.")
    (tmp_path / "licence.txt").write_text("Do as you like.")
    (tmp_path / "data.json").write_text('[{"@context": "https://schema.org", "name": "d"}, {"note": "web"}]')
    (tmp_path / "recipe.json").write_text('{"lora_rank": 8}')
    said = pares(
        "share", "smol", "--circle", "Friends", "--circle", "Family", "--label", "v2", "--licence", "MIT",
        "--licence-file", str(tmp_path / "licence.txt"), "--kind", "merge", "--base", "SmolLM2-135M",
        "--parent", "SmolLM2-135M", "--parent", "other", "--data", str(tmp_path / "data.json"),
        "--recipe", str(tmp_path / "recipe.json"), "--description", "Small.", "--name", "tiny",
    )  # fmt: skip
    assert f"smol v1 ({made[:8]}) by desk is given away in Friends, {FAMILY[:8]} as MIT." in said.out
    assert "pares pull smol" in said.out
    request = msgspec.convert(node.asked("POST /share")[0], told.ShareRequest)
    parent = Parent(version=base, name="SmolLM2-135M")
    assert request == told.ShareRequest(
        model="smol",
        circles=("Friends", "Family"),
        name="tiny",
        label="v2",
        description="Small.",
        kind="merge",
        licence="MIT",
        licence_text="Do as you like.",
        base=parent,
        parents=(parent, Parent(name="other")),
        data=(Data(croissant={"@context": "https://schema.org", "name": "d"}), Data(note="web")),
        recipe={"lora_rank": 8},
    )
    pares("share", "smol")
    assert msgspec.convert(node.asked("POST /share")[1], told.ShareRequest) == told.ShareRequest(model="smol")
    node.script["POST /share"] = Conflict("Its licence is not known.", hint="Say it: --licence SPDX.")
    assert pares("share", "smol").code == 1


@pytest.mark.parametrize("content", ["{", '{"private": "not hexadecimal"}', "7"])
def test_what_is_not_a_description_of_data_is_refused(
    node: ScriptedNode, pares: Call, tmp_path: Path, content: str
) -> None:
    (tmp_path / "data.json").write_text(content)
    said = pares("share", "smol", "--data", str(tmp_path / "data.json"))
    assert (said.code, "data.json" in said.err, node.asked("POST /share")) == (2, True, [])


def test_unshare_is_for_all_circles_or_some_and_asks_for_force(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /unshare"] = None
    assert pares("unshare", "smol").out == "smol is given away no more.\n"
    assert pares("unshare", "smol", "--circle", "Friends", "-f").out.endswith("no more in Friends.\n")
    assert node.asked("POST /unshare") == [
        {"version": "smol", "circles": [], "force": False},
        {"version": "smol", "circles": ["Friends"], "force": True},
    ]
    node.script["POST /unshare"] = Conflict("Nobody else in Friends holds it.", hint="`--force` does it anyway.")
    said = pares("unshare", "smol")
    assert (said.code, said.err) == (1, "Error: Nobody else in Friends holds it.\n`--force` does it anyway.\n")


# Lineage, verify, voices


def test_lineage_is_a_tree_with_the_state_of_each_edge_in_words(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    chat = world.offers("smol-chat", kind="finetune")
    quantized, adapter = world.offers("smol-q4"), world.offers("my-adapter", kind="adapter")
    world.derives(chat, "SmolLM2", "finetune", "missing", "Nobody published it.")
    world.derives(quantized, chat, "quantized", "checked", "Shapes and names agree.")
    world.derives(adapter, quantized, "adapter", "wrong", "It is for\nanother model.")
    world.derives(chat, adapter, "merge", "cycle", "It would be its own parent.")
    nodes = [world._node(end) for end in (chat, quantized, adapter, "name:SmolLM2")]
    graph = told.Lineage(of=quantized, nodes=tuple(nodes), edges=tuple(world.edges))
    node.script["GET /versions/smol-q4/lineage"] = graph
    assert pares("lineage", "smol-q4").out.splitlines() == [
        f"smol-q4 {quantized[:8]} (quantized, by Ada)",
        "",
        "made from",
        f"└─ smol-chat {chat[:8]} (finetune, by Ada)",
        "     quantized of it, checked: Shapes and names agree.",
        "   ├─ SmolLM2 (known by name only, Nobody published it.)",
        "   │    finetune of it, its statement is not here: Nobody published it.",
        f"   └─ my-adapter {adapter[:8]} (adapter, by Ada)",
        "        merge of it, goes in a circle: It would be its own parent.",
        f"      └─ smol-q4 {quantized[:8]} (quantized, by Ada) (see above)",
        "           adapter of it, wrong: It is for another model.",
        "",
        "made from it",
        f"└─ my-adapter {adapter[:8]} (adapter, by Ada)",
        "     adapter, wrong: It is for another model.",
        f"   └─ smol-chat {chat[:8]} (finetune, by Ada)",
        "        merge, goes in a circle: It would be its own parent.",
        f"      └─ smol-q4 {quantized[:8]} (quantized, by Ada) (see above)",
        "           quantized, checked: Shapes and names agree.",
    ]
    assert len(pares("lineage", "smol-q4", "--json").json["edges"]) == 4
    node.script["GET /versions/smol-q4/lineage"] = told.Lineage(of=quantized, nodes=tuple(nodes), edges=())
    assert "names no parents" in pares("lineage", "smol-q4").out


def test_verify_checks_versions_and_models_and_ends_with_7_at_the_first_that_is_wrong(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    good = world.details[world.offers("good")]
    node.script["POST /versions/good/verify"] = good
    node.script["POST /versions/plain/verify"] = NotFound("There is no such version.")
    node.script["POST /models/plain/verify"] = schemas.Verification("ab", "ab", ok=True)
    said = pares("verify", "good", "plain")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"ok +signature", said.out)
    assert "plain is what it should be (SHA-256 ab)." in said.out
    node.script["POST /versions/gone/verify"] = NotFound("There is no version 'gone' in your circles.")
    node.script["POST /models/gone/verify"] = ModelNotFound("gone")
    said = pares("verify", "gone")
    assert (said.code, said.err) == (3, "Error: There is no version 'gone' in your circles.\n")
    node.script["POST /versions/bad/verify"] = VerificationFailed("Piece 7 of model.gguf is not what was signed.")
    said = pares("verify", "bad", "good", "--json")
    assert (said.code, said.json["error"]["code"]) == (7, "verification_failed")
    wrong = told.Finding(what="signature", ok=False, message="Somebody else signed it.")
    node.script["POST /versions/forged/verify"] = msgspec.structs.replace(good, findings=(wrong,))
    said = pares("verify", "forged", "good")
    assert (said.code, "forged is not what it says: Somebody else signed it." in said.err) == (7, True)
    assert len(node.asked("POST /versions/good/verify")) == 1, "nothing is checked after that"


def test_who_stands_for_a_version_and_who_warns_of_it_says_so(
    node: ScriptedNode, pares: Call, asked: Person, world: ScriptedCommons
) -> None:
    id_ = world.offers("smol")
    offered(node, world)
    node.script["POST /versions/smol/endorse"] = world.says(id_, "endorsement", "desk", "Good.")
    assert pares("endorse", "smol", "Good.").out == "You stand for smol.\n"
    assert node.asked("POST /versions/smol/endorse") == [{"text": "Good."}]
    node.script[f"POST /versions/{id_}/revoke"] = world.says(id_, "warning", "desk", "It lies.")
    said = asked("n\n", "revoke", "smol", "It lies.")
    assert (said.code, node.asked(f"POST /versions/{id_}/revoke")) == (1, [])
    assert f"that smol v1 ({id_[:8]}) by Ada should not be used?" in said.err
    assert asked("y\n", "revoke", "smol", "It lies.").out.startswith("Your circles are warned of smol v1")
    node.script[f"POST /versions/{id_}/revoke"] = world.says(id_, "revocation", "desk", "Old.")
    assert pares("revoke", "smol", "Old.").out.startswith("You took back smol v1")


# The swarm


def test_the_swarm_tells_rates_ratio_and_peers(node: ScriptedNode, pares: Call, world: ScriptedCommons) -> None:
    sources = tuple(
        told.Source(
            peer=who(name) if name else None, address=f"192.0.2.{number}:6881", kind="peer", have=1.0,
            down_bytes_per_s=1, up_bytes_per_s=0, downloaded=1, uploaded=0,
        )
        for number, name in enumerate(("Ada", "", "Béla", "Cleo"))
    )  # fmt: skip
    world.moves(
        torrent("smol", sources=sources),
        torrent("whole", state="seeding", done=1000, wanted=1000, down_bytes_per_s=0, downloaded=0, wasted=2048),
        torrent("bad", state="failed", error="The disk is full."),
        uploaded=3_000_000, downloaded=6_000_000, port=6881,
    )  # fmt: skip
    node.script["GET /swarm"] = world.now
    said = pares("swarm").out
    assert "What is shared is given away, up at most 1.0 MB/s" in said
    assert "3.0 MB so far, ratio 0.50" in said
    rows = {row[0]: row for row in cells(pares("swarm"))}
    assert rows["smol"][1:5] == ["fetching", "52 % of 41.9 MB", "2.4 MB/s", "350 kB/s"]
    assert rows["smol"][-1] == "Ada, 192.0.2.1:6881, Béla and 1 more"
    assert rows["whole"][-1] == "2.0 kB came in vain"
    assert rows["bad"][-1] == "The disk is full."
    assert pares("swarm", "--json").json["port"] == 6881


def test_giving_is_switched_and_limited(node: ScriptedNode, pares: Call, world: ScriptedCommons) -> None:
    node.script["PATCH /swarm"] = msgspec.structs.replace(world.now, seeding=False, download_limit=10**7)
    assert pares("swarm", "off").out == "Nothing is given away, up at most 1.0 MB/s, down at most 10.0 MB/s\n"
    pares("swarm", "on")
    pares("swarm", "limit", "--up", "2MB/s", "--down", "0")
    pares("swarm", "limit", "--down", "512k")
    assert node.asked("PATCH /swarm") == [
        {"seeding": False},
        {"seeding": True},
        {"upload_limit": 2_000_000, "download_limit": 0},
        {"download_limit": 512 * 1024},
    ]
    assert pares("swarm", "limit").code == 2
    assert pares("swarm", "limit", "--up", "fast").code == 2
    assert pares("swarm", "limit", "--up", "-1").code == 2


def test_watching_the_swarm_tells_every_tenth_where_nothing_can_move(
    node: ScriptedNode, pares: Call, world: ScriptedCommons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "LOOK_S", 0.001)
    stands: list[object] = []
    for done in (0, 100, 150, 200):
        world.moves(torrent("smol", done=done, wanted=1000))
        stands.append(world.now)
    node.script["GET /swarm"] = [*stands, NotFound("That is all.")]
    said = pares("swarm", "--watch")
    assert said.code == 3
    lines = [line.split("   ", 1)[1] for line in said.out.splitlines()]
    assert [re.search(r"(\d+) %", line)[1] for line in lines] == ["0", "10", "20"]  # type: ignore[index]
    node.script["GET /swarm"] = [*stands, NotFound("That is all.")]
    assert len(pares("swarm", "--watch", "--json").out.splitlines()) == 5


# The inside of models


def test_inspect_shows_the_header_the_tensors_and_the_weights_of_one(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    row = schemas.TensorRow("blk.0.ffn_up.weight", "Q4_1", (576, 1536), 884_736, 552_960, 0, 0)
    node.script["GET /models/smol"] = DETAIL
    node.script["GET /models/smol/tensors"] = schemas.Tensors((row,))
    assert cells(pares("inspect", "smol")) == [
        ["general.name", "smol"],
        [""],
        ["NAME", "TYPE", "SHAPE", "SIZE"],
        ["blk.0.ffn_up.weight", "Q4_1", "576 × 1536", "553 kB"],
    ]
    assert pares("inspect", "smol", "--json").json["tensors"][0]["name"] == "blk.0.ffn_up.weight"
    world.samples_as("smol", "output_norm.weight", odd=2)
    node.script["GET /models/smol/statistics"] = world.samples["smol", "output_norm.weight"]
    said = pares("inspect", "smol", "output_norm.weight")
    assert "zeros        25.0 %" in said.out
    assert "not finite   2" in said.out
    bars = [line for line in said.out.splitlines() if "█" in line]
    assert len(bars) == 10
    assert max(bars, key=len).split()[0] == "0.125", "the highest is where most weights are"
    assert pares("inspect", "smol", "output_norm.weight", "--json").json["odd"] == 2


def test_diff_draws_a_bar_per_layer_and_names_what_changed(
    node: ScriptedNode, pares: Call, world: ScriptedCommons
) -> None:
    world.differs("a", "b", (0.0, 0.001, 0.5))
    node.script["POST /differences"] = world.differences["a", "b"]
    said = pares("diff", "a", "b").out
    assert said.startswith("25 tensors are equal, 3 are not.\n")
    bars = [line.count("█") for line in said.splitlines() if " of 9" in line]
    assert bars == [0, 1, 30]
    assert re.search(r"blk\.2\.ffn_up\.weight +changed +0\.5\n", said)
    assert re.search(r"output\.weight +only right\n", said)
    assert "blk.0" not in said, "what is equal is not named"
    assert node.asked("POST /differences") == [{"left": "a", "right": "b"}]
    assert pares("diff", "a", "b", "--json").json["changed"] == 2
    node.script["POST /differences"] = told.Difference(left="a", right="a", equal=27, changed=0, layers=(), tensors=())
    assert pares("diff", "a", "a").out == "All 27 tensors are equal.\n"


# Pull


def test_a_pull_asks_for_a_part_a_place_in_the_queue_and_a_limit(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /pulls"] = pull("done", priority=2, limit_bytes_per_s=2_000_000)
    pares("pull", "smol", "--layers", "10-20+head", "--priority", "high", "--limit", "2MB", "--accept-licence")
    assert node.asked("POST /pulls") == [
        msgspec.to_builtins(
            schemas.PullRequest(
                "smol", layers="10-20+head", accept_licence=True, priority=2, limit_bytes_per_s=2_000_000
            )
        )
    ]


def test_asking_again_changes_the_priority_and_the_limit_that_were_given(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /pulls"] = pull("fetching", priority=0, limit_bytes_per_s=5)
    node.script["PATCH /pulls/p1"] = pull("done", priority=2, limit_bytes_per_s=5)
    assert pares("pull", "smol", "--priority", "high").code == 0
    assert node.asked("PATCH /pulls/p1") == [{"priority": 2}]
    node.script["POST /pulls"] = pull("done", priority=0, limit_bytes_per_s=5)
    assert pares("pull", "smol").code == 0
    assert len(node.asked("PATCH /pulls/p1")) == 1


def needs_consent(node: ScriptedNode, text: str) -> None:
    """A pull that wants its licence agreed to."""
    plan = schemas.PullPlan(
        "smol", "smol", 100, 100, 1000, "", "LicenseRef-X", True, None, None,
        version="ab" * 32, licence_text=text, licence_accepted=False, holders=3,
    )  # fmt: skip

    def answer(body: object) -> object:
        request = msgspec.convert(body, schemas.PullRequest)
        if request.dry_run:
            return plan
        return pull("done") if request.accept_licence else LicenceNotAccepted("Not yet.")

    node.script["POST /pulls"] = answer


def test_a_licence_is_shown_and_asked_for_once(node: ScriptedNode, pares: Call, asked: Person) -> None:
    needs_consent(node, "\n".join(f"Clause {number}." for number in range(100)))
    said = asked("y\n", "pull", "smol")
    assert said.code == 0
    assert "smol is under LicenseRef-X, which you have not agreed to yet." in said.err
    assert "Clause 19." in said.err
    assert "Clause 20." not in said.err
    assert "(80 more lines: `pares show smol --licence` prints all of it.)" in said.err
    said = asked("n\n", "pull", "smol")
    assert (said.code, "nothing was fetched" in said.err) == (1, True)


@pytest.mark.parametrize("options", [(), ("--yes",), ("--json",)])
def test_nobody_else_can_agree_to_a_licence(node: ScriptedNode, pares: Call, options: tuple[str, ...]) -> None:
    needs_consent(node, "Text.")
    said = pares("pull", "smol", *options)
    assert said.code == 1
    assert "pares pull smol --accept-licence" in said.out + said.err
    assert pares("pull", "smol", "--accept-licence", *options).code == 0


def test_a_dry_run_tells_who_would_send_it_and_that_the_licence_is_new(node: ScriptedNode, pares: Call) -> None:
    needs_consent(node, "Text.")
    said = pares("pull", "smol", "--dry-run").out
    assert "3 of the members who are there" in said
    assert "LicenseRef-X, which you have not agreed to yet" in said
