"""What is published of a node, when, and what is believed of others. Without libtorrent: a DHT that is a dict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.circle import dht
from pares.circle.dht import Answers, Directory, Publication, contact_of, published, value_of
from pares.errors import RemoteError
from pares.transport.bittorrent_pipe import Status
from pares.transport.bittorrent_process import Item
from pares.wire.messages import Contact
from pares.wire.signing import Identity, PeerId

ME, OTHER = Identity(b"m" * 32), Identity(b"o" * 32)
NOW = 1_000_000
CONTACT = Contact(sequence=7, expires=NOW + 1000, name="Ada's laptop", addresses=["198.51.100.1:4433"])


@dataclass
class Network:
    """A DHT that keeps what it is given, on so many nodes."""

    status: Status = Status(nodes=9)  # noqa: RUF009
    items: dict[tuple[bytes, bytes], list[bytes]] = field(default_factory=dict)
    users: int = 0
    gets: int = 0
    wrote: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def used(self) -> Iterator[None]:
        self.users += 1
        yield
        self.users -= 1
        self.let_go.set()

    async def put(self, identity: Identity, salt: bytes, value: bytes, *, timeout_s: float) -> int:
        self.items.setdefault((identity.id, salt), []).append(value)
        self.wrote.set()
        return 8

    async def get(self, key: bytes, salt: bytes, *, timeout_s: float, settle_s: float) -> Item | None:
        self.gets += 1
        await self.may_answer.wait()
        values = self.items.get((key, salt), [])
        return Item(values[-1], len(values)) if values else None


@asynccontextmanager
async def directory(network: Network, identity: Identity) -> AsyncIterator[Directory]:
    made = Directory(network, identity, now=lambda: NOW, chance=lambda: 0.5)
    network.may_answer.set()
    life = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


async def wait_for(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


async def test_what_one_publishes_another_finds_without_a_name_and_without_addresses_inside_of_the_home() -> None:
    network = Network()
    home = ["192.168.1.2:4433", "10.0.0.1:1", "[fe80::1]:1", "[fd00::1]:1", "100.64.3.4:1", "127.0.0.1:1"]
    full = msgspec.structs.replace(CONTACT, addresses=[*home, *CONTACT.addresses], observed=["203.0.113.9:4433"])
    async with directory(network, ME) as mine, directory(network, OTHER) as theirs:
        mine.publish(full)
        theirs.publish(CONTACT)
        await wait_for(network.wrote)
        found = await theirs.lookup(ME.id)
        assert found is not None
        assert found.addresses == CONTACT.addresses
        assert found.observed == full.observed
        assert found.name == dht.NAMELESS
        assert await theirs.lookup(ME.id, after=6) == found
        assert await theirs.lookup(ME.id, after=7) is None


async def test_the_dht_is_used_only_while_there_is_something_to_publish() -> None:
    network = Network()
    async with directory(network, ME) as mine:
        assert await mine.lookup(OTHER.id) is None
        assert (network.users, network.gets) == (0, 0)
        mine.publish(CONTACT)
        await wait_for(network.wrote)
        assert network.users == 1
        mine.publish(None)
        await wait_for(network.let_go)
        assert await mine.lookup(OTHER.id) is None
        assert network.gets == 0


async def test_who_was_not_found_is_not_asked_for_again_at_once_and_two_who_ask_share_one_answer() -> None:
    network = Network()
    async with directory(network, ME) as mine:
        mine.publish(CONTACT)
        assert tuple(await asyncio.gather(mine.lookup(OTHER.id), mine.lookup(OTHER.id))) == (None, None)
        assert await mine.lookup(OTHER.id) is None
        assert network.gets == 1
        for number in range(100):
            await mine.lookup(PeerId(number.to_bytes(32, "big")))
        assert network.gets <= dht.LOOKUPS_PER_MINUTE


async def test_before_any_node_is_known_nothing_counts_as_missing() -> None:
    network = Network(status=Status())
    async with directory(network, ME) as mine:
        mine.publish(CONTACT)
        assert await mine.lookup(OTHER.id) is None
        network.status = Status(nodes=1)
        network.items[OTHER.id, dht.SALT] = [value_of(OTHER, CONTACT)]
        assert await mine.lookup(OTHER.id) is not None


async def test_a_record_that_lies_is_as_no_record(caplog: pytest.LogCaptureFixture) -> None:
    network = Network()
    lies = {
        "of somebody else": value_of(OTHER, CONTACT),
        "expired": value_of(ME, msgspec.structs.replace(CONTACT, expires=NOW)),
        "not signed": value_of(ME, CONTACT)[:-1] + b"\0",
        "could not be read": b"\xc1",
        "bytes came": bytes(dht.RECORD_BYTES + 1),
    }
    for reason, value in lies.items():
        network.items[ME.id, dht.SALT] = [value]
        async with directory(network, OTHER) as theirs:
            theirs.publish(CONTACT)
            with caplog.at_level("INFO", "pares.circle.dht"):
                assert await theirs.lookup(ME.id) is None
        assert reason in caplog.text


@given(st.binary(max_size=1000))
def test_any_bytes_in_the_dht_are_refused(value: bytes) -> None:
    with pytest.raises(RemoteError):
        contact_of(ME.id, value, NOW)


address = st.one_of(
    st.ip_addresses(v=4).map("{}:65535".format), st.ip_addresses(v=6).map(lambda ip: f"[{ip.exploded}]:65535")
)


@given(st.lists(address, max_size=16), st.lists(address, max_size=4), st.text("é", max_size=256), st.booleans())
def test_every_contact_fits(addresses: list[str], observed: list[str], relay: str, local: bool) -> None:
    full = Contact(sequence=1 << 62, expires=1 << 40, name="n", addresses=addresses, observed=observed, relay=relay)
    short = published(full, local=local)
    assert len(value_of(ME, short)) <= dht.RECORD_BYTES
    assert contact_of(ME.id, value_of(ME, short), 0) == short
    assert short.observed == observed


steps = st.lists(st.tuples(st.sampled_from(["changed", "wait"]), st.booleans(), st.floats(0, 4000), st.floats(0, 1)))


@given(steps)
def test_it_is_never_silent_for_long_and_changes_do_not_flood(steps: list[tuple[str, bool, float, float]]) -> None:
    publication = Publication()
    now, puts = 0.0, list[float]()
    publication.changed(now)
    for step, works, later, chance in steps:
        if publication.due <= now:
            if works:
                publication.succeeded(now, chance)
                puts.append(now)
            else:
                publication.failed(now, chance)
        assert now < publication.due <= now + 1.1 * dht.RENEWAL_S or publication.due <= now
        now += later
        if step == "changed":
            publication.changed(now)
            assert publication.due <= now + dht.CHANGES_S
    assert all(later - earlier >= dht.CHANGES_S for earlier, later in pairwise(puts))


def test_in_vain_is_asked_for_ever_more_rarely_and_little_is_kept() -> None:
    answers = Answers()
    waits = []
    now = 0.0
    for _ in range(10):
        answers.keep(ME.id, None, now)
        waits.append((good := answers.of(ME.id, now)) is not None and good.until - now)
        now += 10_000
    assert waits == [3, 6, 12, 24, 48, 96, 192, 384, 768, 1536]
    answers.keep(ME.id, CONTACT, now)
    answers.keep(ME.id, None, now)
    assert answers.of(ME.id, now + 60) is None
    for number in range(5000):
        answers.keep(PeerId(number.to_bytes(32, "big")), None, now)
    assert len(answers) == dht.ANSWERS
