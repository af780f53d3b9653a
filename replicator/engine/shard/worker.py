"""One shard that is ours: its targets' pipelines, its checkpoints, its watchdog, and the lease until it is given back.

Every target has a pipeline of its own, so one that cannot go on holds no other back; all of them read through one
reader and store their progress in one row. Invariant: a target's checkpoint never passes an effect that is not
durable, and nothing of the shard outlives its lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from replicator.domain.errors import LeaseLost, ReplicatorError
from replicator.domain.progress import END
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import Lease, LeaseRow
from replicator.domain.targets import TargetId
from replicator.engine.limits import Limits
from replicator.engine.membership.session import ShardFence
from replicator.engine.reading.reader import ShardReader
from replicator.engine.shard.checkpoints import Progress
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.pipeline import FAULT_PAUSE, Pipeline
from replicator.engine.shard.ports import ShardPorts
from replicator.engine.waiting import backoff, found, pause, retry_in
from replicator.ports.sources import Ends

__all__ = ["ShardPorts", "ShardWorker"]

_LOOKS_PER_STALL = 4
"""How often within the bound of a standstill the watchdog looks."""


class ShardWorker:
    """Everything that happens to one shard under one lease."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        lease: Lease,
        row: LeaseRow,
        ports: ShardPorts,
        fence: ShardFence,
        *,
        limits: Limits,
        stop: asyncio.Event,
        wake: Callable[[], None],
        ends: Ends,
    ) -> None:
        self.lease = lease
        self.progress = Progress(lease, row, ports, fence=fence, limits=limits, save_in=self._look_in)
        self._ports = ports
        self._fence = fence
        self._limits = limits
        self._stop = stop
        self._wake = wake
        reader = ShardReader(
            ports.stream,
            lease.stream,
            row.shard,
            ends=ends,
            budget=ports.budget,
            limits=limits,
            clock=ports.clock,
            observer=ports.observer,
            fence=fence,
            stop=stop,
            probing=ports.probing,
            read_to=self.progress.read_to,
        )
        self._context = ShardContext(lease, row, ports, fence, self.progress, reader, ends, limits, wake)
        self._running: dict[TargetId, tuple[Pipeline, asyncio.Task[None]]] = {}
        self._offered: dict[TargetId, tuple[Rule, Target]] = {}
        self._started: dict[TargetId, Target] = {}
        self._withdrew = False
        self._group: asyncio.TaskGroup | None = None
        self._rest: asyncio.Timeout | None = None
        self._look_at: float | None = None
        self._stalled: dict[TargetId, float] = {}
        """Targets that stand still, and when that was reported last."""

    @property
    def targets(self) -> Collection[TargetId]:
        """Targets whose pipelines run here."""
        return self._running.keys()

    def offer(self, rules: Iterable[Rule]) -> None:
        """Start a pipeline for each target of rules that may read this shard and does not yet."""
        for rule, target in [(each, target) for each in rules for target in each.targets]:
            target_id = target.target_id
            if target_id in self._running or self.progress.position(target) == END or self._stop.is_set():
                continue
            if self._group is None:
                self._offered[target_id] = rule, target
            else:
                self._start(self._group, rule, target)

    def withdraw(self, rests: Callable[[Target], bool]) -> None:
        """End pipelines of targets that rest: what is under way is finished and stored; they may be offered again."""
        for target_id in [target_id for target_id, (_, target) in self._offered.items() if rests(target)]:
            del self._offered[target_id]
        for pipeline, _ in self._running.values():
            if rests(pipeline.target):
                self._withdrew = True
                pipeline.end("withdrawn")

    async def run(self) -> None:
        """Work until every target is finished or withdrawn, `stop`, or a lost lease; then give the lease back."""
        why = "lost"
        try:
            await self._run_pipelines()
            why = "stopped" if self._stop.is_set() else "withdrawn" if self._withdrew else "finished"
        except Exception as error:  # noqa: BLE001 - the boundary: a shard's fault ends no other shard
            self._fence.revoke()
            if not found(error, LeaseLost):
                why = "failed"
                await self._tell_failure(error)
        finally:
            self._ports.observer.lease_ended(self.lease, why)
            self._wake()

    async def _tell_failure(self, error: Exception) -> None:
        """A fault ends the work on this shard, and on no other; it is claimed anew after a pause."""
        for target in self._started.values():
            self._ports.observer.shard_failed(self.lease, target, error)
        await pause(self._stop, backoff(FAULT_PAUSE, self._limits.backoff_seconds))

    def _start(self, group: asyncio.TaskGroup, rule: Rule, target: Target) -> None:
        self._started[target.target_id] = target
        if self.progress.has_begun(target):
            self._ports.observer.stands(self._context.place(target), self.progress.position(target))
        pipeline = Pipeline(rule, target, self._context)
        task = group.create_task(pipeline.run(), name=f"{target.target_id} on {self.lease.shard_id}")
        self._running[target.target_id] = pipeline, task
        task.add_done_callback(lambda _: self._look_in(0))

    # -- its life ------------------------------------------------------------------------------------------------------

    async def _run_pipelines(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for rule, target in self._offered.values():
                    self._start(group, rule, target)
                self._offered.clear()
                while self._forget_ended() and not self._stop.is_set():
                    due_in = self.progress.due_in()
                    if due_in is not None and due_in > 0:
                        self._look_in(due_in)
                    elif due_in is not None:
                        group.create_task(self.progress.save(), name=f"checkpoint {self.lease.shard_id}")
                    self._watch()
                    await self._until_due()
                self._group = None
                for pipeline, _ in self._running.values():
                    pipeline.end("stopped")
                if self._running:
                    await asyncio.wait([task for _, task in self._running.values()])
            except asyncio.CancelledError:
                # A pipeline that fails while it is cancelled raises its failure alone, and would begin anew.
                for pipeline, _ in self._running.values():
                    pipeline.end("lost")
                raise
        await self.progress.settle()
        await self._last_flush()

    def _forget_ended(self) -> bool:
        """Drop pipelines that came to their end; returns whether any is left."""
        self._running = {name: running for name, running in self._running.items() if not running[1].done()}
        return bool(self._running)

    async def _until_due(self) -> None:
        """Wait until the program stops, or for what `_look_in` asked for: something ended, or is to be saved."""
        now = asyncio.get_running_loop().time()
        look_at = now + self._limits.stall_seconds / _LOOKS_PER_STALL
        wake_at = look_at if self._look_at is None else min(look_at, self._look_at)
        try:
            async with asyncio.timeout_at(wake_at) as self._rest:
                await self._stop.wait()
        except TimeoutError:
            if wake_at == self._look_at:
                self._look_at = None
        finally:
            self._rest = None

    def _look_in(self, seconds: float) -> None:
        """Let the worker look after its pipelines and checkpoints in so many seconds, or before."""
        at = asyncio.get_running_loop().time() + seconds
        if self._look_at is None or at < self._look_at:
            self._look_at = at
            if self._rest is not None and not self._rest.expired() and at < (self._rest.when() or at):
                self._rest.reschedule(at)

    async def _last_flush(self) -> None:
        """Store the end of the work and release the lease, so that no worker has to wait for it to expire."""
        attempt = 0
        while True:
            try:
                await self.progress.flush()
                await self._ports.coordination.release(self.lease, self.progress.positions)
            except LeaseLost:
                return
            except ReplicatorError as error:
                attempt += 1
                self._ports.observer.service_failed(self.progress.service, error)
                await asyncio.sleep(retry_in(error, attempt, self._limits.backoff_seconds))
            else:
                return

    # -- the watchdog --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Report every target that stands still, once per interval, and those that go on."""
        now = self._ports.clock.monotonic()
        for target_id, (pipeline, _) in self._running.items():
            stall = pipeline.stall()
            if stall is None:
                if self._stalled.pop(target_id, None) is not None:
                    self._ports.observer.unstalled(self.lease, pipeline.target)
            elif now - self._stalled.get(target_id, float("-inf")) >= self._limits.stall_seconds:
                self._stalled[target_id] = now
                self._ports.observer.stalled(self.lease, pipeline.target, stall.reason, stall.remedy)
