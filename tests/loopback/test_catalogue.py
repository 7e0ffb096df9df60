"""Catalogues over real connections: what one member gives away the others find, from whoever tells it; a liar, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from catalogues import Catalogue, catalogue, endorsement, version
from circle_nodes import until
from circles import person
from pares.circle.book import Circle
from pares.errors import RemoteError
from pares.swarm.offered import Offered
from pares.swarm.version import Opened, open_statement
from pares.transport.link import Connection, Stream
from pares.transport.memory import Network
from pares.transport.quic import QuicTransport
from pares.transport.settings import Settings
from pares.transport.switchboard import answer, receive
from pares.wire.messages import Fetch, PieceHashes, Pieces, Statements, SwarmRequest
from pares.wire.signing import Identity

NAMES = ("Anna", "Ben", "Cleo", "Eve")
ANNA, BEN, CLEO, EVE = (person(number) for number in range(4))


def quic(identity: Identity, protocols: Sequence[str]) -> QuicTransport:
    return QuicTransport(identity.seed, protocols, Settings(loopback_only=True))


@asynccontextmanager
async def members(tmp_path: Path, count: int) -> AsyncIterator[tuple[Circle, list[Catalogue]]]:
    """A circle of Anna's, and so many members on the real network."""
    async with AsyncExitStack() as stack:
        unused = Network(seed=1)
        nodes = [
            await stack.enter_async_context(catalogue(unused, tmp_path, name, number, transport=quic))
            for number, name in enumerate(NAMES[:count])
        ]
        anna, *others = nodes
        circle = await anna.circles.create("Friends")
        invite = await anna.circles.invite(circle, expires_s=3600, uses=count, role="member")
        for node in others:
            await node.circles.join(anna.circles.link_of(invite))
        await until(lambda: all(len(node.members.online()) == count - 1 for node in nodes))
        yield circle, nodes


async def heard_and_fetched(node: Catalogue, *digests: bytes) -> None:
    await until(lambda: all(node.hears(digest) for digest in digests))
    await node.statements.fetch()


async def test_what_one_member_gives_away_all_find_also_when_it_is_gone(tmp_path: Path) -> None:
    async with members(tmp_path, 3) as (circle, (anna, ben, cleo)):
        (owl,) = await anna.share(circle.id, version(ANNA))
        await heard_and_fetched(ben, owl.digest)
        assert ben.statements.get(owl.digest) == owl
        await ben.share(circle.id, ben.statements.envelope(owl.digest), endorsement(BEN, owl))
        await anna.circles.leave(circle)
        await until(lambda: anna.id not in cleo.members.online())
        await heard_and_fetched(cleo, owl.digest, *(opened.digest for opened in ben.statements.about(owl.digest)))
        index = Offered(cleo.statements.all(), cleo.members.circles(), me=cleo.id, online=cleo.members.online())
        row = index.find("owl")
        assert (row.id, set(row.online), row.complete) == (owl.digest, {ben.id}, True)
        assert row.endorsements == 1


async def test_hashes_of_pieces_come_from_a_member_who_gives_the_file_away(tmp_path: Path) -> None:
    async with members(tmp_path, 2) as (circle, (anna, ben)):
        (owl,) = await anna.share(circle.id, version(ANNA))
        root = bytes.fromhex(_root(owl))
        anna.layers[root] = bytes(range(256)) * 2
        await until(lambda: ben.hears(owl.digest))
        reply = await ben.members.ask(anna.id, Pieces(root=root, first=2), PieceHashes, timeout_s=5)
        assert reply.hashes == anna.layers[root][64:]
        with pytest.raises(RemoteError, match="not give that file away"):
            await ben.members.ask(anna.id, Pieces(root=bytes(32)), PieceHashes, timeout_s=5)


async def test_a_lying_member_is_dropped_and_everybody_else_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eve tells what Anna tells, and sends something else for it."""
    async with members(tmp_path, 4) as (circle, (anna, ben, cleo, eve)):
        envelopes = [version(ANNA, f"Owl {number}") for number in range(20)]
        digests = [open_statement(envelope).digest for envelope in envelopes]
        false = version(EVE, "Cuckoo")

        async def lie(link: Connection, stream: Stream) -> None:
            request: SwarmRequest = await receive(stream, SwarmRequest)  # type: ignore[arg-type]
            assert isinstance(request, Fetch)
            await answer(stream, Statements(envelopes=[false] * len(request.digests)))

        monkeypatch.setattr(eve.statements, "serve", lie)
        eve.profile.tells[circle.id] = digests
        eve.members.tell_offers()
        await until(lambda: all(node.hears(digests[0]) for node in (ben, cleo)))
        await ben.statements.fetch()
        assert ben.members.punished == [eve.id]
        assert len(ben.statements) == 0
        assert eve.id not in ben.members.online()
        await anna.share(circle.id, *envelopes)

        def told_by_anna(node: Catalogue) -> bool:
            (facts,) = node.members.circles()
            return len(facts.offers[anna.id].holds) == 20

        await until(lambda: all(told_by_anna(node) for node in (ben, cleo)))
        await asyncio.gather(ben.statements.fetch(), cleo.statements.fetch())
        for node in (ben, cleo):
            assert {opened.digest for opened in node.statements.versions()} == set(digests)
            assert anna.id in node.members.online()


def _root(opened: Opened) -> str:
    return str(opened.predicate.files[0].root)  # type: ignore[union-attr]  # a version
