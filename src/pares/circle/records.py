"""What a node keeps of one circle: statements of membership, and each member's newest contact and offer. Pure.

Of contacts and offers the highest sequence per signer counts, then the higher name: two stores that have seen the same
records hold the same, whatever the order. `now` is Unix time in seconds; a sequence is Unix time in milliseconds
when the record was made, or one more than the last.

Above `VIEW` members a node keeps the contacts and offers (in a commons also the certificates) of a part of them only:
of those in some of the `SLICES` slices into which the hashes of keys fall. Three of every four lie around its own, so
that those with neighbouring keys keep much the same and tell each other; one is chosen by a secret, so that the parts
hang together and nobody can arrange to be all that a node knows.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

from pares.circle.membership import Membership
from pares.circle.statements import Entry, as_kind, checked
from pares.transport.bucket import Bucket
from pares.wire.messages import Certificate, Contact, Offer, Record
from pares.wire.signing import PeerId

PREFIX = 16
"""Bytes of a name by which records are asked for."""
PLACE_BITS = 10
SLICES = 256
ALIGNED_BITS = 9
"""Buckets of so many bits are no larger than a slice."""
VIEW = 2_048
"""Members whose contacts are kept, at most."""

CONTACT_LIFE_S = 7 * 86_400
OFFER_LIFE_S = 3_600
SKEW_S = 3_600
"""How far a clock may be ahead of ours."""
RENEWALS = 8
"""Contacts and offers that a member may renew at once..."""
RENEWAL_S = 20.0
"""... and the seconds per renewal after that."""

REFUSAL_S = 60.0
"""What was refused is not asked for again so soon."""
REFUSALS = 4_096

NOT_KEPT = bytes(8)
"""The hash of a bucket that is not kept."""


def place(entry: Entry) -> int:
    """Where a record is compared: see `wire.messages.Digests`."""
    own = isinstance(entry.statement, Contact | Offer) or (
        isinstance(entry.statement, Certificate) and entry.by == entry.statement.member
    )
    return _slot(entry.by) | 1 << (PLACE_BITS - 1) if own else int.from_bytes(entry.name[:2], "big") >> 7


def _slot(peer: PeerId) -> int:
    return int.from_bytes(hashlib.sha256(peer).digest()[:2], "big") >> 7


def _slice(peer: PeerId) -> int:
    return _slot(peer) * SLICES >> (PLACE_BITS - 1)


def _distance(one: int, other: int) -> int:
    return min((one - other) % SLICES, (other - one) % SLICES)


def _ranking(own: int, secret: bytes) -> list[int]:
    """All slices, most wanted first: of every four, three around one's own and one by secret."""
    near = iter(sorted(range(SLICES), key=lambda n: _distance(n, own)))
    far = iter(sorted(range(SLICES), key=lambda n: hashlib.blake2b(bytes([n]), key=secret).digest()))
    mixed = chain.from_iterable((*islice(near, 3), *islice(far, 1)) for _ in range(SLICES))
    return list(dict.fromkeys(mixed))


