"""Members who hold a version, as their offers say: who they are, where their machines may be, what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pares.errors import RemoteError
from pares.swarm.members import CircleFacts, Members
from pares.swarm.merkle import HASH, is_layer, pieces
from pares.transport.link import may_dial
from pares.wire.messages import Offer, PieceHashes, Pieces
from pares.wire.signing import PeerId

NAMED = 4
"""Holders that a message names."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds what, asked anew each time: offers come and go."""

    members: Members
    called: Callable[[PeerId], str] = lambda peer: peer.hex()[:8]
    """What a peer is called in messages."""

    def of(self, versions: frozenset[bytes]) -> tuple[PeerId, ...]:
        """Whose offers say that they hold one of these, or a part of it; those who are there first."""
        online = self.members.online()
        peers = dict.fromkeys(peer for _, peer, _ in self._offering(versions))
        return tuple(sorted(peers, key=lambda peer: peer not in online))

    def online(self, versions: frozenset[bytes]) -> frozenset[PeerId]:
        """Of those, who are there."""
        return frozenset(self.of(versions)) & self.members.online()

    def circles(self, versions: frozenset[bytes]) -> tuple[bytes, ...]:
        """The circles in which somebody holds one of these."""
        return tuple(dict.fromkeys(circle.id for circle, _, _ in self._offering(versions)))

    def is_public(self, versions: frozenset[bytes]) -> bool:
        """Whether one of these is offered in a commons that uses the internet: there, anybody may know who has it."""
        return any(circle.open and circle.internet for circle, _, _ in self._offering(versions))

    def addresses(self, peer: PeerId, circles: Iterable[CircleFacts] | None = None) -> tuple[str, ...]:
        """Where a peer's BitTorrent session may listen, as far as one dials there on somebody's word.

        `circles`: those of the moment, where many peers are asked about.
        """
        circles = self.members.circles() if circles is None else circles
        offers = [offer for circle in circles if (offer := circle.offers.get(peer))]
        ports = sorted({offer.bulk_port for offer in offers if offer.bulk_port})
        written = [f"[{host}]" if ":" in host else host for host in self.members.hosts(peer)]
        found = (f"{host}:{port}" for port in ports for host in written)
        return tuple(address for address in found if may_dial(address, local=True))

    def absence(self, versions: frozenset[bytes], name: str) -> str:
        """Why nothing comes, for people."""
        peers = self.of(versions)
        if not peers:
            return f"Nobody offers {name} now. It goes on when somebody does."
        names = ", ".join(self.called(peer) for peer in peers[:NAMED])
        names += f" and {len(peers) - NAMED} more" if len(peers) > NAMED else ""
        if not self.online(versions):
            return f"Nobody who holds {name} is there now. It waits for {names}."
        return f"Those who hold {name} send nothing: {names}. It goes on when one does."

    def _offering(self, versions: frozenset[bytes]) -> Iterator[tuple[CircleFacts, PeerId, Offer]]:
        me = self.members.me
        for circle in self.members.circles():
            for peer, offer in circle.offers.items():
                if peer != me and peer in circle.members and any(held.version in versions for held in offer.holds):
                    yield circle, peer, offer


async def fetch_layer(members: Members, peer: PeerId, root: bytes, size: int, *, timeout_s: float) -> bytes:
    """The hashes of a file's pieces, as many requests as it takes, checked against the root.

    Raises RemoteError where the peer does not have them, does not answer in time, or lies, for which it is punished.
    `timeout_s`: for each request.
    """
    layer = bytearray()
    wanted = HASH * pieces(size)
    while len(layer) < wanted:
        request = Pieces(root=root, first=len(layer) // HASH)
        reply = await members.ask(peer, request, PieceHashes, timeout_s=timeout_s)
        fits = reply.root == root and reply.first == request.first and len(reply.hashes) % HASH == 0
        if not fits or not 0 < len(reply.hashes) <= wanted - len(layer):
            raise _liar(members, peer, "answered a question for hashes of pieces with something else")
        layer += reply.hashes
    if not is_layer(bytes(layer), root, size):
        raise _liar(members, peer, "told wrong hashes of a file's pieces")
    return bytes(layer)


def _liar(members: Members, peer: PeerId, why: str) -> RemoteError:
    members.punish(peer, why)
    return RemoteError(f"{peer.hex()[:8]} {why}.")
