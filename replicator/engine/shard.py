"""One shard that is ours: read, decide, apply, cache, checkpoint, hand over to children.

Every rule runs a pipeline of its own, so a rule that cannot go on holds no other rule back; all of them read through
one reader and store their progress in one row. Invariant: a target's checkpoint never passes an effect that is not
durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.domain.assignment import LeaseRow
from replicator.domain.errors import Disposition, LeaseLost, RecordsTrimmed, ReplicatorError, ShardGone
from replicator.domain.progress import END, HORIZON, Position, earliest
from replicator.domain.records import RuleName
from replicator.domain.rules import OnGap, Rule, Start, Target
from replicator.engine.ahead import ByteBudget, ReadAhead
from replicator.engine.apply import TargetApplier
from replicator.engine.desk import TargetPorts
from replicator.engine.leases import ShardFence
from replicator.engine.pacing import Limits, Stopped, backoff, found, pause, pause_for_any
from replicator.engine.reader import Ends, Page, ShardReader
from replicator.ports import Clock, Coordination, Gap, Lease, Observer, Place, Registry, Stream

_FAULT_PAUSE = 6
"""After an unexpected fault a pipeline is started again as if it had failed this often: seconds, not milliseconds."""


@dataclass(frozen=True, slots=True)
class ShardPorts:
    """What a shard needs of the outside; targets by their id."""

    stream: Stream
    coordination: Coordination
    registry: Registry
    targets: Mapping[str, TargetPorts]
    clock: Clock
    observer: Observer
    budget: ByteBudget
    """Shared by every shard of the process."""


class Progress:
    """Positions of a shard's targets, and their way into the coordination row: batched in time, one save at a time."""

    def __init__(
        self, lease: Lease, stored: Mapping[str, Position], ports: ShardPorts, fence: ShardFence, limits: Limits
    ) -> None:
        self._lease = lease
        self._positions = dict(stored)
        self._dirty: dict[str, Position] = {}
        self._changed = asyncio.Event()
        self.saving = asyncio.Lock()
        self._ports = ports
        self._fence = fence
        self._limits = limits
        self.what = f"checkpoint of {lease.shown}"

    def position(self, target: Target) -> Position:
        """Up to where everything is durable at a target."""
        return self._positions.get(target.target_id, HORIZON)

    def begin(self, target: Target) -> None:
        """Note that a target reads this shard, so that its loss would be noticed even before its first record."""
        if target.target_id not in self._positions:
            self.moved(target, HORIZON)

    def finished(self, rule: Rule) -> bool:
        """Whether every target of a rule is behind the shard's last record."""
        return all(self.position(target) == END for target in rule.targets)

    def moved(self, target: Target, position: Position) -> None:
        """A target's frontier moved."""
        self._positions[target.target_id] = self._dirty[target.target_id] = position
        self._changed.set()

    async def keep(self) -> None:
        """Store what moved, at most once per interval; runs until it is cancelled."""
        attempt = 0
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._limits.checkpoint_seconds)
            try:
                await self.flush()
                attempt = 0
            except ReplicatorError as error:
                if error.disposition is Disposition.RELINQUISH:
                    raise
                attempt += 1
                self._ports.observer.service_failed(self.what, error)
                await asyncio.sleep(backoff(attempt, self._limits.backoff_seconds))

    async def flush(self) -> None:
        """Store what moved since the last time, under our epoch; what could not be stored is kept.

        One save at a time, so that a slow one never brings an older position back.
        """
        async with self.saving:
            if not self._dirty:
                return
            self._changed.clear()
            saved, self._dirty = self._dirty, {}
            try:
                self._fence.check()
                await self._ports.coordination.save(self._lease, saved)
            except BaseException as error:
                self._dirty = {**saved, **self._dirty}
                self._changed.set()
                if isinstance(error, LeaseLost):
                    self._fence.revoke()
                raise
        self._ports.observer.checkpoint_saved(self._lease, saved)
        self._ports.observer.service_recovered(self.what)


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
        self.progress = Progress(lease, row.checkpoints, ports, fence, limits)
        self._ports = ports
        self._fence = fence
        self._limits = limits
        self._stop = stop
        self._wake = wake
        self._running: dict[RuleName, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._offered: list[Rule] = []
        self._reader = ShardReader(
            ports.stream,
            lease.stream,
            lease.shard_id,
            ends=ends,
            limits=limits,
            clock=ports.clock,
            observer=ports.observer,
            fence=fence,
            stop=stop,
        )

    def offer(self, rules: list[Rule]) -> None:
        """Start the pipelines of rules that may read this shard and do not yet."""
        for rule in rules:
            if rule.name not in self._running and not self.progress.finished(rule):
                if self._group is None:
                    self._offered.append(rule)
                else:
                    self._start(self._group, rule)

    async def run(self) -> None:
        """Work until every rule is finished, the program stops, or the lease is lost; then give the lease back."""
        why = "lost"
        try:
            await self._run_pipelines()
            why = "stopped" if self._stop.is_set() else "finished"
        except Exception as error:  # noqa: BLE001 - the boundary: a shard's fault ends no other shard
            self._fence.revoke()
            if not found(error, LeaseLost):
                why = "failed"
                await self._tell_failure(error)
        finally:
            self._ports.observer.lease_ended(self.lease, why)
            self._wake()

    async def _tell_failure(self, error: Exception) -> None:
        """What nobody expected ends the work on this shard, and on no other; it is claimed anew after a pause."""
        for rule in self._running:
            self._ports.observer.shard_failed(self.lease, rule, error)
        await pause(self._stop, backoff(_FAULT_PAUSE, self._limits.backoff_seconds))

    async def _run_pipelines(self) -> None:
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self.progress.keep(), name=f"checkpoint {self.lease.shard_id}")
            self._group = group
            offered, self._offered = self._offered, []
            for rule in offered:
                self._start(group, rule)
            while pending := [task for task in self._running.values() if not task.done()]:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            self._group = None
            async with self.progress.saving:  # one under way ends first: given up, it could land behind the next
                keeper.cancel()
        await self._last_flush()

    async def _last_flush(self) -> None:
        """Store the end of the work and release the lease, so that nobody need wait for it to expire."""
        attempt = 0
        while True:
            try:
                await self.progress.flush()
                await self._ports.coordination.release(self.lease)
            except LeaseLost:
                return
            except ReplicatorError as error:
                attempt += 1
                self._ports.observer.service_failed(self.progress.what, error)
                await asyncio.sleep(backoff(attempt, self._limits.backoff_seconds))
            else:
                return

    def _start(self, group: asyncio.TaskGroup, rule: Rule) -> None:
        self._running[rule.name] = group.create_task(self._boundary(rule), name=f"{rule.name} on {self.lease.shard_id}")

    async def _boundary(self, rule: Rule) -> None:
        """A rule's pipeline; what nobody expected is told, and the pipeline begins again from its progress."""
        observer = self._ports.observer
        observer.shard_started(self.lease, rule.name)
        attempt = _FAULT_PAUSE
        why = "lost"
        try:
            while True:
                try:
                    await self._pipeline(rule)
                    why = "finished"
                    break
                except Exception as error:
                    if found(error, LeaseLost):
                        raise
                    if not found(error, Stopped):
                        self._tell(rule, error)
                attempt += 1
                if await pause(self._stop, backoff(attempt, self._limits.backoff_seconds)):
                    why = "stopped"
                    break
            if why == "finished":
                await self._store_end()
        finally:
            observer.shard_stopped(self.lease, rule.name, why)

    def _tell(self, rule: Rule, error: Exception) -> None:
        """Tell every error inside; those of our own are troubles of the world, all others are faults."""
        if isinstance(error, ExceptionGroup):
            for inner in error.exceptions:
                self._tell(rule, inner)
        elif isinstance(error, ReplicatorError):
            self._ports.observer.service_failed(self._what(rule), error)
        else:
            self._ports.observer.shard_failed(self.lease, rule.name, error)

    def _what(self, rule: Rule) -> str:
        return f"rule {rule.name} on {self.lease.shown}"

    async def _store_end(self) -> None:
        """Children wait for the stored end of their parents: store it at once; if that fails, the keeper repeats it."""
        try:
            await self.progress.flush()
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            self._ports.observer.service_failed(self.progress.what, error)
        self._wake()

    async def _pipeline(self, rule: Rule) -> None:
        ahead = ReadAhead(self._limits.page_records + 1)  # behind a full page the next one is still read
        appliers = [await self._applier(rule, target, ahead) for target in rule.targets]
        self._ports.observer.service_recovered(self._what(rule))
        pages: asyncio.Queue[Page | None] = asyncio.Queue()  # `ahead` bounds it
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(rule, pages, ahead), name=f"read for {rule.name}")
            while True:
                page = await pages.get()
                if page is None or self._stop.is_set():
                    raise Stopped
                async with asyncio.TaskGroup() as applying:
                    for applier in appliers:
                        applying.create_task(self._apply(applier, page), name=applier.place.target.target_id)
                ahead.drop(page.records)
                if page.then == END:
                    return

    async def _read(self, rule: Rule, pages: asyncio.Queue[Page | None], ahead: ReadAhead) -> None:
        """Read ahead while there is room; None tells that the program stops: what was read before is still applied."""
        position = earliest(self.progress.position(target) for target in rule.targets)
        while position != END:
            await pause_for_any(float("inf"), ahead.room, self._stop)
            try:
                page: Page | None = await self._reader.read(position)
            except RecordsTrimmed as error:
                position = await self._behind_gap(rule, position, error)
                page = Page((), END) if position == END else None
                if page is None and not self._stop.is_set():
                    continue
            except Stopped:
                page = None
            ahead.add(() if page is None else page.records)
            await pages.put(page)
            if page is None:
                return
            position = page.then

    async def _apply(self, applier: TargetApplier, page: Page) -> None:
        target = applier.place.target
        await applier.apply(
            page.records, self.progress.position(target), lambda position: self.progress.moved(target, position)
        )
        if page.then == END and self.progress.position(target) != END:
            self.progress.moved(target, END)
            self._ports.observer.moved(applier.place, END)

    async def _applier(self, rule: Rule, target: Target, ahead: ReadAhead) -> TargetApplier:
        self._fence.check()
        started = await self._ports.registry.start(self.lease.stream, target)
        self.progress.begin(target)
        return TargetApplier(
            rule,
            self._place(target),
            self._ports.targets[target.target_id],
            ahead,
            started_at=started.started_at if rule.start is Start.LATEST else None,
            limits=self._limits,
            clock=self._ports.clock,
            observer=self._ports.observer,
            fence=self._fence,
            stop=self._stop,
        )

    def _place(self, target: Target) -> Place:
        return Place(self.lease.stream, self.lease.shard_id, target)

    # -- records that left the stream unread -----------------------------------------------------------------------

    async def _behind_gap(self, rule: Rule, position: Position, error: RecordsTrimmed) -> Position:
        """Record the loss for every target that needed it; returns where to go on, once something says so."""
        for target in rule.targets:
            place = max(position, self.progress.position(target), key=lambda place: place.order)
            if place != END and (place == position or not await self._reader.reaches(place)):
                await self._record_gap(target, place, error)
        if rule.on_gap is OnGap.SKIP:
            await pause(self._stop, backoff(_FAULT_PAUSE, self._limits.backoff_seconds))
            return END if isinstance(error, ShardGone) else HORIZON
        places = [self._place(target) for target in rule.targets]
        attempt = _FAULT_PAUSE
        while True:
            for blocked in places:
                self._ports.observer.blocked(blocked, error, None)
            if await pause(self._stop, backoff(attempt, self._limits.backoff_seconds)):
                return position
            attempt += 1
            if await self._is_back(position):
                break
        for blocked in places:
            self._ports.observer.unblocked(blocked)
        return position

    async def _is_back(self, position: Position) -> bool:
        try:
            return await self._reader.reaches(position)
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return False

    async def _record_gap(self, target: Target, position: Position, error: RecordsTrimmed) -> None:
        gap = Gap(
            stream=self.lease.stream,
            shard_id=self.lease.shard_id,
            target_id=target.target_id,
            after=position,
            found_at=self._ports.clock.now(),
            why=error.message,
        )
        self._fence.check()
        await self._ports.registry.record_gap(gap)
        self._ports.observer.gap_found(gap)
