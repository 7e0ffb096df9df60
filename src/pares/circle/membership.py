"""Who belongs to a circle: a grow-only set of signed statements, and what follows from it. Pure.

The state is a set: charter, certificates, revocations, and the newest title. Two states merge by union, so it does not
matter who told whom what, in which order, or how often. Who is a member is a function of the set alone, worked out from
the founder down, one depth of invitations after the other:

* The founder (who signed the charter) belongs. A certificate counts if its signer is in force: a member with the role
  `member`, by a certificate that itself counts, at most `DEPTH` invitations below the founder.
* A certificate is taken back by a revocation of the founder, of anybody in its chain (its signer, who invited the
  signer, and so on up), or of the certified member itself (leaving). In the chain only those count who are in force, as
  far as it was decided nearer to the founder: who was removed removes nobody any more.
* Of a removed member only those certificates and revocations stay in force that the revocation `keeps`: what the
  remover knew. Nothing can be backdated. If several take the same certificate back, the one nearest to the founder
  decides (the member itself comes last), and of several at the same distance what all of them keep. So a removed member
  cannot throw out, by leaving afterwards, whom the remover kept.
* Who comes back has a new certificate; what they signed counts again, as for every member.
  (Who left, and was invited again by somebody whom they had brought in, may when removed once more take others along:
  what a revocation keeps counts from the first of their certificates. It is decided the same everywhere.)
* In a commons (an open circle) all sign their own certificate, and only the founder and the member itself take it back.

What a peer can make a node store is bounded. When a bound is reached, certificates that follow from nothing are given
up first; what still does not fit is refused and counted in `refused`. Below the bounds nothing depends on order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pares.circle.statements import Entry, as_kind, checked, signed
from pares.errors import Conflict, Forbidden, NotFound
from pares.wire.framing import ProtocolError
from pares.wire.messages import Certificate, Charter, Contact, Offer, Record, Revocation, Role, Title
from pares.wire.signing import Identity, PeerId

DEPTH = 32
"""Invitations between the founder and a member, at most."""

CERTIFICATES = 16_384
CERTIFICATES_EACH = 768
"""By one signer. Together with its revocations, as many as a revocation can keep."""
CERTIFICATES_OF_ONE = 64
"""Of one member: as many as one revocation can name."""
CERTIFICATES_OF_PAIR = 8
"""By one signer, of one member: nobody alone uses up what others may say of a member."""
REVOCATIONS = 2_048
REVOCATIONS_EACH = 256
REVOCATION_BYTES = 8 * 1024 * 1024
"""None of the three bounds holds for the founder, who must always be able to remove somebody."""


@dataclass(frozen=True, slots=True)
class Member:
    """One who belongs. The founder is invited by nobody and has no certificate."""

    role: Role
    issued: int
    invited_by: PeerId | None = None
    """Who may be none any more; or may have come back later, by an invitation of those whom it once invited: a ring."""
    certificate: bytes = b""
    depth: int = 0


@dataclass(slots=True)
class _Roster:
    """What follows from the set, as far as it is worked out."""

    members: dict[PeerId, Member]
    inviters: defaultdict[PeerId, set[PeerId]] = field(default_factory=lambda: defaultdict(set))
    depths: dict[PeerId, int] = field(default_factory=dict)
    kept: defaultdict[PeerId, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Of those who were removed: what of theirs stays in force."""
    removed: dict[PeerId, PeerId] = field(default_factory=dict)
    """By whom."""
    reached: set[bytes] = field(default_factory=set)
    """Certificates whose signer was in force."""
    valid: set[bytes] = field(default_factory=set)
    """Of those, the ones that nobody took back."""

    def in_force(self, entry: Entry) -> bool:
        """Whether its signer may speak for the circle, in this statement at least."""
        member = self.members.get(entry.by)
        return (member is not None and member.role == "member") or entry.name in self.kept.get(entry.by, ())

    def chain(self, signer: PeerId) -> set[PeerId]:
        """The signer, and all above."""
        found, ahead = {signer}, [signer]
        while ahead:
            new = self.inviters.get(ahead.pop(), set()) - found
            found |= new
            ahead.extend(new)
        return found


