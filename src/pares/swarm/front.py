"""The front of a file that strangers send: looked at within bounds, before the rest is fetched."""

from __future__ import annotations

from pathlib import Path

from pares.errors import VerificationFailed
from pares.inference.gguf import Header, Incomplete, parse_header
from pares.swarm.formats import HEAD_BYTES, refuse_other_formats
from pares.swarm.predicate import Version
from pares.swarm.safetensors import parse_tensors
from pares.swarm.version import check_header


def look_at_front(path: Path, front: int, size: int, name: str) -> Header | Incomplete | None:
    """The header in the first bytes of a file of `size` bytes, parsed within bounds; None for safetensors. Blocking.

    Raises BrokenModelFile; NotSupported for what is neither.
    """
    with path.open("rb") as file:
        data = file.read(front)
    if data[8:9] == b"{":
        end = 8 + int.from_bytes(data[:8], "little")
        if len(data) < end <= size:
            return Incomplete(end)
        parse_tensors(data[8:end], size)
        return None
    refuse_other_formats(data[:HEAD_BYTES], name)
    return parse_header(data, size)


def require_truth(version: Version, header: Header, name: str) -> None:
    """Raise VerificationFailed where a version's statement says something else than the header of its file.

    Not so for the licence, which a publisher may know better than the header: people are shown both.
    """
    wrong = [each for each in check_header(version, header) if not each.startswith("Licence:")]
    if wrong:
        raise VerificationFailed(
            f"{name} is not what its publisher says. {wrong[0]}", hint="It was thrown away. Take another version."
        )
