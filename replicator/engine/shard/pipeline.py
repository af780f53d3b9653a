"""One rule on one shard that is ours: read, decide, apply, cache, tell how far it is durable.

A page is applied while the next one is read. Invariant: a target's position passes a record only when its effect is
durable; when the pipeline ends, nothing new is begun, what is under way is finished, and every byte is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.domain.errors import LeaseLost, MalformedRecord, RecordsTrimmed, ReplicatorError
from replicator.domain.progress import END, Position, earliest
from replicator.domain.records import UnreadRecord
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.leases import TargetStart
from replicator.domain.shards.stall import Sign, Stall, Write, stall_of
from replicator.domain.targets import TargetId
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.context import TargetContext, Unfinished
from replicator.engine.applying.kinds import KINDS, parks_refusals
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.set_aside import SetAside
from replicator.engine.reading.cursors import Page
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.losses import Losses
from replicator.engine.waiting import Stopped, backoff, found, pause
from replicator.ports.events import Place
from replicator.ports.services import ServiceKind, shard_service

FAULT_PAUSE = 6
"""After an unexpected fault a pipeline is started again as if it had failed this often: seconds, not milliseconds."""

_SMALL_PAGE = 16
"""Who gave its bytes back reads little at first: most likely it still cannot go on."""

_HIDDEN = "Records left the stream between two readings of it."


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Behind what was read so far stands a record that cannot be understood, and the rule waits for it."""

    error: MalformedRecord


@dataclass(frozen=True, slots=True)
class _Trimmed:
    """What stood behind a position is gone, for these targets; for all that stand there, if none is named."""

    behind: Position
    error: RecordsTrimmed
    targets: Sequence[Target] = ()


