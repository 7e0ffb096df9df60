from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from door import scripted_door
from pares.api.settings import Settings
from pares.errors import WorkerDied
from scripted import ScriptedModel, say

USER = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def lines(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def body(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "messages": USER, **fields}


async def test_its_port_greets_as_ollama_does_and_the_main_port_shows_the_page(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        assert "<!doctype html>" in (await door.http.get("/")).text
        door.node.settings = Settings(ollama_port=int(door.url.rsplit(":", 1)[1]))
        greeting = await door.http.get("/")
        assert greeting.text == "Ollama is running"
        head = await door.http.head("/")
        assert (head.status_code, head.text) == (200, "")
        assert (await door.http.get("/api/version")).json()["version"].count(".") == 2


async def test_options_come_from_request_over_model_over_ollamas_defaults(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        await door.node.library.create("made", "FROM tiny\nPARAMETER temperature 0.3\nPARAMETER num_predict 5")
        await door.http.post("/api/chat", json=body())
        await door.http.post("/api/chat", json=body(model="made", options={"top_p": 0.5, "num_ctx": 77, "num_gpu": 1}))
        plain, made = model.asked
        assert (plain.sampling.temperature, plain.sampling.top_k, plain.sampling.top_p) == (0.8, 40, 0.9)
        assert plain.sampling.repeat_penalty == 1.1
        assert (made.sampling.temperature, made.sampling.top_p, made.max_tokens) == (0.3, 0.5, 5)
        assert door.node.contexts[-1] == 77


async def test_a_whole_answer_is_its_lines_put_together(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        whole = (await door.http.post("/api/chat", json=body(stream=False))).json()
        parts = lines(await door.http.post("/api/chat", json=body()))
        assert "".join(part["message"]["content"] for part in parts) == whole["message"]["content"]
        last = parts[-1]
        for end in (whole, last):
            assert (end["done"], end["done_reason"]) == (True, "stop")
            assert (end["prompt_eval_count"], end["eval_count"]) == (21, 24)
            assert (end["prompt_eval_duration"], end["eval_duration"]) == (10_000_000, 20_000_000)
            assert end["total_duration"] > 0


async def test_calls_have_their_arguments_as_objects(tmp_path: Path) -> None:
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "the sea"}}\n</tool_call>'
    async with scripted_door(tmp_path, ScriptedModel(say(call))) as door:
        whole = (await door.http.post("/api/chat", json=body(tools=[TOOL], stream=False))).json()
        assert whole["message"]["tool_calls"][0]["function"] == {
            "index": 0,
            "name": "look",
            "arguments": {"at": "the sea"},
        }
        parts = lines(await door.http.post("/api/chat", json=body(tools=[TOOL])))
        told = [call for part in parts for call in part["message"].get("tool_calls", ())]
        assert [call["function"] for call in told] == [whole["message"]["tool_calls"][0]["function"]]


async def test_thinking_has_its_own_field(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> #}"
    async with scripted_door(tmp_path, ScriptedModel(say("Hm.</think>\n\nYes."), template=template)) as door:
        chat = (await door.http.post("/api/chat", json=body(stream=False, think=True))).json()
        assert chat["message"]["thinking"].strip() == "Hm."
        generated = (
            await door.http.post("/api/generate", json={"model": "tiny", "prompt": "x", "stream": False})
        ).json()
        assert generated["thinking"].strip() == "Hm."
        assert generated["response"].strip() == "Yes."


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"prompt": "x"}, "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"),
        (
            {"prompt": "x", "system": "S"},
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
        ),
        ({"prompt": "x", "raw": True, "system": "S"}, "x"),
        ({"prompt": "x", "suffix": "y"}, "<|fim_prefix|>x<|fim_suffix|>y<|fim_middle|>"),
    ],
    ids=["template", "system", "raw", "suffix"],
)
async def test_generate_writes_the_prompt_as_asked(tmp_path: Path, fields: dict[str, object], prompt: str) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        assert (await door.http.post("/api/generate", json={"model": "tiny", **fields})).status_code == 200
        assert model.asked[0].prompt == prompt


async def test_a_base_model_goes_on_with_the_bare_prompt(tmp_path: Path) -> None:
    model = ScriptedModel(template="")
    async with scripted_door(tmp_path, model) as door:
        await door.http.post("/api/generate", json={"model": "tiny", "prompt": "Once"})
        assert model.asked[0].prompt == "Once"


