"""What goes into the next batch: continuous batching over many sequences of one model. Pure.

A *sequence* is one generation: its prompt, then what was sampled. Its *rows* (one per token) are computed in order into
a *slot* of the KV cache. When a sequence ends, its slot keeps the rows for a later prompt that begins the same way.

Every step the schedule admits waiting sequences, then chooses rows:

* fast profile: one row of every sequence that is decoding, and beside them a chunk of the prompts that are being read,
  cut so that the step lasts about `step_target_s`: running answers keep flowing while a long prompt comes in.
* exact profile: never both in one batch. Prompt rows up to the last multiple of `block` go in multiples of `block`; all
  others (the rest of the prompt, sampled rows) in batches of at most `small`. A row's bits then do not depend on what
  else is computed. Every decoding sequence gets its row before the next chunk of prompt.

Slots at rest are parked outside the KV cache when somebody else begins (see `parking`), or given up, least recently
used first, when the cache is full; then the youngest sequence is set back to waiting and computed again later, which
changes nothing but its speed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np

from pares.inference.parking import LEAST, Parked, Parking, Tokens

PREFILL_STEP = 32
"""Chunks of prompt beside running answers are multiples of this many rows (or of `block`)."""

WORTH_WAITING = 64
"""A prompt waits for one that is being read if that saves at least so many rows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the context of llama.cpp was made for, and how to use it."""

    cells: int
    """Rows the KV cache holds for all slots together."""
    context: int
    """Rows one sequence may have."""
    slots: int
    running: int
    """Sequences that are computed at the same time, at most `slots`."""
    batch: int
    """Rows in one batch, at most."""
    block: int = 0
    """0: fast profile. Else exact, with this block."""
    small: int = 1
    can_truncate: bool = True
    """Recurrent models cannot forget their last rows: a slot is reused whole or not at all."""
    step_target_s: float = 0.15
    parked: int = 0
    """Rows that may lie outside the KV cache. Not for the exact profile."""
    parked_each: int = 0
    """Rows that a parked sequence counts for besides its own: the size of a recurrent state."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One generation, from the schedule's side."""

    id: int
    tokens: Tokens
    """Prompt, then sampled tokens, in a buffer with room to grow; `length` of them are valid."""
    length: int
    prompt: int
    adapter: str = ""
    computed: int = 0
    """Rows that are in the KV cache."""
    cached: int = 0
    """Of those, how many of the prompt were there before this sequence came."""
    slot: int = -1
    arrived: int = 0
    served: int = 0
    """Step in which it last had rows in a batch."""
    ended: bool = False

    @classmethod
    def of(cls, id_: int, prompt: Tokens, *, room: int, adapter: str = "") -> Sequence:
        """A sequence that may get `room` sampled tokens."""
        tokens = np.empty(len(prompt) + room, np.int32)
        tokens[: len(prompt)] = prompt
        return cls(id_, tokens, len(prompt), len(prompt), adapter)

    def append(self, token: int) -> None:
        """Add a sampled token: one more row to compute."""
        self.tokens[self.length] = token
        self.length += 1

    @property
    def pending(self) -> int:
        """Rows that are known but not computed."""
        return self.length - self.computed


@dataclass(slots=True)
class _Slot:
    """Rows in the KV cache. `spans` says which cells they are: (span, rows of it), shared spans are counted once."""

    number: int
    adapter: str = ""
    tokens: Tokens = field(default_factory=lambda: np.empty(0, np.int32))
    length: int = 0
    blocked: int = 0
    """The first so many rows were computed in blocks (exact profile)."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    tip: int = -1
    """The span that only this slot appends to."""
    owner: Sequence | None = None
    used: int = 0


class Truncate(NamedTuple):
    """Forget rows from `length` on in a slot."""

    slot: int
    length: int


class Copy(NamedTuple):
    """Let the (empty) slot `target` have the first `length` rows of `source`."""

    source: int
    target: int
    length: int


class Park(NamedTuple):
    """Copy all rows of a slot out of the KV cache, to be found under `key`, and empty the slot."""

    slot: int
    key: int


class Restore(NamedTuple):
    """Copy the rows under `key` into an empty slot; `key` stays."""

    key: int
    slot: int


class Drop(NamedTuple):
    """The rows under `key` are not needed any more."""

    key: int


Action = Truncate | Copy | Park | Restore | Drop


class Run(NamedTuple):
    """Rows [start, stop) of a sequence. `wanted`: its last row's logits are needed, a token is to be sampled."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def wanted(self) -> bool:
        return self.stop == self.sequence.length


class Batch(NamedTuple):
    """One call of llama_decode. The memory actions come first."""

    actions: tuple[Action, ...]
    runs: tuple[Run, ...]
    adapter: str

    @property
    def rows(self) -> int:
        return sum(run.stop - run.start for run in self.runs)


