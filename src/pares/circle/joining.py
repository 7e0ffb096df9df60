"""Getting into a circle: the side that lets in, and the side that knocks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pares.circle import invites, membership
from pares.circle.book import Book, Circle
from pares.circle.gathering import CONTACT_LIFE_S, Event, Gathering
from pares.circle.gossip import DELTA_BYTES, fitting
from pares.circle.invites import UNKNOWN_INVITE, Invitation, Invite, NotAdmitted
from pares.circle.statements import checked, signed
from pares.errors import BadRequest, Forbidden, PeersUnreachable, RemoteError
from pares.store.circles import InviteRecord
from pares.wire.framing import ProtocolError
from pares.wire.messages import RECORDS, Contact, Delta, Hello, Join, Joined, Record, Refused
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

Door = tuple[PeerId, tuple[str, ...], str]
"""A member to ask: key, addresses, relay."""


class Letting:
    """Lets others in, by the invites of this node and into its commons."""

    def __init__(self, book: Book, on_event: Callable[[Event], None]) -> None:
        self._book = book
        self._on_event = on_event

    async def admit(self, join: Join) -> Joined | Refused:
        """The answer to who wants in. Raises ProtocolError for a contact that is not the joiner's."""
        circle = self._book.circles.get(join.circle)
        joiner = PeerId(join.joiner)
        if circle is None:  # not told apart from a wrong invite: who is no member learns nothing
            return Refused(code="bad_invite", reason=UNKNOWN_INVITE)
        if join.contact.by != joiner:
            raise ProtocolError("Who wants to join brings somebody else's contact.")
        contact = Record(label="contact/1", signed=join.contact)
        checked(contact)
        try:
            if self._book.blocked(joiner):
                raise NotAdmitted("bad_invite", UNKNOWN_INVITE)
            if circle.store.membership.charter.open:
                self._take_certificate(circle, join)
            else:
                await self._certify(circle, join)
        except NotAdmitted as error:
            log.info("join.refused", extra={"peer": joiner.hex()[:8], "reason": error.message})
            return error.refusal
        circle.gossip.take(joiner, Delta(circle=circle.id, records=[contact]), time.time())
        await self._book.save(circle)
        if self._book.circles.get(circle.id) is not circle:
            return Refused(code="bad_invite", reason=UNKNOWN_INVITE)  # this node has left it meanwhile
        log.info("join.admitted", extra={"peer": joiner.hex()[:8], "circle": circle.name})
        self._on_event(Event("joined", circle=circle.id, peer=joiner, invite=join.invite))
        return Joined(records=_first_records(circle, joiner))

    def _take_certificate(self, circle: Circle, join: Join) -> None:
        joiner = PeerId(join.joiner)
        if join.certificate is None or join.certificate.by != joiner:
            raise NotAdmitted("bad_request", "In a commons who joins brings a certificate of their own.")
        if not circle.has(joiner):
            record = Record(label="certificate/1", signed=join.certificate)
            circle.gossip.take(joiner, Delta(circle=circle.id, records=[record]), time.time())
        if not circle.has(joiner):
            raise NotAdmitted("busy", "This node keeps no more members of that commons.")

    async def _certify(self, circle: Circle, join: Join) -> None:
        """Check the invite, use it, and only then sign: a use that is lost is better than one too many."""
        record = self._book.invites.get(join.invite)
        joiner = PeerId(join.joiner)
        if record is not None and joiner.hex() in record.joined and circle.has(joiner):
            return  # the answer was lost: the same key gets it again, and uses nothing up
        if record is not None and joiner.hex() in record.joined and joiner in circle.store.membership.removed():
            raise NotAdmitted("used_invite", "You came in by this invite before. Ask for a new one.")
        invite = _invite(record) if record else None
        invites.check(invite, join, time.time())
        assert record is not None
        assert invite is not None
        if self._book.role(circle) != "member":
            raise NotAdmitted("bad_invite", "Who made this invite does not belong to the circle any more.")
        left = invite.used()
        joined = (*record.joined, joiner.hex())
        await self._book.save_invite(replace(record, uses_left=left.uses_left, secret=left.secret, joined=joined))
        if circle.store.membership.role_of(joiner) not in ("member", record.role):
            now, nonce = time.time(), secrets.token_bytes(16)
            certificate = membership.certify(self._book.identity, circle.id, joiner, record.role, int(now), nonce)
            circle.gossip.made(certificate, now)


