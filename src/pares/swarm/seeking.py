"""The ways to members who hold a file: plain BitTorrent where it gets through, else the circle's own connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from pares.errors import RemoteError
from pares.swarm.holders import Holders
from pares.transport.torrents import Torrents
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)


class Ways(Protocol):
    """Ports on this machine that lead to peers through the circle's own connections: `transport.tunnel.Tunnels`."""

    async def port(self, peer: PeerId) -> int: ...


class Seeker:
    """Tells the session of holders: where their machines may be, then the way through the circle's own connections."""

    def __init__(
        self,
        root: bytes,
        versions: frozenset[bytes],
        torrents: Torrents,
        holders: Holders,
        ways: Ways | None,
        *,
        direct: bool,
        direct_s: float,
        avoided: Callable[[PeerId], bool] = lambda peer: False,
    ) -> None:
        """`direct`: plain connections too; `direct_s`: after which a peer that none reaches is tried otherwise.
        `avoided`: who sent wrong bytes of this file."""
        self._root, self._versions = root, versions
        self._torrents, self._holders, self._ways = torrents, holders, ways
        self._direct, self._direct_s = direct, direct_s
        self._avoided = avoided
        self._dialled: dict[tuple[PeerId, tuple[str, ...]], float] = {}
        self._ports: dict[PeerId, int] = {}

    async def look(self) -> None:
        """Once; call it again and again, as holders come and go."""
        for peer in self._holders.of(self._versions):
            if not self._avoided(peer):
                await self._reach(peer)

    async def _reach(self, peer: PeerId) -> None:
        addresses = self._holders.addresses(peer) if self._direct else ()
        now = asyncio.get_running_loop().time()
        if (peer, addresses) not in self._dialled:
            self._dialled[peer, addresses] = now
            for address in addresses:
                self._torrents.connect(self._root, address)
        is_early = now - self._dialled[peer, addresses] < self._direct_s
        if self._ways is None or (addresses and (is_early or self._is_reached(addresses))):
            return
        try:
            port = await self._ways.port(peer)
        except (RemoteError, OSError) as error:  # the latter where this node has no more ports or descriptors
            log.info("swarm.no_tunnel", extra={"peer": peer.hex(), "reason": str(error)})
            return
        if self._ports.get(peer) != port:
            self._ports[peer] = port
            self._torrents.connect(self._root, f"127.0.0.1:{port}")

    def _is_reached(self, addresses: tuple[str, ...]) -> bool:
        """Whether one of the sources is there, or on the same machine: who dialled us comes from some other port."""
        status = self._torrents.get(self._root)
        sources = {source.address for source in status.sources} if status else set()
        hosts = {address.rpartition(":")[0] for address in sources} - {"127.0.0.1", "[::1]"}
        return any(address in sources or address.rpartition(":")[0] in hosts for address in addresses)
