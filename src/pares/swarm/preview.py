"""What a download would take, found out before anything but a header is fetched."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pares.errors import BrokenModelFile, NotFound, OriginUnreachable, ParesError, VerificationFailed
from pares.inference.gguf import Incomplete, parse_header
from pares.inference.header import Header
from pares.swarm.catalogue import Offer
from pares.swarm.formats import HEAD_BYTES, kind_of, refuse_other_formats
from pares.swarm.origin import Origin, Plan
from pares.swarm.sources import Found


class Preview(NamedTuple):
    """What a download would take."""

    source: str
    name: str
    origin: str
    size: int
    fetched: int
    """Bytes over the network."""
    disk_needed: int
    """At the worst moment, with what must stay free."""
    disk_free: int
    sha256: str
    """Empty where it is not known beforehand."""
    licence: str
    header: Header
    """What an estimate of memory needs."""

    @property
    def fits_disk(self) -> bool:
        return self.disk_needed <= self.disk_free


async def plan_from(origin: Origin, offer: Offer | None) -> Plan:
    """Ask an origin, and hold it to what the catalogue promises. Raises as the origin does."""
    plan = await origin.resolve()
    if offer is None:
        return plan
    if plan.size != offer.size or plan.sha256 not in ("", offer.sha256):
        raise VerificationFailed(
            f"{origin.description} offers other bytes ({plan.size:,}) for {offer.name} than the catalogue "
            f"({offer.size:,}).",
            hint="Update Pares, or give the address yourself.",
        )
    return msgspec.structs.replace(plan, sha256=offer.sha256)


async def look_at(found: Found) -> tuple[Origin, Plan, Header]:
    """The first origin that answers, its plan, the file's header. Raises also BrokenModelFile, NotSupported."""
    failure: ParesError | None = None
    for origin in found.origins:
        try:
            plan = await plan_from(origin, found.offer)
            return origin, plan, found.offer.header() if found.offer else await _fetch_header(origin, plan)
        except (OriginUnreachable, NotFound) as error:
            failure = failure or error
    raise failure or OriginUnreachable(f"Nothing is known of where {found.name} can be had.")


async def _fetch_header(origin: Origin, plan: Plan) -> Header:
    front = bytearray()
    wanted = HEAD_BYTES
    async with origin.read(plan.volumes[0], 0) as body:
        async for chunk in body.chunks:
            front += chunk
            if len(front) < min(wanted, plan.size):
                continue
            refuse_other_formats(bytes(front[:HEAD_BYTES]), plan.file_name)
            header = parse_header(bytes(front), plan.size)
            if not isinstance(header, Incomplete):
                kind_of(header)
                return header
            wanted = max(header.at_least, 2 * len(front))
    raise BrokenModelFile(f"{plan.file_name} ends inside of its header.", hint="Fetch it from another source.")
