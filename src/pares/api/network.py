"""What the control API says of circles and peers. Keys and ids are hex; times ISO 8601; `words` the five of a key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Role = Literal["founder", "member", "guest"]
PathKind = Literal["direct", "relayed", "lan", ""]
Reachable = Literal["yes", "relay only", "not from outside", "unknown", "offline", "alone"]
Way = Literal["last address", "lan", "introduction", "dht", "relay"]
GivenName = Annotated[str, Meta(min_length=1, max_length=64)]


class Who(msgspec.Struct, frozen=True):
    """A key, and what a person calls it. `name` is yours for them, or else theirs for themselves."""

    id: str
    name: str
    words: str


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who belongs to a circle."""

    id: str
    name: str
    words: str
    role: Role
    you: bool = False
    invited_by: str = ""
    """Hex id."""
    since: datetime
    online: bool = False


class Circle(msgspec.Struct, frozen=True, kw_only=True):
    """A circle that this node belongs to."""

    id: str
    name: str
    """Your name for it, or else its own."""
    title: str
    """Its own name."""
    role: Role
    open: bool
    """A commons: whoever has the link belongs."""
    internet: bool
    """Members may be looked up in the public DHT."""
    copies: int = 2
    """Members with room keep a version that fewer than so many hold."""
    founder: Who
    members: int
    online: int
    """Members with whom there has been an exchange within the last seconds, you not counted."""
    since: datetime
    can_invite: bool


class CircleDetail(msgspec.Struct, frozen=True, kw_only=True):
    circle: Circle
    members: tuple[Member, ...]
    invites: tuple[Invite, ...]


class Circles(msgspec.Struct, frozen=True):
    circles: tuple[Circle, ...]


class CircleRequest(msgspec.Struct, frozen=True):
    """A new circle."""

    name: GivenName
    open: bool = False
    internet: bool = True
    copies: Annotated[int, Meta(ge=0, le=64)] = 2
    """Members with room keep a version that fewer than so many hold; 0: nobody does."""


class CircleChange(msgspec.Struct, frozen=True):
    """The founder renames it for everybody, others for themselves."""

    name: GivenName


class InviteRequest(msgspec.Struct, frozen=True):
    expires_s: Annotated[int, Meta(ge=60, le=365 * 86400)] = 86400
    uses: Annotated[int, Meta(ge=1, le=1000)] = 1
    role: Literal["member", "guest"] = "member"


class Invite(msgspec.Struct, frozen=True, kw_only=True):
    """A link that lets somebody in. Whoever has it can use it."""

    id: str
    circle: str
    link: str
    qr: str
    """The link as an SVG."""
    role: Literal["member", "guest"]
    expires_at: datetime
    uses_left: int
    joined: tuple[Who, ...] = ()
    """Who came in by it so far."""


class LinkRequest(msgspec.Struct, frozen=True):
    link: Annotated[str, Meta(max_length=4096)]


class JoinPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a link says, before anything is sent to anybody."""

    circle: str
    name: str
    open: bool
    inviter: Who
    role: Literal["member", "guest"]
    expires_at: datetime
    shares: tuple[str, ...]
    """What the others will learn of this node, in sentences."""
    already: bool = False
    """This node belongs to it already."""


class Joined(msgspec.Struct, frozen=True):
    circle: Circle
    seconds: float
    """From asking until the first exchange with a member was done."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody in one of your circles."""

    id: str
    name: str
    words: str
    online: bool
    """They answered within the last seconds."""
    path: PathKind = ""
    rtt_ms: float | None = None
    since: datetime | None = None
    """Online: since when. Not online: when they last answered."""
    circles: tuple[str, ...] = ()
    """Ids of the circles that you share."""
    offers: tuple[str, ...] = ()
    """What they do for others, in words: `relay`, `64 GB memory`."""
    version: str = ""
    clock_offset_s: float | None = None
    blocked: bool = False
    reason: str = ""
    """Not online: why, as far as it is known."""


class Peers(msgspec.Struct, frozen=True):
    peers: tuple[Peer, ...]


class PeerChange(msgspec.Struct, frozen=True):
    """Your name for a peer; empty: theirs again. What is not given stays."""

    name: Annotated[str, Meta(max_length=64)] | None = None
    blocked: bool | None = None


class WayState(msgspec.Struct, frozen=True):
    """One way of finding peers."""

    way: Way
    state: Literal["works", "untried", "off", "fails"]
    message: str


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How this node stands in the network."""

    id: str
    words: str
    name: str
    reachable: Reachable
    """`yes`: others can dial it directly. `alone`: it belongs to no circle, and listens to nobody."""
    message: str
    """The same in a sentence."""
    hint: str = ""
    nat: Literal["none", "friendly", "symmetric", "unknown"] = "unknown"
    relay: str = ""
    """The relay in use."""
    relaying: bool = False
    """This node is a relay for its circles."""
    ways: tuple[WayState, ...] = ()
    peers_online: int = 0
