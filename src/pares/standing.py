"""How a node stands in the network, in words: can it be reached, which ways of finding peers work, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pares.api import network as told
from pares.api.schemas import Check
from pares.circle.circles import Circles
from pares.circle.dht import Directory
from pares.circle.lan import Lan
from pares.circle.relay import Relay
from pares.transport.bittorrent_process import BitTorrent
from pares.transport.link import ip_of
from pares.wire.signing import PeerId

CLOCK_OFF_S = 60

_WAY_HINTS: dict[told.Way, str] = {
    "last address": "It is normal after addresses changed: the other ways find the new ones.",
    "lan": "A firewall here may block multicast DNS (UDP 5353), or the network keeps its machines apart.",
    "introduction": "One side may be behind a router that changes its ports: a relay helps, `pares up --relay`.",
    "dht": "UDP may be blocked by a firewall here, or no DHT node is known: see `circle.dht_bootstrap`.",
    "relay": "The relay may be off: ask the member who runs it.",
}


@dataclass(slots=True)
class Means:
    """What is switched on besides dialling known addresses."""

    lan: Lan | None = None
    bittorrent: BitTorrent | None = None
    directory: Directory | None = None
    relay: Relay | None = None
    """The one that this node is for its circles."""

    def forget(self) -> None:
        """The network has ended."""
        self.lan = self.bittorrent = self.directory = self.relay = None


class Standing:
    """Reads the circles' network and the means; changes nothing."""

    def __init__(self, circles: Circles, means: Means, *, offline: bool) -> None:
        self._circles, self._means, self._offline = circles, means, offline

    @property
    def relay_url(self) -> str:
        """Where this node relays, by its settings or as peers see it; empty if it does not, or that is not known."""
        relay, gathering = self._means.relay, self._circles.gathering
        if relay is None or relay.settings.url:
            return relay.settings.url if relay else ""
        observed = gathering.network.observations.agreed() if gathering else ()
        own = gathering.transport.addresses() if gathering else ()
        host = next((str(ip_of(address)) for address in (*observed, *own) if not address.startswith("[")), "")
        return f"http://{host}:{relay.port}" if host else ""

    async def checks(self) -> Sequence[Check]:
        """The doctor's lines about circles and peers; nothing while there is no circle."""
        network = self._circles.network
        if self._offline or network is None:
            return ()
        await network.check()
        online, known = frozenset(network.online()), self._circles.book.members()
        reachable, message, hint = self.reachability()
        found = [_peers_check(len(online), len(known))] if known else []
        good = reachable in ("yes", "unknown")
        found.append(Check("reachability", "ok" if good else "warning", message, hint if not good else ""))
        for way in self.ways():
            state: Literal["ok", "warning"] = "warning" if way.state == "fails" else "ok"
            found.append(
                Check(
                    f"finding: {way.way}",
                    state,
                    f"{way.state}. {way.message}",
                    _WAY_HINTS[way.way] if state == "warning" else "",
                )
            )
        found.append(self._clock_check(online))
        if self._means.relay is not None:
            metrics = self._means.relay.metrics
            found.append(
                Check(
                    "relay",
                    "ok",
                    f"{metrics.clients} members use this relay, {metrics.forwarded_frames} "
                    f"frames so far; they reach it at {self.relay_url or 'an address not known yet'}.",
                )
            )
        return found

    def _clock_check(self, online: frozenset[PeerId]) -> Check:
        """The clock of this machine beside its peers'."""
        network = self._circles.network
        neighbours = [network.get(peer) for peer in online] if network else []
        offsets = sorted(n.clock_offset_s for n in neighbours if n)
        if not offsets:
            return Check("clock", "ok", "Not compared: no peer is online.")
        middle = offsets[len(offsets) // 2]
        if abs(middle) < CLOCK_OFF_S:
            return Check("clock", "ok", f"Within {max(1, round(abs(middle)))} s of the peers' clocks.")
        side = "behind" if middle > 0 else "ahead of"
        return Check(
            "clock",
            "warning",
            f"This machine is {abs(middle):.0f} s {side} its peers' clocks.",
            "Set it by the network: records of peers expire by it.",
        )

    def reachability(self) -> tuple[told.Reachable, str, str]:
        gathering = self._circles.gathering
        if self._offline:
            return "offline", "This node is offline by its settings: it sends nothing to anybody.", ""
        if gathering is None:
            hint = "Make a circle and invite somebody, or join one by a link."
            return "alone", "This node belongs to no circle, and listens to nobody.", hint
        observations, relay = gathering.network.observations, gathering.relay_of_mine()
        match observations.nat(gathering.transport.addresses()):
            case "none":
                return "yes", "Peers anywhere can connect to this node directly.", ""
            case "friendly":
                return "yes", "Peers can connect to this node directly; the router lets them through.", ""
            case "symmetric" if relay:
                message = "The router here changes its port for every peer: from outside, peers come over a relay."
                return "relay only", message, "Forward a UDP port to this machine, or use IPv6, for direct connections."
            case "symmetric":
                message = "The router here changes its port for every peer, and no circle of yours has a relay."
                hint = "Ask a member with a public address to run `pares up --relay`, or forward a UDP port."
                return "not from outside", message, hint
        if gathering.network.online():
            message = "Connected; whether it can be reached from other networks is not known yet."
            return "unknown", message, "It shows when two peers from outside have seen this node."
        return "unknown", "No peer has answered yet, so it is not known how this node can be reached.", ""

    def ways(self) -> list[told.WayState]:
        network = self._circles.network
        ways: list[told.WayState] = []
        if network is None:
            return ways
        gathering = self._circles.gathering
        assert gathering is not None
        off = {
            "lan": "" if self._means.lan else "Switched off by `circle.lan`, or by loopback mode.",
            "dht": "" if self._means.directory else "Switched off by `circle.dht`, or by loopback mode.",
            "relay": "" if gathering.relay_of_mine() else "No member of your circles relays.",
        }
        problems = {"lan": self._means.lan.problem if self._means.lan else "", "dht": self._dht_problem()}
        for way in ("last address", "lan", "introduction", "dht", "relay"):
            record = network.ways.get(way)
            if reason := off.get(way, ""):
                ways.append(told.WayState(way, "off", reason))
            elif problem := problems.get(way, ""):
                ways.append(told.WayState(way, "fails", problem))
            elif record is None:
                ways.append(told.WayState(way, "untried", "Was not needed yet."))
            elif record.worked:
                ways.append(told.WayState(way, "works", f"Found {_count(record.worked, 'peer')} so far."))
            else:
                ways.append(told.WayState(way, "fails", f"Tried in vain, {_count(record.failed, 'time')}."))
        return ways

    def _dht_problem(self) -> str:
        wanted = any(c.store.membership.charter.internet for c in self._circles.book.circles.values())
        if self._means.bittorrent is None or not wanted or self._means.bittorrent.status.nodes:
            return ""
        return "No node of the DHT has answered."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _peers_check(online: int, known: int) -> Check:
    if online:
        return Check("peers", "ok", f"{online} of {known} members of your circles answer.")
    return Check(
        "peers",
        "warning",
        f"None of the {known} members of your circles answers.",
        "Their nodes may be off; `pares peers` says for each why it was not reached.",
    )
