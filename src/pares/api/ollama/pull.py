"""POST /api/pull, with its progress in Ollama's words."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response

from pares.api.calls import Call, reply
from pares.api.failures import OLLAMA, encode
from pares.api.ollama.inputs import model_name
from pares.api.ollama.schemas import PullBody
from pares.api.streams import NDJSON, Stream, closing
from pares.errors import Conflict
from pares.swarm.pulls import ENDS, Pull


async def pull(call: Call[PullBody]) -> Response | Stream:
    """Download a model. A client that leaves pauses the download; asking again goes on with it."""
    lines = _lines(call, model_name(call.body))
    if call.body.stream is not False:
        return Stream(lines, NDJSON, OLLAMA)
    async with aclosing(lines):
        async for _ in lines:
            pass
    return reply({"status": "success"})


async def _lines(call: Call[PullBody], source: str) -> AsyncGenerator[bytes, None]:
    pulls = call.services.pulls
    under_way = {each.id for each in pulls.list() if each.state not in ENDS}
    pull = await pulls.start(source)
    told: dict[str, object] = {}
    over = pull.id in under_way  # somebody else's: not ours to pause
    try:
        async with closing(pulls.watch(pull.id)) as changes:
            async for pull in changes:
                over = over or pull.state in ENDS
                line = _line(pull)
                if line != told:
                    yield encode(line) + b"\n"
                    told = line
        over = True
        pull = await pulls.wait(pull.id)  # raises the error of a download that failed
        if pull.state == "paused":
            raise Conflict(f"The download of {pull.name} was paused.", hint="Ask again to go on with it.")
        yield b'{"status":"success"}\n'
    finally:
        if not over:
            await pulls.pause(pull.id)


def _line(pull: Pull) -> dict[str, object]:
    match pull.state:
        case "fetching":
            progress = {"digest": pull.identity, "total": pull.total, "completed": pull.bytes}
            return {"status": f"pulling {pull.name}", **progress}
        case "verifying" | "done":
            return {"status": "verifying sha256 digest"}
    return {"status": "pulling manifest"}
