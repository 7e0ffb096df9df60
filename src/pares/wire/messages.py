"""Every message, one frozen struct each, grouped by protocol. `docs/PROTOCOL.md` says the same in prose. Pure.

Bodies are MessagePack maps. Unknown fields are ignored, so a later version may add some; a changed meaning is a new
protocol name. All limits are in the annotations: a body that decodes is within them.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pares.wire.signing import Digest, Key, Signed

CIRCLE = "pares/circle/1"
SWARM = "pares/swarm/1"
BULK = "pares/bulk/1"

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Url = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=512)]
Address = Annotated[str, Meta(min_length=3, max_length=64)]
"""`192.0.2.1:4433` or `[2001:db8::1]:4433`."""
Seconds = Annotated[int, Meta(ge=0, le=1 << 40)]
"""Unix time."""
Sequence = Annotated[int, Meta(ge=0, le=1 << 62)]
Role = Literal["member", "guest"]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]

RECORDS = 256
"""Records in one message, at most."""
HELD = 96
TOLD = 128
"""Versions, and statements on them, in one offer, at most."""
FETCHED = 16
"""Statements asked for at once, at most."""
STATEMENT_BYTES = 64 * 1024
"""A statement in its envelope, at most."""
HASHES = 4096
"""Piece hashes asked for at once, at most."""

Layer = Annotated[int, Meta(ge=0, le=1 << 16)]


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower, kw_only=True):
    """A message on the wire: a map with its name under `type`."""


# Statements: what is signed, and spreads inside a circle. Labels: charter/1, certificate/1, ...


class Charter(msgspec.Struct, frozen=True, kw_only=True):
    """What a circle is, signed by its founder. The circle's id is the digest of the signed charter."""

    name: Name
    created: Seconds
    nonce: Nonce
    open: bool = False
    """A commons: who knows the link belongs; nobody vouches for anybody."""
    internet: bool = True
    """Whether members may be looked up in the Mainline DHT."""
    copies: Annotated[int, Meta(ge=0, le=64)] = 2
    """Members with room keep a version that fewer than so many hold; 0: nobody does."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The signer says: this key belongs to the circle. In a commons everybody signs their own."""

    circle: Digest
    member: Key
    role: Role
    issued: Seconds
    nonce: Nonce


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """The signer takes certificates of one member back, by their names.

    `keeps`: the names of those certificates and revocations signed by this member that stay in force.
    """

    circle: Digest
    certificates: Annotated[list[Digest], Meta(min_length=1, max_length=64)]
    keeps: Annotated[list[Digest], Meta(max_length=1024)] = []
    issued: Seconds


class Title(msgspec.Struct, frozen=True, kw_only=True):
    """The founder's later name for the circle; the highest sequence counts."""

    circle: Digest
    name: Name
    sequence: Sequence


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """Where the signer can be reached; the highest sequence counts."""

    sequence: Sequence
    expires: Seconds
    name: Name
    addresses: Annotated[list[Address], Meta(max_length=16)] = []
    """Of its own machine."""
    observed: Annotated[list[Address], Meta(max_length=4)] = []
    """As at least two peers saw it from outside."""
    relay: Url = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the signer of an offer holds and gives away: whole, or its header and some layers."""

    version: Digest
    layers: tuple[Layer, Layer] | None = None
    """First, and the one after the last; equal: the header alone. None: the whole."""
    head: bool = False
    """Of what is not whole: also token embedding, final norm and output matrix."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the signer does for this circle now; the highest sequence counts."""

    circle: Digest
    sequence: Sequence
    expires: Seconds
    relay: Url = ""
    """It relays for members, here."""
    memory_bytes: Annotated[int, Meta(ge=0, le=1 << 60)] = 0
    version: Annotated[str, Meta(max_length=32)] = ""
    bulk_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """TCP port of its BitTorrent session, at the addresses of its contact; 0: there is none."""
    holds: Annotated[list[Held], Meta(max_length=HELD)] = []
    tells: Annotated[list[Digest], Meta(max_length=TOLD)] = []
    """Statements on versions that can be fetched from it, by their digests: versions, endorsements, revocations."""


STATEMENTS: dict[str, type[Charter | Certificate | Revocation | Title | Contact | Offer]] = {
    "charter/1": Charter,
    "certificate/1": Certificate,
    "revocation/1": Revocation,
    "title/1": Title,
    "contact/1": Contact,
    "offer/1": Offer,
}
"""By label."""

BODY_BYTES: dict[str, int] = {
    "charter/1": 1024,
    "certificate/1": 1024,
    "revocation/1": 48 * 1024,
    "title/1": 1024,
    "contact/1": 4 * 1024,
    "offer/1": 16 * 1024,
}
"""The body of a signed statement, at most; room for fields that later versions add."""