class Membership:
    """The signed statements of one circle, and who belongs by them."""

    def __init__(self, charter: Record) -> None:
        """Raises ProtocolError if this is not a well-signed charter."""
        entry = checked(charter)
        if not isinstance(entry.statement, Charter):
            raise ProtocolError(f"A {charter.label} statement came where a charter is needed.")
        self._charter = entry
        self.charter: Charter = entry.statement
        self.circle = charter.signed.digest
        self.founder = entry.by
        self.refused: Counter[str] = Counter()
        """How many statements were not kept, by reason."""
        self._certificates: dict[bytes, Entry] = {}
        self._revocations: dict[bytes, Entry] = {}
        self._revocation_bytes = 0
        self._title: Entry | None = None
        self._per_signer: Counter[tuple[PeerId, str]] = Counter()
        self._per_member: Counter[PeerId] = Counter()
        self._per_pair: Counter[tuple[PeerId, PeerId]] = Counter()
        self._roster: _Roster | None = None

    def copy(self) -> Membership:
        """An independent set of the same statements."""
        twin = Membership.__new__(Membership)
        twin.__dict__.update(self.__dict__)
        for name in ("refused", "_certificates", "_revocations", "_per_signer", "_per_member", "_per_pair"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    @property
    def name(self) -> str:
        """What the circle is called now."""
        title = self._title.statement if self._title else self.charter
        assert isinstance(title, Title | Charter)
        return title.name

    def add(self, record: Record) -> bool:
        """Add a statement; whether it is new and kept. Raises ProtocolError for what no correct peer passes on."""
        return self.take(checked(record))[0]

    def take(self, entry: Entry) -> tuple[bool, tuple[Entry, ...]]:
        """As `add`, for what has been checked; and the entries that were given up."""
        statement = entry.statement
        if isinstance(statement, Charter):
            if entry.record.signed.digest != self.circle:
                raise ProtocolError("A charter of another circle came.")
            return False, ()
        if isinstance(statement, Contact | Offer):
            raise ProtocolError(f"A {entry.record.label} statement says nothing about membership.")
        if statement.circle != self.circle:
            raise ProtocolError("A statement about another circle came.")
        if isinstance(statement, Title):
            return self._take_title(entry, statement)
        if isinstance(statement, Revocation):
            return self._take_revocation(entry)
        return self._take_certificate(entry, statement)

    def entries(self) -> Iterator[Entry]:
        """All statements, in an order in which they can be added."""
        yield self._charter
        yield from self._certificates.values()
        yield from self._revocations.values()
        if self._title:
            yield self._title

    def members(self) -> Mapping[PeerId, Member]:
        """Who belongs now. Not to be changed."""
        return self._decided().members

    def removed(self) -> Mapping[PeerId, PeerId]:
        """Who was a member and is none now, and who took the certificate back (they themselves: they left)."""
        return self._decided().removed

    def proofs(self, peer: PeerId) -> list[Entry]:
        """Certificates that make somebody a member for who knows only the charter, from the founder down.

        Where an inviter was removed but its certificates are kept, the chain leads over one that was taken back.
        """
        roster = self._decided()
        member = roster.members.get(peer)
        if member is None or not member.certificate:
            return []
        chain = [self._certificates[member.certificate]]
        if not self.charter.open:
            ways = self._ways(roster)
            while (signer := chain[-1].by) != self.founder:
                chain.append(ways[signer])
        return chain[::-1]

    def _ways(self, roster: _Roster) -> dict[PeerId, Entry]:
        """For everybody who ever was a member the certificate nearest to the founder."""
        ways: dict[PeerId, Entry] = {}
        ahead = [self.founder]
        invited = defaultdict(list)
        for name in sorted(roster.reached):
            entry = self._certificates[name]
            if as_kind(entry, Certificate).role == "member":
                invited[entry.by].append(entry)
        for signer in ahead:
            for entry in invited[signer]:
                peer = PeerId(as_kind(entry, Certificate).member)
                if peer not in ways and peer != self.founder:
                    ways[peer] = entry
                    ahead.append(peer)
        return ways

    def role_of(self, peer: PeerId) -> Role | None:
        member = self.members().get(peer)
        return member.role if member else None

    def certified(self) -> int:
        """How many certificates there are."""
        return len(self._certificates)

    def revocable(self, signer: PeerId, member: PeerId) -> list[bytes]:
        """Names of those certificates of `member` that `signer` may take back, also if others did so already."""
        roster = self._decided()
        return [
            entry.name
            for entry in self._certificates_of(member)
            if entry.name in roster.reached and (signer in (member, self.founder) or signer in roster.chain(entry.by))
        ]

    def valid(self, member: PeerId) -> set[bytes]:
        """Names of the certificates by which `member` belongs."""
        return {e.name for e in self._certificates_of(member)} & self._decided().valid

    def signed_by(self, member: PeerId) -> list[bytes]:
        """Names of those certificates and revocations of `member` that are in force."""
        roster = self._decided()
        # Also those that were taken back: what their members signed may be kept, and hangs on them.
        made = (e for e in self._certificates.values() if e.name in roster.reached)
        took = (e for e in self._revocations.values() if roster.in_force(e))
        return [entry.name for entries in (made, took) for entry in entries if entry.by == member]

    def _certificates_of(self, member: PeerId) -> Iterator[Entry]:
        return (e for e in self._certificates.values() if as_kind(e, Certificate).member == member)

    def _take_title(self, entry: Entry, title: Title) -> tuple[bool, tuple[Entry, ...]]:
        if entry.by != self.founder:
            raise ProtocolError("Only the founder renames a circle.")
        old = self._title
        if old and (as_kind(old, Title).sequence, old.name) >= (title.sequence, entry.name):
            return False, ()
        self._title = entry
        return True, (old,) if old else ()

    def _take_revocation(self, entry: Entry) -> tuple[bool, tuple[Entry, ...]]:
        if entry.name in self._revocations:
            return False, ()
        gone: tuple[Entry, ...] = ()
        if entry.by != self.founder and self._full_of_revocations(entry):
            gone = self._drop_idle_revocations()
            if self._full_of_revocations(entry):
                self.refused["too many revocations"] += 1
                return False, gone
        self._revocations[entry.name] = entry
        self._per_signer[entry.by, "revocation/1"] += 1
        self._revocation_bytes += entry.size
        self._roster = None
        return True, gone

    def _full_of_revocations(self, entry: Entry) -> bool:
        return (
            len(self._revocations) >= REVOCATIONS
            or self._revocation_bytes + entry.size > REVOCATION_BYTES
            or self._per_signer[entry.by, "revocation/1"] >= REVOCATIONS_EACH
        )

    def _drop_idle_revocations(self) -> tuple[Entry, ...]:
        """Forget those of signers who speak for nobody, not even for themselves."""
        roster = self._decided()
        gone = tuple(
            entry
            for entry in self._revocations.values()
            if not roster.in_force(entry)
            and not any(
                name in roster.reached and as_kind(self._certificates[name], Certificate).member == entry.by
                for name in as_kind(entry, Revocation).certificates
            )
        )
        for entry in gone:
            del self._revocations[entry.name]
            self._per_signer[entry.by, "revocation/1"] -= 1
            self._revocation_bytes -= entry.size
        return gone

    def _take_certificate(self, entry: Entry, certificate: Certificate) -> tuple[bool, tuple[Entry, ...]]:
        if (entry.by == certificate.member) != self.charter.open:
            raise ProtocolError("In a commons all certify themselves; in another circle nobody does.")
        if entry.name in self._certificates:
            return False, ()
        gone: tuple[Entry, ...] = ()
        if self._full(entry.by, PeerId(certificate.member)):
            gone = self._drop_orphans()
            if reason := self._full(entry.by, PeerId(certificate.member)):
                self.refused[reason] += 1
                return False, gone
        self._certificates[entry.name] = entry
        self._count(entry, 1)
        self._roster = None
        return True, gone

    def _full(self, signer: PeerId, member: PeerId) -> str:
        if len(self._certificates) >= CERTIFICATES:
            return "too many certificates in the circle"
        if self._per_signer[signer, "certificate/1"] >= CERTIFICATES_EACH:
            return "too many certificates by one signer"
        if self._per_member[member] >= CERTIFICATES_OF_ONE:
            return "too many certificates of one member"
        if self._per_pair[signer, member] >= CERTIFICATES_OF_PAIR:
            return "too many certificates of one member by one signer"
        return ""

    def _count(self, entry: Entry, change: int) -> None:
        member = PeerId(as_kind(entry, Certificate).member)
        self._per_signer[entry.by, "certificate/1"] += change
        self._per_member[member] += change
        self._per_pair[entry.by, member] += change

    def _drop_orphans(self) -> tuple[Entry, ...]:
        reached = self._decided().reached
        return self.drop(entry for entry in self._certificates.values() if entry.name not in reached)

    def drop(self, certificates: Iterable[Entry]) -> tuple[Entry, ...]:
        """Forget certificates, to make room."""
        gone = tuple(certificates)
        for entry in gone:
            del self._certificates[entry.name]
            self._count(entry, -1)
        if gone:
            self._roster = None
        return gone

    def _decided(self) -> _Roster:
        if self._roster is None:
            self._roster = self._decide()
        return self._roster

    def _decide(self) -> _Roster:
        """Depth by depth; every certificate is decided once, from what was decided at smaller depths alone."""
        roster = _Roster({self.founder: Member("member", self.charter.created)}, depths={self.founder: 0})
        by_signer: defaultdict[PeerId, list[Entry]] = defaultdict(list)
        for entry in self._certificates.values():
            by_signer[self.founder if self.charter.open else entry.by].append(entry)
        against: defaultdict[bytes, list[Entry]] = defaultdict(list)
        for entry in self._revocations.values():
            for name in as_kind(entry, Revocation).certificates:
                against[name].append(entry)
        level = by_signer.get(self.founder, [])
        for depth in range(1, DEPTH + 1):
            verdicts = [(entry, self._against(entry, against.get(entry.name, []), roster)) for entry in level]
            touched: set[PeerId] = set()
            for entry, revocations in sorted(verdicts, key=lambda verdict: verdict[0].name):
                touched.add(self._apply(entry, revocations, depth, roster))
            level = [
                entry
                for signer in touched
                if not self.charter.open
                for entry in by_signer.get(signer, ())
                if entry.name not in roster.reached and roster.in_force(entry)
            ]
            if not level:
                break
        for peer in roster.members:
            roster.removed.pop(peer, None)
        return roster

    def _against(self, entry: Entry, revocations: list[Entry], roster: _Roster) -> list[Entry]:
        """Of these revocations of a certificate, the valid ones that are nearest to the founder."""
        if not revocations:
            return []
        member = PeerId(as_kind(entry, Certificate).member)
        chain = {self.founder} if self.charter.open else roster.chain(entry.by)
        valid: defaultdict[int, list[Entry]] = defaultdict(list)
        for revocation in revocations:
            if revocation.by in chain and roster.in_force(revocation):
                valid[roster.depths[revocation.by]].append(revocation)
            elif revocation.by == member:
                valid[DEPTH + 1].append(revocation)
        return valid[min(valid)] if valid else []

    def _apply(self, entry: Entry, revocations: list[Entry], depth: int, roster: _Roster) -> PeerId:
        certificate = as_kind(entry, Certificate)
        peer = PeerId(certificate.member)
        roster.reached.add(entry.name)
        if peer == self.founder:
            return peer
        roster.depths.setdefault(peer, depth)
        if entry.by != peer:
            roster.inviters[peer].add(entry.by)
        if revocations:
            if certificate.role == "member":  # what a guest signed never was in force: it is not kept from here on
                roster.kept[peer] |= set.intersection(*(set(as_kind(r, Revocation).keeps) for r in revocations))
            roster.removed.setdefault(peer, min(r.by for r in revocations))
            return peer
        roster.valid.add(entry.name)
        known = roster.members.get(peer)
        if known is None or (known.role == "guest" and certificate.role == "member"):
            roster.members[peer] = Member(certificate.role, certificate.issued, entry.by, entry.name, depth)
        return peer


def found(
    identity: Identity,
    name: str,
    now: int,
    nonce: bytes,
    *,
    open: bool = False,  # noqa: A002 - the field's name
    internet: bool = True,
    copies: int = 2,
) -> Record:
    """The charter of a new circle, with this node as its founder."""
    charter = Charter(name=name, created=now, nonce=nonce, open=open, internet=internet, copies=copies)
    return signed(identity, "charter/1", charter)


def certify(identity: Identity, circle: bytes, member: PeerId, role: Role, now: int, nonce: bytes) -> Record:
    """The certificate that makes `member` belong; in a commons, of oneself."""
    certificate = Certificate(circle=circle, member=member, role=role, issued=now, nonce=nonce)
    return signed(identity, "certificate/1", certificate)


def revoke(identity: Identity, membership: Membership, member: PeerId, now: int) -> Record:
    """Remove a member, keeping all whom they invited. Raises NotFound, Conflict or Forbidden."""
    if member not in membership.members():
        raise NotFound(
            f"{member.hex()[:8]} is not a member of {membership.name}.", hint="`pares circle show` lists all."
        )
    if member == membership.founder:
        raise Conflict(
            f"The circle {membership.name} stands on its founder's signature, which nobody can take back.",
            hint="A node can forget the circle; the others carry on. For a circle without this person, make a new one.",
        )
    certificates = membership.revocable(identity.id, member)
    if not membership.valid(member) <= set(certificates):
        raise Forbidden(
            f"{member.hex()[:8]} was not invited by you, nor by anybody whom you brought in.",
            hint="Ask who invited them, or the founder; you can always block a peer on your own node.",
        )
    keeps = membership.signed_by(member)
    revocation = Revocation(circle=membership.circle, certificates=certificates, keeps=keeps, issued=now)
    return signed(identity, "revocation/1", revocation)


def leave(identity: Identity, membership: Membership, now: int) -> Record:
    """Take one's own certificates back; whom one invited stays. Raises NotFound, or Conflict for the founder."""
    return revoke(identity, membership, identity.id, now)


def title(identity: Identity, membership: Membership, name: str, now: int) -> Record:
    """Rename the circle. Raises Forbidden for all but the founder."""
    if identity.id != membership.founder:
        raise Forbidden(f"Only the founder can rename {membership.name}.", hint="Ask them.")
    last = membership._title
    sequence = max(now, as_kind(last, Title).sequence + 1) if last else now
    return signed(identity, "title/1", Title(circle=membership.circle, name=name, sequence=sequence))
