from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from door import TOKEN, client, scripted_door
from pares.api.auth import host_name, is_loopback
from pares.api.settings import Settings

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
BEYOND = Settings(host="0.0.0.0")


async def test_only_its_own_names_are_answered(tmp_path: Path) -> None:
    expected = [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("my-pc", 200),
        ("my-pc:99", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.5", 403),
        ("[::1", 403),
        ("a@localhost:80:80", 403),
        ("_", 403),
    ]
    async with scripted_door(tmp_path, settings=Settings(hosts=("my-pc",))) as door:
        for host, status in expected:
            for path in ("/", "/v1/models", "/api/tags", "/health"):
                assert (await door.http.get(path, headers={"Host": host})).status_code == status, host


async def test_beyond_this_machine_addresses_are_its_names_too_but_not_other_peoples_names(tmp_path: Path) -> None:
    async with scripted_door(tmp_path, settings=BEYOND) as door:
        assert (await door.admin.get("/v1/models", headers={"Host": "192.168.1.5:11435"})).status_code == 200
        assert (await door.admin.get("/v1/models", headers={"Host": "evil.example"})).status_code == 403


@given(st.text(max_size=40))
def test_any_host_header_is_a_name_or_nothing(header: str) -> None:
    assert isinstance(host_name(header), str)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("box", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_on_loopback_inference_needs_no_key_and_takes_any(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        for headers in ({}, {"Authorization": "Bearer sk-whatever"}):
            assert (await door.http.get("/v1/models", headers=headers)).status_code == 200
            assert (await door.http.get("/api/tags", headers=headers)).status_code == 200


@pytest.mark.parametrize("settings", [Settings(require_key=True), BEYOND], ids=["asked for", "beyond loopback"])
async def test_where_a_key_is_needed_nothing_goes_without(tmp_path: Path, settings: Settings) -> None:
    async with scripted_door(tmp_path, settings=settings) as door:
        for path in ("/v1/models", "/api/tags", "/api/version", "/metrics", "/pares/v1/status"):
            refused = await door.http.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            wrong = await door.http.get(path, headers={"Authorization": "Bearer sk-wrong"})
            assert wrong.status_code == 401
        assert (await door.http.get("/")).status_code == 200
        assert (await door.http.get("/health")).status_code == 200

        key, info = await door.node.keys.create("laptop")
        bearer = {"Authorization": f"Bearer {key}"}
        assert (await door.http.get("/v1/models", headers=bearer)).status_code == 200
        assert (await door.http.get("/v1/models", headers={"X-Api-Key": key})).status_code == 200
        assert (await door.http.get("/pares/v1/status", headers=bearer)).status_code == 403
        await door.node.keys.revoke(info.id)
        assert (await door.http.get("/v1/models", headers=bearer)).status_code == 401

        admin, _ = await door.node.keys.create("admin", ("admin",))
        bearer = {"Authorization": f"Bearer {admin}"}
        assert (await door.http.get("/pares/v1/status", headers=bearer)).status_code == 200
        assert (await door.http.get("/v1/models", headers=bearer)).status_code == 200


async def test_the_control_api_always_needs_admin(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        refused = await door.http.get("/pares/v1/status")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert (await door.admin.get("/pares/v1/status")).status_code == 200


async def test_a_ticket_opens_the_page_once(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        link = (await door.admin.post("/pares/v1/login/link")).json()["url"]
        assert link.startswith(f"{door.url}/?token=")
        assert TOKEN not in link
        async with client(door.url) as browser:
            opened = await browser.get(link)
            assert opened.status_code == 303
            assert opened.headers["Location"] == "/"
            cookie = opened.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert TOKEN not in cookie
            assert (await browser.get("/pares/v1/status")).status_code == 200
        again = await door.http.get(link)
        assert again.status_code == 303
        assert "Set-Cookie" not in again.headers


async def test_login_swaps_the_token_for_the_cookie(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door, client(door.url) as browser:
        assert (await browser.post("/pares/v1/login", json={"token": "wrong"})).status_code == 401
        assert (await browser.post("/pares/v1/login", json={"token": TOKEN})).status_code == 204
        assert (await browser.get("/pares/v1/status")).status_code == 200
        assert (await browser.post("/pares/v1/shutdown", headers={"Origin": "http://evil.example"})).status_code == 403
        assert not door.node.stopping.is_set()
        assert (await browser.post("/pares/v1/shutdown", headers={"Origin": door.url})).status_code == 202
        assert door.node.stopping.is_set()


async def test_a_cookie_of_another_node_opens_nothing(tmp_path: Path) -> None:
    async with scripted_door(tmp_path) as door:
        port = door.url.rsplit(":", 1)[1]
        for cookie in ("", "0" * 64, "ünïcode"):
            headers = {b"Cookie": f"pares_{port}={cookie}".encode()}
            assert (await door.http.get("/pares/v1/status", headers=headers)).status_code == 401


async def test_pages_of_other_sites_are_refused_unless_they_are_listed(tmp_path: Path) -> None:
    friend = "https://friend.example"
    async with scripted_door(tmp_path, settings=Settings(origins=(friend,))) as door:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
            refused = await door.http.post("/v1/chat/completions", json=CHAT, headers={"Origin": origin})
            assert refused.status_code == 403
            assert "Access-Control-Allow-Origin" not in refused.headers
        taken = await door.http.post("/v1/chat/completions", json=CHAT, headers={"Origin": friend})
        assert taken.status_code == 200
        assert taken.headers["Access-Control-Allow-Origin"] == friend
        assert "Origin" in taken.headers["Vary"]
        own = await door.http.post("/v1/chat/completions", json=CHAT, headers={"Origin": door.url})
        assert own.status_code == 200
        assert "Access-Control-Allow-Origin" not in own.headers
        control = await door.admin.post("/pares/v1/shutdown", headers={"Origin": friend})
        assert control.status_code == 403


async def test_a_preflight_is_answered_for_listed_origins_only(tmp_path: Path) -> None:
    friend = "https://friend.example"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    async with scripted_door(tmp_path, settings=Settings(origins=(friend,), require_key=True)) as door:
        answer = await door.http.options("/api/chat", headers={**asked, "Origin": friend})
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == friend
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        for path, origin in (("/api/chat", "https://evil.example"), ("/pares/v1/status", friend)):
            refused = await door.http.options(path, headers={**asked, "Origin": origin})
            assert refused.status_code == 405
            assert "Access-Control-Allow-Origin" not in refused.headers


async def test_errors_reach_listed_origins_too(tmp_path: Path) -> None:
    friend = "https://friend.example"
    async with scripted_door(tmp_path, settings=Settings(origins=("*",))) as door:
        missing = await door.http.post("/v1/chat/completions", json={**CHAT, "model": "no"}, headers={"Origin": friend})
        assert missing.status_code == 404
        assert missing.headers["Access-Control-Allow-Origin"] == friend
