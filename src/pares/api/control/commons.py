"""Versions, what circles offer, and the swarm."""

from __future__ import annotations

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.commons import (
    DifferenceRequest,
    ShareRequest,
    SwarmChange,
    UnshareRequest,
    Versions,
    VoiceRequest,
)


async def listed(call: Call[None]) -> Response:
    return reply(Versions(tuple(await call.services.commons.versions())))


async def detail(call: Call[None]) -> Response:
    return reply(await call.services.commons.version(call.path("version")))


async def lineage(call: Call[None]) -> Response:
    return reply(await call.services.commons.lineage(call.path("version")))


async def envelope(call: Call[None]) -> Response:
    return Response(await call.services.commons.envelope(call.path("version")), media_type="application/json")


async def verify(call: Call[None]) -> Response:
    return reply(await call.services.commons.verify(call.path("version")))


async def bundle(call: Call[None]) -> Response:
    return reply(await call.services.commons.bundle(call.path("version")))


async def accept_licence(call: Call[None]) -> Response:
    await call.services.commons.accept_licence(call.path("version"))
    return Response(None, 204)


async def endorse(call: Call[VoiceRequest]) -> Response:
    return reply(await call.services.commons.endorse(call.path("version"), call.body.text), 201)


async def revoke(call: Call[VoiceRequest]) -> Response:
    return reply(await call.services.commons.revoke(call.path("version"), call.body.text), 201)


async def share(call: Call[ShareRequest]) -> Response:
    return reply(await call.services.commons.share(call.body))


async def unshare(call: Call[UnshareRequest]) -> Response:
    await call.services.commons.unshare(call.body)
    return Response(None, 204)


async def swarm(call: Call[None]) -> Response:
    return reply(await call.services.commons.swarm())


async def change_swarm(call: Call[SwarmChange]) -> Response:
    return reply(await call.services.commons.change_swarm(call.body))


async def statistics(call: Call[None]) -> Response:
    return reply(await call.services.commons.statistics(call.path("name"), call.query("tensor")))


async def difference(call: Call[DifferenceRequest]) -> Response:
    return reply(await call.services.commons.difference(call.body.left, call.body.right))
