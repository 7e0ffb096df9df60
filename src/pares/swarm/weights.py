"""Looking into weights: what one tensor holds, and how two models differ.

The reading is done by `weights_reader`, a child process of lower priority for each question: llama.cpp is not loaded
into the node, a file that makes it crash takes nothing along, and whoever stops waiting stops the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from pares.errors import BrokenModelFile, LocalError, NotFound, NotSupported, WorkerDied

STEPS = 32
"""Of a histogram."""
SAMPLE = 1 << 16
"""Weights of a tensor that its statistics look at."""
MOST_COMPARED = 1 << 26
"""Weights of a tensor that the norms of a difference look at; of larger tensors it is a sample of so many."""
SILENCE_S = 30.0
"""A reader that says nothing for so long is stopped; a working one is heard several times a second."""
STOP_S = 5.0
MOST_ANSWER = 64 << 20
"""Bytes of the longest line: the difference of two files of 65,536 tensors, which have no name in common."""
LAST_WORDS = 1000

State = Literal["equal", "changed", "retyped", "reshaped", "only left", "only right"]


class Sample(msgspec.Struct, frozen=True, tag=True):
    """Question: what does a tensor hold?"""

    path: bytes
    tensor: str


class Compare(msgspec.Struct, frozen=True, tag=True):
    """Question: how do two files differ?"""

    left: bytes
    right: bytes


class Progress(msgspec.Struct, frozen=True, tag_field="answer", tag=True):
    fraction: float


class Refusal(msgspec.Struct, frozen=True, tag_field="answer", tag=True):
    """Answer: the error with this code."""

    code: str
    message: str
    hint: str


class TensorSample(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag=True):
    """What a tensor holds. Numbers are of the finite weights among those looked at; 0 where there are none."""

    name: str
    type: str
    shape: tuple[int, ...]
    """The length of a row first."""
    size: int
    """Bytes."""
    sampled: int
    """Weights looked at: all, or `SAMPLE` of them."""
    least: float
    most: float
    mean: float
    deviation: float
    zeros: float
    """Share of the weights looked at that are zero."""
    odd: int
    """Weights looked at that are not finite."""
    histogram: tuple[int, ...]
    """Counts in `STEPS` equal steps from `least` to `most`."""


class TensorChange(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    layer: int
    """-1: none."""
    state: State
    """`equal`: same type, shape and bytes. `retyped`: same shape, another quantization."""
    relative: float | None
    """||left - right|| / ||left||; None where the shapes differ, ggml cannot read the type, weights are not finite, or
    all of the left are zero."""


class LayerChange(msgspec.Struct, frozen=True, kw_only=True):
    layer: int
    relative: float | None
    """As of one tensor that holds all of the layer's that can be compared; None if none can."""
    changed: int
    """Tensors that are not equal."""
    tensors: int


class Diff(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag=True):
    """How two files differ."""

    equal: int
    changed: int
    """All that are not equal."""
    layers: tuple[LayerChange, ...]
    tensors: tuple[TensorChange, ...]
    """In the order of the left file, then what only the right one has."""


Question = Sample | Compare
Answer = Progress | Refusal | TensorSample | Diff

_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_BY_CODE: dict[str, type[LocalError]] = {kind.code: kind for kind in (BrokenModelFile, NotFound, NotSupported)}


async def statistics(path: Path, tensor: str) -> TensorSample:
    """Look at a tensor's weights: at all of them, or at runs of 256 spread evenly over it, always the same.

    Raises BrokenModelFile, NotFound with the nearest names, NotSupported for a type that ggml cannot read, WorkerDied.
    """
    answer = await _ask(Sample(os.fsencode(path), tensor), path.name)
    assert isinstance(answer, TensorSample)
    return answer


async def difference(left: Path, right: Path, progress: Callable[[float], None] | None = None) -> Diff:
    """Compare the tensors of two whole files by name, across quantizations. `progress` is given 0 to 1.

    Whether bytes are equal is always looked at to the end. Norms are computed in float64 over all weights, those of
    tensors of more than `MOST_COMPARED` over runs spread evenly. Raises BrokenModelFile, NotFound, WorkerDied.
    """
    question = Compare(os.fsencode(left), os.fsencode(right))
    answer = await _ask(question, f"{left.name} and {right.name}", progress)
    assert isinstance(answer, Diff)
    return answer


async def _ask(question: Question, names: str, progress: Callable[[float], None] | None = None) -> TensorSample | Diff:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "pares.swarm.weights_reader")
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=MOST_ANSWER
        )
    except OSError as error:
        message = f"No process could be started to read {names}: {error.strerror}."
        raise WorkerDied(message, hint="Close other programs and try again.") from error
    try:
        answer = await _listen(process, question, progress)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if isinstance(error, TimeoutError):
            message = f"Reading {names} stood still for {SILENCE_S:.0f} s, and was stopped."
            raise WorkerDied(message, hint="Does the disk that it lies on answer? Try again.") from None
        raise
    finally:
        said = await _end(process)
    match answer:
        case None:
            raise WorkerDied(_obituary(names, process.returncode or 0, said), hint="`pares verify` checks the file.")
        case Refusal(code, message, hint):
            raise _BY_CODE[code](message, hint=hint)
    return answer


async def _listen(
    process: asyncio.subprocess.Process, question: Question, progress: Callable[[float], None] | None
) -> TensorSample | Diff | Refusal | None:
    """What the process says until it ends; None if it ended without an answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(question))
    process.stdin.close()
    last: TensorSample | Diff | Refusal | None = None
    while True:
        async with asyncio.timeout(SILENCE_S):
            line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            return last
        answer = _answers.decode(line)
        if not isinstance(answer, Progress):
            last = answer
        elif progress is not None:
            progress(answer.fraction)


async def _end(process: asyncio.subprocess.Process) -> bytes:
    """Wait for the end of a process that has closed its output or was killed; what it said on stderr."""
    with contextlib.suppress(TimeoutError):  # a disk that does not answer holds even a killed one
        async with asyncio.timeout(STOP_S):
            _, said = await process.communicate()
            return said
    return b""


def _obituary(names: str, code: int, said: bytes) -> str:
    why = f"it crashed ({signal.strsignal(-code)})" if code < 0 else f"it ended with code {code}"
    last = "; ".join(said[-LAST_WORDS:].decode(errors="replace").split("\n")[-3:]).strip("; ")
    return f"The process that read {names} is gone: {why}." + (f" Its last words: {last}" if last else "")