Label = Literal["charter/1", "certificate/1", "revocation/1", "title/1", "contact/1", "offer/1"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement with its label, as it is passed on."""

    label: Label
    signed: Signed

    @property
    def name(self) -> bytes:
        """SHA-256 of label, zero byte, author and body: under this name it is compared, asked for and revoked."""
        return hashlib.sha256(self.label.encode() + b"\0" + self.signed.by + self.signed.body).digest()


Records = Annotated[list[Record], Meta(max_length=RECORDS)]


# pares/circle/1: each stream carries one request and its one answer.


class Hello(_Message, frozen=True):
    """First on every connection, from the side that dialled; the same comes back."""

    name: Name
    version: Annotated[str, Meta(max_length=32)]
    now: Seconds
    observed: Annotated[str, Meta(max_length=64)] = ""
    """The other side's address as its packets show it; empty over a relay."""


class Ping(_Message, frozen=True):
    """Are you there? Comes back as it is."""

    number: Sequence


class Observe(_Message, frozen=True):
    """As what address do you see me? The answer is Observed."""


class Observed(_Message, frozen=True):
    address: Annotated[str, Meta(max_length=64)]


class Join(_Message, frozen=True):
    """Take me in. Goes to the member who made the invite, or to another one, who passes it on to that member.

    `proof` is HMAC-SHA256 under the invite's secret over `pares join`, circle and joiner: the secret never travels,
    and who passes this on can do nothing else with it. In a commons it is empty, and `certificate` is the joiner's own.
    """

    circle: Digest
    invite: Nonce
    inviter: Key
    joiner: Key
    contact: Signed
    proof: Annotated[bytes, Meta(max_length=32)] = b""
    certificate: Signed | None = None


class Joined(_Message, frozen=True):
    """The circle as the member knows it; more comes by gossip."""

    records: Records


class Digests(_Message, frozen=True):
    """What I have of this circle: one hash per bucket of records. The answer is Summaries.

    A record's place has 10 bits. Of what its signer says about itself (contact, offer, a certificate in a commons): a
    one, then the first 9 bits of the SHA-256 of its signer. Of all else: a zero, then the first 9 bits of its name.
    A record's bucket is the first `bits` bits of its place. A bucket's hash is the first 8 bytes of the SHA-256 of its
    records' names, ordered by place, then name; eight zero bytes stand for a bucket that the sender does not keep.
    """

    circle: Digest
    bits: Annotated[int, Meta(ge=0, le=10)]
    hashes: Annotated[bytes, Meta(max_length=8 * 1024)]


class Summaries(_Message, frozen=True):
    """The first 16 bytes of the names of all records in those buckets that differ, ordered by place, then name."""

    buckets: Annotated[list[Annotated[int, Meta(ge=0, le=1023)]], Meta(max_length=1024)]
    names: Annotated[bytes, Meta(max_length=128 * 1024)]


class Delta(_Message, frozen=True):
    """Records that you lack, and (by the first 16 bytes of their names) such as I want. The answer is a Delta."""

    circle: Digest
    records: Records = []
    wants: Annotated[bytes, Meta(max_length=16 * RECORDS)] = b""


class Introduce(_Message, frozen=True):
    """Bring me together with a peer that you are connected to. It is told at the same time, and both dial."""

    circle: Digest
    peer: Key


class Introduced(_Message, frozen=True):
    """To both sides: dial this peer now, at the addresses that I see."""

    circle: Digest
    peer: Key
    addresses: Annotated[list[Address], Meta(max_length=20)]
    relay: Url = ""


class Bye(_Message, frozen=True):
    """The sender is stopping. Answered with Done."""


class Done(_Message, frozen=True):
    """Understood; there is nothing to say."""


RefusalCode = Literal[
    "unknown_circle",
    "not_a_member",
    "bad_invite",
    "used_invite",
    "expired_invite",
    "not_connected",
    "not_held",
    "busy",
    "bad_request",
]


class Refused(_Message, frozen=True):
    """The answer to what will not be done. `code` is for machines, `reason` for people."""

    code: RefusalCode
    reason: Text


CircleRequest = Hello | Ping | Observe | Join | Digests | Delta | Introduce | Introduced | Bye
CircleReply = Hello | Ping | Observed | Joined | Summaries | Delta | Introduced | Done | Refused


# pares/swarm/1: between members of a circle; each stream carries one request and its one answer.


class Fetch(_Message, frozen=True):
    """Statements on versions, by the SHA-256 of what is signed in them. The answer is Statements."""

    digests: Annotated[list[Digest], Meta(min_length=1, max_length=FETCHED)]


class Statements(_Message, frozen=True):
    """Those of the asked ones that the sender has and tells in a circle of both, as many as fit: DSSE envelopes."""

    envelopes: Annotated[
        list[Annotated[bytes, Meta(min_length=2, max_length=STATEMENT_BYTES)]], Meta(max_length=FETCHED)
    ] = []


class Pieces(_Message, frozen=True):
    """Hashes of a file's pieces (BEP 52: a layer of its merkle tree). The answer is PieceHashes."""

    root: Digest
    first: Annotated[int, Meta(ge=0, le=1 << 32)] = 0
    """The number of the first piece that is asked for."""


class PieceHashes(_Message, frozen=True):
    """SHA-256 of each piece's subtree, in order, from the first that was asked for on; as many as fit."""

    root: Digest
    first: Annotated[int, Meta(ge=0, le=1 << 32)]
    hashes: Annotated[bytes, Meta(max_length=32 * HASHES)]


SwarmRequest = Fetch | Pieces
SwarmReply = Statements | PieceHashes | Refused
