"""Circles of many nodes in virtual time: membership, stores, gossip and overlays of the product, a made-up network.

Everything follows from a seed. Bytes are those of the encoded messages, plus 60 for IP, UDP and QUIC with every packet
of up to 1,200, plus one packet that acknowledges each message. A link also costs a keep-alive and its answer every
5 s, and 4 KB in each direction when it is opened.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
import numpy as np
from numpy.typing import NDArray

from circles import NOW, charter, contact, invitation, offer, person
from pares.circle.gossip import FANOUT, PERIOD_S, Gossip, unfinished
from pares.circle.overlay import OUTGOING, Overlay
from pares.circle.records import Store
from pares.circle.statements import Entry, checked
from pares.wire.messages import Contact, Delta, Record, Summaries
from pares.wire.signing import Identity, PeerId

PACKET = 1_200
OVERHEAD = 60
HANDSHAKE = 4_096
KEEP_ALIVE_PER_S = 2 * OVERHEAD / 5
TICK_S = 5.0
PUSH_S = 0.2
GONE_S = 5.0
OFFER_S = 1_200.0


def on_the_wire(message: msgspec.Struct) -> int:
    size = len(msgspec.msgpack.encode(message)) + 4
    return size + OVERHEAD * -(-size // PACKET)


@dataclass(eq=False)
class Node:
    identity: Identity
    gossip: Gossip
    overlay: Overlay
    up: bool = True
    links: dict[int, bool] = field(default_factory=dict)
    """To whom, and whether it dialled."""
    pushing: bool = False

    @property
    def store(self) -> Store:
        return self.gossip.store


class Circle:
    """`members` nodes that know each other's certificates and contacts, and have no links yet."""

    def __init__(
        self,
        members: int,
        seed: int = 0,
        *,
        present: bool = True,
        offer: Callable[[Identity, bytes, int, int], Record] = offer,
    ) -> None:
        """`offer` makes those that members renew."""
        self._offer = offer
        self.chance = random.Random(seed)
        self.now = float(NOW)
        self.bytes = 0
        """Sent and received, of all nodes together, but for the keep-alives."""
        self.copies: Counter[bytes] = Counter()
        self.heard: dict[bytes, list[float]] = {}
        """For each watched record, when each node had it."""
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()
        self._checked: dict[Record, Entry] = {}
        people = [person(number) for number in range(members)]
        first = charter(people[0])
        store = Store(first, me=people[0].id, secret=b"", check=self._check)
        circle = store.membership.circle
        for number, who in enumerate(people):
            if number:
                store.add(invitation(people[(number - 1) // 4], who, circle), self.now)
            store.add(contact(who), self.now)
            if present:
                store.add(offer(who, circle, NOW * 1000, NOW + 3600), self.now)
        store.membership.members()
        self.nodes = []
        self.number: dict[PeerId, int] = {}
        for number, who in enumerate(people):
            secret = self.chance.randbytes(16)
            self.nodes.append(Node(who, Gossip(store.copy(who.id, secret)), Overlay(who.id, secret)))
            self.number[who.id] = number
            self._after(self.chance.uniform(0, TICK_S), self._tick, number)
            self._after(self.chance.uniform(0, OFFER_S), self._renew, number)
            self._after(self.chance.uniform(0, 60), self._prune, number)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, at most so much."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end and not until():
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        if not until():
            self.now = end

    def change(self, number: int) -> bytes:
        """A member gets a new address; the name of its new contact, which is watched from now on."""
        node = self.nodes[number]
        record = contact(node.identity, node.store.next_sequence(self.now), int(self.now) + 86_400)
        self.heard[record.name] = [self.now]
        assert node.gossip.made(record, self.now)
        self._push_soon(number)
        return record.name

    def leave(self, number: int) -> None:
        self.nodes[number].up = False

    def come_back(self, number: int) -> None:
        node = self.nodes[number]
        node.up = True
        for other in list(node.links):
            self._cut(number, other)

    def rate(self, seconds: float) -> float:
        """Bytes per node and second over the next `seconds`, all included."""
        before = self.bytes
        self.run(seconds)
        links = sum(len(node.links) for node in self.nodes)
        return (self.bytes - before) / seconds / len(self.nodes) + KEEP_ALIVE_PER_S * links / len(self.nodes)

    def agree(self) -> bool:
        """Whether all nodes hold the same contacts."""
        first, *others = (node.store._contacts for node in self.nodes)
        return all(theirs == first for theirs in others)

    def until_agreed(self, most: float) -> float:
        """Seconds until all agree, to half a second; infinity after `most`."""
        begun = self.now
        while self.now - begun < most:
            if self.agree():
                return self.now - begun
            self.run(0.5)
        return float("inf")

    def _check(self, record: Record) -> Entry:
        """Each signature once, instead of once at every node."""
        if record not in self._checked:
            self._checked[record] = checked(record)
        return self._checked[record]

    def _after(self, seconds: float, what: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what, arguments))

    def _delay(self) -> float:
        return self.chance.uniform(0.01, 0.12)

    def _tick(self, number: int) -> None:
        node = self.nodes[number]
        self._after(TICK_S, self._tick, number)
        if not node.up:
            return
        for other in [other for other in node.links if not self.nodes[other].up]:
            self._after(GONE_S, self._cut, number, other)
        dialled = {self.nodes[other].identity.id for other, mine in node.links.items() if mine}
        if len(dialled) < min(OUTGOING, len(self.nodes) - 1):
            members = node.store.membership.members()
            for peer in node.overlay.choose(members, dialled, node.store.offers(self.now), self.now, node.store.near()):
                if peer not in dialled:
                    self._after(self._delay() * 2, self._dial, number, self.number[peer])
        while (due := node.gossip.due(self.now)) is not None:
            self._compare(number, self.number[due], 64)

    def _dial(self, number: int, other: int) -> None:
        node, far = self.nodes[number], self.nodes[other]
        incoming = sum(not dialled for dialled in far.links.values())
        if not far.up or (number not in far.links and not far.overlay.admits(len(self.nodes), incoming)):
            node.overlay.failed(far.identity.id, self.now)
            return
        node.overlay.worked(far.identity.id)
        if other not in node.links:
            self.bytes += 2 * 2 * HANDSHAKE
            far.links.setdefault(number, False)
            far.gossip.link(node.identity.id)
            node.gossip.link(far.identity.id)
        node.links[other] = True

    def _cut(self, number: int, other: int) -> None:
        for one, two in ((number, other), (other, number)):
            node, peer = self.nodes[one], self.nodes[two].identity.id
            if node.links.pop(two, False):
                node.overlay.failed(peer, self.now)
            node.gossip.unlink(peer)

    def _send(self, other: int, message: msgspec.Struct, what: Callable[..., None], *arguments: object) -> None:
        """Deliver if the other is up, and has been so since; both ends pay."""
        self.bytes += 2 * (on_the_wire(message) + OVERHEAD)
        if self.nodes[other].up:
            self._after(self._delay(), what, *arguments)

    def _compare(self, number: int, other: int, again: int) -> None:
        node = self.nodes[number]
        if node.up and other in node.links:
            sent = node.gossip.digests()
            self._send(other, sent, self._answer_digests, number, other, sent, again)

    def _answer_digests(self, number: int, other: int, sent: object, again: int) -> None:
        me, far = self.nodes[number].identity.id, self.nodes[other].gossip
        reply = far.answer_digests(me, sent, self.now)  # type: ignore[arg-type]  # as it was sent
        self._send(number, reply, self._follow, number, other, sent, reply, again)

    def _follow(self, number: int, other: int, sent: object, reply: object, again: int) -> None:
        if isinstance(reply, Summaries):
            far = self.nodes[other].identity.id
            delta = self.nodes[number].gossip.follow(far, sent, reply, self.now)  # type: ignore[arg-type]  # as sent
            if delta is not None:
                self._send(other, delta, self._answer_delta, number, other, delta, again)

    def _answer_delta(self, number: int, other: int, delta: Delta, again: int) -> None:
        answer, news = self.nodes[other].gossip.answer_delta(self.nodes[number].identity.id, delta, self.now)
        self._hear(other, delta, news)
        self._send(number, answer, self._finish, number, other, delta, answer, again)

    def _finish(self, number: int, other: int, delta: Delta, answer: Delta, again: int) -> None:
        news = self.nodes[number].gossip.take(self.nodes[other].identity.id, answer, self.now)
        self._hear(number, answer, news)
        if again and unfinished(delta, answer):
            self._compare(number, other, again - 1)

    def _take(self, number: int, other: int, delta: Delta) -> None:
        self._hear(number, delta, self.nodes[number].gossip.take(self.nodes[other].identity.id, delta, self.now))

    def _hear(self, number: int, delta: Delta, news: list[Entry]) -> None:
        for record in delta.records:
            if record.label == "contact/1":
                self.copies[record.name] += 1
        for entry in news:
            if isinstance(entry.statement, Contact) and entry.name in self.heard:
                self.heard[entry.name].append(self.now)
        if news:
            self._push_soon(number)

    def _push_soon(self, number: int) -> None:
        if not self.nodes[number].pushing:
            self.nodes[number].pushing = True
            self._after(PUSH_S, self._push, number)

    def _push(self, number: int) -> None:
        node = self.nodes[number]
        node.pushing = False
        if node.up:
            for peer, delta in node.gossip.pushes(self.now).items():
                self._send(self.number[peer], delta, self._take, self.number[peer], number, delta)

    def _renew(self, number: int) -> None:
        node = self.nodes[number]
        self._after(OFFER_S, self._renew, number)
        if node.up:
            sequence, expires = node.store.next_sequence(self.now), int(self.now) + 3_600
            node.gossip.made(self._offer(node.identity, node.store.membership.circle, sequence, expires), self.now)
            self._push_soon(number)

    def _prune(self, number: int) -> None:
        self._after(60, self._prune, number)
        self.nodes[number].store.prune(self.now)


def spread(nodes: int, kept: int, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """Coarser, for very large circles: when those who keep it hear of one record (s), and copies sent per keeper.

    Nodes stand on a ring in the order of their keys. Each keeps the records of the `kept * 3 / 4` around it; all but
    one of its outgoing links go to somebody in the nearer half of those, one goes anywhere. Time runs in steps of one
    hop: `PUSH_S` and a mean delay.
    """
    chance = np.random.default_rng(seed)
    reach = min(kept * 3 // 8, nodes // 2)
    step = PUSH_S + 0.065
    own = np.arange(nodes)[:, None]
    shape = (nodes, OUTGOING - 1)
    away = chance.integers(1, max(2, reach // 2), shape) * chance.choice([-1, 1], shape)
    anywhere = chance.integers(0, nodes, (nodes, 1))
    targets = np.concatenate([(own + away) % nodes, anywhere], axis=1)
    if kept >= nodes:
        targets = chance.integers(0, nodes, (nodes, OUTGOING))
    outgoing = np.stack([np.repeat(own, OUTGOING), targets.ravel()], axis=1)
    source, target = np.concatenate([outgoing, outgoing[:, ::-1]]).T
    degree = np.bincount(source, minlength=nodes)
    off = np.abs(np.arange(nodes) - nodes // 2)
    keeps = (off <= reach) | (kept >= nodes)
    inside = keeps[source]
    source, target = source[inside], target[inside]
    heard = np.where(off == 0, 0.0, np.inf)
    copies, now = 0, 0.0
    while not np.isfinite(heard[keeps]).all() and now < 3_600:
        told = (heard[source] == now) & (chance.random(len(source)) < FANOUT / degree[source])
        copies += int(told.sum())
        asked = chance.random(len(source)) < step / PERIOD_S / degree[source]
        has = np.isfinite(heard)
        new = np.concatenate([target[told], target[asked & has[source]], source[asked & has[target]]])
        now += step
        heard[new[keeps[new] & ~has[new]]] = now
    return np.sort(heard[keeps]), copies / int(keeps.sum())
