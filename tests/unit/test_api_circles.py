"""Circles and peers through the control API: every address, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from door import Door, client, scripted_door
from pares.errors import PeersUnreachable
from scripted_network import key_of

HERE = "/pares/v1"
CIRCLES = f"{HERE}/circles"
WAIT_S = 5.0


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with scripted_door(tmp_path) as door:
        yield door


async def made(door: Door, name: str = "home", **more: object) -> dict[str, Any]:
    answer = await door.admin.post(CIRCLES, json={"name": name, **more})
    assert answer.status_code == 201
    return dict(answer.json())


async def joined(door: Door, title: str = "lab", **more: Any) -> str:  # noqa: ANN401 (those of `offered`)
    """The id of somebody else's circle that this node has joined."""
    link = door.node.network.offered(title, **more)
    answer = await door.admin.post(f"{CIRCLES}/join", json={"link": link})
    assert answer.status_code == 200
    return str(answer.json()["circle"]["id"])


async def test_a_circle_is_made_shown_renamed_and_left(door: Door) -> None:
    circle = await made(door, internet=False)
    assert (circle["role"], circle["open"], circle["internet"], circle["members"]) == ("founder", False, False, 1)
    assert (await door.admin.get(CIRCLES)).json()["circles"] == [circle]
    by_name = (await door.admin.get(f"{CIRCLES}/home")).json()
    assert by_name["circle"] == circle
    assert [(member["you"], member["role"]) for member in by_name["members"]] == [(True, "founder")]
    renamed = await door.admin.patch(f"{CIRCLES}/{circle['id']}", json={"name": "attic"})
    assert (renamed.json()["name"], renamed.json()["title"]) == ("attic", "attic")
    assert (await door.admin.delete(f"{CIRCLES}/{circle['id']}")).status_code == 204
    assert (await door.admin.get(CIRCLES)).json()["circles"] == []


async def test_who_did_not_found_a_circle_renames_it_for_themselves(door: Door) -> None:
    circle = await joined(door)
    renamed = (await door.admin.patch(f"{CIRCLES}/{circle}", json={"name": "Ada's"})).json()
    assert (renamed["name"], renamed["title"], renamed["founder"]["name"]) == ("Ada's", "lab", "Ada")


async def test_an_invite_is_made_used_and_withdrawn(door: Door) -> None:
    circle = (await made(door))["id"]
    default = (await door.admin.post(f"{CIRCLES}/{circle}/invites")).json()
    assert (default["uses_left"], default["role"]) == (1, "member")
    asked = {"expires_s": 3600, "uses": 3, "role": "guest"}
    invite = (await door.admin.post(f"{CIRCLES}/{circle}/invites", json=asked)).json()
    assert (invite["uses_left"], invite["role"], invite["qr"].startswith("<svg")) == (3, "guest", True)
    door.node.network.enters(circle, "Bo", invite=invite["id"], role="guest")
    shown = (await door.admin.get(f"{CIRCLES}/{circle}")).json()
    kept = next(each for each in shown["invites"] if each["id"] == invite["id"])
    assert (kept["uses_left"], [each["name"] for each in kept["joined"]]) == (2, ["Bo"])
    assert (await door.admin.delete(f"{CIRCLES}/{circle}/invites/{invite['id']}")).status_code == 204
    assert (await door.admin.delete(f"{CIRCLES}/{circle}/invites/{invite['id']}")).status_code == 404


async def test_a_link_is_previewed_and_then_joined(door: Door) -> None:
    link = door.node.network.offered("lab", role="guest")
    preview = (await door.admin.post(f"{CIRCLES}/join/preview", json={"link": link})).json()
    assert (preview["name"], preview["inviter"]["name"], preview["already"]) == ("lab", "Ada", False)
    assert (await door.admin.get(CIRCLES)).json()["circles"] == []
    answer = (await door.admin.post(f"{CIRCLES}/join", json={"link": link})).json()
    assert (answer["circle"]["role"], answer["circle"]["can_invite"], answer["seconds"]) == ("guest", False, 0.4)
    assert (await door.admin.post(f"{CIRCLES}/join/preview", json={"link": link})).json()["already"]
    assert (await door.admin.post(f"{CIRCLES}/join", json={"link": link})).status_code == 409
    status = (await door.admin.get(f"{HERE}/status")).json()
    assert (status["network"], status["circles"], status["peers_online"]) == ("connected", 1, 1)


async def test_joining_where_nobody_answers_says_what_to_do(door: Door) -> None:
    door.node.network.refusal = PeersUnreachable("Ada's node does not answer.", hint="Ask whether it is on.")
    link = door.node.network.offered("lab")
    answer = await door.admin.post(f"{CIRCLES}/join", json={"link": link})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["hint"]) == (504, "peers_unreachable", "Ask whether it is on.")


async def test_members_are_removed_by_who_may(door: Door) -> None:
    own = (await made(door))["id"]
    bo = door.node.network.enters(own, "Bo")
    assert (await door.admin.delete(f"{CIRCLES}/{own}/members/{bo}")).status_code == 204
    assert (await door.admin.delete(f"{CIRCLES}/{own}/members/{bo}")).status_code == 404
    other = await joined(door)
    door.node.network.enters(other, "Cy")
    door.node.network.enters(other, "Dee", by="Cy")
    assert (await door.admin.delete(f"{CIRCLES}/{other}/members/Dee")).status_code == 204
    refused = await door.admin.delete(f"{CIRCLES}/{other}/members/Ada")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert (await door.admin.delete(f"{CIRCLES}/{other}/members/desk")).status_code == 409


