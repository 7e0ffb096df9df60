"""A node and plain clients of it, for the benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROMPT = "Once upon a time, in a small village by the sea, there lived"


@dataclass
class Address:
    """Where a node or another server answers, and what it calls the model."""

    port: int
    model: str
    token: str = ""
    pid: int = 0
    url: str = ""


@dataclass
class Stream:
    """When each piece of one answer arrived (perf_counter seconds)."""

    asked: float
    arrivals: list[float] = field(default_factory=list)
    text: str = ""

    @property
    def first_s(self) -> float:
        return self.arrivals[0] - self.asked

    @property
    def tokens_per_s(self) -> float:
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])


@contextmanager
def node(home: Path, model: Path, **settings: object) -> Iterator[Address]:
    """A real node in a process of its own, with one model imported and loaded."""
    environment = os.environ | {"PARES_HOME": str(home), "PARES_THREADS": "1"}
    environment |= {f"PARES_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "pares", "up", "--port", "0", "--no-open"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = wait_for_node(home, process)
        asyncio.run(post(address, "/pares/v1/models/import", {"path": str(model), "name": "bench"}))
        asyncio.run(post(address, "/pares/v1/models/bench/load", {"keep_alive_s": -1}))
        yield address
    finally:
        process.terminate()
        process.wait(20)


def wait_for_node(home: Path, process: subprocess.Popen[bytes], deadline_s: float = 30) -> Address:
    """Where the node is, as soon as it has written it down."""
    until = time.perf_counter() + deadline_s
    while time.perf_counter() < until and process.poll() is None:
        try:
            told = json.loads((home / "node.json").read_text())
            return Address(told["port"], "bench", told["token"], told["pid"], told["url"])
        except FileNotFoundError:
            os.sched_yield()
    raise RuntimeError("the node did not start")


@asynccontextmanager
async def request(address: Address, path: str, body: object) -> AsyncIterator[asyncio.StreamReader]:
    """One POST over a plain socket; the reader stands behind the headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=1 << 24)
    try:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost:{address.port}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n"
        if address.token:
            head += f"Authorization: Bearer {address.token}\r\n"
        writer.write(head.encode() + b"\r\n" + content)
        headers = await reader.readuntil(b"\r\n\r\n")
        if b" 20" not in headers.split(b"\r\n")[0]:
            raise RuntimeError((headers + await reader.read()).decode())
        yield reader
    finally:
        writer.close()


async def post(address: Address, path: str, body: object) -> None:
    """A POST whose answer is of no interest."""
    async with request(address, path, body) as reader:
        await reader.read()


async def complete(address: Address, prompt: str, tokens: int, *, started: asyncio.Event | None = None) -> Stream:
    """A streamed greedy completion."""
    body = {"model": address.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    stream = Stream(time.perf_counter())
    async with request(address, "/v1/completions", body) as reader:
        async for line in reader:
            if line.startswith(b"data: {"):
                piece = json.loads(line[6:])
                text = "".join(choice.get("text", "") for choice in piece.get("choices", []))
                if text:
                    stream.arrivals.append(time.perf_counter())
                    stream.text += text
                    if started and len(stream.arrivals) == 8:
                        started.set()
    return stream


async def complete_many(address: Address, streams: int, tokens: int) -> float:
    """Tokens per second of several streams together, while all of them are decoding."""
    # Different first words: the same prompt would be read once for all.
    answers = await asyncio.gather(*(complete(address, f"{n}. {PROMPT}", tokens) for n in range(streams)))
    begin = max(stream.arrivals[0] for stream in answers)
    end = min(stream.arrivals[-1] for stream in answers)
    inside = sum(1 for stream in answers for at in stream.arrivals if begin < at <= end)
    return inside / (end - begin)


def bare(model: Path, **options: object) -> dict[str, float]:
    """What `bare.py` measures, in a process of its own."""
    command = [sys.executable, str(ROOT / "bench" / "bare.py"), str(model)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def models() -> dict[str, Path]:
    """Real weights, as the tests fetch them."""
    folder = Path(os.environ.get("PARES_TEST_MODELS", ROOT / ".test-models"))
    return {"smollm2": folder / "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma": folder / "gemma-3-270m-q4_k_m.gguf"}
