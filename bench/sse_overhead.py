"""What the HTTP layer costs per streamed token: scripted tokens through the real application and uvicorn.

    python bench/sse_overhead.py [--streams 8] [--tokens 2000]

Prints microseconds of one core per chunk, server and client apart from each other (the client runs in its own process),
next to a bare ASGI application that writes the same bytes: the difference is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import uvloop
from starlette.types import Receive, Scope, Send

from door import listening, open_door
from pares.inference.generation import Sampling, Step, TokenId, Usage
from scripted import ScriptedModel
from tiny import tiny_llama

CLIENT = """
import socket, sys, threading
host, port, body, streams = "127.0.0.1", int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
def one():
    with socket.create_connection((host, port)) as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n"
                  b"Content-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
        while s.recv(1 << 16):
            pass
threads = [threading.Thread(target=one) for _ in range(streams)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


class Fountain(ScriptedModel):
    """Tokens one at a time, each after a turn of the event loop, as they come from a worker."""

    count = 0

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int
    ) -> AsyncGenerator[Step, None]:
        step = Step(TokenId(ord("x")))
        for _ in range(self.count):
            await asyncio.sleep(0)
            yield step
        yield Step(finish="end", usage=Usage(len(prompt), 0, self.count))


def bare(count: int) -> object:
    """The least that could write as many chunks of the same size."""
    chunk = b"data: " + b"x" * 200 + b"\n\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(count):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def measure(url: str, streams: int) -> tuple[float, float]:
    """Seconds of this process and of the clock while a client reads all streams."""
    body = '{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    wall, cpu = time.perf_counter(), time.process_time()
    command = [sys.executable, "-c", CLIENT, url.rsplit(":", 1)[1], body, str(streams)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    await process.wait()
    return time.process_time() - cpu, time.perf_counter() - wall


async def main(streams: int, tokens: int, rounds: int) -> None:
    """Print one line per kind of server."""
    with tempfile.TemporaryDirectory() as folder:
        model = Fountain()
        model.count = tokens
        path = tiny_llama(Path(folder) / "tiny.gguf", layers=1, embedding=32, ffn=64)
        async with open_door(Path(folder), {path: model}) as door, listening(bare(tokens)) as bare_url:
            for name, url in (("bare", bare_url), ("pares", door.url)):
                times = [await measure(url, streams) for _ in range(rounds)]
                cpu, wall = (statistics.median(each) for each in zip(*times, strict=True))
                cost, rate = cpu / (streams * tokens) * 1e6, streams * tokens / wall
                print(f"{name:6} {cost:6.1f} us of CPU per chunk, {rate:8.0f} chunks/s over {streams} streams")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.streams, arguments.tokens, arguments.rounds))
