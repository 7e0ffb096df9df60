"""Downloads: begin, watch, pause, cancel."""

from __future__ import annotations

from starlette.responses import Response

from pares.api import schemas
from pares.api.calls import Call, reply
from pares.api.schemas import PullChange, PullPlan, PullRequest, PullStatus
from pares.swarm.pulls import Pull


async def listed(call: Call[None]) -> Response:
    return reply(schemas.Pulls(tuple(status_of(pull) for pull in call.services.pulls.list())))


async def start(call: Call[PullRequest]) -> Response:
    body = call.body
    if body.dry_run:
        return reply(await _plan(call))
    pull = await call.services.pulls.start(
        body.source,
        body.name,
        layers=body.layers,
        accept_licence=body.accept_licence,
        priority=body.priority,
        limit_bytes_per_s=body.limit_bytes_per_s,
    )
    return reply(status_of(pull), 202)


async def _plan(call: Call[PullRequest]) -> PullPlan:
    """What it would take, found out before anything but a header is fetched."""
    preview = await call.services.pulls.preview(call.body.source, call.body.name, layers=call.body.layers)
    fit, need = call.inventory.fit(preview.header) if preview.is_model else (None, None)
    return PullPlan(
        source=preview.source,
        name=preview.name,
        size=preview.size,
        disk_needed=preview.disk_needed,
        disk_free=preview.disk_free,
        sha256=preview.sha256,
        licence=preview.licence,
        fits_disk=preview.fits_disk,
        fit=fit,
        need=need,
        version=preview.version,
        licence_text=preview.licence_text,
        licence_accepted=preview.licence_accepted,
        holders=preview.holders,
    )


async def show(call: Call[None]) -> Response:
    return reply(status_of(call.services.pulls.get(call.path("id"))))


async def pause(call: Call[None]) -> Response:
    return reply(status_of(await call.services.pulls.pause(call.path("id"))))


async def resume(call: Call[None]) -> Response:
    return reply(status_of(await call.services.pulls.resume(call.path("id"))))


async def change(call: Call[PullChange]) -> Response:
    body = call.body
    pull = await call.services.pulls.change(
        call.path("id"), priority=body.priority, limit_bytes_per_s=body.limit_bytes_per_s
    )
    return reply(status_of(pull))


async def cancel(call: Call[None]) -> Response:
    await call.services.pulls.cancel(call.path("id"))
    return Response(None, 204)


def status_of(pull: Pull) -> PullStatus:
    return PullStatus(**{name: getattr(pull, name) for name in PullStatus.__struct_fields__})
