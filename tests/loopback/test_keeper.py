"""A node with room keeps what too few members hold, with real sessions; lets it go when enough others do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from pares.errors import Conflict
from pares.inference.gguf import read_header
from pares.store.database import Database
from pares.store.versions import VersionTables
from pares.swarm.keeper import Keeper
from pares.swarm.keeping import DROP_AFTER_S, PATIENCE_S, TURN_S
from pares.swarm.members import CircleFacts
from pares.swarm.sharing import Publication, Sharing
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


async def test_who_switches_giving_away_off_does_not_lose_the_last_copy(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        holder.offers = False
        off = replace(mine.sharing.settings, seeding=False)
        mine.sharing.settings = mine.keeper.settings = off
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)


async def test_what_its_owner_has_and_does_not_give_away_stays_so(here: Town, model: Model) -> None:
    await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.home.library.import_path(model.path)
        await mine.home.library.settle()
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert not mine.sharing.given_away()
        assert mine.sharing.holdings(CIRCLE) == ([], ())


async def test_what_was_kept_and_is_shared_no_more_by_its_owners_will_is_not_shared_again(
    here: Town, model: Model
) -> None:
    await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        await mine.sharing.unshare(model.opened.digest, here.circle.circles())
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert not mine.sharing.given_away()


async def test_another_statement_on_the_same_file_that_nobody_tells_costs_no_copy(here: Town, model: Model) -> None:
    holder = await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        stranger = Identity(bytes([66]) * 32)
        same = msgspec.structs.replace(model.version, name="same", publisher=stranger.id.hex())
        await mine.sharing.statements.add(sign_version(stranger, same))
        holder.offers = False
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)


async def test_what_does_not_come_holds_up_nothing_counts_as_kept_and_goes_when_nobody_tells_it(
    here: Town, model: Model, tmp_path: Path
) -> None:
    other = await published(tiny_llama(tmp_path / "other.gguf", layers=4, seed=2), "other")
    holder = await here.holder(other, complete=False, have=((0, 1),), wanted=((0, 1),))
    await here.holder(model)
    async with keeping(here, model, keep_bytes=other.file.size + model.file.size) as mine:
        await mine.sharing.statements.add(sign_version(PUBLISHER, other.version))
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        part = await mine.home.library.files.get(other.root)
        assert part is not None
        assert part.pieces
        assert part.keeper
        assert mine.keeper.keeps(other.root)
        holder.offers = False
        await mine.keeper.round()
        assert await mine.home.library.files.get(other.root) is None
        assert not Path(part.path).exists()
        assert await is_here(mine, model)


async def test_what_was_shared_in_a_circle_is_not_when_its_owner_left_and_came_back(
    here: Town, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(here, model) as mine:
        await mine.home.library.import_path(model.path)
        await mine.sharing.share(model.path.stem, here.circle.circles(), Publication())
        assert mine.sharing.shared_in(model.opened.digest) == {CIRCLE}
        with monkeypatch.context() as left:
            left.setattr(here.circle, "circles", lambda: ())
            await mine.sharing.reseed()
        await mine.sharing.reseed()
        assert not mine.sharing.shared_in(model.opened.digest)
        assert mine.sharing.holdings(CIRCLE) == ([], ())


async def test_a_false_statement_on_a_file_is_not_what_its_owner_shares(
    here: Town, model: Model, tmp_path: Path
) -> None:
    header = read_header(tiny_llama(tmp_path / "other.gguf", layers=3))
    false = [
        await published(model.path, "lie", header=header),
        await published(model.path, "wrong", sha256="0" * 64),
        await published(model.path, "long", size=model.file.size + 1),
    ]
    async with keeping(here, false[0]) as mine:
        for lie in false[1:]:
            await mine.sharing.statements.add(sign_version(PUBLISHER, lie.version))
        await mine.home.library.import_path(model.path, "mine")
        with pytest.raises(Conflict, match="licence"):
            await mine.sharing.share("mine", here.circle.circles(), Publication())
        true = await mine.sharing.statements.add(sign_version(PUBLISHER, model.version))
        assert await mine.sharing.share("mine", here.circle.circles(), Publication()) == true


async def test_what_was_kept_and_is_pulled_then_is_a_model_like_any_other(here: Town, model: Model) -> None:
    await here.holder(model)
    async with keeping(here, model) as mine:
        await mine.after(PATIENCE_S + EVERYBODYS_TURN_S)
        await mine.home.pull("tiny")
        await here.holder(model)
        await mine.after(DROP_AFTER_S + EVERYBODYS_TURN_S)
        assert await is_here(mine, model)
        assert (await mine.home.library.resolve("tiny")).path.read_bytes() == model.path.read_bytes()
