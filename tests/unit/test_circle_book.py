"""What a node keeps of its circles: it survives a restart, a damaged row, and changes that cross."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from circles import NOW, charter, contact, invitation, offer, person
from pares.circle.book import Book, Circle
from pares.store.circles import CircleTables, InviteRecord, PeerRecord
from pares.store.database import Database
from pares.wire.messages import Record

ANNA, BELA, CLEO = person(0), person(1), person(2)


@asynccontextmanager
async def book(directory: Path, now: int = NOW) -> AsyncIterator[Book]:
    async with Database(directory / "node.db") as database:
        yield await Book.open(ANNA, CircleTables(database), now)


async def filled(book: Book) -> Circle:
    """A circle of Anna's with Béla in it."""
    circle = await book.enter(charter(ANNA), NOW)
    for record in (invitation(ANNA, BELA, circle.id), contact(BELA), contact(ANNA), offer(BELA, circle.id)):
        assert circle.store.add(record, NOW)
    await book.save(circle)
    return circle


def invite(circle: bytes, **changes: object) -> InviteRecord:
    made = InviteRecord(
        id=secrets.token_bytes(16), circle=circle, secret=secrets.token_bytes(16), role="member", made=NOW,
        expires=NOW + 3600, uses_left=1,
    )  # fmt: skip
    return replace(made, **changes)


def names(circle: Circle) -> set[bytes]:
    return {entry.name for entry in circle.store.entries() if entry.record.label != "offer/1"}


async def test_all_but_offers_survives_a_restart(tmp_path: Path) -> None:
    async with book(tmp_path) as first:
        circle = await filled(first)
        await first.rename(circle, "Mine")
        kept = invite(circle.id)
        await first.save_invite(kept)
        await first.change_peer(BELA.id, name="B", address="192.0.2.1:4433", seen=7)
    async with book(tmp_path) as second:
        again = second.circles[circle.id]
        assert names(again) == names(circle)
        assert (again.name, again.title) == ("Mine", "Kitchen table")
        assert second.members() == {BELA.id}
        assert second.invites == {kept.id: kept}
        assert second.peers == {BELA.id: PeerRecord(id=BELA.id, name="B", address="192.0.2.1:4433", seen=7)}
        assert again.saved == names(circle), "nothing is written again"


async def test_what_does_not_hold_any_more_is_left_out(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        first = await Book.open(ANNA, CircleTables(database), NOW)
        circle = await filled(first)
        forged = contact(CLEO)
        broken = Record(label="contact/1", signed=replace(forged.signed, signature=bytes(64)))
        await CircleTables(database).change_statements(circle.id, new=[broken, invitation(CLEO, ANNA, circle.id)])
        second = await Book.open(ANNA, CircleTables(database), NOW)
        assert second.members() == {BELA.id}
        assert second.contact(CLEO.id) is None


async def test_a_circle_without_its_charter_is_not_opened(tmp_path: Path) -> None:
    async with Database(tmp_path / "node.db") as database:
        circle = await filled(await Book.open(ANNA, CircleTables(database), NOW))
        await CircleTables(database).change_statements(circle.id, new=[], gone=[charter(ANNA).name])
        assert (await Book.open(ANNA, CircleTables(database), NOW)).circles == {}


async def test_what_was_forgotten_is_not_written_again(tmp_path: Path) -> None:
    """A peer's news and the owner's leaving cross: neither ends the node, nor comes back after a restart."""
    async with book(tmp_path) as first:
        circle = await filled(first)
        await first.save_invite(invite(circle.id))
        circle.store.add(invitation(ANNA, CLEO, circle.id), NOW)
        await asyncio.gather(first.forget(circle), first.save(circle))
        circle.store.add(contact(CLEO), NOW)
        await first.save(circle)
        assert not first.circles
        assert not first.invites
    async with book(tmp_path) as second:
        assert not second.circles
        assert not second.invites


async def test_changes_at_the_same_time_are_all_written(tmp_path: Path) -> None:
    async with book(tmp_path) as first:
        circle = await filled(first)
        for number in range(10, 30):
            circle.store.add(invitation(ANNA, person(number), circle.id), NOW)
            await asyncio.sleep(0)
            if number % 3 == 0:
                await asyncio.gather(first.save(circle), first.save(circle))
        await first.save(circle)
        known = names(circle)
    async with book(tmp_path) as second:
        assert names(second.circles[circle.id]) == known


async def test_a_secret_is_kept_no_longer_than_it_is_good_for(tmp_path: Path) -> None:
    async with book(tmp_path) as first:
        circle = await filled(first)
        used, late, good = invite(circle.id), invite(circle.id, expires=NOW + 10), invite(circle.id)
        for each in (used, late, good):
            await first.save_invite(each)
        await first.void(used)
    async with book(tmp_path, NOW + 10) as second:
        assert {each.id: bool(each.secret) for each in second.invites.values()} == {
            used.id: False, late.id: False, good.id: True,
        }  # fmt: skip
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert good.secret in content
        assert ANNA.seed not in content


async def test_what_is_not_said_of_a_peer_stays(tmp_path: Path) -> None:
    async with book(tmp_path) as first:
        await first.change_peer(BELA.id, name="B", blocked=True)
        await first.change_peer(BELA.id, address="192.0.2.1:4433", seen=9)
        await first.change_peer(BELA.id, seen=3)
        assert first.peers[BELA.id] == PeerRecord(id=BELA.id, name="B", blocked=True, address="192.0.2.1:4433", seen=9)
        assert first.blocked(BELA.id)
        await first.change_peer(BELA.id, name="", blocked=False)
        assert first.name_of(BELA.id) == BELA.id.hex()[:8]
        assert not first.blocked(BELA.id)
