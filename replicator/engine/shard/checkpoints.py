"""Positions of a shard's targets, and their way into the coordination row.

Batched in time, one save at a time. Invariant: what was reported as durable is stored in its order, under our epoch,
and what could not be stored is kept for the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from replicator.domain.errors import Disposition, LeaseLost, ReplicatorError
from replicator.domain.progress import END, HORIZON, Position, reached
from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, LeaseRow
from replicator.domain.targets import TargetId
from replicator.engine.limits import Limits
from replicator.engine.membership.session import ShardFence
from replicator.engine.service import watched
from replicator.engine.shard.ports import ShardPorts
from replicator.engine.waiting import retry_in
from replicator.ports.services import ServiceKind, shard_service


class Progress:
    """Positions of a shard's targets. `save_in` asks the shard's worker to save in so many seconds."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        lease: Lease,
        row: LeaseRow,
        ports: ShardPorts,
        *,
        fence: ShardFence,
        limits: Limits,
        save_in: Callable[[float], None],
    ) -> None:
        self._lease = lease
        self._positions = dict(row.checkpoints)
        self._kept = dict(row.keeps)
        """Which cache entries are kept in step up to the positions of targets."""
        self._stored_as_kept = {name: entries for name, entries in row.keeps.items() if name in row.checkpoints}
        self._dirty: dict[TargetId, Position] = {}
        self._turn = asyncio.Lock()
        self._ports = ports
        self._fence = fence
        self._limits = limits
        self._ask_to_save_in = save_in
        self._failures = 0
        self._due_at = 0.0
        self.service = shard_service(ServiceKind.CHECKPOINT, lease.stream, lease.shard_id)

    def position(self, target: Target) -> Position:
        """Up to where everything is durable at a target."""
        return self._positions.get(target.target_id, HORIZON)

    def has_begun(self, target: Target) -> bool:
        """Whether a target ever read this shard."""
        return target.target_id in self._positions

    def kept(self, target: Target) -> str | None:
        """Which cache entries are kept in step up to a target's position; None: no worker noted that."""
        return self._kept.get(target.target_id)

    def keep(self, target: Target, entries: str) -> None:
        """These are from now on, and none that is not among them; stored with the position, now or when it begins."""
        target_id = target.target_id
        self._kept[target_id] = entries
        if self._stored_as_kept.get(target_id) != entries and target_id in self._positions:
            self.moved(target, self._positions[target_id])

    def moved(self, target: Target, position: Position) -> None:
        """A target's frontier moved; a target begins by moving to where it begins."""
        if not self._dirty:
            self._save_in(self._limits.checkpoint_seconds)
        before = self._positions.get(target.target_id)
        if position == END and before is not None:  # what ended had nothing behind its last record
            position = reached(position, before.through)
        self._positions[target.target_id] = self._dirty[target.target_id] = position

    def read_to(self, position: Position, asked_at: float) -> None:
        """Nothing stood behind a position at this time of the server.

        It is not stored for itself: heartbeats publish it, and the release of the shard stores it.
        """
        for target_id, place in self._positions.items():
            if position in {place, HORIZON}:  # with nothing left at the horizon there is nothing anywhere
                self._positions[target_id] = reached(place, asked_at)

    @property
    def positions(self) -> Mapping[TargetId, Position]:
        """Where every target stands, and up to when."""
        return self._positions

    def due_in(self) -> float | None:
        """In how many seconds to save; None when there is nothing to save, or a save is under way."""
        if not self._dirty or self._turn.locked():
            return None
        return self._due_at - self._ports.clock.monotonic()

    async def save(self) -> None:
        """Store what moved; a service that fails is reported and asked again later."""
        try:
            await self.flush()
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            self._failures += 1
            self._ports.observer.service_failed(self.service, error)
            self._save_in(retry_in(error, self._failures, self._limits.backoff_seconds))

    async def flush(self) -> None:
        """Store what moved since the last time, under our epoch; what could not be stored is kept.

        One save at a time, so that a slow one never brings an older position back.
        """
        async with self._turn:
            if not self._dirty:
                return
            saved, self._dirty = self._dirty, {}
            news = {name: self._kept[name] for name in saved if self._kept.get(name) != self._stored_as_kept.get(name)}
            try:
                self._fence.check()
                with watched(self.service, self._ports.observer, self._limits.stall_seconds):
                    await self._ports.coordination.save(self._lease, saved, news)
            except BaseException as error:
                self._dirty = {**saved, **self._dirty}
                if isinstance(error, LeaseLost):
                    self._fence.revoke()
                raise
        self._failures = 0
        self._stored_as_kept |= news
        if self._dirty:
            self._save_in(self._limits.checkpoint_seconds)
        self._ports.observer.checkpoint_saved(self._lease, saved)
        self._ports.observer.service_recovered(self.service)

    async def settle(self) -> None:
        """Wait for a save that is under way: given up, it could land behind the next one."""
        async with self._turn:
            pass

    def _save_in(self, seconds: float) -> None:
        self._due_at = self._ports.clock.monotonic() + seconds
        self._ask_to_save_in(seconds)
