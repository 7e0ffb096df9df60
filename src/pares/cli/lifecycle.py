"""The node itself: up, down, status."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import NoneType
from typing import Annotated

import msgspec
import typer

from pares import __version__
from pares.api.schemas import Link, NodeStatus
from pares.cli.client import Client, error_in
from pares.cli.connect import configure, lives, running, serve, terminal
from pares.cli.figures import duration, facts, size
from pares.cli.terminal import Terminal
from pares.config import Config, has_display
from pares.errors import AlreadyRunning, NodeUnreachable

READY_S = 60.0
STOP_S = 30.0
LOOK_S = 0.05
KEY_HINT = " Other machines need a key: `pares key new NAME`."

Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port of the API and the page; 0: a free one.")
]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Start it in the background and return.")]
Lan = Annotated[bool, typer.Option("--lan", help="Let other machines of your network in; they need a key.")]
RequireKey = Annotated[bool, typer.Option("--require-key", help="Demand a key of programs on this machine too.")]
AsRelay = Annotated[
    bool, typer.Option("--relay", help="Relay for the members of your circles; needs an address they can reach.")
]
OllamaPort = Annotated[
    int | None,
    typer.Option("--ollama-port", min=0, max=65535, help="Listen here too, for tools that look for Ollama (11434)."),
]


class Up(msgspec.Struct, frozen=True):
    """What `up` tells."""

    pid: int
    url: str
    page: str
    """Opens the page, once."""
    home: str
    version: str = __version__
    ready: bool = True
    already_running: bool = False


def up(
    ctx: typer.Context,
    port: Port = None,
    no_open: NoOpen = False,
    detach: Detach = False,
    lan: Lan = False,
    require_key: RequireKey = False,
    ollama_port: OllamaPort = None,
    relay: AsRelay = False,
) -> None:
    """Start the node, with its page and API.

    Just `pares` does the same; `serve` and `start` are other names of it.
    """
    import asyncio

    out = terminal(ctx)
    flags = {
        "server.port": port,
        "server.ollama_port": ollama_port,
        "server.host": "0.0.0.0" if lan else None,
        "server.require_key": True if require_key else None,
        "node.open_browser": False if no_open else None,
        "relay.enabled": True if relay else None,
    }
    config = configure(out, flags)

    def announce(page: str) -> None:
        out.result(_up(os.getpid(), page, config), f"Pares is up: {page}")
        out.note(f"Ctrl-C stops it.{KEY_HINT if lan else ''}")
        _open(page, config, out)

    found = asyncio.run(_already(config))
    if found is not None:
        out.result(found, f"Pares is running already: {found.page}")
        if port is not None or ollama_port is not None or lan or require_key or relay:
            out.note("It stays as it is. To start it otherwise: `pares down` first.")
        _open(found.page, config, out)
    elif detach:
        arguments = [
            *(["--offline"] if config.node.offline else []),
            *("--home", str(config.home), "--json", "up", "--no-open"),
            *(["--port", str(port)] if port is not None else []),
            *(["--ollama-port", str(ollama_port)] if ollama_port is not None else []),
            *(["--lan"] if lan else []),
            *(["--require-key"] if require_key else []),
            *(["--relay"] if relay else []),
        ]
        started = _launch(config, arguments)
        out.result(started, f"Pares is up (process {started.pid}): {started.page}")
        out.note(f"`pares down` stops it.{KEY_HINT if lan else ''}")
    else:
        raise typer.Exit(serve(config, announce))


def down(ctx: typer.Context) -> None:
    """Stop the node. Downloads go on when it starts again."""
    import asyncio

    out = terminal(ctx)
    config = configure(out)

    async def stop() -> bool:
        async with running(config) as found:
            if found is None:
                return False
            client, told = found
            await client.post("/shutdown", NoneType)
        try:
            async with asyncio.timeout(STOP_S):
                while lives(told.pid):  # noqa: ASYNC110 (another process has no event for us)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            message = f"The node has not stopped within {STOP_S:.0f} s: it is process {told.pid}."
            raise NodeUnreachable(message, hint=f"`kill {told.pid}` ends it.") from None
        return True

    with out.waiting("Stopping"):
        stopped = asyncio.run(stop())
    out.result({"stopped": stopped}, "The node has stopped." if stopped else "No node is running.")


def status(
    ctx: typer.Context,
    url: Annotated[bool, typer.Option("--url", help="Print an address that opens the page, once.")] = False,
) -> None:
    """Show on one screen how the node is. Exit code 1 if none is running."""
    import asyncio

    out = terminal(ctx)
    config = configure(out)

    async def work() -> int:
        async with running(config) as found:
            if found is None:
                nothing = {"version": __version__, "ready": False, "home": str(config.home)}
                out.result(nothing, "No node is running. `pares up` starts it.")
                return 1
            client, told = found
            if url:
                page = await _page(client)
                out.result({"url": page}, page)
            else:
                out.result(told, _screen(told))
            return 0

    raise typer.Exit(asyncio.run(work()))


async def _already(config: Config) -> Up | None:
    async with running(config) as found:
        if found is None:
            return None
        client, told = found
        if told.passing:
            raise AlreadyRunning(
                f"Another command is at work in {config.home}, and its node stops with it.",
                hint="Wait until it ends, then try again.",
            )
        return _up(told.pid, await _page(client), config, already_running=True)


async def _page(client: Client) -> str:
    return (await client.post("/login/link", Link)).url


def _up(pid: int, page: str, config: Config, *, already_running: bool = False) -> Up:
    url = page.partition("?")[0].rstrip("/")
    return Up(pid, url, page, str(config.home), already_running=already_running)


def _open(page: str, config: Config, out: Terminal) -> None:
    """In a browser, if there is somebody to look at it."""
    if config.node.open_browser and sys.stdout.isatty() and not out.options.json and has_display():
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()


def _launch(config: Config, arguments: Sequence[str]) -> Up:
    """Start a node that outlives this command, and wait until it is ready. Raises what it says went wrong."""
    for folder in (config.home, config.logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = config.logs / "up.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pares", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        )
    deadline = threading.Timer(READY_S, process.kill)
    deadline.start()
    try:
        assert process.stdout is not None
        with process.stdout as stdout:
            line = stdout.readline()
    except BaseException:
        process.kill()
        raise
    finally:
        deadline.cancel()
    if not line:
        message = f"The node ended before it was ready, or was not ready within {READY_S:.0f} s."
        raise NodeUnreachable(message, hint=f"{log} may tell why.")
    try:
        return msgspec.json.decode(line, type=Up)
    except msgspec.DecodeError:
        raise error_in(line) from None


def _screen(told: NodeStatus) -> str:
    machine = told.machine
    cores = f"{machine.cores} cores" + (f", {machine.cores_busy:.1f} busy" if machine.cores_busy >= 0.1 else "")
    return facts(
        [
            (
                "node",
                f"Pares {told.version}, {'ready' if told.ready else 'starting'}, up for {duration(told.uptime_s)}",
            ),
            ("address", told.url),
            ("home", told.home),
            ("id", told.id),
            ("words", told.words),
            ("network", _network(told)),
            ("process", f"{told.pid}, {size(told.memory_bytes)}"),
            ("machine", f"{machine.processor}, {cores}, {machine.instruction_set}"),
            ("graphics", ", ".join(machine.gpus)),
            ("memory", f"{size(machine.memory_free)} free of {size(machine.memory_total)}"),
            ("disk", f"{size(machine.disk_free)} free"),
            ("models", f"{told.models} here, {len(told.loaded)} in memory"),
            ("", ", ".join(f"{one.name} ({one.state})" for one in told.loaded)),
            ("downloads", told.pulls_active or ""),
            ("open to", "your network" if told.listening_beyond_this_machine else "this machine only"),
            ("key", "needed" if told.key_required else "not needed on this machine"),
            ("offline", "yes" if told.offline else ""),
        ]
    )


def _network(told: NodeStatus) -> str:
    circles = f"{told.circles} circle{'s' if told.circles != 1 else ''}"
    match told.network:
        case "alone":
            return "in no circle: `pares circle new NAME` makes one, `pares join LINK` joins one"
        case "connecting":
            return (
                f"not connected: no peer of {circles} has answered yet; `pares peers` and `pares doctor` may tell why"
            )
        case "connected":
            return f"connected with {told.peers_online} peer{'s' if told.peers_online != 1 else ''} of {circles}"
        case "offline":
            return f"offline, in {circles}"
