"""Verbs against a node that answers by script: what is asked of it, what is printed, the exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from pares import __version__, errors
from pares.api import schemas
from pares.cli import client
from pares.cli import pull as pulling
from pares.errors import LocalError, ParesError
from scripted_node import (
    DETAIL,
    MACHINE,
    ROW,
    Call,
    ScriptedNode,
    pull,
    scripted_node,
    write_address,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def node(home: Path) -> Iterator[ScriptedNode]:
    with scripted_node(home) as node:
        yield node


@pytest.fixture
def pares(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return Call(home, capsys, monkeypatch)


def every_kind(kind: type[ParesError] = LocalError) -> list[type[ParesError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every_kind(sub))]


def raised(kind: type[ParesError]) -> ParesError:
    error = kind.__new__(kind)
    error.__dict__["retry_after_s"] = 1
    ParesError.__init__(error, "It went wrong.", hint="Do this now.")
    return error


def test_the_errors_of_the_node_keep_their_code_and_have_their_exit_code(node: ScriptedNode, pares: Call) -> None:
    for kind in every_kind():
        node.script["GET /models"] = raised(kind)
        told = pares("list", "--json")
        assert (told.code, told.err) == (kind.exit_code, "")
        assert told.json == {"error": {"code": kind.code, "message": "It went wrong.", "hint": "Do this now."}}
    said = pares("list")
    assert (said.out, said.err) == ("", "Error: It went wrong.\nDo this now.\n")


def test_list_shows_what_is_here(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /models"] = schemas.Models((ROW, msgspec.structs.replace(ROW, name="a-longer-name", loaded=True)))
    lines = pares("ls").out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "QUANT", "PARAMETERS", "FIT", "ADDED", "STATE"]
    assert lines[1].split("   ")[0].strip() == "smol"
    assert lines[2].endswith("in memory")
    assert len({line.index("2026-11-22") for line in lines[1:]}) == 1
    assert pares("list", "--json").json["models"][0]["name"] == "smol"


def test_an_empty_list_says_how_to_get_a_model(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /models"] = schemas.Models(())
    assert "pares pull" in pares("list").out
    assert pares("--json", "list").json == {"models": []}


def test_ps_shows_what_is_in_memory(node: ScriptedNode, pares: Call) -> None:
    assert pares("ps").out.splitlines()[1].split()[:5] == ["smol", "ready", "500", "MB", "8192"]
    assert pares("ps", "--json").json["loaded"][0]["name"] == "smol"


def test_show_prints_all_or_one_part(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /models/smol"] = DETAIL
    node.script["POST /api/show"] = {"modelfile": "FROM smol\n", "template": ""}
    node.script["GET /models/smol/tensors"] = schemas.Tensors(
        (schemas.TensorRow("output.weight", "Q4_1", (576, 49152), 1, 17_000_000, 0, -1),)
    )
    assert "SHA-256           " + "ab" * 32 in pares("show", "smol").out
    assert pares("show", "smol", "--json").json["row"]["name"] == "smol"
    assert pares("show", "smol", "--template").out == "{{ messages }}\n"
    assert pares("show", "smol", "--license").out == "The licence.\n"
    assert pares("show", "smol", "--modelfile").out.startswith("FROM smol")
    assert pares("show", "smol", "--tensors").out.splitlines()[1].split() == [
        *("output.weight", "Q4_1", "576", "×", "49152", "17.0", "MB")
    ]


def test_verify_tells_a_changed_file_by_its_exit_code(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /models/smol/verify"] = schemas.Verification("ab", "ab", True)
    assert pares("show", "smol", "--verify").code == 0
    node.script["POST /models/smol/verify"] = errors.VerificationFailed("It changed.")
    assert pares("show", "smol", "--verify").code == 7


def test_names_are_one_part_of_an_address(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /models/hf:a/b c?.gguf/unload"] = None
    assert pares("stop", "hf:a/b c?.gguf").code == 0


def test_rm_says_what_is_free_again(node: ScriptedNode, pares: Call) -> None:
    node.script["DELETE /models/a"] = schemas.Removed("a", 1_500_000)
    node.script["DELETE /models/b"] = schemas.Removed("b", 500_000)
    assert pares("rm", "a", "b").out == "Deleted a, b: 2.0 MB are free again.\n"
    assert pares("rm", "a", "--json").json == {"removed": [{"name": "a", "bytes_freed": 1_500_000}]}


def test_cp_create_and_import_tell_the_node_whole_paths(
    node: ScriptedNode, pares: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.script["POST /models/copy"] = msgspec.structs.replace(ROW, name="gpt", kind="alias")
    assert pares("cp", "smol", "gpt").out == "smol is now also called gpt.\n"

    (tmp_path / "base.gguf").touch()
    (tmp_path / "Modelfile").write_text('FROM ./base.gguf\nSYSTEM """FROM here"""\nADAPTER smol\n')
    node.script["POST /models/create"] = schemas.Created("pirate", ("TEMPLATE is ignored.",))
    said = pares("create", "pirate", "-f", str(tmp_path / "Modelfile"))
    assert "pares run pirate" in said.out
    assert "TEMPLATE is ignored." in said.err
    sent = f'FROM {tmp_path}/base.gguf\nSYSTEM """FROM here"""\nADAPTER smol\n'
    assert node.asked("POST /models/create") == [{"name": "pirate", "modelfile": sent}]

    node.script["POST /models/import"] = schemas.Models((ROW,))
    monkeypatch.chdir(tmp_path)
    assert pares("import", "base.gguf").code == 0
    assert node.asked("POST /models/import") == [{"path": str(tmp_path / "base.gguf"), "name": ""}]
    assert pares("import", "nothing.gguf").code == 2


# Downloads


def test_pull_tells_every_tenth_where_nothing_can_move(
    node: ScriptedNode, pares: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "LOOK_S", 0)
    node.script["POST /pulls"] = pull("queued")
    node.script["GET /pulls/p1"] = [*(pull("fetching", amount) for amount in range(0, 1000, 25)), pull("done", 1000)]
    said = pares("pull", "smol")
    assert said.code == 0
    assert len(said.err.splitlines()) == 12
    assert "smol: fetching 30 % of 1.0 kB from the index, 5.0 s left" in said.err

    node.script["GET /pulls/p1"] = [pull("fetching", 500), pull("done", 1000)]
    lines = [msgspec.json.decode(line) for line in pares("pull", "smol", "--json").out.splitlines()]
    assert [(line["state"], line["bytes"]) for line in lines] == [("queued", 0), ("fetching", 500), ("done", 1000)]


@pytest.mark.parametrize(
    ("code", "exit_code"), [("disk_full", 4), ("origin_unreachable", 5), ("verification_failed", 7)]
)
def test_a_pull_that_fails_exits_as_its_reason_demands(
    node: ScriptedNode, pares: Call, code: str, exit_code: int
) -> None:
    node.script["POST /pulls"] = pull("failed", error="No luck.", code=code)
    said = pares("pull", "smol")
    assert said.code == exit_code
    assert "Error: No luck.\n" in said.err


def test_a_pull_that_somebody_pauses_says_how_to_go_on(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /pulls"] = pull("paused", 10)
    said = pares("pull", "smol")
    assert said.code == 1
    assert "pares pull smol" in said.err


def test_a_dry_run_fetches_nothing_and_tells_by_its_exit_code_if_it_fits(node: ScriptedNode, pares: Call) -> None:
    plan = schemas.PullPlan("smol", "smol", 100, 2_000, 5_000, "ab", "Apache-2.0", True, "runs well", None)
    node.script["POST /pulls"] = plan
    assert "needs 2.0 kB, 5.0 kB free: enough" in pares("pull", "smol", "--dry-run").out
    node.script["POST /pulls"] = msgspec.structs.replace(plan, disk_free=500, fits_disk=False)
    said = pares("pull", "smol", "--dry-run")
    assert (said.code, "1.5 kB too little" in said.out) == (4, True)
    assert node.asked("POST /pulls")[0] == msgspec.to_builtins(schemas.PullRequest("smol", dry_run=True))


def test_ctrl_c_pauses_a_pull(node: ScriptedNode, home: Path) -> None:
    command = [sys.executable, "-m", "pares", "--home", str(home), "pull", "smol"]
    node.script["POST /pulls"] = pull("queued")
    node.script["POST /pulls/p1/pause"] = pull("paused", 30)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:

        def interrupt(_body: object) -> schemas.PullStatus:
            process.send_signal(signal.SIGINT)
            return pull("fetching", 30)

        node.script["GET /pulls/p1"] = interrupt
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "`pares pull smol` goes on from there." in err


# The node


def test_status_tells_on_one_screen_and_as_json(node: ScriptedNode, pares: Call) -> None:
    assert f"address   {node.url}" in pares("status").out
    told = pares("status", "--json").json
    assert (told["version"], told["ready"]) == (__version__, True)
    node.script["POST /login/link"] = schemas.Link(f"{node.url}/?token=once")
    assert pares("status", "--url").out == f"{node.url}/?token=once\n"


def test_a_second_up_gives_the_address_of_the_first(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /login/link"] = schemas.Link(f"{node.url}/?token=once")
    said = pares("up", "--no-open")
    assert (said.code, said.out) == (0, f"Pares is running already: {node.url}/?token=once\n")
    told = pares("--json").json
    assert told["already_running"]
    assert told["url"] == node.url


def test_status_without_a_node_says_so(home: Path, pares: Call) -> None:
    assert (pares("status").code, pares("status", "--json").json["ready"]) == (1, False)
    assert pares("down", "--json").json == {"stopped": False}


def test_the_address_of_a_dead_node_is_not_believed(home: Path, pares: Call) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait(30)
    write_address(home, "http://127.0.0.1:9", pid=dead.pid)
    assert pares("status").code == 1
    write_address(home, "http://127.0.0.1:9", pid=os.getpid(), started_at=datetime.now(UTC) - timedelta(days=9000))
    assert pares("status").code == 1, "the number belongs to a younger process"
    (home / "node.json").write_text("rubbish")
    assert pares("status").code == 1


def test_a_node_that_lives_and_does_not_answer_is_an_error(
    home: Path, pares: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PING_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_address(home, f"http://127.0.0.1:{silent.getsockname()[1]}", pid=os.getpid())
        assert pares("list", "--json").json["error"]["code"] == "node_unreachable"
    assert pares("status").out == "No node is running. `pares up` starts it.\n", "nobody listens any more"


def test_a_node_of_another_version_is_warned_about(node: ScriptedNode, pares: Call) -> None:
    told = node.script["GET /status"]
    assert isinstance(told, schemas.NodeStatus)
    node.script["GET /status"] = msgspec.structs.replace(told, version="9.9")
    assert "Pares 9.9" in pares("ps").err
    assert "not offline" in pares("ps", "--offline").err


def test_down_waits_until_the_node_is_gone(home: Path, pares: Call) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
        scripted_node(home, pid=process.pid) as node,
    ):
        told = node.script["GET /status"]
        assert isinstance(told, schemas.NodeStatus)
        node.script["GET /status"] = msgspec.structs.replace(told, pid=process.pid)
        node.script["POST /shutdown"] = lambda _: process.kill()
        assert pares("down").out == "The node has stopped.\n"


def test_doctor_prints_checks_and_fails_if_there_is_a_problem(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /doctor"] = schemas.Checks((schemas.Check("disk", "warning", "Little is free.", "Make room."),))
    assert (pares("doctor").code, pares("doctor").out) == (0, "warning   disk: Little is free.\n          Make room.\n")
    node.script["GET /doctor"] = schemas.Checks((schemas.Check("engine", "problem", "It is not there."),))
    assert pares("doctor").code == 1


def test_the_bundle_of_the_doctor_has_no_names_and_no_keys(
    node: ScriptedNode, pares: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = schemas.LogLine(
        1, "now", "info", "x", {"at": f"{Path.home()}/x", "q": "/?token=abc&x=1", "key": "sk-pares-1", "on": "the-box"}
    )
    node.script["GET /doctor"] = schemas.Checks(())
    told = node.script["GET /status"]
    assert isinstance(told, schemas.NodeStatus)
    node.script["GET /status"] = msgspec.structs.replace(told, machine=msgspec.structs.replace(MACHINE, name="the-box"))
    node.script["GET /settings"] = schemas.Settings(())
    node.script["GET /logs"] = schemas.LogLines((line,))
    assert pares("doctor", "--bundle").code == 0
    (path,) = tmp_path.glob("pares-doctor-*.zip")
    with zipfile.ZipFile(path) as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist())
        assert all(msgspec.json.decode(archive.read(name)) for name in archive.namelist())
    for secret in (str(Path.home()), "abc", "sk-pares-1", "the-box"):
        assert secret not in text


def test_logs_are_lines(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /logs"] = schemas.LogLines((schemas.LogLine(1, "12:00", "info", "node.ready", {"port": 1}),))
    assert pares("logs").out == "12:00 info    node.ready port=1\n"
    assert pares("logs", "--json").json["event"] == "node.ready"


def test_path_is_the_home_or_a_models_file(node: ScriptedNode, home: Path, pares: Call) -> None:
    node.script["GET /models/smol"] = DETAIL
    assert pares("path").out == f"{home}\n"
    assert pares("path", "smol").out == "/models/smol.gguf\n"


# Settings and keys


def test_a_setting_is_set_read_and_unset(home: Path, pares: Call) -> None:
    assert pares("config", "set", "server.port", "8080").out == "server.port is 8080 (file).\n"
    assert pares("config", "get", "server.port").out == "8080\n"
    assert pares("config", "list", "--json").json["settings"][3]["source"] == "file"
    assert pares("config", "unset", "server.port").out == "server.port is 11435 (default).\n"
    assert pares("config", "path").out == f"{home}/config.toml\n"
    assert pares("config", "get", "server.prot").code == 3
    assert pares("config", "set", "server.port", "x").code == 2


def test_a_setting_that_the_environment_overrules_is_warned_about(
    home: Path, pares: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARES_SERVER_PORT", "9999")
    said = pares("config", "set", "server.port", "8080")
    assert said.out == "server.port is 9999 (environment).\n"
    assert "PARES_SERVER_PORT" in said.err


def test_keys_are_made_listed_and_revoked(node: ScriptedNode, pares: Call) -> None:
    key = schemas.Key("k1", "phone", ("infer",), "2026-11-22T10:00:00Z", None, False)
    node.script["POST /keys"] = schemas.NewKey("sk-pares-1", key)
    node.script["GET /keys"] = schemas.Keys((key,))
    node.script["DELETE /keys/k1"] = None
    assert pares("key", "new", "phone").out == "sk-pares-1\n"
    assert pares("key", "ls").out.splitlines()[1].split() == ["k1", "phone", "infer", "2026-11-22", "never"]
    assert pares("key").out == pares("key", "ls").out
    assert pares("key", "rm", "k1", "--json").json == {"revoked": ["k1"]}
    assert node.asked("POST /keys") == [{"name": "phone", "scopes": ["infer"]}]


# The command line itself


def test_a_wrong_call_is_exit_code_2_and_says_what_would_be_right(pares: Call) -> None:
    said = pares("lsit")
    assert said.code == 2
    assert "Did you mean 'list'" in said.err
    assert pares("rm", "--json").json["error"]["code"] == "usage"
    assert pares("up", "--port", "70000").code == 2


def test_version_is_a_verb_and_an_option(pares: Call) -> None:
    assert pares("version").out == pares("--version").out
    assert pares("version", "--json").json == {"version": pares("version").out.strip()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_there_is_a_completion_script(pares: Call, shell: str) -> None:
    assert "_PARES_COMPLETE" in pares("completion", shell).out


def test_quiet_says_only_results(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /pulls"] = pull("done")
    assert pares("pull", "smol", "-q").err == ""