class Schedule:
    """Which rows next. The caller does what a batch says, then tells `computed`; after sampling, `Sequence.append`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._slots = [_Slot(n) for n in range(limits.slots)]
        self._spans = count()
        self._step = 0
        self._last_chunk = 0
        self._rows_per_s = 0.0
        self._actions: list[Action] = []
        self._parking = Parking(limits.parked, limits.parked_each)
        self._used = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Its prompt must have at least one row and fit the context."""
        self._step += 1
        sequence.arrived = self._step
        self.waiting.append(sequence)

    def end(self, sequence: Sequence) -> None:
        """A sequence is finished or given up: its slot is at rest and keeps its rows."""
        sequence.ended = True
        if sequence.slot < 0:
            if sequence in self.waiting:
                self.waiting.remove(sequence)
            return
        slot = self._slots[sequence.slot]
        slot.owner = None
        slot.used = self._step
        slot.tokens = sequence.tokens[: sequence.computed].copy()
        self.running.remove(sequence)
        sequence.slot = -1

    def cells_used(self) -> int:
        """Cells of the KV cache that hold rows; rows that slots share count once."""
        return self._used

    def forget(self, slot_number: int) -> None:
        """The engine could not keep a slot's rows after all: they are computed again."""
        slot = self._slots[slot_number]
        self._empty(slot)
        if slot.owner:
            slot.owner.computed = slot.owner.cached = 0

    def plan(self) -> Batch | None:
        """The next batch, or None if nothing is to be computed."""
        self._step += 1
        self._actions = []
        self._admit()
        runs = self._choose()
        while runs and self._missing(runs) > 0:
            if not self._make_room(keep=None):
                self._set_back(max(self.running, key=lambda s: s.arrived))
            runs = self._choose()
        if not runs:
            return None
        for run in runs:
            run.sequence.served = self._step
        return Batch(tuple(self._actions), tuple(runs), runs[0].sequence.adapter)

    def computed(self, batch: Batch, seconds: float) -> None:
        """The batch's rows are in the KV cache now; it took so many seconds."""
        computed = 0
        for sequence, start, stop in batch.runs:
            computed += stop - start
            sequence.computed = stop
            if sequence.slot < 0:
                continue
            slot = self._slots[sequence.slot]
            slot.length = stop
            if self.limits.block:
                slot.blocked = max(slot.blocked, min(stop, self._boundary(sequence)))
            self._extend(slot, stop - start)
        if computed >= PREFILL_STEP and seconds > 0:
            rate = computed / seconds
            self._rows_per_s = rate if self._rows_per_s == 0 else 0.7 * self._rows_per_s + 0.3 * rate

    # Admission

    def _admit(self) -> None:
        for sequence in list(self.waiting):
            if len(self.running) >= self.limits.running:
                return
            _, reuse = self._best_source(sequence)
            head = sequence.tokens[: sequence.length - 1]
            parked, rows = self._parking.best(head, sequence.adapter, whole=not self.limits.can_truncate)
            if self._soon(sequence) >= max(reuse, rows) + WORTH_WAITING:
                continue
            restored = parked is not None and rows >= reuse + LEAST and self._restore(sequence, parked, rows)
            if not restored and not self._place(sequence):
                return
            self.waiting.remove(sequence)
            self.running.append(sequence)
            self._park_all()

    def _soon(self, sequence: Sequence) -> int:
        """Rows that a prompt which is being read right now will have in common with this one."""
        reading = (s for s in self.running if s.computed < s.prompt and s.adapter == sequence.adapter)
        if not self.limits.can_truncate:
            return 0
        return max((self._common(sequence, s.tokens, s.prompt, self._boundary(s)) for s in reading), default=0)

    def _place(self, sequence: Sequence) -> bool:
        """Give a sequence a slot, with as many rows as an earlier one left for it. False if there is no room yet."""
        source, reuse = self._best_source(sequence)
        resting = [slot for slot in self._slots if slot.owner is None]
        if not resting:
            return False
        spare = [slot for slot in resting if slot is not source]
        if source is not None and source.owner is None and (not spare or reuse * 2 >= source.length):
            slot = source
        else:
            slot = min(spare, key=lambda s: (s.length > 0, s.used))
        if slot is source:
            self._truncate(slot, reuse)
        else:
            self._clear(slot)
        if not self._reserve(sequence.length - reuse, keep=source):
            if source is None or source.owner is not None:
                return False
            slot = source
            self._truncate(slot, reuse)
            if not self._reserve(sequence.length - reuse, keep=source):
                return False
        if source is not None and slot is not source:
            self._copy(source, slot, reuse)
        self._own(slot, sequence, reuse)
        return True

    def _restore(self, sequence: Sequence, parked: Parked, rows: int) -> bool:
        """Give a sequence a slot with the first rows of a parked one. False if there is no room yet."""
        resting = [slot for slot in self._slots if slot.owner is None]
        if not resting:
            return False
        self._parking.take(parked)
        slot = min(resting, key=lambda s: (s.length > 0, s.used))
        self._clear(slot)
        fits = self._reserve(max(parked.length, sequence.length), keep=None)
        if fits:
            self._actions.append(Restore(parked.key, slot.number))
            self._extend(slot, parked.length)
            slot.length = parked.length
            self._own(slot, sequence, rows)
            self._truncate(slot, rows)
        if fits and rows * 2 >= parked.length:
            self._actions.append(Drop(parked.key))
        else:
            self._drop(self._parking.put_back(parked))
        return fits

    def _own(self, slot: _Slot, sequence: Sequence, reuse: int) -> None:
        slot.owner, slot.adapter = sequence, sequence.adapter
        sequence.slot = slot.number
        sequence.computed = reuse
        sequence.cached = min(reuse, sequence.prompt)

    def _best_source(self, sequence: Sequence) -> tuple[_Slot | None, int]:
        best: tuple[_Slot | None, int] = (None, 0)
        for slot in self._slots:
            if slot.length and slot.adapter == sequence.adapter:
                reuse = self._reusable(sequence, slot)
                if reuse > best[1]:
                    best = (slot, reuse)
        return best

    def _reusable(self, sequence: Sequence, slot: _Slot) -> int:
        """How many rows of a slot are the very rows that this sequence would compute itself."""
        held = slot.owner.tokens if slot.owner else slot.tokens
        rows = self._common(sequence, held, slot.length, slot.blocked)
        if self.limits.can_truncate:
            return rows
        return rows if rows == slot.length and slot.owner is None else 0

    def _common(self, sequence: Sequence, held: Tokens, length: int, blocked: int) -> int:
        """Rows in common with the first `length` of `held`, of which `blocked` went in blocks. The last is computed."""
        span = min(length, sequence.length - 1)
        differing = np.flatnonzero(held[:span] != sequence.tokens[:span])
        common = int(differing[0]) if differing.size else span
        if not self.limits.block:
            return common
        # Exact: a row counts only if it went the way (in blocks, or small) that it would go in this sequence.
        boundary = self._boundary(sequence)
        if blocked == boundary <= common:
            return common
        return min(common, blocked, boundary) // self.limits.block * self.limits.block

    def _reserve(self, rows: int, *, keep: _Slot | None) -> bool:
        """See to it that `rows` more and a little room for answers fit, giving up slots at rest if need be."""
        margin = PREFILL_STEP * (1 + len(self.running))
        while self.limits.cells - self.cells_used() < rows + margin:
            if not self._make_room(keep=keep):
                # With nothing else running the margin is no reason to wait: what fits is all there is.
                return not self.running and self.limits.cells - self.cells_used() >= rows
        return True

    def _make_room(self, *, keep: _Slot | None) -> bool:
        resting = [s for s in self._slots if s.owner is None and s.length and s is not keep]
        if not resting:
            return False
        self._clear(min(resting, key=lambda s: s.used))
        return True

    def _clear(self, slot: _Slot) -> None:
        """Empty a slot at rest; its rows are parked if that is worth it."""
        if not self._parking.takes(slot.length):
            self._truncate(slot, 0)
            return
        parked, gone = self._parking.park(slot.tokens, slot.adapter)
        self._drop(gone)
        self._actions.append(Park(slot.number, parked.key))
        self._empty(slot)

    def _park_all(self) -> None:
        for slot in self._slots:
            if slot.owner is None and self._parking.takes(slot.length):
                self._clear(slot)

    def _drop(self, gone: list[Parked]) -> None:
        self._actions += [Drop(parked.key) for parked in gone]

    def _set_back(self, sequence: Sequence) -> None:
        slot = self._slots[sequence.slot]
        slot.owner, slot.tokens = None, sequence.tokens[: slot.length].copy()
        self._clear(slot)
        self.running.remove(sequence)
        sequence.slot, sequence.computed = -1, 0
        self.waiting.appendleft(sequence)

    # Choosing rows

    def _boundary(self, sequence: Sequence) -> int:
        """Rows before this are computed in blocks. The last row of a prompt never is: its logits are wanted."""
        block = self.limits.block
        return (sequence.prompt - 1) // block * block if block else 0

    def _choose(self) -> list[Run]:
        ready = [s for s in self.running if s.length > s.computed]
        if not ready:
            return []
        adapter = ready[0].adapter
        if any(s.adapter != adapter for s in ready):
            # One adapter per batch; the one that has waited longest.
            adapter = min(ready, key=lambda s: s.served).adapter
            ready = [s for s in ready if s.adapter == adapter]
        return self._choose_exact(ready) if self.limits.block else self._choose_fast(ready)

    def _choose_fast(self, ready: list[Sequence]) -> list[Run]:
        decoding = [s for s in ready if s.length - s.computed == 1][: self.limits.batch]
        runs = [Run(s, s.computed, s.length) for s in decoding]
        if len(decoding) == len(ready):
            return runs
        prefilling = sorted((s for s in ready if s.pending > 1), key=lambda s: s.arrived)
        room = self.limits.batch - len(runs)
        budget = min(room, self._chunk(PREFILL_STEP)) if runs else room
        return runs + self._share(prefilling, budget, step=1)

    def _choose_exact(self, ready: list[Sequence]) -> list[Run]:
        in_blocks = sorted((s for s in ready if s.computed < self._boundary(s)), key=lambda s: s.arrived)
        small = sorted((s for s in ready if s.computed >= self._boundary(s)), key=lambda s: s.served)
        if in_blocks and not (small and small[0].served <= self._last_chunk):
            self._last_chunk = self._step
            block = self.limits.block
            budget = self._chunk(block) if small else self.limits.batch // block * block
            return self._share(in_blocks, budget, step=block)
        runs: list[Run] = []
        room = self.limits.small
        for sequence in small:
            rows = min(room, sequence.pending)
            if rows:
                runs.append(Run(sequence, sequence.computed, sequence.computed + rows))
                room -= rows
        return runs

    def _chunk(self, step: int) -> int:
        """Rows of prompt that take about `step_target_s`, by the speed seen so far."""
        rows = int(self._rows_per_s * self.limits.step_target_s) // step * step
        return min(max(rows, step, 2 * PREFILL_STEP if not self._rows_per_s else 0), self.limits.batch // step * step)

    def _share(self, prefilling: list[Sequence], budget: int, *, step: int) -> list[Run]:
        """Divide a chunk: half for the oldest, the rest for the one that is done soonest, what is left in order."""
        if not prefilling or budget < step:
            return []
        oldest = prefilling[0]
        shortest = min(prefilling, key=lambda s: (self._left(s), s.arrived))
        given = {s.id: 0 for s in prefilling}
        order = [
            (oldest, max(step, budget // 2 // step * step)),
            (shortest, budget),
            *((s, budget) for s in prefilling),
        ]
        for sequence, at_most in order:
            rows = min(at_most, budget, self._left(sequence) - given[sequence.id]) // step * step
            given[sequence.id] += rows
            budget -= rows
        return [Run(s, s.computed, s.computed + given[s.id]) for s in prefilling if given[s.id]]

    def _left(self, sequence: Sequence) -> int:
        return (self._boundary(sequence) if self.limits.block else sequence.length) - sequence.computed

    def _missing(self, runs: list[Run]) -> int:
        return self.cells_used() + sum(run.stop - run.start for run in runs) - self.limits.cells

    # Bookkeeping of cells

    def _truncate(self, slot: _Slot, length: int) -> None:
        if slot.length > length:
            self._actions.append(Truncate(slot.number, length))
        kept: list[tuple[int, int]] = []
        left = length
        for span, rows in slot.spans:
            if left > 0:
                kept.append((span, min(rows, left)))
                left -= rows
        if kept != slot.spans:
            slot.spans, slot.tip = kept, -1
            self._recount()
        slot.length = length
        slot.blocked = min(slot.blocked, length)
        slot.tokens = slot.tokens[:length]

    def _empty(self, slot: _Slot) -> None:
        slot.spans, slot.tip, slot.length, slot.blocked = [], -1, 0, 0
        slot.tokens = slot.tokens[:0]
        self._recount()

    def _copy(self, source: _Slot, target: _Slot, length: int) -> None:
        self._actions.append(Copy(source.number, target.number, length))
        left = length
        for span, rows in source.spans:
            if left > 0:
                target.spans.append((span, min(rows, left)))
                left -= rows
        target.length, target.tip = length, -1
        target.blocked = min(source.blocked, length)

    def _extend(self, slot: _Slot, rows: int) -> None:
        if slot.tip < 0:
            slot.tip = next(self._spans)
            slot.spans.append((slot.tip, 0))
        span, so_far = slot.spans[-1]
        slot.spans[-1] = (span, so_far + rows)
        self._used += rows

    def _recount(self) -> None:
        longest: dict[int, int] = {}
        for slot in self._slots:
            for span, rows in slot.spans:
                longest[span] = max(longest.get(span, 0), rows)
        self._used = sum(longest.values())
