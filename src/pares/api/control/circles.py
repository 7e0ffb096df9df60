"""Circles: make, join, invite, rename, leave."""

from __future__ import annotations

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.network import CircleChange, CircleRequest, InviteRequest, LinkRequest

EMPTY = 204


async def listed(call: Call[None]) -> Response:
    return reply({"circles": await call.services.network.circles()})


async def create(call: Call[CircleRequest]) -> Response:
    return reply(await call.services.network.create(call.body), 201)


async def show(call: Call[None]) -> Response:
    return reply(await call.services.network.circle(call.path("circle")))


async def rename(call: Call[CircleChange]) -> Response:
    return reply(await call.services.network.rename(call.path("circle"), call.body.name))


async def leave(call: Call[None]) -> Response:
    await call.services.network.leave(call.path("circle"))
    return Response(None, EMPTY)


async def invite(call: Call[InviteRequest | None]) -> Response:
    asked = call.body or InviteRequest()
    return reply(await call.services.network.invite(call.path("circle"), asked), 201)


async def withdraw(call: Call[None]) -> Response:
    await call.services.network.withdraw(call.path("circle"), call.path("invite"))
    return Response(None, EMPTY)


async def remove(call: Call[None]) -> Response:
    await call.services.network.remove(call.path("circle"), call.path("peer"))
    return Response(None, EMPTY)


async def preview(call: Call[LinkRequest]) -> Response:
    return reply(await call.services.network.preview(call.body.link))


async def join(call: Call[LinkRequest]) -> Response:
    return reply(await call.services.network.join(call.body.link))
