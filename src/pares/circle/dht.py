"""Finding peers through the Mainline DHT: one small signed record per node, a BEP 44 item under the node's own key.

Who can read it: everybody who knows the key, and the strangers whose machines keep the item. So it says where the node
can be reached and nothing else: no name, no circle, no address inside of a home. It is there only while a circle of
this node asks for the internet; afterwards nobody renews it, and it is forgotten within hours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec.structs import replace

from pares.transport.bittorrent_pipe import Status
from pares.transport.bittorrent_process import Item
from pares.wire.framing import ProtocolError
from pares.wire.messages import Contact
from pares.wire.signing import Identity, PeerId, Signed, decoded, opened

log = logging.getLogger(__name__)

SALT = b"pares"
RECORD_BYTES = 900
NAMELESS = "-"
"""Stands for the name in what is published."""

RENEWAL_S = 45 * 60.0
"""Nodes keep an item for two hours, those that keep it at all."""
CHANGES_S = 10.0
"""Between two changes, at least."""
RETRY_S = 5.0
LONGEST_RETRY_S = 300.0
PUT_S = 30.0

GET_S = 10.0
SETTLE_S = 0.5
AGAIN_S = 3.0
"""An answer is good for so long; "not there" for twice as long each time, up to the longest."""
LONGEST_AGAIN_S = 3600.0
ANSWERS = 1024
LOOKUPS_PER_MINUTE = 20

_HOME = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Networks whose addresses mean nothing outside of them."""


class Dht(Protocol):
    """What is needed of `BitTorrent`."""

    @property
    def status(self) -> Status: ...

    def used(self) -> AbstractContextManager[None]: ...

    async def put(self, identity: Identity, salt: bytes, value: bytes, *, timeout_s: float) -> int: ...

    async def get(self, key: bytes, salt: bytes, *, timeout_s: float, settle_s: float) -> Item | None: ...


# What is published


def published(contact: Contact, *, local: bool = False) -> Contact:
    """What of a contact is published: fewer addresses if it would be too long. `local`: also those inside of a home."""
    shown = [a for a in contact.addresses if local or not _at_home(a)]
    short = replace(contact, name=NAMELESS, addresses=shown)
    while len(msgspec.msgpack.encode(short)) > RECORD_BYTES - _ENVELOPE:
        short = replace(short, addresses=short.addresses[:-1])
    return short


def value_of(identity: Identity, contact: Contact) -> bytes:
    """A contact as the DHT keeps it."""
    return msgspec.msgpack.encode(identity.sign("contact/1", contact))


def contact_of(peer: PeerId, value: bytes, now: float) -> Contact:
    """The contact in an item, checked. `now`: Unix time. Raises ProtocolError."""
    if len(value) > RECORD_BYTES:
        raise ProtocolError(f"A DHT record of {len(value)} bytes came; {RECORD_BYTES} are allowed.")
    signed = decoded(value, Signed)
    if signed.by != peer:
        raise ProtocolError(f"The DHT record of {peer.hex()[:8]} is of somebody else.")
    contact = opened("contact/1", signed, Contact)
    if contact.expires <= now:
        raise ProtocolError(f"The DHT record of {peer.hex()[:8]} has expired.")
    return contact


_ENVELOPE = len(msgspec.msgpack.encode(Signed(bytes(256), bytes(32), bytes(64)))) - 256


def _at_home(address: str) -> bool:
    host = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    return any(host in network for network in _HOME)


# When


class Publication:
    """When to publish next. Pure: `now` in seconds of any clock that does not go back, `chance` in [0, 1)."""

    def __init__(self) -> None:
        self.due = float("-inf")
        self._last = float("-inf")
        self._failures = 0

    def changed(self, now: float) -> None:
        """There is something new to say."""
        self._failures = 0
        self.due = max(now, self._last + CHANGES_S)

    def succeeded(self, now: float, chance: float) -> None:
        """It is out. Nodes that began together do not renew together."""
        self._failures = 0
        self._last = now
        self.due = now + RENEWAL_S * (0.9 + 0.2 * chance)

    def failed(self, now: float, chance: float) -> None:
        """Nobody took it."""
        self.due = now + min(RETRY_S * 2**self._failures, LONGEST_RETRY_S) * (0.9 + 0.2 * chance)
        self._failures += 1


@dataclass(frozen=True, slots=True)
class _Answer:
    contact: Contact | None
    until: float
    misses: int


