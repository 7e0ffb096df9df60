"""Talking through the command line, against a node that answers by script."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from pares import errors
from pares.api import schemas
from pares.cli import pull as pulling
from pares.cli.client import Client
from pares.cli.dialogue import Dialogue
from pares.cli.repl import talk
from pares.cli.terminal import Options, Terminal
from scripted_node import (
    CONVERSATION,
    DETAIL,
    LOADED,
    MESSAGE,
    NEED,
    ROW,
    TOKEN,
    Call,
    ScriptedNode,
    Stream,
    chat_lines,
    pull,
    scripted_node,
    sse,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def node(home: Path) -> Iterator[ScriptedNode]:
    with scripted_node(home) as node:
        node.script["GET /models/smol"] = DETAIL
        node.script["POST /models/smol/load"] = LOADED
        node.script["POST /api/chat"] = chat_lines("The sky ", "is blue.")
        yield node


@pytest.fixture
def pares(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return Call(home, capsys, monkeypatch)


def test_run_answers_once_and_what_is_piped_in_follows_the_prompt(node: ScriptedNode, pares: Call) -> None:
    said = pares("run", "smol", "Why", "blue?", stdin="A poem.\n")
    assert (said.code, said.out, said.err) == (0, "The sky is blue.\n", "")
    assert node.asked("POST /api/chat") == [
        {"model": "smol", "messages": [{"role": "user", "content": "Why blue?\n\nA poem."}], "options": {}}
    ]


def test_the_options_of_run_reach_the_model(node: ScriptedNode, pares: Call) -> None:
    words = "--ctx 8k --temp 0.5 --seed 7 --keepalive 10m --format json --think --exact -s Briefly."
    pares("run", "smol", "Hi", *words.split(" "))
    assert node.asked("POST /models/smol/load") == [{"context": 8192, "profile": "exact", "keep_alive_s": 600.0}]
    (asked,) = node.asked("POST /api/chat")
    assert asked == {
        "model": "smol",
        "messages": [{"role": "system", "content": "Briefly."}, {"role": "user", "content": "Hi"}],
        "options": {"num_ctx": 8192, "temperature": 0.5, "seed": 7},
        "format": "json",
        "think": True,
        "keep_alive": 600.0,
    }
    assert pares("run", "smol", "Hi", "--ctx", "much").code == 2
    assert pares("run", "smol", "Hi", "--keepalive", "long").code == 2


def test_thinking_and_timings_are_not_the_answer(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /api/chat"] = chat_lines("Blue.", thinking="Light scatters.")
    said = pares("run", "smol", "Why?", "-v")
    assert said.out == "Blue.\n"
    assert "Light scatters." in said.err
    assert "3 tokens in 1.0 s, 3.0 tokens/s" in said.err
    assert "scatters" not in pares("run", "smol", "Why?", "--hidethinking").err
    told = pares("run", "smol", "Why?", "--json").json
    assert (told["text"], told["reasoning"], told["finish"]) == ("Blue.", "Light scatters.", "stop")


def test_run_fetches_what_is_not_here(node: ScriptedNode, pares: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "LOOK_S", 0)
    plan = schemas.PullPlan("smollm", "smol", 100, 200, 5_000, "ab", "", True, "runs well", NEED)
    node.script["GET /models/smollm"] = errors.ModelNotFound("smollm", pullable=True)
    node.script["POST /pulls"] = [plan, pull("fetching"), plan, pull("done")]
    node.script["GET /pulls/p1"] = pull("done", 1000)
    said = pares("run", "smollm", "Hi")
    assert (said.code, said.out) == (0, "The sky is blue.\n")
    assert "smol: done" in said.err
    assert pares("run", "smollm", "Hi", "--json").json["model"] == "smol", "one object, no progress"


def test_run_does_not_fetch_what_will_not_run(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /models/big"] = errors.ModelNotFound("big", pullable=True)
    node.script["POST /pulls"] = schemas.PullPlan("big", "big", 1, 1, 1, "", "", True, "will not run", NEED)
    said = pares("run", "big", "Hi")
    assert (said.code, len(node.asked("POST /pulls"))) == (4, 1)
    assert "0.16 GB of 8 GB" in said.err


def test_a_model_that_nobody_knows_is_exit_code_3(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /models/smal"] = node.script["POST /pulls"] = errors.ModelNotFound("smal", ("smol",))
    said = pares("run", "smal", "Hi")
    assert said.code == 3
    assert "Close to it: smol." in said.err


def test_run_takes_a_file_too(node: ScriptedNode, pares: Call, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    node.script["POST /models/import"] = schemas.Models((ROW,))
    assert pares("run", str(tmp_path / "x.gguf"), "Hi").out == "The sky is blue.\n"


def test_an_answer_that_breaks_off_keeps_what_there_was_and_fails(node: ScriptedNode, pares: Call) -> None:
    whole = chat_lines("The sky ").pieces[0]
    node.script["POST /api/chat"] = Stream([whole, '{"error": "The model stopped."}\n'])
    said = pares("run", "smol", "Hi")
    assert (said.code, said.out, said.err) == (1, "The sky \n", "Error: The model stopped.\n")
    node.script["POST /api/chat"] = errors.ContextOverflow(9000, 8192)
    assert pares("run", "smol", "Hi").code == 2


def test_without_a_prompt_and_a_person_there_is_nothing_to_run(node: ScriptedNode, pares: Call) -> None:
    assert pares("run", "smol").code == 2
    assert pares("ask").code == 2


def test_chat_goes_on_with_the_model_talked_to_last(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /conversations"] = schemas.Conversations(())
    assert pares("chat", "Hi").code == 3
    node.script["GET /conversations"] = schemas.Conversations((CONVERSATION.row,))
    assert pares("chat", "Hi").out == "The sky is blue.\n"
    node.script["GET /conversations"] = schemas.Conversations(())
    assert pares("chat", "Hi").out == "The sky is blue.\n", "remembered here"


# ask


REPLY = sse(
    ("begun", {"user": None, "assistant_id": "m2", "model": "smol"}),
    ("loading", {"progress": 0.5}),
    ("queued", {"place": 1}),
    ("reasoning", {"text": "Light."}),
    ("text", {"text": "Bl"}),
    ("text", {"text": "ue."}),
    ("finished", MESSAGE),
)


def test_ask_keeps_a_conversation(node: ScriptedNode, pares: Call, tmp_path: Path) -> None:
    node.script["POST /conversations"] = CONVERSATION
    node.script["POST /conversations/c1/reply"] = REPLY
    (tmp_path / "notes.txt").write_text("Notes.")
    said = pares("ask", "Why", "blue?", "-m", "smol", "-s", "Briefly.", "-f", str(tmp_path / "notes.txt"), "-v")
    assert (said.code, said.out) == (0, "Blue.\n")
    assert "30.0 tokens/s" in said.err
    assert node.asked("POST /conversations") == [{"model": "smol", "system": "Briefly."}]
    assert node.asked("POST /conversations/c1/reply") == [
        {"parent_id": "m2", "content": "Notes.\n\nWhy blue?", "model": None, "go_on": False}
    ]


def test_ask_goes_on_with_the_latest_conversation(node: ScriptedNode, pares: Call) -> None:
    node.script["GET /conversations"] = schemas.Conversations((CONVERSATION.row,))
    node.script["GET /conversations/c1"] = node.script["PATCH /conversations/c1"] = CONVERSATION
    node.script["POST /conversations/c1/reply"] = REPLY
    told = pares("ask", "-c", "And red?", "--json").json
    assert (told["conversation_id"], told["message"]["content"]) == ("c1", "Blue.")
    assert node.asked("PATCH /conversations/c1") == []
    pares("ask", "-c", "And red?", "--schema", '{"type": "object"}')
    assert node.asked("PATCH /conversations/c1") == [{"settings": {"temperature": 0.5, "schema": {"type": "object"}}}]
    node.script["GET /conversations"] = schemas.Conversations(())
    assert pares("ask", "-c", "And red?").code == 3


def test_a_schema_is_json_or_a_file_of_it(node: ScriptedNode, pares: Call, tmp_path: Path) -> None:
    node.script["POST /conversations"] = CONVERSATION
    node.script["POST /conversations/c1/reply"] = REPLY
    (tmp_path / "s.json").write_text('{"type": "string"}')
    assert pares("ask", "-m", "smol", "Hi", "--schema", str(tmp_path / "s.json")).code == 0
    assert node.asked("POST /conversations") == [{"model": "smol", "settings": {"schema": {"type": "string"}}}]
    assert pares("ask", "-m", "smol", "Hi", "--schema", "{rubbish").code == 2
    assert pares("ask", "-m", "smol", "Hi", "--schema", "nowhere.json").code == 2


def test_an_error_in_the_midst_of_a_reply_is_that_error(node: ScriptedNode, pares: Call) -> None:
    node.script["POST /conversations"] = CONVERSATION
    told = schemas.ErrorBody("The model ended. Ask again.", "server_error", "worker_died", None, "Ask again.")
    node.script["POST /conversations/c1/reply"] = sse(("text", {"text": "Bl"}), ("error", told))
    said = pares("ask", "-m", "smol", "Hi")
    assert (said.code, said.out, said.err) == (1, "Bl\n", "Error: The model ended.\nAsk again.\n")
    node.script["POST /conversations/c1/reply"] = sse(("text", {"text": "Bl"}))
    assert pares("ask", "-m", "smol", "Hi", "--json").json["error"]["code"] == "node_unreachable"


# The prompt


@pytest.fixture
def converse(node: ScriptedNode, pares: Call, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Type lines at the prompt of `pares run smol`; what came on both streams."""

    def type_in(keys: str) -> str:
        async def session() -> None:
            async with Client(node.url, TOKEN) as client:
                await talk(client, Terminal(Options(home=node.home)), Dialogue("smol"))

        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys)
            asyncio.run(session())
        return "".join(capsys.readouterr())

    return type_in


