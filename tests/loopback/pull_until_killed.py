"""A node that pulls one file until somebody kills it: `HOME URL`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pares.store.database import Database
from pares.store.events import Events
from pares.swarm.library import Library
from pares.swarm.pulls import Pulls
from pares.swarm.settings import Settings


async def main(home: Path, url: str) -> None:
    async with Database(home / "node.db") as database:
        events = await Events.open(database)
        settings = Settings(reserve_bytes=0)
        async with Library(database, home / "models") as library, Pulls(library, settings, events) as pulls:
            await pulls.wait((await pulls.start(url)).id)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
