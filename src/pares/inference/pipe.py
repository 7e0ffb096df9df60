"""What a node and its worker processes say to each other, over a socket pair: `size(4, big endian) body`, MessagePack.

Both ends are ours and start from the same files, so the structs are arrays without names: a frame per step must cost
microseconds. Token lists travel as raw int32 in native order.
"""

from __future__ import annotations

import msgspec

from pares.errors import (
    BadRequest,
    BrokenModelFile,
    LocalError,
    NotEnoughMemory,
    NotSupported,
    WorkerDied,
)
from pares.inference.generation import FinishReason, ModelFacts, Profile, Sampling, Usage, Vocabulary


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """What the load-time probe measured: see `probe.py`."""

    fingerprint: str
    refusal: str = ""
    """Why this model cannot be exact here; empty if it can, or if only the fast profile was asked for."""
    block: int = 0
    small: int = 0


class Load(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The first message: what this worker is for."""

    path: str
    context: int
    cells: int
    slots: int
    running: int
    batch: int
    outputs: int
    """Rows of a batch whose logits may be wanted."""
    threads: int
    profile: Profile
    gpu_layers: int
    step_target_s: float
    pooling: str
    parked: int = 0
    """Rows that may be kept outside the KV cache."""
    parked_each: int = 0
    """Rows that a recurrent state takes as much memory as."""
    probe: Probe | None = None
    """Of an earlier load of the same file by the same build on this machine: not measured again."""


class Generate(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int
    prompt: bytes
    sampling: Sampling
    max_tokens: int
    adapter: str = ""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int


class Tokenize(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int
    text: bytes
    special: bool
    bos: bool


class SchemaToGrammar(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int
    schema: bytes


class Embed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int
    inputs: list[bytes]
    adapter: str = ""


ToWorker = Load | Generate | Cancel | Tokenize | SchemaToGrammar | Embed


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=True):
    fraction: float


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    facts: ModelFacts
    vocabulary: Vocabulary
    probe: Probe


class Detail(msgspec.Struct, frozen=True, array_like=True):
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Tokens(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The tokens of one step: `ids[i]` got `tokens[i]`."""

    ids: list[int]
    tokens: list[int]
    details: dict[int, Detail] = {}


class Began(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A generation's first token comes next; `usage` is of what there was until now."""

    id: int
    usage: Usage


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int
    reason: FinishReason
    usage: Usage


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A request could not be served; id 0: the model could not be loaded."""

    id: int
    code: str
    message: str
    hint: str = ""
    param: str | None = None


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Tokens of a text, a grammar, or one float32 vector per input."""

    id: int
    parts: list[bytes]


class Queue(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Requests computed now and requests waiting, whenever it changes."""

    running: int
    waiting: int


FromWorker = Progress | Ready | Began | Tokens | Ended | Failed | Reply | Queue

_encoder = msgspec.msgpack.Encoder()
to_worker = msgspec.msgpack.Decoder(ToWorker)
from_worker = msgspec.msgpack.Decoder(FromWorker)

_BY_CODE: dict[str, type[LocalError]] = {
    kind.code: kind for kind in (BadRequest, NotSupported, BrokenModelFile, NotEnoughMemory, WorkerDied)
}


def frame(message: ToWorker | FromWorker) -> bytes:
    """A message as it goes over the socket."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Cuts arriving bytes into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now."""
        buffer = self._buffer
        buffer += data
        bodies = []
        start = 0
        while len(buffer) - start >= 4:
            end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + 4 : end]))
            start = end
        del buffer[:start]
        return bodies


def failure(id_: int, error: LocalError) -> Failed:
    """An error to be told on the other side."""
    return Failed(id_, error.code, error.message, error.hint, error.param if isinstance(error, BadRequest) else None)


def as_error(failed: Failed) -> LocalError:
    """The error that was told."""
    kind = _BY_CODE.get(failed.code, WorkerDied)
    if issubclass(kind, BadRequest):
        return kind(failed.message, hint=failed.hint, param=failed.param)
    return kind(failed.message, hint=failed.hint)
