"""How the records of a circle spread: news at once to a few links, and comparisons that find whatever was missed. Pure.

A node compares itself with one link at a time, every `PERIOD_S`, and with a new link at once:

    sent = gossip.digests()                          request
    reply = other.answer_digests(me, sent, now)      its answer
    delta = gossip.follow(other, sent, reply, now)   request, unless None: nothing differs
    back, news = other.answer_delta(me, delta, now)  its answer
    news = gossip.take(peer, back, now)              and once more if `unfinished(delta, back)`

Equal stores cost one hash per bucket. What is new (`news`) is queued for `FANOUT` links, which differ from record to
record, and goes out with `pushes()`; it is a Delta without wants. Every peer has a budget in each direction, whether
linked or not: what exceeds it is not sent, or not looked at, and left to a later comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from pares.circle.records import NOT_KEPT, PREFIX, Store
from pares.circle.statements import Entry
from pares.transport.bucket import Bucket
from pares.wire.framing import MESSAGE_BYTES, ProtocolError
from pares.wire.messages import RECORDS, STATEMENTS, Delta, Digests, Record, Refused, Summaries
from pares.wire.signing import PeerId

PERIOD_S = 30.0
FANOUT = 4
DELTA_BYTES = MESSAGE_BYTES - 16 * 1024
NAMES = 8_000
"""Names in one answer, at most; other buckets wait for the next comparison."""
BUDGET_PER_S = 1_024
BUDGET_BURST = 2 * 1024 * 1024
"""Bytes per peer and direction: a burst, enough for joining a large circle, then so many per second."""
BUDGETS = 1_024
"""Above so many, those that are full again are forgotten."""
QUEUE = 1_024
OVERHEAD = 64

Direction = Literal["in", "out"]

_ORDER = {label: number for number, label in enumerate(STATEMENTS)}
"""Statements of membership go first: the others count only if their signers belong."""


@dataclass(slots=True)
class _Link:
    compared: float = -1.0
    """When it was last chosen for a comparison; negative: never."""
    queue: dict[bytes, Entry] = field(default_factory=dict)


class Gossip:
    """The exchange of one circle's records over the links of this node. `now` is Unix time in seconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._links: dict[PeerId, _Link] = {}
        self._compared = 0.0
        self._budgets: dict[tuple[PeerId, Direction], Bucket] = {}

    def link(self, peer: PeerId) -> None:
        """From now on there is a link with this member."""
        self._links.setdefault(peer, _Link())

    def unlink(self, peer: PeerId) -> None:
        self._links.pop(peer, None)

    def due(self, now: float) -> PeerId | None:
        """Whom to compare with now: a new link at once, else every `PERIOD_S` the one that waited longest."""
        if not self._links:
            return None
        peer, link = min(self._links.items(), key=lambda item: item[1].compared)
        if link.compared >= 0 and 0 <= now - self._compared < PERIOD_S:
            return None
        link.compared = self._compared = now
        return peer

    def digests(self) -> Digests:
        bits = self.store.bits()
        return Digests(circle=self.store.membership.circle, bits=bits, hashes=b"".join(self.store.hashes(bits)))

    def answer_digests(self, peer: PeerId, message: Digests, now: float) -> Summaries | Refused:
        """Raises ProtocolError."""
        theirs = _hashes(message)
        buckets: list[int] = []
        names: list[bytes] = []
        for bucket, mine in enumerate(self.store.hashes(message.bits)):
            if mine != theirs[bucket] and NOT_KEPT not in (mine, theirs[bucket]):
                found = [entry.name[:PREFIX] for entry in self.store.bucket(message.bits, bucket)]
                if len(names) + len(found) > NAMES:
                    break
                buckets.append(bucket)
                names += found
        if not self._budget(peer, "out", now).try_take(OVERHEAD + PREFIX * len(names), now):
            return Refused(code="busy", reason="You compare more often than this node can answer.")
        return Summaries(buckets=buckets, names=b"".join(names))

    def follow(self, peer: PeerId, sent: Digests, reply: Summaries, now: float) -> Delta | None:
        """What to say to this answer; None if nothing differs. Raises ProtocolError."""
        buckets = reply.buckets
        if any(a >= b for a, b in pairwise(buckets)) or (buckets and buckets[-1] >> sent.bits):
            raise ProtocolError("The answer to a comparison names buckets that were not asked for.")
        theirs = dict.fromkeys(_prefixes(reply.names))
        kept = self.store.hashes(sent.bits)
        mine = [e for n in buckets if kept[n] != NOT_KEPT for e in self.store.bucket(sent.bits, n)]
        records = fitting(entry for entry in mine if entry.name[:PREFIX] not in theirs)
        if not self._pays(peer, "out", records, now):
            records = []
        wants = [prefix for prefix in theirs if self.store.wants(prefix, now)][:RECORDS]
        if not records and not wants:
            return None
        return Delta(circle=sent.circle, records=records, wants=b"".join(wants))

    def answer_delta(self, peer: PeerId, message: Delta, now: float) -> tuple[Delta, list[Entry]]:
        """The answer, and what was new in the message. Raises ProtocolError."""
        wanted = _prefixes(message.wants)
        news = self.take(peer, message, now)
        found = (entry for prefix in wanted if (entry := self.store.get(prefix)) is not None)
        records = fitting(found)
        if not self._pays(peer, "out", records, now):
            records = []
        return Delta(circle=message.circle, records=records), news

    def take(self, peer: PeerId, message: Delta, now: float) -> list[Entry]:
        """Add a peer's records; those that are new go on to other links. Raises ProtocolError."""
        if not self._pays(peer, "in", message.records, now):
            return []
        news = []
        for record in sorted(message.records, key=lambda record: _ORDER[record.label]):
            if self.store.add(record, now) and (entry := self.store.get(record.name[:PREFIX])):
                news.append(entry)
                self.spread(entry, peer)
        return news

    def made(self, record: Record, now: float) -> bool:
        """A record of this node itself."""
        if not self.store.add(record, now) or not (entry := self.store.get(record.name[:PREFIX])):
            return False
        self.spread(entry, self.store.me)
        return True

    def spread(self, entry: Entry, source: PeerId) -> None:
        """Queue something new for a few links."""
        salt = self.store.me + entry.name
        others = (peer for peer in self._links if peer not in (source, entry.by))
        for peer in sorted(others, key=lambda peer: hashlib.blake2b(peer + salt, digest_size=8).digest())[:FANOUT]:
            queue = self._links[peer].queue
            if len(queue) < QUEUE:
                queue[entry.name[:PREFIX]] = entry

    def pushes(self, now: float) -> Mapping[PeerId, Delta]:
        """What to send on its own. Call it a moment after something was new, so that news travels together."""
        ready: dict[PeerId, Delta] = {}
        for peer, link in self._links.items():
            if not link.queue:
                continue
            records = fitting((entry for prefix, entry in link.queue.items() if prefix in self.store))
            link.queue.clear()
            if records and self._pays(peer, "out", records, now):
                ready[peer] = Delta(circle=self.store.membership.circle, records=records)
        return ready

    def _pays(self, peer: PeerId, direction: Direction, records: Iterable[Record], now: float) -> bool:
        size = OVERHEAD + sum(len(record.signed.body) + 160 for record in records)
        return self._budget(peer, direction, now).try_take(size, now)

    def _budget(self, peer: PeerId, direction: Direction, now: float) -> Bucket:
        if (peer, direction) not in self._budgets and len(self._budgets) >= BUDGETS:
            self._budgets = {key: budget for key, budget in self._budgets.items() if not budget.full(now)}
        return self._budgets.setdefault((peer, direction), Bucket(BUDGET_PER_S, BUDGET_BURST, now))