def test_a_conversation_remembers_what_was_said(node: ScriptedNode, converse: Callable[[str], str]) -> None:
    assert "The sky is blue." in converse("Why?\rReally?\r/clear\rWhy?\r/bye\r")
    lengths = [len(body["messages"]) for body in node.asked("POST /api/chat") if isinstance(body, dict)]
    assert lengths == [1, 3, 1]


def test_a_fence_makes_one_text_of_several_lines(node: ScriptedNode, converse: Callable[[str], str]) -> None:
    converse('"""/one\rtwo\r"""\r/set system """Be\rbrief."""\rHi\r\x04')
    first, second = (body["messages"] for body in node.asked("POST /api/chat") if isinstance(body, dict))
    assert first[0]["content"] == "/one\ntwo"
    assert second[0] == {"role": "system", "content": "Be\nbrief."}


def test_commands_change_how_the_model_answers(node: ScriptedNode, converse: Callable[[str], str]) -> None:
    node.script["POST /models/create"] = schemas.Created("mine")
    node.script["GET /models/other"] = msgspec.structs.replace(DETAIL, row=msgspec.structs.replace(ROW, name="other"))
    node.script["POST /models/other/load"] = LOADED
    node.script["POST /api/show"] = {"modelfile": "FROM smol"}
    said = converse(
        "/set system Be brief.\r/set parameter temperature 0.1\r/set parameter stop END\r/set format json\r"
        "/set nothink\r/set verbose\r/set nowordwrap\r/show system\r/show parameters\r/show modelfile\r/show license\r"
        "/show template\r/show info\r/save mine\rHi\r/load other\r/set noformat\r/?\r/bye\r"
    )
    (asked,) = node.asked("POST /api/chat")
    assert isinstance(asked, dict)
    assert asked["options"] == {"temperature": 0.1, "stop": "END"}
    assert (asked["format"], asked["think"]) == ("json", False)
    modelfile = 'FROM smol\nSYSTEM """Be brief."""\nPARAMETER temperature 0.1\nPARAMETER stop END\n'
    assert node.asked("POST /models/create") == [{"name": "mine", "modelfile": modelfile}]
    for told in ("3.0 tokens/s", "FROM smol", "The licence.", "{{ messages }}", "SHA-256", "other now", "/load MODEL"):
        assert told in said