class Knocking:
    """Asks the members that a link names to let this node in, all at once; the first who does is enough."""

    def __init__(self, book: Book, gathering: Gathering) -> None:
        self._book = book
        self._gathering = gathering

    async def join(self, invitation: Invitation) -> Circle:
        """Returns after a real exchange with a member.

        Raises Forbidden if the invite is refused, PeersUnreachable with what was tried.
        """
        gathering = self._gathering
        doors = invitation.where() or [(PeerId(invitation.inviter), (), "")]
        keys = Counter({door[0] for door in doors})
        gathering.expected += keys
        try:
            joined, member = await self._knock(invitation, doors)
            circle = await self._enter(invitation, joined)
        finally:
            gathering.expected -= keys
            for peer in keys:
                if peer not in gathering.expected and not any(self._book.with_peer(peer)):
                    gathering.switchboard.drop(peer, "no common circle")
        await gathering.tell_contact()
        with contextlib.suppress(RemoteError):
            await self._greet(member)
            await gathering.meet(member)
        return circle

    async def _greet(self, member: PeerId) -> None:
        """Once more, now as members: strangers tell each other nothing."""
        network = self._gathering.network
        neighbour = network.get(member)
        hello = self._gathering.hello(neighbour.link.observed if neighbour else "")
        reply = await network.ask(member, hello, Hello)
        if isinstance(reply, Hello):
            network.greeted(member, reply)

    async def _knock(self, invitation: Invitation, doors: Sequence[Door]) -> tuple[Joined, PeerId]:
        tries = [asyncio.create_task(self._ask(invitation, door)) for door in doors]
        failures: list[str] = []
        refusals: list[Refused] = []
        try:
            for finished in asyncio.as_completed(tries):
                try:
                    reply, member = await finished
                except RemoteError as error:
                    failures.append(error.message)
                    continue
                if isinstance(reply, Joined):
                    return reply, member
                refusals.append(reply)
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        raise _not_joined(invitation, failures, refusals)

    async def _ask(self, invitation: Invitation, door: Door) -> tuple[Joined | Refused, PeerId]:
        member, addresses, relay = door
        await self._gathering.network.reach(member, addresses=addresses, relay=relay)
        join = self._request(invitation)
        reply = await self._gathering.network.ask(member, join, Joined)
        assert isinstance(reply, Joined | Refused)
        return reply, member

    def _request(self, invitation: Invitation) -> Join:
        identity, now = self._book.identity, time.time()
        contact = Contact(
            sequence=int(now * 1000),
            expires=int(now) + CONTACT_LIFE_S,
            name=self._gathering.profile.name,
            addresses=list(self._gathering.transport.addresses())[:16],
        )
        certificate, proof = None, b""
        if invitation.open:
            nonce = secrets.token_bytes(16)
            made = membership.certify(identity, invitation.circle, identity.id, "member", int(now), nonce)
            certificate = made.signed
        else:
            proof = invites.proof(invitation.secret, invitation.circle, identity.id)
        return Join(
            circle=invitation.circle,
            invite=invitation.invite,
            inviter=invitation.inviter,
            joiner=identity.id,
            contact=signed(identity, "contact/1", contact).signed,
            proof=proof,
            certificate=certificate,
        )

    async def _enter(self, invitation: Invitation, joined: Joined) -> Circle:
        """Take over what the member told, if it makes this node a member of that very circle."""
        charter = next((r for r in joined.records if r.signed.digest == invitation.circle), None)
        if charter is None:
            raise PeersUnreachable("The member who answered does not know this circle.", hint="Ask for a new invite.")
        now = time.time()
        before = self._book.circles.get(invitation.circle)
        unsound = "it did not certify this node"
        circle = before
        try:
            circle = before or await self._book.enter(charter, int(now))
            circle.gossip.take(PeerId(invitation.inviter), Delta(circle=circle.id, records=joined.records), now)
        except ProtocolError as error:
            unsound = error.message
        if circle is not None and self._book.role(circle) is not None:
            await self._book.save(circle)
            return circle
        if circle is not None and before is None:
            await self._book.forget(circle)
        raise PeersUnreachable(
            f"What the member told of {invitation.name} is not sound: {unsound}.", hint="Ask for a new invite."
        )


def _first_records(circle: Circle, joiner: PeerId) -> list[Record]:
    """For who was let in: the charter and what makes them a member, then as much of the rest as fits."""
    everything = circle.store.entries()
    first = [next(everything), *circle.store.membership.proofs(joiner)]
    names = {entry.name for entry in first}
    room = DELTA_BYTES - sum(entry.size for entry in first)
    rest = fitting((entry for entry in everything if entry.name not in names), room)
    return [entry.record for entry in first] + rest[: RECORDS - len(first)]


def check_link(invitation: Invitation, me: PeerId) -> None:
    """Raises BadRequest for one's own invite."""
    if invitation.inviter == me:
        raise BadRequest("This is your own invite.", hint="Send it to the person whom you want to invite.")


def _not_joined(
    invitation: Invitation, failures: Sequence[str], refusals: Sequence[Refused]
) -> Forbidden | PeersUnreachable:
    final = [refusal for refusal in refusals if refusal.code != "not_connected"]
    if final:
        return Forbidden(
            f"{invitation.inviter_name} does not let this node in: {final[0].reason}",
            hint=f"Ask {invitation.inviter_name} for a new invite.",
        )
    said = " ".join(dict.fromkeys([*(refusal.reason for refusal in refusals), *failures]))
    return PeersUnreachable(
        f"The invite to {invitation.name} is good, but {invitation.inviter_name}'s node does not answer. {said}",
        hint=f"Is {invitation.inviter_name}'s node running? If you are in two networks, each behind a router, the "
        "first contact needs a member whom both can reach, or a relay: `pares doctor` says more, on either side.",
    )


def _invite(record: InviteRecord) -> Invite:
    return Invite(record.id, record.secret, record.circle, record.role, record.made, record.expires, record.uses_left)
