"""Circle rooms on the simulated network, with real databases; and peers that say what they are told to say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from circles import person
from pares.circle.book import Book
from pares.circle.circles import Circles
from pares.circle.gathering import Event, Gathering
from pares.store.circles import CircleTables
from pares.store.database import Database
from pares.transport.link import Connection, Transport, Where
from pares.transport.memory import Line, MemoryTransport, Network
from pares.transport.switchboard import Handler, Switchboard
from pares.wire.messages import CIRCLE, Held
from pares.wire.signing import Identity

LINE = Line(latency_s=0.0005)
WITHIN_S = 5.0


@dataclass
class Profile:
    name: str
    version: str = "1"
    memory_bytes: int = 8 << 30
    relay_url: str = ""
    bulk_port: int = 0
    holds: dict[bytes, list[Held]] = field(default_factory=dict)
    """By circle."""
    tells: dict[bytes, list[bytes]] = field(default_factory=dict)

    def holdings(self, circle: bytes) -> tuple[Sequence[Held], Sequence[bytes]]:
        return self.holds.get(circle, ()), self.tells.get(circle, ())


@asynccontextmanager
async def circle_node(
    network: Network,
    directory: Path,
    name: str,
    number: int,
    events: list[Event] | None = None,
    *,
    profile: Profile | None = None,
    handlers: Mapping[str, Handler] | None = None,
    transport: Callable[[Identity, Sequence[str]], Transport] | None = None,
) -> AsyncIterator[Circles]:
    """The circles of one person, as a node has them."""

    async def equip(gathering: Gathering, stack: contextlib.AsyncExitStack) -> None:
        return

    async with Database(directory / f"{name}.db") as database:
        identity = person(number)
        book = await Book.open(identity, CircleTables(database), 0)
        heard = events if events is not None else []
        async with Circles(
            book,
            profile or Profile(name),
            lambda protocols: (
                transport(identity, protocols) if transport else network.node(identity.seed, protocols, LINE)
            ),
            equip=equip,
            on_event=heard.append,
            handlers=handlers,
        ) as circles:
            yield circles


@dataclass
class Raw:
    """A peer without manners."""

    identity: Identity
    transport: MemoryTransport
    board: Switchboard

    async def dial(self, node: Circles) -> Connection:
        gathering = node.gathering
        assert gathering is not None
        where = Where(node.identity.id, tuple(gathering.transport.addresses()))
        return await self.board.connect(where, CIRCLE)


@asynccontextmanager
async def raw(network: Network, number: int, handler: Handler) -> AsyncIterator[Raw]:
    identity = person(number)
    async with (
        network.node(identity.seed, (CIRCLE,), LINE) as transport,
        Switchboard(transport, {CIRCLE: handler}, allowed=lambda link: True) as board,
    ):
        yield Raw(identity, transport, board)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - not all that is looked at can set an event
            await asyncio.sleep(0.005)