def unfinished(sent: Delta, answer: Delta) -> bool:
    """Whether to compare again at once, because not all fitted. Not more than 64 times in a row."""
    wanted = len(sent.wants) // PREFIX
    return wanted == RECORDS or len(sent.records) == RECORDS or 0 < len(answer.records) < wanted


def _hashes(message: Digests) -> list[bytes]:
    count, width = 1 << message.bits, len(NOT_KEPT)
    if len(message.hashes) != width * count:
        raise ProtocolError(f"{len(message.hashes)} bytes of hashes came for {count} buckets.")
    return [message.hashes[at : at + width] for at in range(0, width * count, width)]


def _prefixes(names: bytes) -> list[bytes]:
    if len(names) % PREFIX:
        raise ProtocolError(f"{len(names)} bytes of names came; a name has {PREFIX}.")
    return [names[at : at + PREFIX] for at in range(0, len(names), PREFIX)]


def fitting(entries: Iterable[Entry], most: int = DELTA_BYTES) -> list[Record]:
    """As many as fit into one message, statements of membership first."""
    chosen: list[Record] = []
    for entry in sorted(entries, key=lambda entry: _ORDER[entry.record.label]):
        most -= entry.size
        if len(chosen) == RECORDS or most < 0:
            break
        chosen.append(entry.record)
    return chosen
