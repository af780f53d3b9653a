"""One worker process: a session after the other, and in each a coordinator per source, as sources come and go.

Invariant: the heartbeat outlives the shards it protects; a missed deadline ends every shard of the session at once, and
the next session has another worker id, so nothing of the old one counts as alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from msgspec import Struct

from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId, TableName, WorkerId
from replicator.domain.shards.loads import Loads
from replicator.domain.values import replace
from replicator.engine.applying.cache_debt import Share
from replicator.engine.applying.cache_settling import Settler
from replicator.engine.applying.cache_verifying import CacheVerifier
from replicator.engine.canaries import Canaries
from replicator.engine.copying.runner import JobRunner
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import News, heartbeat
from replicator.engine.membership.members import Members
from replicator.engine.membership.overview import GroupPorts, Overlooker
from replicator.engine.membership.session import Session
from replicator.engine.ownership.bounded_coordination import MOST_AT_ONCE, BoundedCoordination
from replicator.engine.ownership.source_coordinator import SourceCoordinator
from replicator.engine.ownership.sources import Source, Sources
from replicator.engine.service import Service
from replicator.engine.waiting import Flag, pause_for_any
from replicator.ports.clock import Clock
from replicator.ports.coordination import Membership
from replicator.ports.events import Observer
from replicator.ports.services import ServiceId, ServiceKind

_LONGEST_REST = 2.0
_LONGEST_SETTLING = 600.0


class _Reading(Struct, frozen=True):
    """A source that is being read: until `stop` is set, and then until it is `ended`."""

    source: Source
    task: asyncio.Task[None]
    stop: asyncio.Event
    ended: asyncio.Event


class _Shared(Struct, frozen=True):
    """What the coordinators of one session share."""

    session: Session
    members: Members
    loads: Loads


class Worker:
    """Reads every source that its leases allow, until `stop` is set."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        sources: Sources | Sequence[Source],
        membership: Membership,
        *,
        new_id: Callable[[], WorkerId],
        limits: Limits,
        clock: Clock,
        observer: Observer,
        stop: asyncio.Event,
        admin: str = "",
        group: GroupPorts | None = None,
        jobs: JobRunner | None = None,
        only_jobs: bool = False,
        debts: Sequence[Settler] = (),
        verifiers: Collection[CacheVerifier] = (),
        canaries: Canaries | None = None,
    ) -> None:
        """`admin`: where our admin server listens; others show it. `group`: what one worker looks after for all.

        `debts`: what settles what caches are owed. `verifiers`: what reads entries again behind actions. Both may grow
        before other sources come.
        `canaries`: those of the rules, which one worker writes.

        `only_jobs`: the others see a worker that is about to leave, so none counts on it for shards.
        """
        self._sources = sources if isinstance(sources, Sources) else Sources(sources)
        self._membership = membership
        self._new_id = new_id
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._stop = stop
        self._admin = admin
        self._group = group
        self._jobs = jobs
        self._only_jobs = only_jobs
        self._debts = debts
        self._verifiers = verifiers
        self._canaries = canaries
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._budgets: dict[RegionId, DescribeBudget] = {}

    async def run(self) -> None:
        """Work until `stop`; then drain, store, release, and leave."""
        while not self._stop.is_set():
            session = Session(self._new_id(), self._clock, self._limits.lease_seconds)
            self._observer.session_began(session.worker)
            await self._live(session)
            await self._leave(session)

    async def _live(self, session: Session) -> None:
        """One session, from its first heartbeat to its end."""
        news = News(self._admin)
        news.leaving = self._only_jobs
        members = Members(
            session, news, self._membership, limits=self._limits, clock=self._clock, observer=self._observer
        )
        async with asyncio.TaskGroup() as group:
            beating = heartbeat(session, self._membership, self._clock, self._observer, limits=self._limits, news=news)
            group.create_task(beating, name="heartbeat")
            await pause_for_any(float("inf"), session.begun, self._stop)
            if session.begun.is_set():
                group.create_task(members.watch(), name="members")
                await pause_for_any(float("inf"), members.known, session.over, self._stop)
                if self._group is not None:
                    group.create_task(self._overlooker(session, members, self._group).watch(), name="overview")
                settling = [group.create_task(self._settle_all(session, members), name="what caches are owed")]
                if self._canaries is not None:
                    settling.append(group.create_task(self._write_canaries(self._canaries, session, members)))
                async with asyncio.TaskGroup() as work:
                    if self._jobs is not None:
                        work.create_task(self._jobs.run(session, members, self._stop), name="jobs")
                    await self._read_sources(_Shared(session, members, Loads()))
                for each in settling:  # every row is there until its entry is dropped, so it may end anywhere
                    each.cancel()
            session.over.set()

    async def _settle_all(self, session: Session, members: Members) -> None:
        """Settle what caches are owed and read entries again, also of caches that come with other sources."""
        begun: set[object] = set()
        async with asyncio.TaskGroup() as group:
            while not session.over.is_set():
                changed = self._sources.changed
                for settler in [each for each in self._debts if each not in begun]:
                    group.create_task(self._settle(settler, session, members), name=f"debt of {settler.debt.name}")
                for verifier in [each for each in self._verifiers if each not in begun]:
                    group.create_task(self._verify(verifier, session), name=f"entries of {verifier.name}")
                begun = {*self._debts, *self._verifiers}
                await pause_for_any(float("inf"), changed, session.over)

    async def _settle(self, settler: Settler, session: Session, members: Members) -> None:
        """Settle what a cache is owed; of those that live the first one settles for workers that are gone, too."""
        name = ServiceId(ServiceKind.DEBT, settler.debt.region, cache=settler.debt.name)
        service = Service(name, self._observer, (session.over,), _LONGEST_REST, _LONGEST_SETTLING)

        def look() -> Awaitable[float]:
            live = members.live
            seated, lease = min(live, default=members.me) == members.me, self._limits.lease_seconds
            return settler.look(Share(seated, len(live), live - {members.me}, lease))

        await service.run(look, settler.debt.wake)

    async def _verify(self, verifier: CacheVerifier, session: Session) -> None:
        """Read entries of a cache again behind actions."""
        name = ServiceId(ServiceKind.VERIFYING, verifier.region, cache=verifier.name)
        service = Service(name, self._observer, (session.over,), _LONGEST_REST, _LONGEST_SETTLING)
        await service.run(verifier.look, verifier.wake)

    async def _write_canaries(self, canaries: Canaries, session: Session, members: Members) -> None:
        """Write canaries, and see them arrive, while this worker is the first of those that live."""
        await canaries.run(
            str(session.worker), lambda: min(members.live, default=members.me) == members.me, session.over
        )

    def _overlooker(self, session: Session, members: Members, ports: GroupPorts) -> Overlooker:
        return Overlooker(session, members, ports, limits=self._limits, clock=self._clock, observer=self._observer)

    async def _read_sources(self, shared: _Shared) -> None:
        """Run a coordinator per source; cancel them when the session is over before they are done."""
        session = shared.session
        reading: dict[tuple[RegionId, TableName], _Reading] = {}
        async with asyncio.TaskGroup() as group:
            # A stop drains: coordinators that still run are waited for, and none is started any more.
            while not session.over.is_set() and (reading or not self._stop.is_set()):
                news = () if self._stop.is_set() else (self._stop, self._sources.changed)
                wanted = {(source.region, source.table): source for source in self._sources.now} if news else {}
                if not news:
                    shared.members.leave()
                for place, ours in reading.items():
                    if wanted.get(place) is not ours.source:
                        ours.stop.set()
                for place, source in wanted.items():
                    if place not in reading:
                        reading[place] = self._read(source, shared, group)
                await pause_for_any(float("inf"), session.over, *news, *(ours.ended for ours in reading.values()))
                reading = {place: ours for place, ours in reading.items() if not ours.task.done()}
            for ours in reading.values():
                ours.task.cancel()

    def _read(self, source: Source, shared: _Shared, group: asyncio.TaskGroup) -> _Reading:
        """Begin to read a source, until its own `stop`."""
        stop, ended = Flag(), Flag()
        budget = self._budgets.setdefault(source.region, DescribeBudget(self._clock, self._limits.describes_per_second))
        coordination = BoundedCoordination(source.ports.coordination, self._turns)
        coordinator = SourceCoordinator(
            replace(source, ports=replace(source.ports, coordination=coordination)),
            shared.session,
            shared.members,
            budget,
            shared.loads,
            limits=self._limits,
            stop=stop,
        )
        name = f"coordinator of {source.table} in {source.region}"
        task = group.create_task(coordinator.run(), name=name)
        task.add_done_callback(lambda _: ended.set())
        return _Reading(source, task, stop, ended)

    async def _leave(self, session: Session) -> None:
        """Take our row away; if that fails, others see that it no longer moves."""
        try:
            await self._membership.leave(session.worker)
        except ReplicatorError as error:
            self._observer.service_failed(ServiceId(ServiceKind.HEARTBEAT), error)
