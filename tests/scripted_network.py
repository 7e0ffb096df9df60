"""Circles and peers for tests of the API and the page: a small world in memory, which tests move."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Literal, Self

import msgspec
import segno

from pares.api.network import (
    Circle,
    CircleDetail,
    CircleRequest,
    Invite,
    InviteRequest,
    Joined,
    JoinPreview,
    Member,
    Network,
    PathKind,
    Peer,
    PeerChange,
    Role,
    WayState,
    Who,
)
from pares.api.schemas import Check
from pares.circle.words import words
from pares.errors import BadRequest, Conflict, Forbidden, NotFound, ParesError
from pares.store.events import Events

LINK = "pares://join/"
SHARES = (
    "Your node's name, its key, and the addresses at which it can be reached.",
    "When it is online, and what it offers to do for others.",
)
WAYS = (
    WayState("last address", "works", "Two of two peers answered where they last were."),
    WayState("lan", "works", "One peer was found on your network."),
    WayState("introduction", "untried", "No peer had to be introduced so far."),
    WayState("dht", "off", "None of your circles asks for the internet."),
    WayState("relay", "fails", "No member of your circles is a relay. Ask one to run `pares up --relay`."),
)


def key_of(name: str) -> str:
    """A key for somebody of that name, as hex."""
    return hashlib.sha256(name.encode()).hexdigest()


def words_of(key: str) -> str:
    return " ".join(words(bytes.fromhex(key)))


def who(name: str) -> Who:
    return Who(key_of(name), name, words_of(key_of(name)))


@dataclass
class _Circle:
    id: str
    title: str
    name: str
    founder: Who
    open: bool
    internet: bool
    members: dict[str, Member] = field(default_factory=dict)
    invites: dict[str, Invite] = field(default_factory=dict)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


class ScriptedNetwork:
    """`NetworkServices`. The methods at the end move the world; what they change is told as events."""

    def __init__(self, events: Events, name: str = "desk") -> None:
        self._events = events
        self.me = who(name)
        self.all_circles: dict[str, _Circle] = {}
        self.all_peers: dict[str, Peer] = {}
        self.links: dict[str, JoinPreview] = {}
        self.refusal: ParesError | None = None
        self.answering = asyncio.Event()
        """Cleared by a test that wants joining to take long."""
        self.answering.set()
        self.stands = Network(
            id=self.me.id,
            words=self.me.words,
            name=name,
            reachable="alone",
            message="This node belongs to no circle, so it listens to nobody.",
            ways=WAYS,
        )

    # What the API asks

    async def circles(self) -> Sequence[Circle]:
        return [self._told(circle) for circle in self.all_circles.values()]

    async def circle(self, circle: str) -> CircleDetail:
        found = self._circle(circle)
        members = [msgspec.structs.replace(each, online=self._online(each.id)) for each in found.members.values()]
        return CircleDetail(circle=self._told(found), members=tuple(members), invites=tuple(found.invites.values()))

    async def create(self, request: CircleRequest) -> Circle:
        circle = self._add(request.name, self.me, "founder", open_=request.open, internet=request.internet)
        return self._told(circle)

    async def rename(self, circle: str, name: str) -> Circle:
        found = self._circle(circle)
        found.name = name
        if self._role(found) == "founder":
            found.title = name
        self._tell_circles()
        return self._told(found)

    async def leave(self, circle: str) -> None:
        del self.all_circles[self._circle(circle).id]
        self._tell_circles()

    async def invite(self, circle: str, request: InviteRequest) -> Invite:
        found = self._circle(circle)
        if self._role(found) == "guest":
            raise Forbidden("Guests cannot invite.", hint=f"Ask {found.founder.name} to invite them.")
        number = key_of(f"{found.id} {len(found.invites)} {datetime.now(UTC)}")[:16]
        link = f"{LINK}{number}{found.id * 3}"
        made = Invite(
            id=number,
            circle=found.id,
            link=link,
            qr=segno.make(link).svg_inline(),
            role=request.role,
            expires_at=datetime.now(UTC) + timedelta(seconds=request.expires_s),
            uses_left=request.uses,
        )
        found.invites[made.id] = made
        self._tell_circles()
        return made

    async def withdraw(self, circle: str, invite: str) -> None:
        if self._circle(circle).invites.pop(invite, None) is None:
            raise NotFound("There is no such invite.", hint="It was used, withdrawn, or has expired.")
        self._tell_circles()

    async def remove(self, circle: str, member: str) -> None:
        found = self._circle(circle)
        gone = _find("member", member, {each.id: each.name for each in found.members.values()})
        if gone == self.me.id:
            raise Conflict("That is this node.", hint="Leave the circle instead.")
        above = found.members[gone].invited_by
        while above not in ("", self.me.id):
            above = found.members[above].invited_by if above in found.members else ""
        if self._role(found) != "founder" and above != self.me.id:
            raise Forbidden("This node did not invite them.", hint=f"Ask {found.founder.name} to remove them.")
        del found.members[gone]
        self._tell_circles()

    async def preview(self, link: str) -> JoinPreview:
        if not link.startswith(LINK):
            raise BadRequest("This is not a link of Pares.", param="link", hint=f"Such a link begins with {LINK}.")
        if link not in self.links:
            raise BadRequest("This link is cut off.", param="link", hint="Copy it again, to its end.")
        shown = self.links[link]
        return msgspec.structs.replace(shown, already=shown.circle in self.all_circles)

    async def join(self, link: str) -> Joined:
        shown = await self.preview(link)
        if shown.already:
            raise Conflict(f"This node belongs to {shown.name} already.")
        await self.answering.wait()
        if self.refusal:
            raise self.refusal
        self.joins(link)
        return Joined(self._told(self._circle(shown.circle)), 0.4)

    async def peers(self) -> Sequence[Peer]:
        return tuple(self.all_peers.values())

    async def change_peer(self, peer: str, change: PeerChange) -> Peer:
        found = self.all_peers[_find("peer", peer, {each.id: each.name for each in self.all_peers.values()})]
        changes: dict[str, Any] = {}
        if change.name is not None:
            changes["name"] = change.name or f"peer {found.id[:6]}"
        if change.blocked is not None:
            changes |= {"blocked": change.blocked, "online": False, "path": "", "rtt_ms": None}
            changes["reason"] = "You blocked this peer." if change.blocked else "It was not heard of since."
        return self._put(msgspec.structs.replace(found, **changes))

    async def network(self) -> Network:
        return msgspec.structs.replace(self.stands, peers_online=self._peers_online())

    def figures(self) -> Mapping[str, tuple[str, float]]:
        return {"peers_online": ("Peers that answer", self._peers_online())}

    # How the world moves

    def founds(self, title: str) -> str:
        """This node has a circle of its own; its id."""
        return self._add(title, self.me, "founder", open_=False, internet=True).id

    def joins(self, link: str) -> None:
        """This node has joined by a link that was offered."""
        shown = self.links[link]
        self._add(shown.name, shown.inviter, shown.role, open_=shown.open, internet=True, id_=shown.circle)
        self.meets(shown.inviter.name)

    def refuses(self, error: ParesError | None) -> None:
        """What the next attempts to join end with."""
        self.refusal = error

    def meets(self, name: str, path: PathKind = "direct", **facts: Any) -> str:  # noqa: ANN401 (fields of a Peer)
        """Somebody of that name answers that way, or with no path is gone. Returns their key."""
        person = who(name)
        known = self.all_peers.get(person.id) or Peer(id=person.id, name=name, words=person.words, online=False)
        circles = tuple(each.id for each in self.all_circles.values() if person.id in each.members)
        state: dict[str, Any] = {"online": bool(path), "path": path, "rtt_ms": 12.0 if path else None, "reason": ""}
        state |= {"since": datetime.now(UTC), "circles": circles, "version": "0.1.0"}
        self._put(msgspec.structs.replace(known, **state | facts))
        self._tell_circles()
        return person.id

    def enters(self, circle: str, name: str, *, invite: str = "", by: str = "", role: Role = "member") -> str:
        """Somebody joins a circle: by this node's invite, or invited by a member of that name. Returns their key."""
        found, person = self._circle(circle), who(name)
        inviter = key_of(by) if by else self.me.id
        since = datetime.now(UTC)
        found.members[person.id] = Member(
            id=person.id, name=name, words=person.words, role=role, invited_by=inviter, since=since
        )
        if invite:
            used = found.invites[invite]
            joined = (*used.joined, person)
            found.invites[invite] = msgspec.structs.replace(used, uses_left=used.uses_left - 1, joined=joined)
            self._publish("joined", {"circle": found.id, "invite": invite, "peer": person})
        self.meets(name)
        return person.id

    def offered(self, title: str, *, by: str = "Ada", role: Literal["member", "guest"] = "member", **more: Any) -> str:  # noqa: ANN401
        """A link to a circle of somebody else."""
        link = f"{LINK}{key_of(f'link to {title}')}"
        facts: dict[str, Any] = {"open": False, "shares": SHARES, "expires_at": datetime.now(UTC) + timedelta(days=1)}
        self.links[link] = JoinPreview(circle=key_of(title), name=title, inviter=who(by), role=role, **facts | more)
        return link

    def becomes(self, **changes: Any) -> None:  # noqa: ANN401 (fields of Network)
        """The node stands otherwise in the network."""
        self.stands = msgspec.structs.replace(self.stands, **changes)
        self._publish("network", msgspec.structs.replace(self.stands, peers_online=self._peers_online()))

    def in_status(self) -> Mapping[str, Any]:
        """What `status` says of it."""
        word, online, circles = self.state()
        return {
            "id": self.me.id,
            "words": self.me.words,
            "circles": circles,
            "network": word,
            "peers_online": online,
        }

    # What the node asks of its network

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    @property
    def identity(self) -> SimpleNamespace:
        return SimpleNamespace(id=bytes.fromhex(self.me.id))

    async def checks(self) -> Sequence[Check]:
        return ()

    def state(self) -> tuple[Literal["alone", "connecting", "connected", "offline"], int, int]:
        """In a word, peers online, circles."""
        online, circles = self._peers_online(), len(self.all_circles)
        if self.stands.reachable == "offline":
            return "offline", online, circles
        return ("connected" if online else "connecting") if circles else "alone", online, circles

    # Inside

    def _add(self, title: str, founder: Who, role: Role, *, open_: bool, internet: bool, id_: str = "") -> _Circle:
        id_ = id_ or key_of(f"{title} {len(self.all_circles)} {datetime.now(UTC)}")
        circle = _Circle(id_, title, title, founder, open_, internet)
        me: dict[str, Any] = {"id": self.me.id, "name": self.me.name, "words": self.me.words, "since": circle.since}
        if founder != self.me:
            circle.members[founder.id] = Member(
                id=founder.id, name=founder.name, words=founder.words, role="founder", since=circle.since
            )
            me["invited_by"] = founder.id
        circle.members[self.me.id] = Member(**me, role=role, you=True, online=True)
        self.all_circles[id_] = circle
        self._tell_circles()
        return circle

    def _told(self, circle: _Circle) -> Circle:
        role = self._role(circle)
        return Circle(
            id=circle.id,
            name=circle.name,
            title=circle.title,
            role=role,
            open=circle.open,
            internet=circle.internet,
            founder=circle.founder,
            members=len(circle.members),
            online=sum(self._online(each) for each in circle.members if each != self.me.id),
            since=circle.since,
            can_invite=role != "guest",
        )

    def _role(self, circle: _Circle) -> Role:
        return circle.members[self.me.id].role

    def _online(self, key: str) -> bool:
        return key == self.me.id or (key in self.all_peers and self.all_peers[key].online)

    def _peers_online(self) -> int:
        return sum(peer.online for peer in self.all_peers.values())

    def _circle(self, wanted: str) -> _Circle:
        names = {circle.id: circle.name for circle in self.all_circles.values()}
        return self.all_circles[_find("circle", wanted, names)]

    def _put(self, peer: Peer) -> Peer:
        self.all_peers[peer.id] = peer
        self._publish("peers", {"peers": tuple(self.all_peers.values())})
        return peer

    def _tell_circles(self) -> None:
        self._publish("circles", {"circles": [self._told(circle) for circle in self.all_circles.values()]})

    def _publish(self, kind: str, data: object) -> None:
        self._events.publish(kind, msgspec.to_builtins(data))


def _find(kind: str, wanted: str, names: Mapping[str, str]) -> str:
    """The id of what is named so: by its id, the beginning of it, or its name. Raises NotFound."""
    for id_, name in names.items():
        if wanted == name or (len(wanted) >= 4 and id_.startswith(wanted)):
            return id_
    near = difflib.get_close_matches(wanted, names.values())
    raise NotFound(f"There is no {kind} {wanted!r} here.", hint=f"Close to it: {', '.join(near)}." if near else "")
