"""Invites: a link that is enough to join, and what the member who made it checks. Pure.

The link is `pares://join/` and, in base64url, a MessagePack array (`Invitation`) with the first four bytes of its
SHA-256 behind it, so that a link that was cut off is recognised. It holds a secret: who has the link can join until it
has expired or is used up. The secret is known to link and inviter only; who joins proves it by an HMAC.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta

from pares.errors import BadRequest, RemoteError
from pares.wire.framing import ProtocolError
from pares.wire.messages import Join, Name, Nonce, RefusalCode, Refused, Role, Seconds, Url
from pares.wire.signing import Digest, Key, PeerId, decoded

SCHEME = "pares://join/"
LINK_CHARACTERS = 4_096
LEAST_CHARACTERS = 120
"""Without `pares://join/` before it, what is shorter is something else."""
CONTACTS = 4
ADDRESSES = 4
"""Of each contact. A link with two contacts of two IPv4 addresses and a relay stays below 400 characters."""
CHECK_BYTES = 4
SECRET_BYTES = 16

PackedAddress = Annotated[bytes, Meta(min_length=6, max_length=18)]
"""4 or 16 bytes of IP address, 2 of port, big endian."""


class InviteContact(msgspec.Struct, frozen=True, array_like=True):
    """A member to begin with. An empty key: the inviter."""

    key: Annotated[bytes, Meta(max_length=32)]
    addresses: Annotated[list[PackedAddress], Meta(max_length=ADDRESSES)] = []
    relay: Url = ""


class Invitation(msgspec.Struct, frozen=True, array_like=True):
    """What the link says."""

    circle: Digest
    name: Name
    invite: Nonce
    secret: Annotated[bytes, Meta(max_length=SECRET_BYTES)]
    """Empty in a commons."""
    role: Role
    expires: Seconds
    inviter: Key
    inviter_name: Name
    open: bool
    contacts: Annotated[list[InviteContact], Meta(max_length=CONTACTS)]

    def where(self) -> list[tuple[PeerId, tuple[str, ...], str]]:
        """Members to dial: key, addresses, relay."""
        return [(PeerId(c.key or self.inviter), tuple(map(unpacked, c.addresses)), c.relay) for c in self.contacts]


@dataclass(frozen=True, slots=True)
class Invite:
    """What the inviter keeps of an invite."""

    id: bytes
    secret: bytes
    circle: bytes
    role: Role
    made: int
    expires: int
    uses_left: int

    def used(self) -> Invite:
        """After somebody has joined by it. The secret goes with the last use."""
        left = max(0, self.uses_left - 1)
        return replace(self, uses_left=left, secret=self.secret if left else b"")


UNKNOWN_INVITE = "This invite is not known here, or its secret is wrong."


class NotAdmitted(RemoteError):
    """Somebody may not join; `refusal` is the answer."""

    code = "not_admitted"

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refused(code=code, reason=reason)


def proof(secret: bytes, circle: bytes, joiner: PeerId) -> bytes:
    """That `joiner` knows the secret of an invite to `circle`."""
    return hmac.digest(secret, b"pares join" + circle + joiner, "sha256")


def check(invite: Invite | None, join: Join, now: float) -> None:
    """Whether this invite of ours admits the joiner. Raises NotAdmitted. Unknown and wrong are not told apart."""
    if invite is None or invite.circle != join.circle or invite.id != join.invite:
        raise NotAdmitted("bad_invite", UNKNOWN_INVITE)
    if invite.expires <= now:
        raise NotAdmitted("expired_invite", "This invite has expired. Ask for a new one.")
    if invite.uses_left <= 0 or not invite.secret:
        raise NotAdmitted("used_invite", "This invite has been used up. Ask for a new one.")
    if not hmac.compare_digest(proof(invite.secret, join.circle, PeerId(join.joiner)), join.proof):
        raise NotAdmitted("bad_invite", UNKNOWN_INVITE)


def contact(key: bytes, addresses: Sequence[str], relay: str = "") -> InviteContact:
    """A member for the link, with the first of its addresses."""
    return InviteContact(key, [packed(address) for address in addresses[:ADDRESSES]], relay)


def link(invitation: Invitation) -> str:
    """The invitation as text."""
    shorter = [
        InviteContact(b"", c.addresses, c.relay) if c.key == invitation.inviter else c for c in invitation.contacts
    ]
    body = msgspec.msgpack.encode(msgspec.structs.replace(invitation, contacts=shorter))
    return SCHEME + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def parse(text: str, now: float) -> Invitation:
    """What a link says. White space, line breaks, quotes and a missing scheme do no harm. Raises BadRequest."""
    if len(text) > LINK_CHARACTERS:
        raise _broken("This is far too long for an invite.")
    bare = re.sub(r"[\s<>\"'`]", "", text)
    match = re.fullmatch(r"((?:pares:)?/*join/)?([A-Za-z0-9_-]+)=*", bare, re.IGNORECASE)
    if match is None or (match[1] is None and len(match[2]) < LEAST_CHARACTERS):
        raise _broken("This is not a Pares invite.")
    code = match[2]
    try:
        body = base64.urlsafe_b64decode(code[: len(code) - (len(code) % 4 == 1)] + "=" * (-len(code) % 4))
    except binascii.Error as error:
        raise _broken("This is not a Pares invite.") from error
    if len(body) <= CHECK_BYTES or _check(body[:-CHECK_BYTES]) != body[-CHECK_BYTES:]:
        raise _broken("This invite is cut off or mistyped: its check does not fit.")
    try:
        invitation = decoded(body[:-CHECK_BYTES], Invitation)
    except ProtocolError as error:
        raise BadRequest(
            "This invite is of a kind that this version of Pares does not know.",
            hint="Update Pares here, or ask for an invite made with this version.",
        ) from error
    if any(len(c.key) not in (0, 32) or any(len(a) not in (6, 18) for a in c.addresses) for c in invitation.contacts):
        raise _broken("This invite is damaged: it names a member in a way that means nothing.")
    if len(invitation.secret) != (0 if invitation.open else SECRET_BYTES):
        raise _broken("This invite is damaged: its secret has the wrong size.")
    if invitation.expires <= now:
        hours = (now - invitation.expires) / 3600
        raise BadRequest(
            f"This invite to {invitation.name} expired {hours:.0f} hours ago."
            if hours >= 1
            else f"This invite to {invitation.name} has expired.",
            hint=f"Ask {invitation.inviter_name} for a new one.",
        )
    return invitation


def packed(address: str) -> bytes:
    """`192.0.2.1:4433` or `[2001:db8::1]:4433` in 6 or 18 bytes. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")).packed + int(port).to_bytes(2, "big")


def unpacked(address: bytes) -> str:
    ip = ip_address(address[:-2])
    return f"{ip if ip.version == 4 else f'[{ip}]'}:{int.from_bytes(address[-2:], 'big')}"


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:CHECK_BYTES]


def _broken(what: str) -> BadRequest:
    return BadRequest(what, param="link", hint=f"Copy the whole link, from {SCHEME} to its end, and paste it again.")
