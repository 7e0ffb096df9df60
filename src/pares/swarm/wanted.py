"""Which statements are worth having: what the members of this node's circles tell in their offers, shared out. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from itertools import islice, zip_longest

from pares.swarm.members import CircleFacts
from pares.wire.messages import Offer
from pares.wire.signing import PeerId

EACH = 512
"""Statements on the word of one member, at most."""
ALL = 8_192
"""Statements on the word of all."""


def told_in(offer: Offer) -> Iterator[bytes]:
    """Digests of the statements that an offer tells: those of the versions it holds, and the others."""
    yield from (held.version for held in offer.holds)
    yield from offer.tells


def wanted(
    circles: Iterable[CircleFacts],
    me: PeerId,
    *,
    ignored: Container[PeerId] = (),
    each: int = EACH,
    most: int = ALL,
) -> dict[PeerId, dict[bytes, None]]:
    """What to have, by the members who tell it.

    All get the same share: whoever tells very much takes nothing from those who tell little. Who was invited into a
    circle comes before who is only in a commons, which anybody may join under many names.
    """
    invited: dict[PeerId, dict[bytes, None]] = {}
    others: dict[PeerId, dict[bytes, None]] = {}
    for circle in sorted(circles, key=lambda circle: (circle.open, circle.id)):
        for peer in sorted(circle.offers):
            if peer != me and peer not in ignored:
                told = invited.get(peer) if circle.open else invited.setdefault(peer, {})
                if told is None:
                    told = others.setdefault(peer, {})
                told |= dict.fromkeys(told_in(circle.offers[peer]))
    chosen: set[bytes] = set()
    for group in (invited, others):
        for turn in zip_longest(*(islice(told, each) for told in group.values())):
            for digest in turn:
                if digest is not None and len(chosen) < most:
                    chosen.add(digest)
    tellers = invited | others
    return {peer: {digest: None for digest in islice(told, each) if digest in chosen} for peer, told in tellers.items()}
