"""GET /v1/models and /v1/models/{id}"""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.schemas import ModelRow
from pares.errors import ModelNotFound
from pares.swarm.names import ADAPTER_MARK, split_adapter


async def listed(call: Call[None]) -> Response:
    """All that can be asked; what is broken, and adapters alone, cannot."""
    rows = await call.inventory.rows()
    data = [_told(row.name, row) for row in rows if row.kind != "adapter" and not row.broken]
    return reply({"object": "list", "data": data})


async def one(call: Call[None]) -> Response:
    """Also `base+adapter`, and the other names of a model. Raises ModelNotFound."""
    name = call.path("id")
    row = await call.inventory.row(split_adapter(name)[0])
    if row.kind == "adapter":
        raise ModelNotFound(name)
    source = await call.services.library.resolve(name)
    return reply(_told(source.name if ADAPTER_MARK in name else row.name, row))


def _told(name: str, row: ModelRow) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": int(datetime.fromisoformat(row.added_at).timestamp()) if row.added_at else 0,
        "owned_by": "local",
        "context_length": row.need.context if row.need else 0,
        "x": {"where": "local", "loaded": row.loaded, "fit": row.fit},
    }
