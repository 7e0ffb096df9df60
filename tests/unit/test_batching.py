"""The schedule against a model of the KV cache: every row is computed once, in order, in the shape it should have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pares.inference.batching import (
    PREFILL_STEP,
    WORTH_WAITING,
    Batch,
    Copy,
    Drop,
    Limits,
    Park,
    Restore,
    Schedule,
    Sequence,
    Truncate,
)

FAST = Limits(cells=512, context=256, slots=6, running=3, batch=64)
EXACT = Limits(cells=512, context=256, slots=6, running=3, batch=64, block=8, small=3)
RECURRENT = Limits(cells=512, context=256, slots=6, running=3, batch=64, can_truncate=False)
PARKING = Limits(cells=512, context=256, slots=6, running=3, batch=64, parked=300)
RECURRENT_PARKING = Limits(
    cells=512, context=256, slots=6, running=3, batch=64, can_truncate=False, parked=600, parked_each=100
)


class Cache:
    """What llama.cpp would hold: the (token, way) of every row of every slot, and which cells those are."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.slots: list[list[tuple[int, str, int]]] = [[] for _ in range(limits.slots)]
        self.parked: dict[int, list[tuple[int, str, int]]] = {}
        self._cells = 0

    def act(self, batch: Batch) -> None:
        for action in batch.actions:
            match action:
                case Truncate(slot, length):
                    assert 0 <= length < len(self.slots[slot])
                    assert self.limits.can_truncate or length == 0
                    del self.slots[slot][length:]
                case Copy(source, target, length):
                    assert not self.slots[target]
                    assert 0 < length <= len(self.slots[source])
                    assert self.limits.can_truncate or length == len(self.slots[source])
                    self.slots[target] = self.slots[source][:length]
                case Park(slot, key):
                    assert key not in self.parked
                    self.parked[key], self.slots[slot] = self.slots[slot], []
                    assert self.parked[key]
                case Restore(key, slot):
                    assert not self.slots[slot]
                    self._cells += len(self.parked[key])
                    cells = range(self._cells - len(self.parked[key]), self._cells)
                    self.slots[slot] = [(*row[:2], -cell) for row, cell in zip(self.parked[key], cells, strict=True)]
                case Drop(key):
                    del self.parked[key]
        weights = [len(rows) + self.limits.parked_each for rows in self.parked.values()]
        assert sum(weights) <= self.limits.parked
        assert self.used() <= self.limits.cells

    def compute(self, batch: Batch) -> None:
        assert 0 < batch.rows <= self.limits.batch
        ways = set()
        for run in batch.runs:
            sequence = run.sequence
            assert run.start == sequence.computed == len(self.slots[sequence.slot])
            assert run.stop <= sequence.length
            for position in range(run.start, run.stop):
                ways.add(self.way(sequence, position))
                self._cells += 1
                self.slots[sequence.slot].append(
                    (int(sequence.tokens[position]), self.way(sequence, position), self._cells)
                )
            if self.limits.block and self.way(sequence, run.start) == "block":
                assert (run.stop - run.start) % self.limits.block == 0
        if self.limits.block:
            assert len(ways) == 1, "prompt blocks and small rows in one batch"
            assert ways == {"block"} or batch.rows <= self.limits.small
        assert self.used() <= self.limits.cells

    def used(self) -> int:
        return len({cell for slot in self.slots for _, _, cell in slot})

    def way(self, sequence: Sequence, position: int) -> str:
        """How the exact profile has to compute a row, if it computes this sequence alone and from the start."""
        block = self.limits.block
        return "block" if block and position < (sequence.prompt - 1) // block * block else "small"

    def check(self, sequence: Sequence) -> None:
        """All rows below the last are the sequence's own, computed the way they would have been alone."""
        rows = self.slots[sequence.slot][: sequence.computed]
        expected = [(int(sequence.tokens[p]), self.way(sequence, p)) for p in range(sequence.computed)]
        assert [(token, way) for token, way, _ in rows] == expected


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=120)
arrivals = st.lists(
    st.tuples(st.integers(0, 30), prompts, st.integers(0, 40), st.sampled_from(["", "a"]), st.booleans()),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    "limits",
    [FAST, EXACT, RECURRENT, PARKING, RECURRENT_PARKING],
    ids=["fast", "exact", "recurrent", "parking", "recurrent, parking"],
)
@settings(max_examples=150, deadline=None)
@given(arrivals=arrivals)
def test_every_row_is_computed_once_in_order_and_within_the_limits(
    limits: Limits, arrivals: list[tuple[int, list[int], int, str, bool]]
) -> None:
    schedule, cache = Schedule(limits), Cache(limits)
    pending = sorted(enumerate(arrivals), key=lambda item: item[1][0])
    left: dict[int, int] = {}
    cancelled = {number for number, arrival in pending if arrival[4]}
    sequences: dict[int, Sequence] = {}
    finished: set[int] = set()
    for step in range(5000):
        while pending and pending[0][1][0] <= step:
            number, (_, prompt, answer, adapter, _) = pending.pop(0)
            sequence = Sequence.of(number, np.array(prompt, np.int32), room=answer + 1, adapter=adapter)
            sequences[number], left[number] = sequence, answer
            schedule.add(sequence)
        batch = schedule.plan()
        if batch is None:
            if not pending and not schedule.waiting:
                break
            continue
        cache.act(batch)
        cache.compute(batch)
        schedule.computed(batch, 0.01)
        assert schedule.cells_used() >= cache.used()
        assert len({run.sequence.adapter for run in batch.runs}) == 1
        for run in batch.runs:
            cache.check(run.sequence)
            number = run.sequence.id
            if not run.wanted:
                continue
            if left[number] == 0 or (number in cancelled and left[number] < 5):
                schedule.end(run.sequence)
                finished.add(number)
            else:
                left[number] -= 1
                run.sequence.append((number + left[number]) % 3)
    assert finished == set(sequences)
    assert len(sequences) == len(arrivals)
    assert not schedule.running