class Store:
    """The records of one circle on this node, found by the first bytes of their names."""

    def __init__(
        self,
        charter: Record,
        *,
        me: PeerId,
        secret: bytes,
        view: int = VIEW,
        check: Callable[[Record], Entry] = checked,
    ) -> None:
        """`secret`: up to 64 bytes that nobody else knows. Raises ProtocolError if this is not a charter."""
        self.membership = Membership(charter)
        self.me = me
        self.refused: Counter[str] = Counter()
        """How many contacts and offers were not kept, by reason."""
        self._view = view
        self._check = check
        self._ranking = _ranking(_slice(me), secret)
        self._slices = set(self._ranking)
        self._entries: dict[bytes, Entry] = {}
        self._keys: list[bytes] = []
        """Place and name of every record, ascending."""
        self._hashes: dict[int, list[bytes]] = {}
        """By bits, then bucket; empty where something has changed."""
        self._contacts: dict[PeerId, Entry] = {}
        self._offers: dict[PeerId, Entry] = {}
        self._paces: dict[PeerId, Bucket] = {}
        self._refusals: dict[bytes, float] = {}
        for entry in self.membership.entries():
            self._insert(entry)

    def copy(self, me: PeerId, secret: bytes) -> Store:
        """An independent store of the same records, for another node."""
        twin = Store.__new__(Store)
        twin.__dict__.update(self.__dict__)
        for name in ("membership", "refused", "_slices", "_entries", "_keys", "_contacts", "_offers"):
            setattr(twin, name, getattr(self, name).copy())
        twin.me, twin._ranking = me, _ranking(_slice(me), secret)
        twin._hashes, twin._paces, twin._refusals = {}, {}, {}
        return twin

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, prefix: bytes) -> bool:
        return prefix in self._entries

    def get(self, prefix: bytes) -> Entry | None:
        return self._entries.get(prefix)

    def entries(self) -> Iterator[Entry]:
        """All records, in an order in which they can be added elsewhere."""
        return chain(self.membership.entries(), self._contacts.values(), self._offers.values())

    def contact(self, peer: PeerId) -> Contact | None:
        entry = self._contacts.get(peer)
        return as_kind(entry, Contact) if entry and peer in self.membership.members() else None

    def offer(self, peer: PeerId, now: float) -> Offer | None:
        entry = self._offers.get(peer)
        offer = as_kind(entry, Offer) if entry and peer in self.membership.members() else None
        return offer if offer and offer.expires > now else None

    def contacts(self) -> Mapping[PeerId, Contact]:
        """Of members only."""
        members = self.membership.members()
        return {peer: as_kind(entry, Contact) for peer, entry in self._contacts.items() if peer in members}

    def offers(self, now: float) -> Mapping[PeerId, Offer]:
        """Of members, and not expired: who was there lately."""
        return {peer: offer for peer in self._offers if (offer := self.offer(peer, now)) is not None}

    def near(self) -> set[PeerId]:
        """Members who keep much the same part of the circle; empty while this node keeps all of it."""
        if len(self._slices) == SLICES:
            return set()
        reach, own = len(self._slices) * 3 // 16, _slice(self.me)
        return {peer for peer in self._contacts if _distance(_slice(peer), own) <= reach and peer != self.me}

    def next_sequence(self, now: float) -> int:
        """For this node's next contact or offer."""
        made = (self._contacts.get(self.me), self._offers.get(self.me))
        last = max((_latest(entry)[0] for entry in made if entry), default=0)
        return max(int(now * 1000), last + 1)

    def add(self, record: Record, now: float) -> bool:
        """Whether it is new and kept. Raises ProtocolError for what no correct peer passes on."""
        if record.name[:PREFIX] in self._entries:
            return False
        return self.take(self._check(record), now)

    def take(self, entry: Entry, now: float) -> bool:
        """As `add`, for what has been checked."""
        prefix = entry.name[:PREFIX]
        if prefix in self._entries:
            return False
        if isinstance(entry.statement, Contact | Offer):
            kept, gone = self._take_latest(entry, entry.statement, now)
        elif isinstance(entry.statement, Certificate) and self.membership.charter.open and not self._keeps(entry.by):
            kept, gone = self._refuse("outside of the part that this node keeps")
        else:
            kept, gone = self.membership.take(entry)
        for old in gone:
            self._remove(old)
        if not kept:
            if len(self._refusals) >= REFUSALS:
                del self._refusals[next(iter(self._refusals))]
            self._refusals[prefix] = now + REFUSAL_S
            return False
        self._insert(entry)
        while self._population() > self._view and len(self._slices) > 1:
            self._give_up(next(n for n in reversed(self._ranking) if n in self._slices))
        return True

    def wants(self, prefix: bytes, now: float) -> bool:
        """Whether a record of that name should be asked for."""
        return prefix not in self._entries and self._refusals.get(prefix, 0) <= now

    def prune(self, now: float) -> int:
        """Forget what has expired and what was said by those who belong no more; how many. Call it every minute."""
        members = self.membership.members()
        gone = [
            entry
            for latest in (self._contacts, self._offers)
            for entry in latest.values()
            if entry.by not in members or _latest(entry)[2] <= now
        ]
        for entry in gone:
            del self._table(entry)[entry.by]
            self._remove(entry)
        self._refusals = {prefix: until for prefix, until in self._refusals.items() if until > now}
        self._paces = {peer: pace for peer, pace in self._paces.items() if not pace.full(now)}
        if len(self._slices) < SLICES and self._population() < self._view // 2:
            self._slices.add(next(n for n in self._ranking if n not in self._slices))
            self._hashes.clear()
        return len(gone)

    def bits(self) -> int:
        """How many bits a comparison should begin with: buckets and their names then cost about the same."""
        least = 0 if len(self._slices) == SLICES else ALIGNED_BITS
        return max(least, min(PLACE_BITS, (2 * len(self._entries)).bit_length() // 2))

    def hashes(self, bits: int) -> list[bytes]:
        """One hash for each of the `1 << bits` buckets."""
        cached = self._hashes.setdefault(bits, [b""] * (1 << bits))
        for bucket, known in enumerate(cached):
            if not known:
                cached[bucket] = self._hash(bits, bucket)
        return cached

    def bucket(self, bits: int, bucket: int) -> list[Entry]:
        """The records of a bucket, by place and name."""
        return [self._entries[key[2 : 2 + PREFIX]] for key in self._range(bits, bucket)]

    def _range(self, bits: int, bucket: int) -> list[bytes]:
        shift = PLACE_BITS - bits
        first, end = (((bucket + n) << shift).to_bytes(2, "big") for n in (0, 1))
        return self._keys[bisect_left(self._keys, first) : bisect_left(self._keys, end)]

    def _hash(self, bits: int, bucket: int) -> bytes:
        shift, half = PLACE_BITS - bits, 1 << (PLACE_BITS - 1)
        if len(self._slices) < SLICES:
            places = range(max(bucket << shift, half), (bucket + 1) << shift)
            if not all((at - half) * SLICES // half in self._slices for at in places):
                return NOT_KEPT
        return hashlib.sha256(b"".join(key[2:] for key in self._range(bits, bucket))).digest()[:8]

    def _take_latest(self, entry: Entry, statement: Contact | Offer, now: float) -> tuple[bool, tuple[Entry, ...]]:
        table, old = self._table(entry), self._table(entry).get(entry.by)
        sequence, name, expires = _latest(entry)
        if isinstance(statement, Offer) and statement.circle != self.membership.circle:
            return self._refuse("of another circle")
        if entry.by not in self.membership.members():
            return self._refuse("not from a member")
        if old and _latest(old)[:2] >= (sequence, name):
            return False, ()
        if expires <= now:
            return self._refuse("expired")
        life = CONTACT_LIFE_S if isinstance(statement, Contact) else OFFER_LIFE_S
        if expires > now + life + SKEW_S or sequence > (now + SKEW_S) * 1000:
            return self._refuse("from too far in the future")
        if not self._keeps(entry.by):
            return self._refuse("outside of the part that this node keeps")
        if entry.by != self.me:
            pace = self._paces.setdefault(entry.by, Bucket(1 / RENEWAL_S, RENEWALS, now))
            if not pace.try_take(1, now):
                return self._refuse("renewed too often")
        table[entry.by] = entry
        return True, (old,) if old else ()

    def _refuse(self, reason: str) -> tuple[bool, tuple[Entry, ...]]:
        self.refused[reason] += 1
        return False, ()

    def _keeps(self, peer: PeerId) -> bool:
        return _slice(peer) in self._slices

    def _population(self) -> int:
        certified = self.membership.certified() if self.membership.charter.open else 0
        return max(len(self._contacts), certified)

    def _give_up(self, number: int) -> None:
        self._slices.discard(number)
        self._hashes.clear()
        latest = [e for table in (self._contacts, self._offers) for e in table.values() if _slice(e.by) == number]
        for entry in latest:
            del self._table(entry)[entry.by]
        theirs: Iterable[Entry] = ()
        if self.membership.charter.open:
            theirs = [
                e for e in self._entries.values() if isinstance(e.statement, Certificate) and _slice(e.by) == number
            ]
        for entry in chain(latest, self.membership.drop(theirs)):
            self._remove(entry)

    def _table(self, entry: Entry) -> dict[PeerId, Entry]:
        return self._contacts if isinstance(entry.statement, Contact) else self._offers

    def _insert(self, entry: Entry) -> None:
        self._entries[entry.name[:PREFIX]] = entry
        at = place(entry)
        insort(self._keys, at.to_bytes(2, "big") + entry.name)
        self._changed(at)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.name[:PREFIX]]
        at = place(entry)
        del self._keys[bisect_left(self._keys, at.to_bytes(2, "big") + entry.name)]
        self._changed(at)

    def _changed(self, at: int) -> None:
        for bits, hashes in self._hashes.items():
            hashes[at >> (PLACE_BITS - bits)] = b""


def _latest(entry: Entry) -> tuple[int, bytes, int]:
    statement = entry.statement
    assert isinstance(statement, Contact | Offer)
    return statement.sequence, entry.name, statement.expires