class Pipeline:
    """A rule's way through a shard.

    It is longer than a class should be because reading ahead, applying and giving pages back end together: what one of
    them holds when the others stop is settled in one place.
    """

    def __init__(self, rule: Rule, context: ShardContext) -> None:
        self.rule = rule
        self._context = context
        self._service = shard_service(ServiceKind.RULE, context.lease.stream, context.lease.shard_id, rule.name)
        self._losses = Losses(rule, context)
        self._over = asyncio.Event()
        self._why = "lost"
        self._stop = asyncio.Event()
        """Ends what is done now: for good, or to begin anew when others need the bytes."""
        self._pages: asyncio.Queue[Page | _Trimmed | _Unreadable | None] = asyncio.Queue()  # the look-ahead bounds it
        self._in_hand: deque[Page] = deque()
        self._appliers: list[TargetApplier] = []
        self._unfinished: dict[TargetId, Unfinished] = {target.target_id: {} for target in rule.targets}
        self._limit = context.limits.page_records
        self._read_from: Position | None = None
        """Where records are awaited now."""
        self._answered_at = float("-inf")
        """When the stream last answered there (monotonic)."""
        self._error: ReplicatorError | None = None
        self._progressed_at = context.ports.clock.monotonic()

    def end(self, why: str) -> None:
        """Begin nothing new, finish what is under way, and end."""
        if not self._over.is_set():
            self._why = why
            self._over.set()
            self._interrupt()

    def shed(self, seconds: float) -> None:
        """Give every byte back, to read it again later, if nothing progressed for so long."""
        if self._in_hand and not self._stop.is_set() and self._idle_seconds() >= seconds:
            self._limit = min(_SMALL_PAGE, self._context.limits.page_records)
            self._interrupt()

    def _interrupt(self) -> None:
        self._stop.set()
        self._pages.put_nowait(None)

    def _idle_seconds(self) -> float:
        done_at = max((applier.done_at for applier in self._appliers), default=0.0)
        return self._context.ports.clock.monotonic() - max(done_at, self._progressed_at)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the shard is read to its end, or `end`; what nobody expected is told, and it begins anew."""
        context, ports = self._context, self._context.ports
        ports.observer.shard_started(context.lease, self.rule.name)
        ports.budget.register(self)
        why = "lost"
        try:
            why = await self._until_over()
            await context.progress.save()  # children wait for their parents' end
            context.wake()
        finally:
            ports.budget.unregister(self)
            ports.observer.shard_stopped(context.lease, self.rule.name, why)

    async def _until_over(self) -> str:
        attempt = FAULT_PAUSE
        while not self._over.is_set():
            try:
                await self._pass_through()
            except Exception as error:
                if found(error, LeaseLost):
                    raise
                if not found(error, Stopped):
                    self._tell(error)
            else:
                return "finished"
            attempt += 1
            await pause(self._over, backoff(attempt, self._context.limits.backoff_seconds))
        return self._why

    def _tell(self, error: Exception) -> None:
        """Tell every error inside; those of our own are troubles of the world, all others are faults."""
        observer = self._context.ports.observer
        if isinstance(error, ExceptionGroup):
            for inner in error.exceptions:
                self._tell(inner)
        elif isinstance(error, ReplicatorError):
            self._error = error
            observer.service_failed(self._service, error)
        else:
            self._error = ReplicatorError(f"{type(error).__name__}: an error that was not expected; the log has it.")
            observer.shard_failed(self._context.lease, self.rule.name, error)

    # -- through the shard ---------------------------------------------------------------------------------------------

    async def _pass_through(self) -> None:
        """Read and apply from the stored positions to the end, past every loss that may be passed."""
        self._read_from = None
        self._stop, self._pages = asyncio.Event(), asyncio.Queue()
        if self._over.is_set():
            raise Stopped
        starts = {target.target_id: await self._start(target) for target in self.rule.targets}
        for target in self.rule.targets:
            parking = self._parking(target)
            if parking is not None:
                await parking.load()
        position = await self._losses.begin(starts, self._stop)
        self._context.ports.observer.service_recovered(self._service)
        self._error = None
        if position is None:
            position = earliest(self._context.progress.position(target) for target in self.rule.targets)
        while position != END:
            trimmed = await self._flow(position, starts)
            if trimmed is None:
                return
            position = await self._losses.behind(trimmed.behind, trimmed.error, trimmed.targets)
        for target in self.rule.targets:
            self._moved(target, END)

    async def _start(self, target: Target) -> TargetStart:
        self._context.fence.check()
        return await self._context.ports.registry.start(self._context.lease.stream, target)

    async def _flow(self, position: Position, starts: dict[TargetId, TargetStart]) -> _Trimmed | None:
        """Read and apply to the end of the shard, or to a place behind which records are gone."""
        ahead = ReadAhead(self._context.limits.page_records + 1)  # behind a full page the next one is still read
        self._appliers = [self._applier(target, starts[target.target_id], ahead) for target in self.rule.targets]
        self._read_from = position
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(position, ahead), name=f"read for {self.rule.name}")
                while True:
                    got = await self._pages.get()
                    if got is None or self._stop.is_set():
                        raise Stopped
                    if isinstance(got, _Trimmed):
                        return got
                    if isinstance(got, _Unreadable):
                        raise got.error
                    await self._apply(got)
                    ahead.drop(got.records)
                    self._drop()
                    if got.then == END:
                        return None
        finally:
            while self._in_hand:
                self._drop()

    def _drop(self) -> None:
        self._context.reader.drop(self._in_hand.popleft())

    async def _read(self, position: Position, ahead: ReadAhead) -> None:
        """Read ahead while there is room; None tells that the program stops."""
        try:
            while position != END:
                await ahead.room.wait()
                self._read_from = position
                page = await self._context.reader.read(position, limit=self._limit, urgent=ahead.urgent)
                if not self._in_hand:
                    self._progressed_at = self._context.ports.clock.monotonic()
                self._in_hand.append(page)
                first = page.records[0].sequence if page.records else None
                lost = await self._losses.hidden(page.behind, first)
                if lost:
                    self._pages.put_nowait(_Trimmed(position, RecordsTrimmed(_HIDDEN), lost))
                    return
                unread = next((record for record in page.records if isinstance(record, UnreadRecord)), None)
                if unread is not None and not all(parks_refusals(self.rule, each.kind) for each in self.rule.targets):
                    self._pages.put_nowait(_Unreadable(MalformedRecord(unread.why)))
                    return
                ahead.add(page.records)
                self._pages.put_nowait(page)
                position = page.then
        except RecordsTrimmed as error:
            self._pages.put_nowait(_Trimmed(position, error))
        except Stopped:
            self._pages.put_nowait(None)

    async def _apply(self, page: Page) -> None:
        """Apply a page at every target; each is as far as it is."""
        async with asyncio.TaskGroup() as applying:
            for applier in self._appliers:
                applying.create_task(self._apply_at(applier, page), name=applier.place.target.target_id.text)
        self._progressed_at = self._context.ports.clock.monotonic()
        self._limit = min(self._limit * 2, self._context.limits.page_records)

    async def _apply_at(self, applier: TargetApplier, page: Page) -> None:
        target, progress = applier.place.target, self._context.progress
        await applier.apply(page.records, progress.position(target), lambda place: progress.moved(target, place))
        if page.then == END:
            self._moved(target, END)

    def _moved(self, target: Target, position: Position) -> None:
        if self._context.progress.position(target) != position:
            self._context.progress.moved(target, position)
            self._context.ports.observer.moved(self._context.place(target), position)

    def _parking(self, target: Target) -> Parking | None:
        """Where a target's refusals are set aside, if its rule says so."""
        return self._context.ports.targets[target.target_id].parking if parks_refusals(self.rule, target.kind) else None

    def _aside(self, place: Place) -> SetAside | None:
        context, parking = self._context, self._parking(place.target)
        if parking is None:
            return None
        ports, worker = context.ports, context.lease.owner
        return SetAside(parking, place, self.rule.epoch, worker, ports.clock, ports.observer, context.fence)

    def _applier(self, target: Target, start: TargetStart, ahead: ReadAhead) -> TargetApplier:
        context, place = self._context, self._context.place(target)
        of_target = TargetContext(
            self.rule,
            place,
            context.ports.targets[target.target_id],
            ahead,
            context.limits,
            context.ports.clock,
            context.ports.observer,
            context.fence,
            self._stop,
            self._unfinished[target.target_id],
            self._aside(place),
        )
        started_at = start.started_at if self.rule.start is Start.LATEST else None
        return TargetApplier(of_target, started_at=started_at, rewind=context.row.rewinds.get(target.target_id))

    # -- standing still ------------------------------------------------------------------------------------------------

    def stall(self) -> Stall | None:
        """Why nothing progressed for the bound, if nothing did."""
        return stall_of(self._sign(), self._context.limits.stall_seconds)

    def _sign(self) -> Sign:
        closed, reader, place = self._losses.gate.closed, self._context.reader, self._read_from
        reads = place is not None and not self._in_hand and closed is None
        return Sign(
            idle_seconds=self._unread_seconds(place) if reads and place is not None else self._idle_seconds(),
            writes=[_write(applier) for applier in self._appliers] if self._in_hand else (),
            reads=reads,
            hungry=place is not None and reader.is_hungry(place),
            closed=closed,
            reading=reader.trouble,
            error=self._error,
        )

    def _unread_seconds(self, place: Position) -> float:
        """For how long nothing was heard from where this pipeline reads; an idle shard is asked less often."""
        self._answered_at = max(self._answered_at, self._context.reader.answered_at(place))
        now, idle = self._context.ports.clock.monotonic(), self._context.limits.idle_seconds
        return now - max(self._answered_at, self._progressed_at) - idle


def _write(applier: TargetApplier) -> Write:
    target = applier.place.target
    kind = KINDS[target.kind]
    return Write(target.target_id.text, kind.asks, kind.holds_back, applier.trouble)
