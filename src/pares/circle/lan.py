"""Finding peers on the local network: DNS-SD over multicast DNS (RFC 6762, RFC 6763), service `_pares._udp.local.`

A record says `id`, addresses and port, and nothing else: no name of machine, person, circle or model. The id has to be
there, because iroh dials keys; it lets whoever is on the same network recognize this node again.

Nothing here is authenticated. A lie costs a failed dial, as the handshake proves the key; so what matters is that lies
are few: see `Sightings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import psutil
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from pares.wire.signing import KEY_BYTES, PeerId

log = logging.getLogger(__name__)

SERVICE = "_pares._udp.local."
ADDRESSES = 8
"""Of one peer, at most."""
RESCAN_S = 3.0
"""How often the machine's interfaces are looked at."""
CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the unauthenticated may make us remember and do."""

    peers: int = 256
    peers_per_address: int = 8
    """Peers that one address may claim to be."""
    ttl_s: float = 3600.0
    reports: int = 6
    """Reports of one peer in `window_s`: as many dials may lies about it cost."""
    window_s: float = 60.0


@dataclass(slots=True)
class _Sighting:
    at: float
    wanted: bool = False
    """Whether it is of a peer we look for, as of then."""
    addresses: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    reported: list[float] = field(default_factory=list)


class Sightings:
    """Who was seen where, bounded. Pure: `now` is in seconds of any clock that does not go back.

    When it is full, the longest unseen stranger makes place, and a peer we are looking for only when there are no
    strangers; so a flood of false records costs friends nothing, unless it carries their ids.
    """

    def __init__(self, wanted: Callable[[PeerId], bool], limits: Limits = Limits()) -> None:
        self._wanted = wanted
        self._limits = limits
        self._seen: OrderedDict[PeerId, _Sighting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def saw(self, peer: PeerId, addresses: Sequence[str], now: float) -> bool:
        """Take a record in. Whether it is to be reported: new addresses of a peer we look for, not too often."""
        self._expire(now)
        old = self._seen.get(peer)
        wanted = self._wanted(peer)
        # A friend may always claim an address, else strangers could use up its places.
        fresh = tuple(a for a in addresses[:ADDRESSES] if wanted or self._may_claim(a, peer))
        if not fresh:
            return False
        if old is None:
            if len(self._seen) >= self._limits.peers and not self._make_place(wanted=wanted):
                return False
            old = self._seen[peer] = _Sighting(now)
        changed = not set(fresh) <= set(old.addresses)
        old.addresses = tuple(dict.fromkeys(fresh + old.addresses))[:ADDRESSES]
        old.hosts = frozenset(map(_host, old.addresses))
        old.at, old.wanted = now, wanted
        self._seen.move_to_end(peer)
        return changed and wanted and self._may_report(old, now)

    def gone(self, name: str) -> None:
        """The peer whose record has this name said goodbye, or somebody for it."""
        for peer, sighting in self._seen.items():
            if _name(peer) == name:  # how often it was reported stays: goodbyes can be false as well
                sighting.addresses, sighting.hosts = (), frozenset()

    def where(self, peer: PeerId, now: float) -> tuple[str, ...]:
        """Its addresses, the latest first; empty if it was not seen."""
        self._expire(now)
        found = self._seen.get(peer)
        return found.addresses if found is not None else ()

    def _expire(self, now: float) -> None:
        while self._seen:
            peer, oldest = next(iter(self._seen.items()))
            if now - oldest.at < self._limits.ttl_s:
                return
            del self._seen[peer]

    def _may_claim(self, address: str, peer: PeerId) -> bool:
        host = _host(address)
        others = sum(host in sighting.hosts for other, sighting in self._seen.items() if other != peer)
        return others < self._limits.peers_per_address

    def _make_place(self, *, wanted: bool) -> bool:
        victim = next((peer for peer, sighting in self._seen.items() if not sighting.wanted), None)
        if victim is None and wanted:
            victim = next(iter(self._seen))
        if victim is not None:
            del self._seen[victim]
        return victim is not None

    def _may_report(self, sighting: _Sighting, now: float) -> bool:
        sighting.reported = [at for at in sighting.reported if now - at < self._limits.window_s]
        if len(sighting.reported) >= self._limits.reports:
            return False
        sighting.reported.append(now)
        return True


class Lan:
    """This node on the local network: announces it and reports peers. `run` is its life.

    `addresses` are those where the transport listens (numeric, with port); IPv4 alone is announced, which every local
    network has. `wanted` says whether a peer is worth reporting and remembering before others; `seen` gets its id and
    addresses, on the event loop. `interfaces`: addresses of those to use; empty: all but loopback.
    """

    def __init__(
        self,
        me: PeerId,
        addresses: Callable[[], Sequence[str]],
        *,
        wanted: Callable[[PeerId], bool],
        seen: Callable[[PeerId, tuple[str, ...]], None],
        interfaces: Sequence[str] = (),
        limits: Limits = Limits(),
    ) -> None:
        self._me = me
        self._addresses = addresses
        self._seen = seen
        self._interfaces = list(interfaces)
        self._moved = asyncio.Event()
        self.sightings = Sightings(wanted, limits)
        self.problem = ""
        """Why the local network cannot be used now; empty if it can."""

    def where(self, peer: PeerId) -> tuple[str, ...]:
        """Where a peer was seen on this network, the latest first."""
        return self.sightings.where(peer, time.monotonic())

    def refresh(self) -> None:
        """The addresses may have changed: look now, and not only at the next turn."""
        self._moved.set()

    async def run(self) -> None:
        """Announce and listen until cancelled, then say goodbye. Without a usable interface it goes on looking."""
        while True:
            if interfaces := self._usable():
                try:
                    await self._serve(interfaces)
                except (OSError, ZeroconfError, TimeoutError) as error:
                    problem = f"Multicast DNS does not work here: {str(error) or type(error).__name__}."
                    if problem != self.problem:
                        log.warning("%s It is tried again every %.0f s.", problem, RESCAN_S)
                    self.problem = problem
            else:
                self.problem = "There is no local network."
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), RESCAN_S)
        self._moved.clear()

    async def _serve(self, interfaces: list[str]) -> None:
        zeroconf = AsyncZeroconf(interfaces=list(interfaces), ip_version=IPVersion.V4Only)
        browser: AsyncServiceBrowser | None = None
        try:
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._on_change])
            announced: list[str] = []
            while interfaces:
                if (own := self._own()) and own != announced:
                    # Whoever holds our name already is an older self or a liar: no reason to take another.
                    announcing = (
                        zeroconf.async_update_service(_record(self._me, own))
                        if announced
                        else zeroconf.async_register_service(_record(self._me, own), cooperating_responders=True)
                    )
                    await (await announcing)
                    announced = own
                self.problem = ""
                await self._pause()
                now = self._usable()
                if now != interfaces and now:
                    await zeroconf.zeroconf.async_update_interfaces(list(now))
                interfaces = now
        finally:
            if browser is not None:
                await browser.async_cancel()
            async with asyncio.timeout(CLOSE_S):
                await zeroconf.async_close()

    def _own(self) -> list[str]:
        """The addresses to announce."""
        return [a for a in self._addresses() if _announced(a, loopback=bool(self._interfaces))][:ADDRESSES]

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        label = name.removesuffix(f".{service_type}")
        if state_change is ServiceStateChange.Removed:
            self.sightings.gone(label)
            return
        try:
            info = AsyncServiceInfo(service_type, name)
        except ZeroconfError:  # a name that nobody may have
            return
        # Only what has arrived counts: to ask back for each name would let a flood of names make us flood.
        if not info.load_from_cache(zeroconf) or not info.port:
            return
        peer = _id_of(info)
        if peer is None or peer == self._me or label != _name(peer):
            return
        addresses = [f"{host}:{info.port}" for host in info.parsed_addresses(IPVersion.V4Only)]
        addresses = [a for a in addresses if _announced(a, loopback=bool(self._interfaces))]
        now = time.monotonic()
        if self.sightings.saw(peer, addresses, now):
            self._seen(peer, self.sightings.where(peer, now))

    def _usable(self) -> list[str]:
        """IPv4 addresses of the interfaces to use, sorted."""
        if self._interfaces:
            return self._interfaces
        return sorted(_own_addresses())


def _name(peer: PeerId) -> str:
    """A record's name. It follows from the id, so that after a restart the new record replaces the old one."""
    return peer.hex()[:16]


