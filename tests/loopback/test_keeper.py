"""A node with room keeps what too few members hold, with real sessions; lets it go when enough others do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pares.store.database import Database
from pares.store.versions import VersionTables
from pares.swarm.keeper import Keeper
from pares.swarm.keeping import DROP_AFTER_S, PATIENCE_S, TURN_S
from pares.swarm.members import CircleFacts
from pares.swarm.sharing import Sharing
from pares.swarm.statements import Statements
from pares.swarm.version import sign_version
from pares.wire.messages import Offer
from pares.wire.signing import Identity
from scripted_members import CIRCLE, PUBLISHER, SETTINGS, Circle, Home, Model, Town, published, town
from tiny import tiny_llama

ME = Identity(bytes([1]) * 32)
EVERYBODYS_TURN_S = 10 * TURN_S


@dataclass
class Friends(Circle):
    """A circle that wants two copies, and hears this node's offers too."""

    sharing: Sharing | None = None
    copies: int = 2

    def circles(self) -> tuple[CircleFacts, ...]:
        (facts,) = super().circles()
        held = self.sharing.holdings(CIRCLE)[0] if self.sharing else ()
        mine = Offer(circle=CIRCLE, sequence=1, expires=1 << 40, holds=list(held))
        return (replace(facts, copies=self.copies, offers={**facts.offers, self.me: mine}),)


@dataclass
class Keeping:
    home: Home
    sharing: Sharing
    keeper: Keeper
    clock: list[float] = field(default_factory=lambda: [0.0])

    async def after(self, seconds: float) -> None:
        """A round now, and one so much later."""
        await self.keeper.round()
        self.clock[0] += seconds
        await self.keeper.round()


@pytest.fixture
async def model(tmp_path: Path) -> Model:
    return await published(tiny_llama(tmp_path / "tiny.gguf", layers=2))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as made:
        made.circle = Friends()
        yield made


@asynccontextmanager
async def keeping(here: Town, model: Model, **settings: object) -> AsyncIterator[Keeping]:
    circle = here.circle
    assert isinstance(circle, Friends)
    chosen = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    async with here.home(chosen) as home:
        database: Database = home.library.database
        await database.run(lambda c: c.execute("INSERT INTO circles (id, joined_at) VALUES (?, 0)", (CIRCLE,)))

        async def layer_of(root: bytes) -> bytes | None:
            return None

        statements = Statements(database, circle, layer_of=layer_of, keeps=lambda version: True)
        await statements.add(sign_version(PUBLISHER, model.version))
        sharing = Sharing(
            ME,
            home.library,
            statements,
            VersionTables(database),
            home.fetch.torrents,
            circle,
            chosen,
            is_fetched=lambda root: root in home.fetch.fetching,
        )
        circle.sharing = sharing
        clock = [0.0]
        keeper = Keeper(sharing, home.fetch, circle, chosen, now=lambda: clock[0])
        home.library.keeps = keeper.keeps
        await sharing.load()
        yield Keeping(home, sharing, keeper, clock)


async def is_here(keeping: Keeping, model: Model) -> bool:
    record = await keeping.home.library.files.get(model.root)
    return record is not None and record.pieces is None and Path(record.path).exists()


async def test_what_one_member_holds_is_fetched_after_a_while_given_away_and_let_go_when_others_have_it(
    here: Town, model: Model
) -> None:
    await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S / 2)
        assert not await is_here(mine, model)
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        assert mine.keeper.keeps(model.root)
        assert mine.sharing.shared_in(model.opened.digest) == {CIRCLE}
        assert [held.version for held in mine.sharing.holdings(CIRCLE)[0]] == [model.opened.digest]
        assert await mine.home.library.list() == (), "nobody asked for it as a model"
        await here.holder(model)
        await mine.after(DROP_AFTER_S / 2)
        assert await is_here(mine, model)
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert not await is_here(mine, model)
        assert not mine.sharing.shared_in(model.opened.digest)


async def test_the_last_known_copy_stays_whatever_the_quota_says(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        holder.offers = False
        mine.keeper.settings = replace(mine.keeper.settings, keep_bytes=0)
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        holder.offers = True
        await mine.after(1)
        assert not await is_here(mine, model), "above the quota, and another member has it"


@pytest.mark.parametrize("settings", [{"keep": False}, {"keep_bytes": 1000}, {"seeding": False}])
async def test_who_has_no_room_or_does_not_want_to_keeps_nothing(
    here: Town, model: Model, settings: dict[str, object]
) -> None:
    await here.holder(model)
    async with keeping(here, model, **settings) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert not await is_here(mine, model)


async def test_what_was_kept_and_is_pulled_then_is_a_model_like_any_other(here: Town, model: Model) -> None:
    await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        await mine.home.pull("tiny")
        await here.holder(model)
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        assert (await mine.home.library.resolve("tiny")).path.read_bytes() == model.path.read_bytes()
