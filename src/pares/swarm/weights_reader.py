"""The process that reads weights: `python -m pares.swarm.weights_reader`, one question on stdin, answers as JSON lines.

Files come from anywhere: their headers go through our own parser first, and ggml gets whole blocks of known size only.
Nothing is mapped, so a file that shrinks meanwhile is a short read and no signal. In memory are the two headers and a
run of weights of each file.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from pares.errors import BrokenModelFile, NotFound, NotSupported
from pares.inference.gguf import read_header
from pares.inference.header import MAX_BLOCKS, Tensor
from pares.inference.llama import dequantize
from pares.inference.tensor_types import TENSOR_TYPES
from pares.swarm import weights
from pares.swarm.weights import Answer, Diff, LayerChange, Progress, Refusal, TensorChange, TensorSample

SAMPLED_RUN = 256
"""Weights that are read at one place for statistics: the largest block of any type."""
RUN = 1 << 18
RUN_BYTES = 1 << 20
PROGRESS_S = 0.25
NICENESS = 10
MOST_QUESTION = 1 << 20
_GOLDEN = (math.sqrt(5) - 1) / 2
_KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}


class WeightsFile:
    """A GGUF's tensors by name, and their weights. Raises BrokenModelFile, OSError."""

    def __init__(self, path: Path) -> None:
        try:
            self.tensors = {tensor.name: tensor for tensor in read_header(path).tensors}
        except BrokenModelFile as broken:
            raise BrokenModelFile(f"{path.name}: {broken.message}", hint=broken.hint) from None
        self._path = path
        self._file = path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def raw(self, tensor: Tensor, start: int, size: int) -> bytes:
        """Bytes of a tensor as they lie in the file."""
        self._file.seek(tensor.offset + start)
        data = self._file.read(size)
        if len(data) < size:
            raise BrokenModelFile(f"{self._path.name} became shorter while it was read.", hint="Fetch it again.")
        return data

    def weights(self, tensor: Tensor, first: int, count: int) -> NDArray[np.float32]:
        """Weights of whole blocks. Raises NotSupported for a type that ggml cannot read."""
        kind = _KINDS[tensor.type]
        data = self.raw(tensor, first // kind.block * kind.nbytes, count // kind.block * kind.nbytes)
        return dequantize(tensor.type, data, count)


def spans(elements: int, most: int, run: int) -> Iterator[tuple[int, int]]:
    """Which weights to look at, as (first, count): all in runs of `run`, or as many runs as `most` has room for.

    Then each equal part of the tensor gives one run, not always at the same place in it: with a fixed stride the runs
    would keep step with the rows and see a few columns only. `run` is a multiple of all block sizes.
    """
    if elements <= most:
        for first in range(0, elements, run):
            yield first, min(run, elements - first)
        return
    places, parts = elements // run, most // run
    for part in range(parts):
        low, high = part * places // parts, (part + 1) * places // parts
        yield (low + int(part * _GOLDEN % 1.0 * (high - low))) * run, run


def sample(file: WeightsFile, name: str, *, most: int = weights.SAMPLE) -> TensorSample:
    """The statistics of one tensor. Raises NotFound, NotSupported, BrokenModelFile."""
    tensor = file.tensors.get(name)
    if tensor is None:
        near = difflib.get_close_matches(name[:64], file.tensors, cutoff=0.5)
        hint = f"Close to it: {', '.join(near)}." if near else "`pares show MODEL --tensors` lists them."
        raise NotFound(f"There is no tensor named {name[:64]!r} in this model.", hint=hint)
    runs = spans(tensor.elements, most, SAMPLED_RUN)
    values = np.concatenate([file.weights(tensor, first, count) for first, count in runs])
    finite = values[np.isfinite(values)].astype(np.float64)
    least, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    counts, _ = np.histogram(finite - least, weights.STEPS, (0.0, (largest - least) or 1.0))
    return TensorSample(
        name=name,
        type=tensor.type,
        shape=tensor.dims,
        size=tensor.nbytes,
        sampled=values.size,
        least=least,
        most=largest,
        mean=float(finite.mean()) if finite.size else 0.0,
        deviation=float(finite.std()) if finite.size else 0.0,
        zeros=float(np.count_nonzero(values == 0)) / values.size,
        odd=values.size - finite.size,
        histogram=tuple(counts.tolist()),
    )


@dataclass(slots=True)
class _Pair:
    """The tensors of one name. Norms are squared; None: not measured."""

    name: str
    left: Tensor | None
    right: Tensor | None
    layer: int
    state: weights.State
    norms: tuple[float, float] | None = None
    """Of the difference, and of the left one."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.left, self.right) if tensor)


class Comparison:
    """Two files, side by side. `progress` is given 0 to 1, several times a second."""

    def __init__(
        self,
        left: WeightsFile,
        right: WeightsFile,
        progress: Callable[[float], None] = lambda _: None,
        *,
        most: int = weights.MOST_COMPARED,
    ) -> None:
        self._left, self._right = left, right
        self._progress, self._most = progress, most
        self._done = self._total = 0
        self._told = time.monotonic()

    def run(self) -> Diff:
        """Look at all bytes, then measure what differs, and what it has to be compared with in its layer."""
        names = dict.fromkeys([*self._left.tensors, *self._right.tensors])
        here = [(name, self._left.tensors.get(name), self._right.tensors.get(name)) for name in names]
        self._total = 2 * sum(tensor.nbytes for _, *both in here for tensor in both if tensor) or 1
        pairs = []
        for name, left, right in here:
            pairs.append(_Pair(name, left, right, _layer(name), self._state(left, right)))
            self._beat(pairs[-1].nbytes)
        moved = {pair.layer for pair in pairs if pair.layer >= 0 and pair.state != "equal"}
        for pair in pairs:
            if pair.state in ("changed", "retyped") or pair.layer in moved:
                pair.norms = self._norms(pair)
            self._beat(pair.nbytes)
        equal = sum(pair.state == "equal" for pair in pairs)
        return Diff(
            equal=equal,
            changed=len(pairs) - equal,
            layers=_layers(pairs),
            tensors=tuple(
                TensorChange(name=pair.name, layer=pair.layer, state=pair.state, relative=_relative([pair]))
                for pair in pairs
            ),
        )

    def _beat(self, done: int = 0) -> None:
        self._done += done
        now = time.monotonic()
        if now - self._told >= PROGRESS_S:
            self._told = now
            self._progress(self._done / self._total)

    def _state(self, left: Tensor | None, right: Tensor | None) -> weights.State:
        if left is None:
            return "only right"
        if right is None:
            return "only left"
        if left.dims != right.dims:
            return "reshaped"
        if left.type != right.type:
            return "retyped"
        for start in range(0, left.nbytes, RUN_BYTES):
            size = min(RUN_BYTES, left.nbytes - start)
            if self._left.raw(left, start, size) != self._right.raw(right, start, size):
                return "changed"
            self._beat()
        return "equal"

    @np.errstate(all="ignore")
    def _norms(self, pair: _Pair) -> tuple[float, float] | None:
        """Squared norms of the difference and of the left tensor; None where they cannot be computed."""
        left, right = pair.left, pair.right
        if left is None or right is None or left.dims != right.dims:
            return None
        apart = norm = 0.0
        compared = 0
        try:
            for first, count in spans(left.elements, self._most, RUN):
                values = self._left.weights(left, first, count).astype(np.float64)
                norm += _square(values)
                if pair.state != "equal":
                    values -= self._right.weights(right, first, count)
                    apart += _square(values)
                compared += count
                self._beat()
        except NotSupported:
            return None
        whole = left.elements / compared
        return (apart * whole, norm * whole) if math.isfinite(apart + norm) else None


def _square(values: NDArray[np.float64]) -> float:
    return float(np.einsum("i,i->", values, values))


def _layer(name: str) -> int:
    """The layer that a tensor belongs to; -1: none."""
    match name.split(".", 2):
        case ["blk", layer, _] if layer.isdecimal() and int(layer) < MAX_BLOCKS:
            return int(layer)
    return -1


def _layers(pairs: Iterable[_Pair]) -> tuple[LayerChange, ...]:
    layers: dict[int, list[_Pair]] = {}
    for pair in pairs:
        if pair.layer >= 0:
            layers.setdefault(pair.layer, []).append(pair)
    return tuple(
        LayerChange(
            layer=layer,
            relative=_relative(inside),
            changed=sum(pair.state != "equal" for pair in inside),
            tensors=len(inside),
        )
        for layer, inside in sorted(layers.items())
    )


def _relative(pairs: Sequence[_Pair]) -> float | None:
    """The relative norm over all of them that were measured."""
    changed = [pair for pair in pairs if pair.state != "equal"]
    if not changed:
        return 0.0
    if not any(pair.norms for pair in changed):
        return None
    apart, norm = (sum(norms) for norms in zip(*(pair.norms for pair in pairs if pair.norms), strict=True))
    if apart and not norm:
        return None
    return math.sqrt(apart / norm) if apart else 0.0


def answer(question: weights.Question, progress: Callable[[float], None]) -> Answer:
    """What there is to say; a refusal where the files are at fault."""
    try:
        with ExitStack() as files:

            def opened(path: bytes) -> WeightsFile:
                return files.enter_context(WeightsFile(Path(os.fsdecode(path))))

            match question:
                case weights.Sample(path, tensor):
                    return sample(opened(path), tensor)
                case weights.Compare(left, right):
                    return Comparison(opened(left), opened(right), progress).run()
    except (BrokenModelFile, NotFound, NotSupported) as error:
        return Refusal(error.code, error.message, error.hint)
    except OSError as error:
        message = f"{error.filename or 'The file'} cannot be read: {error.strerror}."
        return Refusal(NotFound.code, message, "Is the disk that it lies on there?")


def main() -> None:
    """One question, and its answer."""
    os.nice(NICENESS)

    def tell(said: Answer) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()

    question = msgspec.json.decode(sys.stdin.buffer.read(MOST_QUESTION), type=weights.Question)
    tell(answer(question, lambda fraction: tell(Progress(fraction))))


if __name__ == "__main__":
    main()
