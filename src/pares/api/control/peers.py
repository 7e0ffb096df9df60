"""Peers, and how this node stands in the network."""

from __future__ import annotations

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.network import PeerChange


async def listed(call: Call[None]) -> Response:
    return reply({"peers": await call.services.network.peers()})


async def change(call: Call[PeerChange]) -> Response:
    return reply(await call.services.network.change_peer(call.path("peer"), call.body))


async def network(call: Call[None]) -> Response:
    return reply(await call.services.network.network())
