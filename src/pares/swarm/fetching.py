"""Fetching statements from the members who tell them: all in turn, a few at once, each with a deadline and a budget."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pares.errors import RemoteError
from pares.swarm.members import Members
from pares.transport.bucket import Bucket
from pares.wire.framing import ProtocolError
from pares.wire.messages import FETCHED, Fetch, Statements
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Requests under way."""
UNPROVEN = AT_ONCE - 1
"""Of those, to members who have not answered yet: strangers that are silent do not hold up everything."""
REQUEST_S = 10.0
BYTES_BURST = 4 * 1024 * 1024
BYTES_PER_S = 2 * 1024
"""What is taken from one member: so much at once, then so much per second."""
REQUEST_BYTES = 1_024
"""What a request costs at least."""
REST_S = 30.0
LONGEST_REST_S = 3_600.0
"""After a failure, doubled with each."""
IGNORED_S = 600.0
"""What a member tells that sent something false is ignored for so long."""
LACKING_S = 300.0
"""What a member told and did not have is not asked of it again so soon."""


@dataclass(slots=True)
class _Teller:
    """What came of asking one member."""

    budget: Bucket
    queue: dict[bytes, None] = field(default_factory=dict)
    """What it tells that is not here."""
    lacking: dict[bytes, float] = field(default_factory=dict)
    """Until when not to ask it for this."""
    answered: bool = False
    busy: bool = False
    failures: int = 0
    rests_until: float = 0.0
    false_until: float = 0.0
    asked: float = 0.0

    def may_be_asked(self, now: float) -> bool:
        rests = max(self.rests_until, self.false_until) > now
        return bool(self.queue) and not self.busy and not rests and self.budget.take(0, now) == 0


class Fetching:
    """`take(peer, asked, envelopes)` keeps what came; it raises ProtocolError for what nobody asked for, or is false.

    `now()` is monotonic.
    """

    def __init__(
        self,
        members: Members,
        take: Callable[[PeerId, Sequence[bytes], Sequence[bytes]], Awaitable[set[bytes]]],
        *,
        now: Callable[[], float],
    ) -> None:
        self._members = members
        self._take = take
        self._now = now
        self._tellers: dict[PeerId, _Teller] = {}
        self._under_way: set[bytes] = set()

    def ignored(self) -> frozenset[PeerId]:
        """Members who sent something false lately."""
        now = self._now()
        return frozenset(peer for peer, teller in self._tellers.items() if teller.false_until > now)

    async def run(self, missing: Mapping[PeerId, Sequence[bytes]]) -> None:
        """Ask for all that is missing, by who tells it, until nothing more can be had now.

        Called again meanwhile, it takes up what is new at once. Raises what `take` raises that is no fault of a peer.
        """
        self._plan(missing)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(self._work(), name="fetch statements")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _plan(self, missing: Mapping[PeerId, Sequence[bytes]]) -> None:
        now = self._now()
        for peer, teller in list(self._tellers.items()):
            teller.queue.clear()
            teller.lacking = {digest: until for digest, until in teller.lacking.items() if until > now}
            idle = not (teller.busy or teller.lacking) and max(teller.rests_until, teller.false_until) <= now
            if peer not in missing and idle and teller.budget.full(now):
                del self._tellers[peer]
        for peer, digests in missing.items():
            teller = self._tellers.setdefault(peer, _Teller(Bucket(BYTES_PER_S, BYTES_BURST, now)))
            teller.queue |= dict.fromkeys(digest for digest in digests if digest not in teller.lacking)

    async def _work(self) -> None:
        while (chosen := self._next()) is not None:
            await self._ask(*chosen)

    def _next(self) -> tuple[PeerId, _Teller, list[bytes]] | None:
        """Whom to ask next: who is online and did not fail, whose turn was the longest ago."""
        busy = [teller for teller in self._tellers.values() if teller.busy]
        if len(busy) >= AT_ONCE:
            return None
        now, online = self._now(), self._members.online()
        ready = [(peer, teller) for peer, teller in self._tellers.items() if teller.may_be_asked(now)]
        ready.sort(key=lambda each: (each[0] not in online, each[1].failures, each[1].asked, each[0]))
        unproven = sum(not teller.answered for teller in busy)
        for peer, teller in ready:
            if teller.answered or unproven < UNPROVEN:
                batch = [digest for digest in teller.queue if digest not in self._under_way][:FETCHED]
                if batch:
                    return peer, teller, batch
        return None

    async def _ask(self, peer: PeerId, teller: _Teller, batch: list[bytes]) -> None:
        teller.busy, teller.asked = True, self._now()
        self._under_way.update(batch)
        try:
            reply = await self._members.ask(peer, Fetch(digests=batch), Statements, timeout_s=REQUEST_S)
            size = sum(map(len, reply.envelopes))
            teller.budget.take(max(size, REQUEST_BYTES), self._now())
            came = await self._checked(peer, batch, reply.envelopes)
            teller.answered, teller.failures = True, 0
            self._settle(teller, batch, came)
        except ProtocolError:
            teller.false_until = self._now() + IGNORED_S
        except RemoteError as error:
            log.debug("statements.not_fetched", extra={"peer": peer.hex()[:8], "reason": error.message})
            teller.rests_until = self._now() + min(REST_S * 2.0 ** min(teller.failures, 16), LONGEST_REST_S)
            teller.failures += 1
        finally:
            teller.busy = False
            self._under_way.difference_update(batch)

    async def _checked(self, peer: PeerId, batch: Sequence[bytes], envelopes: Sequence[bytes]) -> set[bytes]:
        try:
            return await self._take(peer, batch, envelopes)
        except ProtocolError as error:
            self._members.punish(peer, error.message)
            raise

    def _settle(self, teller: _Teller, batch: Sequence[bytes], came: set[bytes]) -> None:
        """What came need not be asked of anybody; what did not is asked again, unless it seems not to be there."""
        for each in self._tellers.values():
            for digest in came:
                each.queue.pop(digest, None)
        if not came:
            for digest in batch:
                teller.queue.pop(digest, None)
                teller.lacking[digest] = self._now() + LACKING_S
