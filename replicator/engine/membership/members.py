"""The other workers: one watcher per session reads every worker's pulse and wakes the coordinators to look.

Invariant: a worker is expired only when its pulse did not move for the lease time on our own clock. No worker decides
for another; one that notices something reads the rows and acts for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from replicator.domain.driving import kept_from_pods
from replicator.domain.identifiers import RegionId, RuleName, WorkerId
from replicator.domain.shards.leases import Pulse
from replicator.domain.shards.statements import Statements
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import Heartbeats, News
from replicator.engine.membership.reach import Reach
from replicator.engine.membership.session import Session
from replicator.engine.service import Service
from replicator.engine.waiting import Flag
from replicator.ports.clock import Clock
from replicator.ports.coordination import Membership
from replicator.ports.events import Observer
from replicator.ports.services import ServiceId, ServiceKind

_SERVICE = ServiceId(ServiceKind.MEMBERS)

_HURRY_SECONDS = 1.0
"""Time between two heartbeats that come early at least."""


class Members:
    """The workers of the group as one session sees them."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        session: Session,
        news: News,
        membership: Membership,
        *,
        limits: Limits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._session = session
        self._news = news
        self._membership = membership
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._heartbeats = Heartbeats(limits.lease_seconds)
        self._owners: dict[object, frozenset[WorkerId]] = {}
        self._expired: dict[WorkerId, float] = {}
        self._heard: Mapping[WorkerId, int] = {}
        self._listeners: list[Callable[[], None]] = []
        self._paused_at = self._hurried_at = float("-inf")
        self.known = Flag()
        """Set when every worker was looked at once: before that, a share of the work is not known."""
        self.live: frozenset[WorkerId] = frozenset({session.worker})
        """Workers that beat and are not about to leave, ourselves included."""
        self.paused: Mapping[RuleName, float] = {}
        """Rules that rest on all workers, and since when: an operator paused them, or pods do not drive them."""
        self.resting: frozenset[tuple[RuleName, RegionId]] = frozenset()
        """Regions that an operator has paused for a rule."""
        self.pulses: Mapping[WorkerId, Pulse] = {}
        """What every worker showed last; that of a dead one as long as its row stands."""

    @property
    def me(self) -> WorkerId:
        """Our own worker id."""
        return self._session.worker

    def is_expired(self, worker: WorkerId) -> bool:
        """Whether a worker's shards may be taken."""
        return worker in self._expired and worker != self.me

    @property
    def reach(self) -> Reach:
        """What our heartbeats say of what we read."""
        return self._news.reach

    @property
    def statements(self) -> Mapping[WorkerId, Statements]:
        """What workers said last of what they read, dead ones too."""
        return {worker: pulse.through for worker, pulse in self.pulses.items()}

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the rows should be looked at, until `unlisten`."""
        self._listeners.append(wake)

    def unlisten(self, wake: Callable[[], None]) -> None:
        """A coordinator that looked at the rows is gone."""
        self._listeners.remove(wake)

    def note_owners(self, source: object, owners: Iterable[WorkerId]) -> None:
        """Watch every worker that owns something, too: a dead worker's row may be gone before its shards are taken."""
        self._owners.pop(source, None)
        if noted := frozenset(owners):
            self._owners[source] = noted

    def announce(self) -> None:
        """Let the others look at the rows: shards were freed or found."""
        if self.live - {self.me}:
            self._news.announce()

    def hurry(self) -> None:
        """Let our heartbeat come early, because others wait for what it says of what we read."""
        now = self._clock.monotonic()
        if now - self._hurried_at >= _HURRY_SECONDS:
            self._hurried_at = now
            self._news.due.set()

    def leave(self) -> None:
        """Announce that we stop, so that none of them counts on us."""
        if not self._news.leaving:
            self._news.leave()
        self.live -= {self.me}

    async def watch(self) -> None:
        """Look at every pulse again and again until the session is over."""
        limits = self._limits
        service = Service(
            _SERVICE, self._observer, (self._session.over,), limits.heartbeat_seconds, limits.stall_seconds
        )
        await service.run(self._look)

    async def _look(self) -> float:
        """Look at every pulse; returns when to look again."""
        asked_at = self._clock.monotonic()
        pulses = await self._membership.members()
        answered_at = self._clock.monotonic()
        owners = frozenset[WorkerId]().union(*self._owners.values())
        beats = {worker: pulse.beat for worker, pulse in pulses.items()}
        expired = self._heartbeats.observe(beats, owners, asked_at=asked_at, answered_at=answered_at)
        changed = self._take(pulses, expired, answered_at)
        changed = await self._look_for_paused(answered_at) or changed
        self.known.set()
        if changed:
            for wake in self._listeners:
                wake()
        await self._remove_dead(pulses, owners, answered_at)
        return self._limits.watch_seconds

    def _take(self, pulses: Mapping[WorkerId, Pulse], expired: set[WorkerId], now: float) -> bool:
        """Note the workers that are there; returns whether there is a reason to look at the rows."""
        dead = {worker: self._expired.get(worker, now) for worker in sorted(expired)}
        live = {worker for worker, pulse in pulses.items() if worker not in dead and not pulse.leaving}
        live = live - {self.me} if self._news.leaving else live | {self.me}
        heard = {worker: pulse.news for worker, pulse in pulses.items() if worker != self.me}
        self.pulses = pulses
        changed = heard != self._heard or dead.keys() != self._expired.keys() or live != self.live
        self._heard, self._expired, self.live = heard, dead, frozenset(live)
        return changed

    async def _look_for_paused(self, now: float) -> bool:
        if now - self._paused_at < self._limits.heartbeat_seconds:
            return False
        driven = kept_from_pods(await self._membership.driven(), self._limits.lease_seconds)
        resting = await self._membership.resting()
        paused = {**driven, **await self._membership.paused()}
        self._paused_at = now
        changed = (paused, resting) != (self.paused, self.resting)
        self.paused, self.resting = paused, resting
        self._observer.paused(paused, driven)
        return changed

    async def _remove_dead(self, pulses: Mapping[WorkerId, Pulse], owners: Collection[WorkerId], now: float) -> None:
        """Take away rows of workers that have been dead for one more lease: every worker knows by then.

        What one said last of its shards counts until other workers have taken them.
        """
        for worker, since in self._expired.items():
            is_over = worker != self.me and now - since >= self._limits.lease_seconds
            if is_over and worker in pulses and worker not in owners:
                await self._membership.leave(worker)
