"""The worker: a child process that owns one model and computes all its sequences in shared batches.

`python -m pares.inference.worker FD` speaks the messages of `pipe` over the inherited socket FD, and ends when that
closes. One thread, one loop: take what has arrived, plan a batch, compute it, sample, tell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from pares.errors import LocalError, NotSupported
from pares.inference import pipe
from pares.inference.batching import Action, Batch, Copy, Drop, Limits, Park, Restore, Schedule, Sequence, Truncate
from pares.inference.generation import FinishReason, ModelFacts, Usage
from pares.inference.llama import Candidates, Context, Floats, NoRoom, Sampler, Weights, embed, grammar_of
from pares.inference.probe import probe
from pares.inference.sampling import log_probabilities, top

RECEIVE = 1 << 20
EMBEDDER_CELLS = 512
NOT_MEASURED = "not measured: it is loaded in the fast profile"


@dataclass(slots=True)
class _Generation:
    """A sequence together with what the schedule need not know."""

    request: pipe.Generate
    sequence: Sequence
    sampler: Sampler
    room: int
    arrived: float
    started: float = 0.0
    first_token: float = 0.0


@dataclass(slots=True)
class _Embedding:
    """Inputs whose vectors are computed a batch at a time, between the batches of the generations."""

    request: pipe.Embed
    work: Iterator[Floats | None]
    vectors: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Model:
    """Everything that a Load made."""

    load: pipe.Load
    weights: Weights
    context: Context
    schedule: Schedule
    candidates: Candidates
    ends: frozenset[int]
    embedder: Context | None = None
    embedder_cells: int = 0
    embeddings: deque[_Embedding] = field(default_factory=deque)
    parked: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Rows outside the KV cache, under the schedule's keys."""
    generations: dict[int, _Generation] = field(default_factory=dict)


