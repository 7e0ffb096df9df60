"""From a verb to a node: the one that runs at this home, else a private one that lives as long as the verb.

The only place in the command line that knows `pares.node`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import msgspec
import typer

from pares import __version__
from pares.api.schemas import NodeStatus
from pares.cli.client import Address, Client
from pares.cli.terminal import Options, Terminal
from pares.config import Config, find_home, load
from pares.errors import Forbidden

Flags = Mapping[str, object]

PRIVATE = {"server.port": 0, "server.ollama_port": 0, "server.host": "127.0.0.1"}
"""A private node is for its own command: no fixed port, nothing beyond this machine."""
CLOCK_SLACK_S = 2.0


def configure(out: Terminal, flags: Flags = MappingProxyType({})) -> Config:
    """Load the settings of the home that was asked for. Flags that are None were not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    if out.options.offline:
        given["node.offline"] = True
    config = load(find_home(out.options.home), flags=given)
    for warning in config.warnings:
        out.warn(warning)
    return config


def run(ctx: typer.Context, work: Callable[[Client, Terminal], Awaitable[int | None]]) -> None:
    """Do the work of a verb with a node; what it returns is the exit code."""
    import asyncio

    out = terminal(ctx)
    config = configure(out)

    async def with_node() -> int | None:
        async with _node(config, out) as client:
            return await work(client, out)

    raise typer.Exit(asyncio.run(with_node()) or 0)


def terminal(ctx: typer.Context) -> Terminal:
    """The output that the options of this call ask for."""
    options: Options = ctx.obj
    return Terminal(options)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Client, NodeStatus] | None]:
    """The node that runs at this home, and its status; None if there is none. Raises NodeUnreachable if it hangs."""
    address = _read_address(config)
    if address is None or not lives(address.pid, began_before=address.started_at.timestamp() + CLOCK_SLACK_S):
        yield None
        return
    async with Client(address.url, address.token) as client:
        status = await client.status()
        yield None if status is None else (client, status)


@asynccontextmanager
async def _node(config: Config, out: Terminal) -> AsyncIterator[Client]:
    async with running(config) as found:
        if found is not None:
            client, status = found
            _compare(status, out)
            yield client
            return
    from pares.node import Node

    private = load(config.home, flags={**config.flags, **PRIVATE})
    async with Node(private, passing=True) as node, Client(node.url, node.admin_token) as client:
        yield client


def serve(config: Config, announce: Callable[[str], None]) -> int:
    """Be the node of this home until it is told to stop; `announce` gets the one-time address of the page."""
    from pares import node

    return node.run(config, on_ready=announce)


def _read_address(config: Config) -> Address | None:
    try:
        return msgspec.json.decode(config.node_file.read_bytes(), type=Address)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    except PermissionError as error:
        message = f"The node of {config.home} belongs to somebody else: {error.strerror}."
        raise Forbidden(message, hint="Choose a home of your own with --home or PARES_HOME.") from error


def lives(pid: int, *, began_before: float = math.inf) -> bool:
    """Whether there is such a process, begun before then (seconds since 1970): its number may be another's by now."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time() <= began_before and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _compare(status: NodeStatus, out: Terminal) -> None:
    if status.version != __version__:
        out.warn(
            f"The running node is Pares {status.version}, this command is {__version__}. "
            "Start the node again: `pares down`, then `pares up`."
        )
    if out.options.offline and not status.offline:
        out.warn("The running node is not offline, whatever this command is told. Stop it with `pares down` first.")
