"""The node itself: state, checks, settings, keys, logs, and the way in."""

from __future__ import annotations

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.schemas import Key, KeyRequest, Link, LoginRequest, NewKey, SettingChange
from pares.errors import Unauthorized
from pares.store.keys import ApiKey

MAX_LOG_LINES = 1000
EMPTY = 204


async def login(call: Call[LoginRequest]) -> Response:
    """Swap a token for the page's cookie."""
    cookie = call.gate.enter(call.body.token, call.request.scope)
    if cookie is None:
        raise Unauthorized(
            "This token is not known, or was used already.", hint="`pares status --url` gives a new one."
        )
    return Response(None, EMPTY, {"Set-Cookie": cookie})


async def link(call: Call[None]) -> Response:
    """An address that opens the page once."""
    url = call.services.status().url.rstrip("/")
    return reply(Link(f"{url}/?token={call.gate.ticket()}"))


async def status(call: Call[None]) -> Response:
    return reply(call.services.status())


async def doctor(call: Call[None]) -> Response:
    return reply({"checks": await call.services.doctor()})


async def settings(call: Call[None]) -> Response:
    return reply({"settings": call.services.list_settings()})


async def change_setting(call: Call[SettingChange]) -> Response:
    return reply(await call.services.change_setting(call.path("name"), call.body.value))


async def reset_setting(call: Call[None]) -> Response:
    return reply(await call.services.change_setting(call.path("name"), None))


async def keys(call: Call[None]) -> Response:
    return reply({"keys": [_key(key) for key in await call.services.keys.list()]})


async def create_key(call: Call[KeyRequest]) -> Response:
    secret, key = await call.services.keys.create(call.body.name, call.body.scopes)
    return reply(NewKey(secret, _key(key)), 201)


async def revoke_key(call: Call[None]) -> Response:
    await call.services.keys.revoke(call.path("id"))
    return Response(None, EMPTY)


async def logs(call: Call[None]) -> Response:
    lines = call.services.logs(
        after=call.number("after", 0), limit=call.number("limit", 200, low=1, high=MAX_LOG_LINES)
    )
    return reply({"lines": lines})


async def shutdown(call: Call[None]) -> Response:
    call.services.shutdown()
    return Response(None, 202)


def _key(key: ApiKey) -> Key:
    return Key(key.id, key.name, key.scopes, key.created_at, key.last_used_at, key.revoked)