class Worker:
    """The loop of one worker process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = pipe.Frames()
        self._told = pipe.Queue(0, 0)

    def run(self) -> None:
        """Load what the first message says, then serve until the node closes the connection."""
        bodies = self._receive(wait=True)
        if not bodies:
            return
        load = msgspec.msgpack.decode(bodies.pop(0), type=pipe.Load)
        try:
            self._model = self._load(load)
        except LocalError as error:
            self._send(pipe.failure(0, error))
            return
        while True:
            for body in bodies:
                self._handle(pipe.to_worker.decode(body))
            batch = self._model.schedule.plan()
            self._tell_queue()
            if batch is not None:
                self._step(batch)
            if self._model.embeddings:
                self._embed(self._model.embeddings[0])
            received = self._receive(wait=batch is None and not self._model.embeddings)
            if received is None:
                return
            bodies = received

    # The connection

    def _receive(self, *, wait: bool) -> list[bytes] | None:
        """Complete messages; None when the node is gone."""
        bodies: list[bytes] = []
        while True:
            try:
                data = self._connection.recv(RECEIVE, 0 if wait and not bodies else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return bodies
            if not data:
                return None
            bodies += self._frames.feed(data)

    def _send(self, message: pipe.FromWorker) -> None:
        self._connection.sendall(pipe.frame(message))

    def _tell_queue(self) -> None:
        schedule = self._model.schedule
        now = pipe.Queue(len(schedule.running), len(schedule.waiting))
        if now != self._told:
            self._told = now
            self._send(now)

    # Loading

    def _load(self, load: pipe.Load) -> _Model:
        reported = 0.0

        def progress(fraction: float) -> None:
            nonlocal reported
            if fraction - reported >= 0.05:
                reported = fraction
                self._send(pipe.Progress(fraction))

        weights = Weights(Path(load.path), gpu_layers=load.gpu_layers, progress=progress)
        exact = load.profile == "exact"
        context = Context(
            weights,
            cells=load.cells,
            slots=load.slots,
            batch=load.batch,
            threads=load.threads,
            exact=exact,
            outputs=load.outputs,
        )
        probed = load.probe
        if probed is None:
            probed = probe(context, load.profile, threads=load.threads) if context.remembers else pipe.Probe("")
        if exact and (probed.refusal or not probed.block):
            reason = probed.refusal or "it is an encoder: it generates nothing"
            raise NotSupported(f"{weights.path.name} cannot be exact on this machine: {reason}.")
        limits = Limits(
            cells=load.cells,
            context=load.context,
            slots=load.slots,
            running=load.running,
            batch=load.batch,
            block=probed.block if exact else 0,
            small=max(probed.small, 1),
            can_truncate=not weights.recurrent,
            step_target_s=load.step_target_s,
            parked=load.parked,
            parked_each=load.parked_each,
        )
        vocabulary = weights.vocabulary()
        facts = ModelFacts(
            name="",
            architecture="",
            context=load.context,
            context_trained=weights.context_trained,
            layers=weights.layers,
            embedding_length=weights.embedding_length,
            parameters=weights.parameters,
            file_bytes=os.path.getsize(load.path),
            profile=load.profile,
            fingerprint=probed.fingerprint,
            exact=probed.refusal if exact else NOT_MEASURED,
            exact_block=probed.block,
            exact_small=probed.small,
            threads=load.threads,
            sequences=load.running,
        )
        self._send(pipe.Ready(facts, vocabulary, probed))
        ends = frozenset(t for t in range(vocabulary.size) if vocabulary.attributes[t] & vocabulary.END)
        return _Model(load, weights, context, Schedule(limits), Candidates(weights.vocabulary_size), ends)

    # Requests

    def _handle(self, message: pipe.ToWorker) -> None:
        try:
            match message:
                case pipe.Generate():
                    self._begin(message)
                case pipe.Cancel(id_):
                    if id_ in self._model.generations:
                        self._end(self._model.generations[id_], None)
                    left = [each for each in self._model.embeddings if each.request.id != id_]
                    self._model.embeddings = deque(left)
                case pipe.Tokenize(id_, text, special, bos):
                    tokens = self._model.weights.tokenize(text, special=special, bos=bos)
                    self._send(pipe.Reply(id_, [tokens.tobytes()]))
                case pipe.SchemaToGrammar(id_, schema):
                    self._send(pipe.Reply(id_, [grammar_of(msgspec.json.decode(schema)).encode()]))
                case pipe.Embed():
                    self._model.embeddings.append(_Embedding(message, self._vectors(message)))
                case pipe.Load():
                    raise NotSupported("A worker loads one model, once.")
        except LocalError as error:
            self._send(pipe.failure(0 if isinstance(message, pipe.Load) else message.id, error))

    def _begin(self, request: pipe.Generate) -> None:
        model = self._model
        if not model.context.remembers:
            raise NotSupported("This model only makes embeddings; it cannot generate text.")
        prompt = np.frombuffer(request.prompt, np.int32)
        if prompt.min() < 0 or prompt.max() >= model.weights.vocabulary_size:
            raise NotSupported(f"A token of the prompt is not one of {model.weights.vocabulary_size}.")
        if request.adapter:
            model.weights.adapter(Path(request.adapter))
        room = min(request.max_tokens, model.load.context - len(prompt))
        sampler = Sampler(model.weights, model.candidates, request.sampling, prompt)
        sequence = Sequence.of(request.id, prompt, room=room, adapter=request.adapter)
        model.generations[request.id] = _Generation(request, sequence, sampler, room, time.perf_counter())
        model.schedule.add(sequence)

    def _end(self, generation: _Generation, reason: FinishReason | None) -> None:
        """Free a generation's place; tell the node, unless it was the node that wanted it."""
        sequence = generation.sequence
        del self._model.generations[sequence.id]
        self._model.schedule.end(sequence)
        generation.sampler.close()
        self._tell_queue()
        if reason is None:
            return
        self._send(pipe.Ended(sequence.id, reason, _usage(generation)))

    def _vectors(self, request: pipe.Embed) -> Iterator[Floats | None]:
        model = self._model
        inputs = [np.frombuffer(tokens, np.int32) for tokens in request.inputs]
        context = self._embedder(max(map(len, inputs)))
        context.use_adapter(model.weights.adapter(Path(request.adapter)) if request.adapter else None)
        yield from embed(model.weights, context, inputs, model.load.pooling)

    def _embedder(self, rows: int) -> Context:
        """A context for inputs of so many rows: a small one until somebody needs more."""
        model = self._model
        if model.embedder is None or rows > model.embedder_cells:
            cells = min(model.load.context, max(EMBEDDER_CELLS, 1 << (rows - 1).bit_length()))
            if model.embedder is not None:
                model.embedder.close()
                model.embedder = None
            # An encoder sees its whole input at once; others read it in pieces.
            batch = min(model.load.batch, cells) if model.context.remembers else cells
            model.embedder = Context(
                model.weights,
                cells=cells,
                slots=1,
                batch=batch,
                outputs=batch,
                threads=model.load.threads,
                embeddings=True,
            )
            model.embedder_cells = cells
        return model.embedder

    # Computing

    def _embed(self, first: _Embedding) -> None:
        """One batch of the embedding that is first in line."""
        try:
            vector = next(first.work)
        except LocalError as error:
            self._model.embeddings.popleft()
            self._send(pipe.failure(first.request.id, error))
            return
        if vector is not None:
            first.vectors.append(vector.tobytes())
        if len(first.vectors) == len(first.request.inputs):
            self._model.embeddings.popleft()
            self._send(pipe.Reply(first.request.id, first.vectors))

    def _step(self, batch: Batch) -> None:
        model = self._model
        lost = False
        for action in batch.actions:
            lost |= not self._act(action)
        if lost:
            return
        now = time.perf_counter()
        for run in batch.runs:
            generation = model.generations[run.sequence.id]
            if not generation.started:
                generation.started = now
        model.context.use_adapter(model.weights.adapter(Path(batch.adapter)) if batch.adapter else None)
        try:
            model.context.compute(*_rows(batch))
        except NoRoom:
            for slot in {run.sequence.slot for run in batch.runs}:
                model.context.truncate(slot, 0)
                model.schedule.forget(slot)
            return
        model.schedule.computed(batch, time.perf_counter() - now)
        self._sample(batch)

    def _act(self, action: Action) -> bool:
        """Move rows of the KV cache. False if llama.cpp could not: then the slot is empty, and the schedule knows."""
        model = self._model
        match action:
            case Copy(source, target, length):
                model.context.copy(source, target, length)
            case Park(slot, key):
                model.parked[key] = model.context.save(slot)
                model.context.truncate(slot, 0)
            case Drop(key):
                del model.parked[key]
            case Truncate(slot, length):
                if not model.context.truncate(slot, length):
                    model.schedule.forget(slot)
                    return False
            case Restore(key, slot):
                if not model.context.restore(slot, model.parked[key]):
                    model.schedule.forget(slot)
                    return False
        return True

    def _sample(self, batch: Batch) -> None:
        model = self._model
        chosen = [model.generations[run.sequence.id] for run in batch.runs if run.wanted]
        if not chosen:
            return
        logits = model.context.logits(len(chosen))
        ids: list[int] = []
        tokens: list[int] = []
        details: dict[int, pipe.Detail] = {}
        ended: list[tuple[_Generation, FinishReason | None]] = []
        for row, generation in zip(logits, chosen, strict=True):
            sequence, sampling = generation.sequence, generation.request.sampling
            if not generation.first_token:
                generation.first_token = time.perf_counter()
                self._send(pipe.Began(sequence.id, _usage(generation)))
            try:
                token = generation.sampler.choose(row, sequence.length) if generation.room else -1
            except LocalError as error:
                self._send(pipe.failure(sequence.id, error))
                ended.append((generation, None))
                continue
            if token < 0 or (token in model.ends and not sampling.ignore_end):
                ended.append((generation, "end" if generation.room else "length"))
                continue
            sequence.append(token)
            ids.append(sequence.id)
            tokens.append(token)
            if sampling.logprobs >= 0:
                best = top(row, sampling.logprobs)
                values = log_probabilities(row, np.append(best, token)).tolist()
                details[sequence.id] = pipe.Detail(values[-1], tuple(zip(best.tolist(), values, strict=False)))
            if sequence.length - sequence.prompt >= generation.room:
                ended.append((generation, "length"))
        if ids:
            self._send(pipe.Tokens(ids, tokens, details))
        for generation, reason in ended:
            self._end(generation, reason)