async def test_guests_cannot_invite(door: Door) -> None:
    circle = await joined(door, role="guest")
    refused = await door.admin.post(f"{CIRCLES}/{circle}/invites")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


async def test_peers_are_told_named_and_blocked(door: Door) -> None:
    circle = (await made(door))["id"]
    bo = door.node.network.enters(circle, "Bo")
    peer = (await door.admin.get(f"{HERE}/peers")).json()["peers"][0]
    assert (peer["id"], peer["online"], peer["path"], peer["circles"]) == (bo, True, "direct", [circle])
    assert (await door.admin.patch(f"{HERE}/peers/{bo}", json={"name": "Bo's laptop"})).json()["name"] == "Bo's laptop"
    blocked = (await door.admin.patch(f"{HERE}/peers/{bo[:8]}", json={"blocked": True})).json()
    assert (blocked["blocked"], blocked["online"], blocked["name"]) == (True, False, "Bo's laptop")
    assert not (await door.admin.patch(f"{HERE}/peers/{bo}", json={"blocked": False})).json()["blocked"]


async def test_how_the_node_stands_is_told(door: Door) -> None:
    network = (await door.admin.get(f"{HERE}/network")).json()
    assert (network["reachable"], network["id"]) == ("alone", key_of("desk"))
    assert len(network["words"].split()) == 5
    assert {way["way"] for way in network["ways"]} == {"last address", "lan", "introduction", "dht", "relay"}
    status = (await door.admin.get(f"{HERE}/status")).json()
    assert (status["id"], status["words"], status["network"]) == (network["id"], network["words"], "alone")


async def test_what_changes_is_told_as_events(door: Door) -> None:
    awaited = {"circles", "peers", "joined", "network"}
    before = door.node.events.last_id

    async def listen() -> None:
        async for event in door.node.events.subscribe(before):
            awaited.discard(event.kind)
            if not awaited:
                return

    circle = (await made(door))["id"]
    invite = (await door.admin.post(f"{CIRCLES}/{circle}/invites")).json()["id"]
    door.node.network.enters(circle, "Bo", invite=invite)
    door.node.network.becomes(reachable="relay only")
    await asyncio.wait_for(listen(), WAIT_S)


ID = "0" * 64
MISSING = (
    ("GET", f"/circles/{ID}", None),
    ("PATCH", f"/circles/{ID}", {"name": "x"}),
    ("DELETE", f"/circles/{ID}", None),
    ("POST", f"/circles/{ID}/invites", None),
    ("DELETE", f"/circles/{ID}/invites/1", None),
    ("DELETE", f"/circles/{ID}/members/{ID}", None),
    ("PATCH", f"/peers/{ID}", {"name": "x"}),
)


@pytest.mark.parametrize(("method", "path", "body"), MISSING)
async def test_what_is_not_there_is_not_found(door: Door, method: str, path: str, body: object) -> None:
    answer = await door.admin.request(method, HERE + path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_the_nearest_name_is_told(door: Door) -> None:
    await made(door, "kitchen")
    assert "kitchen" in (await door.admin.get(f"{CIRCLES}/kitchn")).json()["error"]["hint"]


BAD: tuple[tuple[str, str, object], ...] = (
    ("POST", "/circles", {}),
    ("POST", "/circles", {"name": ""}),
    ("POST", "/circles", {"name": "x" * 65}),
    ("POST", "/circles", {"name": "x", "open": "yes"}),
    ("PATCH", "/circles/home", {"name": 3}),
    ("POST", "/circles/home/invites", {"uses": 0}),
    ("POST", "/circles/home/invites", {"expires_s": 59}),
    ("POST", "/circles/home/invites", {"expires_s": 366 * 86400}),
    ("POST", "/circles/home/invites", {"role": "founder"}),
    ("POST", "/circles/join/preview", {}),
    ("POST", "/circles/join/preview", {"link": "https://example.org"}),
    ("POST", "/circles/join/preview", {"link": "pares://join/cut"}),
    ("POST", "/circles/join", {"link": "x" * 4097}),
    ("POST", "/circles/join", {"link": "pares://join/cut"}),
    ("PATCH", "/peers/Bo", {"name": "x" * 65}),
    ("PATCH", "/peers/Bo", {"blocked": "very"}),
)


@pytest.mark.parametrize(("method", "path", "body"), BAD)
async def test_a_bad_body_is_refused(door: Door, method: str, path: str, body: object) -> None:
    circle = (await made(door))["id"]
    door.node.network.enters(circle, "Bo")
    answer = await door.admin.request(method, HERE + path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


ALL = (
    *MISSING,
    ("GET", "/circles", None),
    ("POST", "/circles", {"name": "x"}),
    ("POST", "/circles/join/preview", {"link": "x"}),
    ("POST", "/circles/join", {"link": "x"}),
    ("GET", "/peers", None),
    ("GET", "/network", None),
)


@pytest.mark.parametrize(("method", "path", "body"), ALL)
async def test_a_key_that_may_only_ask_models_may_not(door: Door, method: str, path: str, body: object) -> None:
    key = (await door.admin.post(f"{HERE}/keys", json={"name": "editor"})).json()["key"]
    async with client(door.url, headers={"Authorization": f"Bearer {key}"}) as editor:
        answer = await editor.request(method, HERE + path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
