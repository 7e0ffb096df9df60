"""The real command against the real node, as a person or a script uses them."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from pares.cli.connect import lives
from scripted_node import Said

COMMAND = [sys.executable, "-m", "pares"]
DEADLINE_S = 45
SHORT = "FROM {file}\nPARAMETER num_predict 5\nPARAMETER temperature 0\nPARAMETER num_ctx 512\n"

Pares = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a höme"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARES_")}
    return kept | {"PARES_HOME": str(home), "PARES_THREADS": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}


@pytest.fixture
def pares(environment: dict[str, str]) -> Pares:
    def call(*words: str, stdin: str = "") -> Said:
        done = subprocess.run(
            [*COMMAND, *words], env=environment, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def up(pares: Pares) -> Iterator[Callable[..., Said]]:
    """Start a node in the background; it is stopped at the end."""
    yield lambda *words: pares("up", "-d", "--no-open", "--json", *words)
    assert pares("down").code == 0


def test_a_node_goes_up_once_tells_of_itself_and_goes_down(home: Path, pares: Pares, up: Callable[..., Said]) -> None:
    first = up("--port", "0").json
    assert first["ready"]
    assert first["home"] == str(home)
    assert stat.S_IMODE((home / "node.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    told = pares("status", "--json").json
    assert (told["ready"], told["version"], told["pid"]) == (True, first["version"], first["pid"])

    second = up("--port", "0").json
    assert (second["already_running"], second["url"], second["pid"]) == (True, first["url"], first["pid"])
    assert second["page"] != first["page"], "each opens the page once"
    with httpx2.Client() as browser:
        assert browser.get(second["page"]).status_code == 303 or browser.cookies
        assert browser.get(f"{second['url']}/pares/v1/status").status_code == 200

    assert pares("path").out.strip() == str(home)
    doctor = pares("doctor", "--json")
    assert {check["name"] for check in doctor.json["checks"]} >= {"engine", "memory", "disk"}
    assert doctor.code == int(any(check["state"] == "problem" for check in doctor.json["checks"]))
    assert "node.ready" in pares("logs").out

    assert pares("down", "--json").json == {"stopped": True}
    assert not lives(first["pid"])
    assert not (home / "node.json").exists()
    assert pares("status").code == 1


def test_a_port_that_is_taken_is_exit_code_6_in_front_and_behind(pares: Pares, up: Callable[..., Said]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        front = pares("up", "--no-open", "--port", port)
        assert front.code == 6
        assert f"Port {port} is taken" in front.err
        behind = up("--port", port)
        assert (behind.code, behind.json["error"]["code"]) == (6, "already_running")


def test_a_node_in_front_prints_its_address_and_ends_with_ctrl_c(environment: dict[str, str], home: Path) -> None:
    command = [*COMMAND, "up", "--no-open", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Pares is up: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
    assert not (home / "node.json").exists()


def test_a_killed_node_is_not_believed_to_run(pares: Pares, up: Callable[..., Said], home: Path) -> None:
    os.kill(up("--port", "0").json["pid"], signal.SIGKILL)
    assert pares("status").code == 1
    assert pares("list", "--json").json == {"models": []}
    assert up("--port", "0").json["already_running"] is False


def test_verbs_work_without_a_node_and_leave_none(home: Path, pares: Pares) -> None:
    assert pares("list", "--json").json == {"models": []}
    assert pares("run", "nobody", "Hi").code == 3
    assert pares("pull", "--offline", "https://example.invalid/x.gguf").code == 5
    (home / "x.gguf").write_bytes(b"GGUF rubbish")
    assert pares("import", str(home / "x.gguf")).code in (2, 7)
    assert not (home / "node.json").exists()


def test_a_key_opens_a_door_that_demands_one(pares: Pares, up: Callable[..., Said]) -> None:
    url = up("--port", "0", "--require-key").json["url"]
    key = pares("key", "new", "phone").out.strip()
    assert httpx2.get(f"{url}/v1/models").status_code == 401
    assert httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    (listed,) = pares("key", "ls", "--json").json["keys"]
    assert pares("key", "rm", listed["id"]).code == 0
    assert httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_a_model_is_made_talked_to_and_removed(
    pares: Pares, up: Callable[..., Said], smollm2: Path, tmp_path: Path
) -> None:
    up("--port", "0")
    (tmp_path / "Modelfile").write_text(SHORT.format(file=smollm2))
    assert pares("create", "short", "-f", str(tmp_path / "Modelfile")).code == 0
    first = pares("run", "short", "Say hello", "--json", "--seed", "1").json
    assert first["generated_tokens"] == 5
    assert first["text"]
    assert pares("chat", "Say hello", "--seed", "1").out.strip() == first["text"].strip()
    assert [one["state"] for one in pares("ps", "--json").json["loaded"]] == ["ready"]

    asked = pares("ask", "Say hello", "--json").json
    again = pares("ask", "-c", "Again", "--json").json
    assert asked["conversation_id"] == again["conversation_id"]
    assert again["message"]["prompt_tokens"] > asked["message"]["prompt_tokens"]

    assert pares("stop", "short").code == 0
    assert pares("ps", "--json").json == {"loaded": []}
    assert "num_predict" in pares("show", "short").out
    assert pares("rm", "short").code == 0
    assert smollm2.exists()


def test_a_conversation_in_a_terminal(pares: Pares, environment: dict[str, str], smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(SHORT.format(file=smollm2))
    assert pares("create", "short", "-f", str(tmp_path / "Modelfile")).code == 0
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, "run", "short"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        seen = _read(ours, until=b">>>")
        os.write(ours, b"Say hello\r/bye\r")
        seen += _read(ours)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        os.close(ours)
    assert b"You are talking to short." in seen
    assert b"Error" not in seen


def _read(terminal: int, *, until: bytes | None = None) -> bytes:
    """What appears, up to `until` or to the end of the program."""
    deadline, seen = time.monotonic() + DEADLINE_S, b""
    while until is None or until not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came after {seen!r}"
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # how Linux tells that nobody has the other end any more
            break
    return seen


def test_up_does_not_take_the_passing_node_of_another_command_for_one_that_stays(
    pares: Pares, environment: dict[str, str], smollm2: Path
) -> None:
    talk = subprocess.Popen(
        [*COMMAND, "run", str(smollm2), "--temp", "0", "--verbose", "Tell a very long story."],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert talk.stdout is not None
        assert talk.stdout.read(1), "it is answering"
        up = pares("up", "-d", "--no-open", "--port", "0", "--json")
        assert up.code == 6
        assert "stops with it" in up.json["error"]["message"]
    finally:
        talk.send_signal(signal.SIGINT)
        talk.communicate(timeout=DEADLINE_S)


def test_the_secret_of_a_home_outlives_a_restart_and_is_its_owners_alone(
    home: Path, pares: Pares, up: Callable[..., Said]
) -> None:
    up("--port", "0")
    before = (home / "secret").read_text()
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert pares("down").code == 0
    up("--port", "0")
    assert (home / "secret").read_text() == before
    assert before in (home / "node.json").read_text()