def decode(schedule: Schedule, cache: Cache) -> list[Sequence]:
    """One step in which every wanted row gets a token; the sequences that got one."""
    batch = schedule.plan()
    assert batch is not None
    cache.act(batch)
    cache.compute(batch)
    schedule.computed(batch, 0.01)
    got = [run.sequence for run in batch.runs if run.wanted]
    for sequence in got:
        sequence.append(1)
    return got


@pytest.mark.parametrize("limits", [FAST, EXACT], ids=["fast", "exact"])
def test_a_running_answer_goes_on_while_a_long_prompt_comes_in(limits: Limits) -> None:
    schedule, cache = Schedule(limits), Cache(limits)
    running = Sequence.of(1, np.arange(9, dtype=np.int32), room=100)
    schedule.add(running)
    while not decode(schedule, cache):
        pass
    long = Sequence.of(2, np.arange(200, dtype=np.int32) % 7, room=10)
    schedule.add(long)
    steps_without = 0
    while long.computed < 200:
        steps_without = 0 if running in decode(schedule, cache) else steps_without + 1
        assert steps_without <= 1, "more than one chunk of somebody's prompt between two tokens"


def finish(schedule: Schedule, cache: Cache, sequence: Sequence) -> None:
    schedule.add(sequence)
    while sequence not in decode(schedule, cache):
        pass
    schedule.end(sequence)


def test_a_second_turn_computes_only_what_is_new() -> None:
    schedule, cache = Schedule(FAST), Cache(FAST)
    first = np.arange(100, dtype=np.int32)
    finish(schedule, cache, Sequence.of(1, first, room=1))
    second = Sequence.of(2, np.concatenate([first, np.arange(20, dtype=np.int32)]), room=1)
    finish(schedule, cache, second)
    assert second.cached == 100


def test_a_shared_system_prompt_is_computed_once_for_requests_that_arrive_together() -> None:
    schedule, cache = Schedule(FAST), Cache(FAST)
    prompt = np.arange(150, dtype=np.int32)
    together = [Sequence.of(n, np.append(prompt, n).astype(np.int32), room=3) for n in range(3)]
    for sequence in together:
        schedule.add(sequence)
    while any(s.length == s.prompt for s in together):
        decode(schedule, cache)
    assert together[0].cached == 0
    assert all(s.cached >= 150 - WORTH_WAITING for s in together[1:])
    assert cache.used() < 150 + 2 * WORTH_WAITING


def test_exact_reuses_an_answer_only_where_it_was_computed_the_same_way() -> None:
    schedule, cache = Schedule(EXACT), Cache(EXACT)
    first = Sequence.of(1, np.arange(20, dtype=np.int32), room=30)
    schedule.add(first)
    while first.length < 45:
        decode(schedule, cache)
    schedule.end(first)
    history = np.concatenate([first.tokens[:45], np.arange(10, dtype=np.int32)]).astype(np.int32)
    second = Sequence.of(2, history, room=1)
    finish(schedule, cache, second)
    assert second.cached == 16, "two blocks of the first prompt; its answer went one row at a time"


