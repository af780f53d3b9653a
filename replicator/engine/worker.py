"""One worker process: a session after the other, and in each a coordinator per source.

Invariant: the heartbeat outlives the shards it protects; a missed deadline ends every shard of the session at once, and
the next session has another worker id, so nothing of the old one counts as alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from replicator.domain.errors import ReplicatorError
from replicator.domain.records import WorkerId
from replicator.engine.coordinator import Source, StreamCoordinator
from replicator.engine.leases import Session, heartbeat
from replicator.engine.pacing import Limits, pause_for_any
from replicator.ports import Clock, Membership, Observer


class Worker:
    """Reads every source that its leases allow, until `stop` is set."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        sources: Sequence[Source],
        membership: Membership,
        *,
        new_id: Callable[[], WorkerId],
        limits: Limits,
        clock: Clock,
        observer: Observer,
        stop: asyncio.Event,
    ) -> None:
        self._sources = sources
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
        """Run the coordinators; cancel them when the session is over before they are done."""
        async with asyncio.TaskGroup() as group:
            coordinators = [
                group.create_task(
                    StreamCoordinator(source, self._membership, session, limits=self._limits, stop=self._stop).run(),
                    name=f"coordinator of {source.table} in {source.region}",
                )
                for source in self._sources
            ]
            over = group.create_task(session.over.wait(), name="session")
            pending: set[asyncio.Task[object]] = {*coordinators}
            while pending and not over.done():
                await asyncio.wait({*pending, over}, return_when=asyncio.FIRST_COMPLETED)
                pending = {task for task in pending if not task.done()}
            for task in (*coordinators, over):
                task.cancel()

    async def _leave(self, session: Session) -> None:
        """Take our row away; if that fails, others see it stand still."""
        try:
            await self._membership.leave(session.worker)
        except ReplicatorError as error:
            self._observer.service_failed("heartbeat", error)