class Answers:
    """What was found lately, found or not, and how often may be asked. Pure, like `Publication`."""

    def __init__(self) -> None:
        self._answers: OrderedDict[PeerId, _Answer] = OrderedDict()
        self._left = float(LOOKUPS_PER_MINUTE)
        self._at = float("-inf")

    def __len__(self) -> int:
        return len(self._answers)

    def of(self, peer: PeerId, now: float) -> _Answer | None:
        """The answer, while it is good."""
        answer = self._answers.get(peer)
        return answer if answer is not None and now < answer.until else None

    def may_ask(self, now: float) -> bool:
        """Whether one more lookup is within the rate; it counts then."""
        self._left = min(LOOKUPS_PER_MINUTE, self._left + (now - self._at) * LOOKUPS_PER_MINUTE / 60)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def keep(self, peer: PeerId, contact: Contact | None, now: float) -> None:
        """What a lookup brought."""
        old = self._answers.pop(peer, None)
        misses = 0 if contact is not None else 1 + (old.misses if old is not None else 0)
        wait_s = min(AGAIN_S * 2 ** min(max(misses - 1, 0), 16), LONGEST_AGAIN_S)
        self._answers[peer] = _Answer(contact, now + wait_s, misses)
        while len(self._answers) > ANSWERS:
            self._answers.popitem(last=False)


class Directory:
    """Publishes where this node is, and looks up others. `run` is its life.

    `local`: a DHT of one's own, in which addresses inside of a home are published too. `now`: Unix time.
    """

    def __init__(
        self,
        dht: Dht,
        identity: Identity,
        *,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
        local: bool = False,
    ) -> None:
        self._dht = dht
        self._identity = identity
        self._now = now
        self._chance = chance
        self._local = local
        self._contact: Contact | None = None
        self._moved = asyncio.Event()
        self._publication = Publication()
        self._answers = Answers()
        self._asked: dict[PeerId, asyncio.Future[Contact | None]] = {}
        self.copies = 0
        """On how many nodes the record is, as far as is known."""

    def publish(self, contact: Contact | None) -> None:
        """Say from now on that this node is there. None: be silent, also ask nothing, and let the DHT go."""
        if contact is not None:
            contact = published(contact, local=self._local)
        if contact != self._contact:
            self._contact = contact
            self._publication.changed(_clock())
            self._moved.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._moved.wait()
            if self._contact is not None:
                with self._dht.used():
                    await self._keep_published()
            self.copies = 0
            self._moved.clear()

    async def lookup(self, peer: PeerId, *, after: int = -1) -> Contact | None:
        """Where a peer says that it is: signed by its key, not expired, of a higher sequence than `after`.

        None if there is no such record, if it was looked for in vain lately, if too much is looked up, or while nothing
        is published. Good for dialling only: of what the peer tells its circles under this sequence it has a part.
        """
        if self._contact is None:
            return None
        now = _clock()
        if (answer := self._answers.of(peer, now)) is not None:
            contact = answer.contact
        elif (asked := self._asked.get(peer)) is not None:
            contact = await asyncio.shield(asked)
        elif self._dht.status.nodes and self._answers.may_ask(now):
            contact = await self._ask(peer)
        else:
            return None
        return contact if contact is not None and contact.sequence > after and contact.expires > self._now() else None

    # Inside

    async def _keep_published(self) -> None:
        while (contact := self._contact) is not None:
            self._moved.clear()
            wait_s = self._publication.due - _clock()
            if wait_s > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), wait_s)
                continue
            self.copies = await self._dht.put(self._identity, SALT, value_of(self._identity, contact), timeout_s=PUT_S)
            if not self.copies:
                self._publication.failed(_clock(), self._chance())
            else:
                self._publication.succeeded(_clock(), self._chance())
                if self._contact != contact:
                    self._publication.changed(_clock())

    async def _ask(self, peer: PeerId) -> Contact | None:
        asked = self._asked[peer] = asyncio.get_running_loop().create_future()
        contact = None
        try:
            item = await self._dht.get(peer, SALT, timeout_s=GET_S, settle_s=SETTLE_S)
            if item is not None:
                contact = contact_of(peer, item.value, self._now())
        except ProtocolError as error:
            log.info("%s", error)
        finally:
            asked.set_result(contact)
            del self._asked[peer]
        self._answers.keep(peer, contact, _clock())
        return contact


def _clock() -> float:
    return asyncio.get_running_loop().time()
