from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from door import TOKEN, Door, scripted_door
from pares.store.events import RESET
from pares.web import CONTENT_SECURITY_POLICY
from scripted import ScriptedModel
from tiny import tiny_bert, tiny_lora

HERE = "/pares/v1"


async def test_the_state_of_the_node_is_told(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        assert (await door.admin.get(f"{HERE}/status")).json()["machine"]["cores"] == 2
        assert (await door.admin.get(f"{HERE}/doctor")).json()["checks"][0]["state"] == "ok"
        assert (await door.admin.get(f"{HERE}/logs?after=1&limit=1")).json()["lines"][0]["id"] == 3
        assert (await door.admin.get(f"{HERE}/logs?limit=-1")).status_code == 400
        assert (await door.admin.post(f"{HERE}/shutdown")).status_code == 202
        assert door.node.stopping.is_set()


async def test_settings_change_and_go_back(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        changed = await door.admin.put(f"{HERE}/settings/server.port", json={"value": 1234})
        assert (changed.json()["value"], changed.json()["source"]) == (1234, "file")
        assert (await door.admin.get(f"{HERE}/settings")).json()["settings"][0]["value"] == 1234
        assert (await door.admin.delete(f"{HERE}/settings/server.port")).json()["source"] == "default"
        assert (await door.admin.put(f"{HERE}/settings/zork", json={"value": 1})).status_code == 404


async def test_keys_are_shown_once_and_can_be_revoked(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        made = await door.admin.post(f"{HERE}/keys", json={"name": "laptop"})
        assert made.status_code == 201
        key, info = made.json()["key"], made.json()["info"]
        assert (info["scopes"], info["revoked"]) == (["infer"], False)
        listed = await door.admin.get(f"{HERE}/keys")
        assert listed.json()["keys"] == [info]
        assert key not in listed.text
        assert (await door.admin.delete(f"{HERE}/keys/{info['id']}")).status_code == 204
        assert (await door.admin.get(f"{HERE}/keys")).json()["keys"][0]["revoked"]
        assert (await door.admin.post(f"{HERE}/keys", json={"name": "x", "scopes": ["zork"]})).status_code == 400


async def test_a_model_can_be_looked_into(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        row = (await door.admin.get(f"{HERE}/models")).json()["models"][0]
        assert (row["name"], row["kind"], row["linked"], row["loaded"], row["fit"]) == (
            "tiny",
            "model",
            True,
            False,
            "runs well",
        )
        need = row["need"]
        assert need["total"] == need["weights"] + need["kv_cache"] + need["buffers"]
        await door.node.library.settle()
        detail = (await door.admin.get(f"{HERE}/models/tiny")).json()
        assert detail["sha256"] == hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
        assert detail["capabilities"] == ["chat", "completion", "embedding", "tools"]
        assert detail["tokenizer"]["ggml.tokens"] == "[... 320 items]"
        assert "default" in detail["templates"]
        tensors = (await door.admin.get(f"{HERE}/models/tiny/tensors")).json()["tensors"]
        assert {tensor["layer"] for tensor in tensors} == {-1, 0}
        assert sum(tensor["size"] for tensor in tensors) == need["weights"]


async def test_a_vocabulary_is_searched_page_by_page(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        first = (await door.admin.get(f"{HERE}/models/tiny/tokens")).json()
        assert (first["total"], len(first["tokens"])) == (320, 100)
        rest = (await door.admin.get(f"{HERE}/models/tiny/tokens?offset=300&limit=1000")).json()["tokens"]
        assert [token["id"] for token in rest] == list(range(300, 320))
        found = (await door.admin.get(f"{HERE}/models/tiny/tokens?search=IM_END")).json()
        assert [(t["text"], t["kind"]) for t in found["tokens"]] == [("<|im_end|>", "control")]
        space = (await door.admin.get(f"{HERE}/models/tiny/tokens", params={"search": " t"})).json()["tokens"]
        assert (space[0]["text"], space[0]["bytes"]) == (" t", "2074")
        assert (await door.admin.get(f"{HERE}/models/tiny/tokens?limit=0")).status_code == 400


async def test_models_of_all_kinds_are_listed_and_broken_ones_say_why(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        bert, lora = tiny_bert(tmp_path / "bert.gguf"), tiny_lora(tmp_path / "lora.gguf", tmp_path / "tiny.gguf")
        for path in (bert, lora):
            assert (await door.admin.post(f"{HERE}/models/import", json={"path": str(path)})).status_code == 200
        await door.admin.post(f"{HERE}/models/copy", json={"source": "tiny", "name": "other"})
        made = await door.admin.post(
            f"{HERE}/models/create", json={"name": "made", "modelfile": "FROM tiny\nTEMPLATE x"}
        )
        assert made.json()["warnings"]
        rows = {row["name"]: row for row in (await door.admin.get(f"{HERE}/models")).json()["models"]}
        assert {name: row["kind"] for name, row in rows.items()} == {
            "tiny": "model", "bert": "model", "lora": "adapter", "other": "alias", "made": "created",
        }  # fmt: skip
        assert (await door.admin.get(f"{HERE}/models/bert")).json()["capabilities"] == ["embedding"]
        assert (await door.admin.get(f"{HERE}/models/lora")).json()["capabilities"] == []
        assert (await door.admin.get(f"{HERE}/models/other")).json()["alias_of"] == "tiny"
        assert (await door.http.get("/v1/models/tiny+lora")).json()["id"] == "tiny+lora"
        (tmp_path / "bert.gguf").unlink()
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF" + b"\0" * 100)
        rows = {row["name"]: row for row in (await door.admin.get(f"{HERE}/models")).json()["models"]}
        assert rows["bert"]["missing"]
        assert rows["bert"]["broken"]
        assert rows["tiny"]["broken"]
        assert rows["other"]["fit"] == "will not run"
        usable = [model["id"] for model in (await door.http.get("/v1/models")).json()["data"]]
        assert usable == []


async def test_models_are_loaded_unloaded_verified_and_removed(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        await door.node.library.settle()
        loaded = await door.admin.post(f"{HERE}/models/tiny/load", json={"context": 99, "keep_alive_s": 5})
        assert loaded.json()["state"] == "ready"
        assert (door.node.contexts[-1], door.node.keep_alives[-1]) == (99, 5)
        assert (await door.admin.post(f"{HERE}/models/tiny/load")).status_code == 200  # a body is not needed
        assert (await door.admin.get(f"{HERE}/models")).json()["models"][0]["loaded"]
        verified = (await door.admin.post(f"{HERE}/models/tiny/verify")).json()
        assert verified["ok"]
        assert verified["sha256"] == verified["expected"]
        assert (await door.admin.post(f"{HERE}/models/tiny/unload")).status_code == 204
        assert (await door.admin.post(f"{HERE}/models/tiny/unload")).status_code == 404
        await door.admin.post(f"{HERE}/models/copy", json={"source": "tiny", "name": "a/b:c"})
        assert (await door.admin.delete(f"{HERE}/models/tiny")).status_code == 409
        removed = await door.admin.delete(f"{HERE}/models/a%2Fb:c")
        assert removed.json() == {"name": "a/b:c", "bytes_freed": 0}
        with (tmp_path / "tiny.gguf").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
        changed = await door.admin.post(f"{HERE}/models/tiny/verify")
        assert (changed.status_code, changed.json()["error"]["code"]) == (422, "verification_failed")
        await door.admin.post(f"{HERE}/models/tiny/load")
        assert (await door.admin.delete(f"{HERE}/models/tiny?force=true")).status_code == 200
        assert door.node.in_memory == {}
        assert (await door.admin.get(f"{HERE}/models")).json()["models"] == []


async def test_an_import_of_nothing_useful_says_so(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        (tmp_path / "bad").mkdir()
        empty = await door.admin.post(f"{HERE}/models/import", json={"path": str(tmp_path / "bad")})
        assert empty.status_code == 400
        (tmp_path / "bad" / "x.gguf").write_bytes(b"<html>")
        wrong = await door.admin.post(f"{HERE}/models/import", json={"path": str(tmp_path / "bad")})
        assert (wrong.status_code, "web page" in wrong.text) == (400, True)
        assert (await door.admin.post(f"{HERE}/models/import", json={"path": "/no/such"})).status_code == 404


async def test_the_catalogue_tells_what_fits_and_what_is_here(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        rows = (await door.admin.get(f"{HERE}/catalogue")).json()["models"]
        assert sum(row["starter"] for row in rows) == 1
        by_name = {row["name"]: row for row in rows}
        small = by_name["smollm2-135m-instruct"]
        assert (small["fit"], small["here"]) == ("runs well", False)
        assert small["need"]["weights"] == small["size"]
        assert any(row["fit"] != "runs well" for row in rows)


async def test_a_download_is_planned_begun_watched_and_cancelled(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        source = tmp_path / "elsewhere.gguf"
        source.write_bytes((tmp_path / "tiny.gguf").read_bytes())
        plan = await door.admin.post(f"{HERE}/pulls", json={"source": str(source), "name": "mine", "dry_run": True})
        assert plan.status_code == 200
        assert (plan.json()["size"], plan.json()["fits_disk"], plan.json()["fit"]) == (
            source.stat().st_size,
            True,
            "runs well",
        )
        begun = await door.admin.post(f"{HERE}/pulls", json={"source": str(source), "name": "mine"})
        assert begun.status_code == 202
        pull_id = begun.json()["id"]
        await door.node.pulls.wait(pull_id)
        assert (await door.admin.get(f"{HERE}/pulls/{pull_id}")).json()["state"] == "done"
        assert (await door.admin.get(f"{HERE}/pulls")).json()["pulls"][0]["id"] == pull_id
        assert (await door.admin.post(f"{HERE}/pulls/{pull_id}/pause")).status_code == 409
        assert (await door.admin.post(f"{HERE}/pulls/{pull_id}/resume")).json()["state"] == "done"
        assert (await door.admin.delete(f"{HERE}/pulls/{pull_id}")).status_code == 204
        assert (await door.admin.get(f"{HERE}/pulls/{pull_id}")).status_code == 404


async def read_events(door: Door, count: int, last: str = "") -> list[tuple[str, str, object]]:
    """(id, kind, data) of the next events."""
    headers = {"Last-Event-ID": last} if last else {}
    found: list[tuple[str, str, object]] = []
    async with asyncio.timeout(10), door.admin.stream("GET", f"{HERE}/events", headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if not line and "event" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
            elif not line and "retry" in fields:
                door.node.events.publish("connected", {})
            if len(found) == count:
                return found
            fields = {} if not line else fields | {name: value}
    raise AssertionError("the stream ended")


async def test_events_come_as_they_happen_and_again_from_where_a_client_left(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        await door.node.library.settle()
        ((first_id, kind, data),) = await read_events(door, 1)
        assert (kind, data) == ("connected", {})
        door.node.events.publish("pull", {"id": "x"})
        door.node.events.publish("models", {})
        missed = await read_events(door, 2, last=first_id)
        assert [(kind, data) for _, kind, data in missed] == [("pull", {"id": "x"}), ("models", {})]
        assert [int(event_id) for event_id, _, _ in missed] == [int(first_id) + 1, int(first_id) + 2]
        assert (await read_events(door, 1, last="1"))[0][1] == RESET
        assert (await read_events(door, 1, last="rubbish"))[0][1] == "connected"


async def test_the_page_is_served_with_its_policy_and_only_its_files(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        page = await door.http.get("/")
        assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert page.headers["Cache-Control"] == "no-cache"
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        script = await door.http.get("/vendor/preact.js")
        assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
        again = await door.http.get("/vendor/preact.js", headers={"If-None-Match": script.headers["ETag"]})
        assert (again.status_code, again.text) == (304, "")
        assert (await door.http.head("/vendor/preact.js")).headers["Content-Length"] == script.headers["Content-Length"]
        for path in ("/__init__.py", "/vendor/", "/vendor/vendor.sh", "/../errors.py", "//etc/passwd", "/app/no.js"):
            assert (await door.http.get(path)).status_code == 404, path
        assert TOKEN not in page.text


async def test_metrics_count_without_telling_prompts(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, ScriptedModel()) as door:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "my secret"}]}
        for stream in (False, True):
            await door.http.post("/v1/chat/completions", json={**asked, "stream": stream})
        await door.http.post("/v1/chat/completions", json={**asked, "model": "no"})
        text = (await door.http.get("/metrics")).text
        for line in (
            'pares_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2.0',
            'pares_requests_total{method="POST",route="/v1/chat/completions",status="404"} 1.0',
            'pares_tokens_total{kind="generated",model="tiny"} 48.0',
            'pares_first_token_seconds_count{model="tiny"} 2.0',
            'pares_tokens_per_second_count{model="tiny"} 2.0',
            "pares_models_loaded 1.0",
            "pares_peers_online 0.0",
        ):
            assert line in text
        assert "secret" not in text


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/pares/v1/status", "/", "/metrics"])
async def test_every_answer_forbids_sniffing(tmp_path: Path, path: str) -> None:
    async with scripted_door(tmp_path) as door:
        assert (await door.admin.get(path)).headers["X-Content-Type-Options"] == "nosniff"