def _record(peer: PeerId, addresses: Sequence[str]) -> AsyncServiceInfo:
    """A record has one port: that of the first address."""
    port = _port(addresses[0])
    return AsyncServiceInfo(
        SERVICE,
        f"{_name(peer)}.{SERVICE}",
        server=f"pares-{_name(peer)}.local.",
        parsed_addresses=[_host(address) for address in addresses if _port(address) == port],
        port=port,
        properties={"id": peer.hex()},
    )


def _own_addresses() -> Iterable[str]:
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if name in up and entry.family.name == "AF_INET" and _announced(f"{entry.address}:1", loopback=False):
                yield entry.address


def _id_of(info: AsyncServiceInfo) -> PeerId | None:
    text = info.properties.get(b"id")
    if text is None or len(text) != 2 * KEY_BYTES:
        return None
    try:
        return PeerId(bytes.fromhex(text.decode("ascii")))
    except ValueError:
        return None


def _announced(address: str, *, loopback: bool) -> bool:
    """Whether an address belongs on a local network: unicast IPv4, and loopback only if asked for.

    Never one of the public internet: false records must not make nodes knock at strangers' doors.
    """
    try:
        host = ipaddress.IPv4Address(_host(address))
    except ValueError:
        return False
    impossible = host.is_global or host.is_unspecified or host.is_multicast or host.is_reserved
    return not impossible and host.is_loopback <= loopback


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
