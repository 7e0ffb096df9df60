"""The composition of the commons where its parts fail: a disk that is full, a node that is offline or on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from circles import NOW, charter, person
from pares import commons as composition
from pares.api.schemas import Need
from pares.circle.membership import certify
from pares.circle.settings import RelaySettings
from pares.circle.settings import Settings as CircleSettings
from pares.commons import Commons
from pares.errors import DiskFull
from pares.network import Network
from pares.store.database import Database
from pares.store.events import Events
from pares.swarm.library import Library
from pares.swarm.members import CircleFacts
from pares.swarm.pulls import Pulls
from pares.swarm.settings import Settings
from pares.swarm.version import sign_version
from pares.told import CommonsTold, Fitting
from pares.transport import bittorrent_pipe as pipe
from pares.transport.settings import Settings as TransportSettings
from pares.transport.torrents import Swarming, TorrentSource
from pares.wire.signing import PeerId
from statements import version

ME, ANN = person(0), person(1)
WITHIN_S = 5.0


@asynccontextmanager
async def commons(home: Path, *, offline: bool = False, loopback_only: bool = True) -> AsyncIterator[Commons]:
    """In no circle: nothing is listened on, nobody is asked."""
    async with Database(home / "node.db") as database:
        events = await Events.open(database)
        network = Network(
            home,
            ME,
            database,
            events,
            circle=CircleSettings(lan=False, dht=False),
            transport=TransportSettings(loopback_only=True),
            relay=RelaySettings(),
            offline=offline,
            at_once=False,
            hostname="test",
        )
        async with Library(database, home / "models", events) as library:
            made = Commons(
                home,
                network,
                database,
                library,
                events,
                Settings(),
                loopback_only=loopback_only,
                dht=False,
                bootstrap=(),
                offline=offline,
            )
            network.contents = made
            async with network, made:
                yield made


def failing(error: Exception, called: asyncio.Semaphore) -> Callable[..., object]:
    async def fail(*_: object) -> None:
        called.release()
        raise error

    return fail


async def times(called: asyncio.Semaphore, count: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        for _ in range(count):
            await called.acquire()


async def test_a_full_disk_ends_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "ROUND_S", 0.01)
    counted, kept = asyncio.Semaphore(0), asyncio.Semaphore(0)
    async with commons(tmp_path) as here:
        seeded = Swarming(bytes(32), downloaded=1, uploaded=2)
        monkeypatch.setattr(here.torrents, "all", lambda: (seeded,))
        monkeypatch.setattr(here.library.files.content, "add_traffic", failing(DiskFull("It is full."), counted))
        monkeypatch.setattr(here.keeper, "round", failing(FileNotFoundError("It is gone."), kept))
        await times(counted, 2)
        await times(kept, 2)
        monkeypatch.undo()
        monkeypatch.setattr(here.torrents, "all", lambda: (seeded,))
        assert here.uncounted() == (1, 2)
    assert counted.locked()


@pytest.mark.parametrize("error", [DiskFull("It is full."), OSError("It is gone.")])
async def test_what_cannot_be_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(composition, "NEWS_S", 0.01)
    tried = asyncio.Semaphore(0)
    async with commons(tmp_path) as here:
        monkeypatch.setattr(here.sharing, "reseed", failing(error, tried))
        here.circles_changed(only_peers=False)
        await times(tried, 1)
        here.circles_changed(only_peers=False)
        await times(tried, 1)


async def test_who_is_offline_gives_nothing_away_whatever_is_switched_on(tmp_path: Path) -> None:
    async with commons(tmp_path, offline=True) as here:
        await here.change(seeding=True, upload_limit=1000)
        assert (here.settings.seeding, here.sharing.settings.seeding) == (False, False)
        assert here.settings.upload_limit == 1000


class Elsewhere:
    """A member who says that it is on another machine."""

    me = ME.id

    def circles(self) -> Sequence[CircleFacts]:
        return (CircleFacts(bytes(32), "c", True, True, 2, frozenset((ME.id, ANN.id)), {}),)

    def hosts(self, peer: PeerId) -> Sequence[str]:
        return ("192.0.2.7",) if peer == ANN.id else ()

    def tell_offers(self) -> None: ...


async def test_many_versions_and_sources_are_told_of_with_one_look_at_the_circles_and_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 40
    async with commons(tmp_path) as here:
        for number in range(many):
            await here.statements.add(sign_version(ME, version(ME, name=f"m{number}")))
        looks: Counter[str] = Counter()
        facts = here.members.circles

        def circles() -> Sequence[CircleFacts]:
            looks["circles"] += 1
            return facts()

        def fitting() -> Fitting:
            looks["machine"] += 1
            need = Need(weights=1, kv_cache=1, buffers=1, total=3, free=9, context=512, largest_context=512, text="")
            return lambda header: ("runs well", need)

        async def keep(name: str, value: object) -> None: ...

        async with Pulls(here.library, Settings(), Events(), commons=here, swarm=here.fetch) as pulls:
            told = CommonsTold(here, pulls, fitting=fitting, keep=keep)
            monkeypatch.setattr(here.members, "circles", circles)
            assert len(await told.versions()) == many
            assert looks["machine"] == 1
            sources = tuple(TorrentSource(f"192.0.2.{n}:5000", "peer", 1, 0, 0, 0, 0) for n in range(many))
            monkeypatch.setattr(here.torrents, "all", lambda: (Swarming(bytes(32), sources=sources),))
            (row,) = (await told.swarm()).torrents
            assert len(row.sources) == many
            assert looks["circles"] <= 4


async def test_a_certificate_from_beyond_the_calendar_hides_no_circle(tmp_path: Path) -> None:
    async with commons(tmp_path) as here:
        book = here.network.circles_here.book
        circle = await book.enter(charter(ME), NOW)
        record = certify(ME, circle.id, ANN.id, "member", 1 << 40, bytes(16))
        assert circle.store.add(record, NOW)
        told = await here.network.circle(circle.id.hex())
        assert {member.since.year for member in told.members if not member.you} == {9999}


@pytest.mark.parametrize("loopback_only", [True, False])
async def test_who_stays_on_this_machine_speaks_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loopback_only: bool
) -> None:
    async with commons(tmp_path, loopback_only=loopback_only, offline=True) as here:
        monkeypatch.setattr(here, "members", Elsewhere())
        told = asyncio.Event()
        monkeypatch.setattr(here.fetch, "offers_changed", told.set)
        for public, admitted in ((True, None), (False, ["192.0.2.7"])):
            told.clear()
            await here.change(public_discovery=public)
            here.circles_changed(only_peers=True)
            async with asyncio.timeout(WITHIN_S):
                await told.wait()
            (words,) = (each for each in here.torrents.first_words() if isinstance(each, pipe.Admit))
            assert words.hosts == ([] if loopback_only else admitted)