def test_a_cancelled_sequence_leaves_at_once_and_its_rows_stay_for_the_next() -> None:
    schedule, cache = Schedule(FAST), Cache(FAST)
    sequence = Sequence.of(1, np.arange(100, dtype=np.int32), room=50)
    schedule.add(sequence)
    decode(schedule, cache)
    schedule.end(sequence)
    assert schedule.plan() is None
    again = Sequence.of(2, np.arange(100, dtype=np.int32), room=1)
    finish(schedule, cache, again)
    assert again.cached >= PREFILL_STEP


def test_forgotten_rows_are_computed_again() -> None:
    schedule, cache = Schedule(FAST), Cache(FAST)
    sequence = Sequence.of(1, np.arange(40, dtype=np.int32), room=5)
    schedule.add(sequence)
    decode(schedule, cache)
    cache.slots[sequence.slot].clear()
    schedule.forget(sequence.slot)
    assert sequence in decode(schedule, cache)
    assert len(cache.slots[sequence.slot]) == 41


def test_a_conversation_at_rest_is_parked_while_another_runs_and_goes_on_without_being_read_again() -> None:
    schedule, cache = Schedule(PARKING), Cache(PARKING)
    first = np.arange(100, dtype=np.int32)
    finish(schedule, cache, Sequence.of(1, first, room=1))
    assert cache.used() == 100, "nobody else is here: it stays"
    finish(schedule, cache, Sequence.of(2, np.arange(200, 260, dtype=np.int32), room=1))
    assert cache.used() == 60, "only the second one's cells are walked over"
    again = Sequence.of(3, np.concatenate([first, np.arange(20, dtype=np.int32)]), room=1)
    finish(schedule, cache, again)
    assert again.cached == 100
    assert sorted(map(len, cache.parked.values())) == [60], "what was restored to be gone on with is not kept twice"


def test_a_branch_of_a_long_parked_conversation_leaves_it_parked() -> None:
    schedule, cache = Schedule(PARKING), Cache(PARKING)
    first = np.arange(200, dtype=np.int32)
    finish(schedule, cache, Sequence.of(1, first, room=1))
    finish(schedule, cache, Sequence.of(2, np.arange(300, 310, dtype=np.int32), room=1))
    branch = Sequence.of(3, np.concatenate([first[:60], np.arange(500, 520, dtype=np.int32)]), room=1)
    finish(schedule, cache, branch)
    assert branch.cached == 60
    again = Sequence.of(4, first, room=1)
    finish(schedule, cache, again)
    assert again.cached == 199


def test_the_oldest_parked_rows_go_first_and_nothing_too_large_is_parked() -> None:
    schedule, cache = Schedule(PARKING), Cache(PARKING)
    for number in range(5):
        finish(schedule, cache, Sequence.of(number, np.full(120, number, np.int32), room=1))
    assert {rows[0][0] for rows in cache.parked.values()} == {2, 3}
    latest = Sequence.of(5, np.full(130, 2, np.int32), room=1)
    finish(schedule, cache, latest)
    assert latest.cached == 120
    oldest = Sequence.of(6, np.full(130, 0, np.int32), room=1)
    finish(schedule, cache, oldest)
    assert oldest.cached == 0


def test_an_answer_set_back_for_want_of_cells_is_not_read_again() -> None:
    limits = Limits(cells=512, context=400, slots=6, running=3, batch=64, parked=600)
    schedule, cache = Schedule(limits), Cache(limits)
    both = [Sequence.of(n, np.full(100 + n, n, np.int32), room=290) for n in range(2)]
    for sequence in both:
        schedule.add(sequence)
    computed = 0
    while schedule.running or schedule.waiting:
        batch = schedule.plan()
        assert batch is not None
        cache.act(batch)
        cache.compute(batch)
        computed += batch.rows
        schedule.computed(batch, 0.01)
        for run in batch.runs:
            if run.wanted and run.sequence.length < run.sequence.prompt + 290:
                run.sequence.append(1)
            elif run.wanted:
                schedule.end(run.sequence)
    assert computed == sum(sequence.length for sequence in both)
