"""The process that reads weights: real models through it, and what happens when it dies, hangs or is not wanted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raw_gguf as raw
from pares.errors import BrokenModelFile, NotFound, NotSupported, WorkerDied
from pares.inference.gguf import read_header
from pares.swarm import weights
from pares.swarm.weights import difference, statistics
from tiny import tiny_llama

RETYPED, SCALED = 7, 11


@pytest.fixture(scope="module")
def variant(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with two layers changed: the matrices of 7 as Q8_0 instead of Q4_1, the norms of 11 times 1.5."""
    path = tmp_path_factory.mktemp("variant") / "variant.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    with smollm2.open("rb") as file:
        for tensor in read_header(smollm2).tensors:
            file.seek(tensor.offset)
            kind = gguf.GGMLQuantizationType[tensor.type]
            rows = np.frombuffer(file.read(tensor.nbytes), np.uint8).reshape(*reversed(tensor.dims[1:]), -1)
            if tensor.name.startswith(f"blk.{RETYPED}.") and tensor.type == "Q4_1":
                values = gguf.quants.dequantize(rows, kind)
                kind = gguf.GGMLQuantizationType.Q8_0
                rows = gguf.quants.quantize(values, kind)
            elif tensor.name.startswith(f"blk.{SCALED}.") and tensor.type == "F32":
                rows = (rows.view(np.float32) * np.float32(1.5)).view(np.uint8)
            writer.add_tensor(tensor.name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A model of 28 GB that takes no disk: it is read for many seconds."""
    return tiny_llama(tmp_path / "huge.gguf", layers=32, embedding=4096, ffn=14336, dtype="F16", heads=32, sparse=True)


async def readers() -> list[psutil.Process]:
    """The processes that read weights for us now."""
    children = await asyncio.to_thread(psutil.Process().children)
    return [child for child in children if "pares.swarm.weights_reader" in child.cmdline()]


class Watched:
    """A difference under way: `reader` once it has been heard. `on_progress` is called each time before."""

    def __init__(self, path: Path, on_progress: Callable[[], None] = lambda: None) -> None:
        self.heard = asyncio.Event()
        self.on_progress = on_progress
        self.task = asyncio.create_task(difference(path, path, self.progress))

    def progress(self, _: float) -> None:
        self.on_progress()
        self.heard.set()

    async def reader(self) -> psutil.Process:
        async with asyncio.timeout(20):
            await self.heard.wait()
        (process,) = await readers()
        return process


async def test_two_states_of_smollm2_differ_where_they_were_changed(smollm2: Path, variant: Path) -> None:
    told: list[float] = []
    found = await difference(smollm2, variant, told.append)
    assert told == sorted(told)
    changed = {tensor.name: tensor for tensor in found.tensors if tensor.state != "equal"}
    assert (len(found.tensors), found.equal, found.changed) == (272, 263, 9)
    assert {(t.layer, t.state) for t in changed.values()} == {(RETYPED, "retyped"), (SCALED, "changed")}
    assert changed[f"blk.{SCALED}.attn_norm.weight"].relative == pytest.approx(0.5)
    for layer in found.layers:
        assert layer.relative is not None
        assert (layer.relative > 0) == (layer.layer in (RETYPED, SCALED))
        assert layer.changed == {RETYPED: 7, SCALED: 2}.get(layer.layer, 0)
    assert not await readers()


async def test_statistics_of_a_real_tensor(smollm2: Path) -> None:
    found = await statistics(smollm2, "blk.0.ffn_down.weight")
    assert (found.type, found.shape, found.sampled, found.odd) == ("Q4_1", (1536, 576), weights.SAMPLE, 0)
    assert found.least < found.mean < found.most
    assert sum(found.histogram) == found.sampled
    with pytest.raises(NotFound, match=r"blk\.0\.ffn_down\.weight"):
        await statistics(smollm2, "blk.0.ffn_dwn.weight")


async def test_errors_of_the_reader_arrive_with_their_names(tmp_path: Path, smollm2: Path) -> None:
    integers = tmp_path / "integers.gguf"
    integers.write_bytes(raw.whole(raw.table([], [raw.tensor("w", (8,), 26, 0)]), 32))
    with pytest.raises(NotSupported, match="I32"):
        await statistics(integers, "w")
    with pytest.raises(BrokenModelFile, match="nowhere"):
        await difference(smollm2, tmp_path / "nowhere.gguf")


async def test_whoever_stops_waiting_stops_the_reader(huge: Path) -> None:
    watched = Watched(huge)
    reader = await watched.reader()
    assert reader.memory_info().rss < 200 << 20
    watched.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watched.task
    assert not reader.is_running()


async def test_a_reader_that_crashes_takes_nothing_along(huge: Path, smollm2: Path) -> None:
    watched = Watched(huge)
    (await watched.reader()).send_signal(signal.SIGSEGV)
    with pytest.raises(WorkerDied, match="Segmentation fault"):
        await watched.task
    assert (await statistics(smollm2, "output_norm.weight")).sampled == 576


async def test_a_reader_that_hangs_is_stopped(huge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(huge, lambda: monkeypatch.setattr(weights, "SILENCE_S", 2.0))
    reader = await watched.reader()
    reader.suspend()
    with pytest.raises(WorkerDied, match="stood still for 2 s"):
        await watched.task
    assert not reader.is_running()


SOUND = raw.sample()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, len(SOUND) - 8), st.binary(min_size=1, max_size=8))
def test_mutated_files_never_end_the_reader(smollm2: Path, variant: Path, at: int, piece: bytes) -> None:
    path = variant.with_name("mutated.gguf")
    path.write_bytes(SOUND[:at] + piece + SOUND[at + len(piece) :])

    async def look() -> None:
        try:
            await statistics(path, "token_embd.weight")
            await difference(path, path)
        except (BrokenModelFile, NotFound, NotSupported):
            pass

    asyncio.run(look())