@pytest.mark.parametrize("line", ["/dance", "/set", "/set parameter", "/set format xml", "/show me", "/load", "/save"])
def test_a_command_that_means_nothing_is_told_and_the_prompt_stays(
    node: ScriptedNode, converse: Callable[[str], str], line: str
) -> None:
    said = converse(f"{line}\rHi\r/bye\r")
    assert "Error:" in said
    assert "The sky is blue." in said


def test_errors_of_the_node_do_not_end_the_conversation(node: ScriptedNode, converse: Callable[[str], str]) -> None:
    node.script["POST /api/chat"] = [errors.QueueFull(64, 64, retry_after_s=3), chat_lines("Hello.")]
    said = converse("Hi\rHi\r/bye\r")
    assert "64 requests are waiting already" in said
    assert "Hello." in said
    assert [len(body["messages"]) for body in node.asked("POST /api/chat") if isinstance(body, dict)] == [1, 1]


def test_ctrl_c_stops_the_answer_and_not_the_conversation(node: ScriptedNode, converse: Callable[[str], str]) -> None:
    half = Stream(chat_lines("Once upon ").pieces[:1], then=lambda: os.kill(os.getpid(), signal.SIGINT), hold=True)
    node.script["POST /api/chat"] = [half, chat_lines("Hello.")]
    said = converse("A story\r\x03Hi\r/bye\r")
    assert "Ctrl-D or /bye leaves." in said
    assert "Hello." in said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