def _usage(generation: _Generation) -> Usage:
    """What a generation has taken so far."""
    sequence, now = generation.sequence, time.perf_counter()
    started, first = generation.started or now, generation.first_token or now
    return Usage(
        prompt_tokens=sequence.prompt,
        cached_tokens=sequence.cached,
        generated_tokens=sequence.length - sequence.prompt,
        queue_s=started - generation.arrived,
        prefill_s=first - started,
        decode_s=now - first,
    )


def _rows(batch: Batch) -> tuple[list[int], list[int], list[int], list[bool]]:
    """Tokens, positions, slots and wanted flags of a batch's rows. Lists: for a few rows they beat arrays."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[bool] = []
    for run in batch.runs:
        sequence, start, stop = run
        if stop - start == 1:
            tokens.append(sequence.tokens.item(start))
            positions.append(start)
            slots.append(sequence.slot)
            wanted.append(run.wanted)
        else:
            tokens += sequence.tokens[start:stop].tolist()
            positions += range(start, stop)
            slots += [sequence.slot] * (stop - start)
            wanted += [False] * (stop - start - 1) + [run.wanted]
    return tokens, positions, slots, wanted


def main() -> None:
    """Entry point of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when its workers stop
    os.environ["GGML_NO_BACKTRACE"] = "1"  # else a failed assertion waits for a debugger, if one is installed
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # rather this process than the node or the desktop
    with socket.socket(fileno=int(sys.argv[1])) as connection, contextlib.suppress(BrokenPipeError, ConnectionError):
        Worker(connection).run()
    # Nothing is left to save, and freeing gigabytes page by page takes longer than exiting.
    os._exit(0)


if __name__ == "__main__":
    main()