async def test_what_is_not_used_is_told(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        asked = {
            "model": "tiny",
            "prompt": "x",
            "template": "{{ .Prompt }}",
            "context": [1, 2],
            "options": {"mirostat": 1},
        }
        last = lines(await door.http.post("/api/generate", json=asked))[-1]
        assert [warning.split("'")[1] for warning in last["warnings"]] == ["mirostat", "template", "context"]


async def test_empty_prompts_load_and_unload(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        for path, asked in (("/api/generate", {"model": "tiny"}), ("/api/chat", {"model": "tiny", "messages": []})):
            loaded = (await door.http.post(path, json={**asked, "keep_alive": "10m"})).json()
            assert (loaded["done"], loaded["done_reason"]) == (True, "load")
            assert door.node.keep_alives[-1] == 600
            assert [m["name"] for m in (await door.http.get("/api/ps")).json()["models"]] == ["tiny"]
            for _ in range(2):
                gone = (await door.http.post(path, json={**asked, "keep_alive": 0})).json()
                assert gone["done_reason"] == "unload"
            assert (await door.http.get("/api/ps")).json()["models"] == []
        assert (await door.http.post("/api/generate", json={"model": "no", "keep_alive": 0})).status_code == 404
        assert model.asked == []


async def test_a_schema_is_enforced(tmp_path: Path) -> None:
    model = ScriptedModel(say("{}"))
    async with scripted_door(tmp_path, model) as door:
        for wanted in ("json", {"type": "object"}):
            await door.http.post("/api/chat", json=body(format=wanted))
        assert model.schemas == [{"type": "object"}, {"type": "object"}]


async def test_an_answer_that_has_begun_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with scripted_door(tmp_path, model) as door:
        await door.http.post("/api/chat", json=body(messages=[*USER, {"role": "assistant", "content": "Well"}]))
        assert model.asked[0].prompt.endswith("assistant\nWell")


async def test_errors_are_one_text_also_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    model = ScriptedModel(fail_after=3, failure=WorkerDied("It ended.", hint="Ask again."))
    async with scripted_door(tmp_path, model) as door:
        missing = await door.http.post("/api/chat", json=body(model="no-such"))
        assert missing.status_code == 404
        assert "no-such" in missing.json()["error"]
        broken = lines(await door.http.post("/api/chat", json=body()))
        assert broken[-1] == {"error": "It ended. Ask again."}
        assert not any(line.get("done") for line in broken)


async def test_what_makes_no_sense_is_400(tmp_path: Path) -> None:
    refused: list[tuple[str, dict[str, object]]] = [
        ("/api/chat", {"messages": USER}),
        ("/api/chat", body(messages=[{"role": "zork", "content": ""}])),
        ("/api/chat", body(messages=[{"role": "user", "content": "", "images": ["AA=="]}])),
        ("/api/chat", body(format="xml")),
        ("/api/chat", body(options={"temperature": "hot"})),
        ("/api/chat", body(keep_alive="soon")),
        ("/api/generate", {"model": "tiny", "prompt": "x", "images": ["AA=="]}),
        ("/api/embed", {"model": "tiny", "input": [""]}),
        ("/api/create", {"model": "x"}),
        ("/api/create", {"model": "x", "from": "tiny\nSYSTEM y"}),
        ("/api/create", {"model": "x", "from": "tiny", "parameters": {"a b": 1}}),
        ("/api/copy", {"source": "tiny", "destination": "../x"}),
    ]
    async with scripted_door(tmp_path) as door:
        for path, asked in refused:
            for stream in (False, True):
                answer = await door.http.post(path, json={**asked, "stream": stream})
                assert answer.status_code == 400, asked
                assert isinstance(answer.json()["error"], str)


async def test_show_tells_what_tools_look_for(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        await door.node.library.create("made", 'FROM tiny\nPARAMETER stop "a b"\nPARAMETER stop "c"\nSYSTEM Be kind.')
        shown = (await door.http.post("/api/show", json={"name": "made", "verbose": True})).json()
        assert shown["model_info"]["llama.context_length"] == 2048
        assert shown["model_info"]["general.parameter_count"] > 0
        assert shown["details"]["family"] == "llama"
        assert shown["details"]["parent_model"] == "tiny"
        assert shown["system"] == "Be kind."
        assert shown["parameters"].splitlines() == [f'{"stop":<30} "a b"', f'{"stop":<30} "c"']
        assert shown["tensors"]
        assert shown["template"]
        remade = await door.http.post("/api/create", json={"model": "again", "modelfile": shown["modelfile"]})
        assert lines(remade)[-1] == {"status": "success"}
        again = (await door.http.post("/api/show", json={"model": "again"})).json()
        assert (again["system"], again["parameters"]) == (shown["system"], shown["parameters"])


async def test_a_pull_of_what_is_not_there_is_an_error_and_offline_is_told(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        unknown = await door.http.post("/api/pull", json={"model": "no-such-model"})
        assert unknown.status_code == 404
        offline = lines(await door.http.post("/api/pull", json={"model": "https://models.example/x.gguf"}))
        assert "error" in offline[-1]
        whole = await door.http.post("/api/pull", json={"model": "https://models.example/x.gguf", "stream": False})
        assert whole.status_code == 502


async def test_a_pull_tells_its_progress_and_ends_in_success(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        source = tmp_path / "elsewhere" / "other.gguf"
        source.parent.mkdir()
        source.write_bytes((tmp_path / "tiny.gguf").read_bytes())
        told = lines(await door.http.post("/api/pull", json={"model": str(source)}))
        assert told[0] == {"status": "pulling manifest"}
        assert told[-1] == {"status": "success"}
        assert {"status": "verifying sha256 digest"} in told
        names = [model["name"] for model in (await door.http.get("/api/tags")).json()["models"]]
        assert names == ["other", "tiny"]
        again = await door.http.post("/api/pull", json={"model": str(source), "stream": False})
        assert again.json() == {"status": "success"}
        assert (await door.http.request("DELETE", "/api/delete", json={"model": "other"})).status_code == 200
