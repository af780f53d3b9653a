"""One worker process: a session after the other, and in each a coordinator per source, as sources come and go.

Invariant: the heartbeat outlives the shards it protects; a missed deadline ends every shard of the session at once, and
the next session has another worker id, so nothing of the old one counts as alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replicator.domain.errors import ReplicatorError
from replicator.domain.records import RegionId, TableName, WorkerId
from replicator.engine.coordinator import Source, StreamCoordinator
from replicator.engine.leases import Session, heartbeat
from replicator.engine.pacing import Limits, pause_for_any
from replicator.engine.sources import Sources
from replicator.ports import Clock, Membership, Observer


@dataclass(frozen=True, slots=True)
class _Reading:
    """A source that is being read: until `stop` is set, and then until it is `ended`."""

    source: Source
    task: asyncio.Task[None]
    stop: asyncio.Event
    ended: asyncio.Event


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
    ) -> None:
        self._sources = sources if isinstance(sources, Sources) else Sources(sources)
        self._membership = membership
        self._new_id = new_id
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._stop = stop

    async def run(self) -> None:
        """Work until `stop`; then drain, store, release, and leave."""
        while not self._stop.is_set():
            session = Session(self._new_id(), self._clock, self._limits.lease_seconds)
            self._observer.session_began(session.worker)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    heartbeat(session, self._membership, self._clock, self._observer, self._limits), name="heartbeat"
                )
                await pause_for_any(float("inf"), session.begun, self._stop)
                if session.begun.is_set():
                    await self._read_sources(session)
                session.over.set()
            await self._leave(session)

    async def _read_sources(self, session: Session) -> None:
        """Run a coordinator per source; cancel them when the session is over before they are done."""
        reading: dict[tuple[RegionId, TableName], _Reading] = {}
        async with asyncio.TaskGroup() as group:
            while not session.over.is_set() and (reading or not self._stop.is_set()):
                news = () if self._stop.is_set() else (self._stop, self._sources.changed)
                wanted = {(source.region, source.table): source for source in self._sources.now} if news else {}
                for place, ours in list(reading.items()):
                    if ours.task.done():
                        del reading[place]
                    elif wanted.get(place) is not ours.source:
                        ours.stop.set()
                for place, source in wanted.items():
                    if place not in reading:
                        reading[place] = self._read(source, session, group)
                await pause_for_any(float("inf"), session.over, *news, *(ours.ended for ours in reading.values()))
            for ours in reading.values():
                ours.task.cancel()

    def _read(self, source: Source, session: Session, group: asyncio.TaskGroup) -> _Reading:
        """Begin to read a source, until its own `stop`."""
        stop, ended = asyncio.Event(), asyncio.Event()
        coordinator = StreamCoordinator(source, self._membership, session, limits=self._limits, stop=stop)
        name = f"coordinator of {source.table} in {source.region}"
        task = group.create_task(coordinator.run(), name=name)
        task.add_done_callback(lambda _: ended.set())
        return _Reading(source, task, stop, ended)

    async def _leave(self, session: Session) -> None:
        """Take our row away; if that fails, others see it stand still."""
        try:
            await self._membership.leave(session.worker)
        except ReplicatorError as error:
            self._observer.service_failed("heartbeat", error)
