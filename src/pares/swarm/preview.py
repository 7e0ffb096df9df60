"""What a download would take, found out before anything but a header is fetched."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pares.errors import BrokenModelFile, NotFound, OriginUnreachable, ParesError, VerificationFailed
from pares.inference.gguf import Incomplete, parse_header
from pares.inference.header import Header, Tensor, Value
from pares.swarm.catalogue import Offer
from pares.swarm.formats import HEAD_BYTES, kind_of, refuse_other_formats
from pares.swarm.origin import Origin, Plan
from pares.swarm.predicate import Version
from pares.swarm.ranges import Part
from pares.swarm.sources import Found

MEMBERS = "members of your circles"


class Preview(NamedTuple):
    """What a download would take."""

    source: str
    name: str
    origin: str
    size: int
    fetched: int
    """Bytes over the network; of a part an estimate, as its header is not here yet."""
    disk_needed: int
    """At the worst moment, with what must stay free."""
    disk_free: int
    sha256: str
    """Empty where it is not known beforehand."""
    licence: str
    header: Header
    """What an estimate of memory needs."""
    is_model: bool = True
    """It could be loaded by itself: neither an adapter nor a part."""
    version: str = ""
    licence_text: str = ""
    licence_accepted: bool = True
    holders: int = 0
    """Members who would send it, and are there."""

    @property
    def fits_disk(self) -> bool:
        return self.disk_needed <= self.disk_free


def preview_of(version: Version, part: Part | None, *, source: str, name: str, disk_free: int, reserve: int) -> Preview:
    """What fetching a version from members takes, as far as its statement tells."""
    size = sum(file.size for file in version.files)
    fetched = size if part is None else _estimate(version, part)
    header = header_of(version)
    return Preview(
        source=source,
        name=name,
        origin=MEMBERS,
        size=size,
        fetched=fetched,
        disk_needed=fetched + reserve,
        disk_free=disk_free,
        sha256=version.files[0].sha256 if len(version.files) == 1 else "",
        licence=version.licence.spdx,
        header=header,
        is_model=part is None and not header.is_adapter,
        licence_text=version.licence.text,
    )


def _estimate(version: Version, part: Part) -> int:
    """Bytes of a part, if all weights take as much as the average one does."""
    facts = version.architecture
    layers = facts.parameters_per_layer[part.first : part.last]
    head = facts.parameters - sum(facts.parameters_per_layer) if part.head else 0
    return facts.header_bytes + facts.tensor_bytes * (sum(layers) + head) // max(facts.parameters, 1)


def header_of(version: Version) -> Header:
    """As much of the header as an estimate of memory needs; its one tensor stands for all weights."""
    stated = version.architecture
    facts: dict[str, Value] = {
        "block_count": stated.layers,
        "context_length": stated.context,
        "embedding_length": stated.embedding_length,
        "feed_forward_length": stated.feed_forward_length,
        "attention.head_count": stated.heads,
        "attention.head_count_kv": stated.kv_heads,
        "attention.key_length": stated.key_length,
        "attention.value_length": stated.value_length,
        "attention.sliding_window": stated.sliding_window,
        "vocab_size": stated.vocabulary,
        "expert_count": stated.experts,
        "expert_used_count": stated.experts_used,
    }
    metadata: dict[str, Value] = {f"{stated.name}.{key}": value for key, value in facts.items()}
    metadata |= {"general.architecture": stated.name, "general.name": version.name}
    metadata |= {"general.type": "adapter" if version.kind == "adapter" else "model"}
    kind = stated.quantization.removesuffix("_S").removesuffix("_M").removesuffix("_L")
    weights = Tensor("weights", kind, (stated.parameters, 1), 0, stated.tensor_bytes)
    return Header(
        version=3,
        alignment=32,
        metadata=metadata,
        tensors=(weights,),
        data_start=stated.header_bytes,
        file_bytes=sum(file.size for file in version.files),
        raw=memoryview(b""),
        spans={},
    )


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


async def look_at(found: Found, *, source: str, name: str, disk_free: int, reserve: int) -> Preview:
    """What fetching from the first origin that answers takes. Raises also BrokenModelFile, NotSupported."""
    failure: ParesError | None = None
    for origin in found.origins:
        try:
            plan = await plan_from(origin, found.offer)
            header = found.offer.header() if found.offer else await _fetch_header(origin, plan)
            return Preview(
                source=source,
                name=name,
                origin=origin.description,
                size=plan.size,
                fetched=plan.fetched,
                disk_needed=plan.disk + reserve,
                disk_free=disk_free,
                sha256=plan.sha256,
                licence=found.offer.licence if found.offer else header.licence,
                header=header,
                is_model=not header.is_adapter,
            )
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
