"""The workers of the shards that this session reads on one stream: claimed, started, offered rules, ended.

Invariant: a worker runs only under a lease that this session claimed, and what the rows say is not ours is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.rules import Rule, rests
from replicator.domain.shards import ownership
from replicator.domain.shards.applied_through import Held
from replicator.domain.shards.leases import Lease, LeaseRow, StreamRef, StreamState
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.engine.bounded import each, raise_first
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.shard.worker import ShardPorts, ShardWorker
from replicator.engine.waiting import Flag
from replicator.ports.sources import Ends

_CLAIMS_AT_ONCE = 16


class _Running(Struct):
    """A shard that we read. `stop` ends it gracefully."""

    worker: ShardWorker
    fence: ShardFence
    stop: asyncio.Event


class RunningShards:
    """Shard workers by shard."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        ref: StreamRef,
        *,
        ports: ShardPorts,
        session: Session,
        members: Members,
        ends: Ends,
        limits: Limits,
        wake: Callable[[], None],
    ) -> None:
        self._ref = ref
        self._ports = ports
        self._session = session
        self._members = members
        self._ends = ends
        self._limits = limits
        self._wake = wake
        self._running: dict[ShardId, _Running] = {}
        self.shards: Collection[ShardId] = self._running.keys()
        """What is read now: a view."""
        self.ran: set[ShardId] = set()
        """Shards that were read in this session."""
        self.serves: frozenset[TargetId] = frozenset()
        """Targets that this worker runs on the stream; each claim notes them in the shard's row."""
        members.reach.ask(ref, self._held)

    @property
    def ending(self) -> set[ShardId]:
        """What is read and was asked to end."""
        return {shard_id for shard_id, running in self._running.items() if running.stop.is_set()}

    @property
    def given_back(self) -> dict[ShardId, tuple[RuleName, ...]]:
        """What is ours and was asked to end, with the rules whose calls under way keep it."""
        return {
            shard_id: tuple(sorted({target.rule for target in running.worker.targets}))
            for shard_id, running in self._running.items()
            if running.stop.is_set() and not running.fence.revoked
        }

    @property
    def reads(self) -> Iterator[tuple[ShardId, TargetId]]:
        """Which targets are read for on which shards."""
        return ((shard_id, target) for shard_id, running in self._running.items() for target in running.worker.targets)

    def _held(self) -> Iterator[Held]:
        for shard_id, running in self._running.items():
            yield Held(shard_id, running.worker.lease.epoch, running.worker.progress.positions)

    def stop(self, shards: Iterable[ShardId] | None = None) -> None:
        """End some shards gracefully, or all."""
        for shard_id in list(self._running) if shards is None else shards:
            self._running[shard_id].stop.set()

    def compare(self, state: StreamState) -> None:
        """End what the rows say is no longer ours: quietly at first; what is stuck at the next look."""
        for lease in ownership.lost(state, [running.worker.lease for running in self._running.values()]):
            running = self._running[lease.shard_id]
            if running.fence.revoked:
                running.stop.set()
            running.fence.revoke()

    def offer(self, wanted: Mapping[ShardId, list[Rule]]) -> None:
        """Start targets on shards that are read already, and end those that are paused."""
        for shard_id, running in self._running.items():
            running.worker.withdraw(lambda target: rests(target, self._members.paused, self._members.resting))
            if shard_id in wanted:
                running.worker.offer(wanted[shard_id])

    async def claim(
        self, claims: Iterable[tuple[LeaseRow, list[Rule]]], group: asyncio.TaskGroup, *, at: float
    ) -> None:
        """Claim some shards at once; one that fails hinders no other. `at`: by the clock of servers."""

        async def claim(claimed: tuple[LeaseRow, list[Rule]]) -> None:
            await self._claim(*claimed, group, at)

        raise_first(await each(claims, claim, at_once=_CLAIMS_AT_ONCE, name="claim a shard"))

    async def _claim(self, seen: LeaseRow, rules: list[Rule], group: asyncio.TaskGroup, at: float) -> None:
        self._session.check()
        row = await self._ports.coordination.claim(self._ref, seen, self._members.me, self.serves, at)
        if row is None:
            return
        lease = Lease(self._ref, row.shard_id, self._members.me, row.epoch)
        running = self._new(lease, replace(row, keeps={**seen.keeps, **row.keeps}))
        running.worker.offer(rules)
        self._ports.observer.lease_claimed(lease)
        self._running[row.shard_id] = running
        self.ran.add(row.shard_id)
        group.create_task(self._work(running), name=f"shard {row.shard_id}")

    def _new(self, lease: Lease, row: LeaseRow) -> _Running:
        fence, stop = ShardFence(self._session), Flag()
        worker = ShardWorker(
            lease, row, self._ports, fence, limits=self._limits, stop=stop, wake=self._wake, ends=self._ends
        )
        return _Running(worker, fence, stop)

    async def _work(self, running: _Running) -> None:
        try:
            await running.worker.run()
        finally:
            del self._running[running.worker.lease.shard_id]
            self._wake()
        if running.stop.is_set():
            self._members.announce()
