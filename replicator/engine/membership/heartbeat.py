"""The heartbeat of a worker and the news that it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.identifiers import WorkerId
from replicator.domain.shards.leases import LEAVING, Pulse
from replicator.engine.limits import Limits
from replicator.engine.membership.reach import Reach
from replicator.engine.membership.session import Session
from replicator.engine.waiting import Flag, pause, pause_for_any
from replicator.ports.clock import Clock
from replicator.ports.coordination import Membership
from replicator.ports.events import Observer
from replicator.ports.services import ServiceId, ServiceKind

_SERVICE = ServiceId(ServiceKind.HEARTBEAT)

_TOO_LONG = "The heartbeat took longer than a lease."

_TOO_LONG_ADVICE = (
    "The coordination table answers too slowly, or throttles: look at its latency (SuccessfulRequestLatency) and at"
    " ThrottledRequests, and at the network to its region. Give it more capacity (PAY_PER_REQUEST), or raise"
    " coordination.lease. Other workers take these shards over meanwhile, and this one goes on by itself."
)

_NEWS_SECONDS = 0.3
"""Time between two heartbeats at least, however much news there is."""


class News:
    """What our next heartbeat shows to the other workers, and whether it is due early."""

    def __init__(self, admin: str = "") -> None:
        """`admin`: where our admin server listens."""
        self._admin = admin
        self._count = 0
        self.leaving = False
        self.reach = Reach()
        """What our heartbeats say of what we read."""
        self.due = Flag()
        """Set while there is news that no heartbeat has carried."""

    def announce(self) -> None:
        """Let others look at the rows: shards were freed or found."""
        self._count += 1
        self.due.set()

    def leave(self) -> None:
        """Announce that we want no more shards."""
        self.leaving = True
        self.announce()

    def pulse(self, beat: int) -> Pulse:
        """The next heartbeat, with all news."""
        self.due.clear()
        news = LEAVING - self._count if self.leaving else self._count
        return Pulse(beat, news, self._admin, self.reach.statements())


async def heartbeat(  # noqa: PLR0913 - its collaborators, given once
    session: Session, membership: Membership, clock: Clock, observer: Observer, *, limits: Limits, news: News
) -> None:
    """Beat until the session is over: the deadline passed, or another task ended it. News is beaten early."""
    beat = 0
    while not session.over.is_set():
        beat += 1
        sent_at = clock.monotonic()
        wait = limits.heartbeat_seconds
        try:
            async with asyncio.timeout(min(limits.lease_seconds, session.seconds_left)):
                await membership.beat(session.worker, news.pulse(beat))
            session.extend(sent_at)
            observer.service_recovered(_SERVICE)
        except (ReplicatorError, TimeoutError) as error:
            observer.service_failed(_SERVICE, _as_ours(error))
            wait = min(wait, limits.lease_seconds / 10)
        wait = max(0.0, min(wait, session.seconds_left))
        if not await pause(session.over, min(wait, _NEWS_SECONDS)) and wait > _NEWS_SECONDS:
            await pause_for_any(wait - _NEWS_SECONDS, session.over, news.due)
        session.expire_if_due()


def _as_ours(error: ReplicatorError | TimeoutError) -> ReplicatorError:
    return error if isinstance(error, ReplicatorError) else Unreachable(_TOO_LONG, advice=_TOO_LONG_ADVICE)


class Heartbeats:
    """What an observer knows of other workers' counters; expiry by the observer's own clock."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._seen: dict[WorkerId, tuple[int | None, float]] = {}

    def observe(
        self, counters: Mapping[WorkerId, int], owners: Iterable[WorkerId], *, asked_at: float, answered_at: float
    ) -> set[WorkerId]:
        """Workers whose counter did not move for the lease time.

        `asked_at` and `answered_at` are monotonic times around the read of `counters`: a value counts as unmoved
        only from the answer that first showed it to the question that last found it, so a suspended observer never
        takes an old answer for a new one.
        """
        expired = set()
        for worker in {*counters, *owners}:
            counter = counters.get(worker)
            known = self._seen.get(worker)
            if known is None or counter not in {None, known[0]}:  # a row that went away is no sign of life
                self._seen[worker] = (counter, answered_at)
            elif asked_at - known[1] >= self._lease_seconds:
                expired.add(worker)
        for worker in self._seen.keys() - {*counters, *owners}:
            del self._seen[worker]
        return expired
