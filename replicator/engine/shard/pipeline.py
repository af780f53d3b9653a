"""One target on one shard that is ours: read, decide, apply, cache, report how far it is durable.

What was read is applied while more is read. Invariant: a target's position passes a record only when its effect is
durable; when the pipeline ends, nothing new is begun, what is under way is finished, and every byte is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from replicator.domain.errors import LeaseLost, MalformedRecord, RecordsTrimmed, ReplicatorError
from replicator.domain.health import PROBE_SECONDS
from replicator.domain.kept_entries import kept_entries, newly_kept
from replicator.domain.progress import END, Position
from replicator.domain.records import first_unread
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.leases import TargetStart
from replicator.domain.shards.stall import Sign, Stall, Write, stall_of
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.context import TargetContext, Unfinished
from replicator.engine.applying.kinds import KINDS, parks_refusals
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.set_aside import SetAside
from replicator.engine.probing import Probing
from replicator.engine.reading.cursors import Page
from replicator.engine.shard.context import ShardContext
from replicator.engine.shard.holding_back import HoldBack
from replicator.engine.shard.losses import Losses
from replicator.engine.waiting import Flag, Stopped, backoff, found, pause, retry_in
from replicator.ports.services import target_service

FAULT_PAUSE = 6
"""After an unexpected fault a pipeline is started again as if it had failed this often: seconds, not milliseconds."""

_SMALL_PAGE = 16
"""A pipeline that gave its bytes back reads little at first: most likely it still cannot go on."""

_STUCK_SECONDS = 2.0
"""A target that applied nothing for so long reads nothing ahead, and lets go what is more than its share of memory."""

_HIDDEN = "Records left the stream between two readings of it."


class _Unreadable(Struct, frozen=True):
    """Behind what was read so far stands a record that cannot be understood, and the target waits for it."""

    error: MalformedRecord


class _Trimmed(Struct, frozen=True):
    """What stood behind a position is gone."""

    behind: Position
    error: RecordsTrimmed


class Pipeline:
    """A target's way through a shard.

    It is longer than a class should be because reading ahead, applying and giving pages back end together: what one of
    them holds when the others stop is settled in one place.
    """

    def __init__(self, rule: Rule, target: Target, context: ShardContext) -> None:
        self.target = target
        self._rule = rule
        self._context = context
        self._place = context.place(target)
        self._service = target_service(context.lease.stream, context.lease.shard_id, target.target_id)
        self._losses = Losses(rule, target, context)
        self._held = HoldBack(rule, target, context.limits, context.ports.servers)
        self._over = Flag()
        self._why = "lost"
        self._stop = asyncio.Event()
        """Ends what is done now: for good, or to begin anew when others need the bytes."""
        self._pages: asyncio.Queue[Page | _Trimmed | _Unreadable | None] = asyncio.Queue()  # the look-ahead bounds it
        self._more = asyncio.Event()
        """Set while something is in it."""
        self._in_hand: deque[Page] = deque()
        self._applier: TargetApplier | None = None
        self._unfinished: Unfinished = {}
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

    def _keeps(self, held: int) -> bool:
        """Whether a page that another target has read is kept: within the share, and as long as this one goes on.

        What falls behind by more gives back what it has, and reads again from its own place when it can.
        """
        if held < self._context.ports.budget.share:
            return True
        self.shed(_STUCK_SECONDS)
        return False

    def _interrupt(self) -> None:
        self._stop.set()
        self._put(None)

    def _put(self, what: Page | _Trimmed | _Unreadable | None) -> None:
        self._pages.put_nowait(what)
        self._more.set()

    def _idle_seconds(self) -> float:
        done_at = 0.0 if self._applier is None else self._applier.done_at
        return self._context.ports.clock.monotonic() - max(done_at, self._progressed_at, self._held.held_at)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the shard is read to its end, or `end`; a fault is reported, and it begins anew."""
        context, ports = self._context, self._context.ports
        ports.observer.shard_started(context.lease, self.target)
        ports.budget.register(self)
        why = "lost"
        try:
            why = await self._until_over()
            await context.progress.save()  # children wait for their parents' end
            context.wake()
        finally:
            ports.budget.unregister(self)
            ports.observer.shard_stopped(context.lease, self.target, why)

    async def _until_over(self) -> str:
        attempt, longest = FAULT_PAUSE, self._context.limits.backoff_seconds
        while not self._over.is_set():
            began = self._progressed_at
            try:
                await self._pass_through()
            except Exception as error:
                if found(error, LeaseLost):
                    raise
                attempt = attempt + 1 if self._progressed_at == began else FAULT_PAUSE
                if found(error, Stopped):
                    await self._rest()
                    wait = backoff(attempt, min(longest, PROBE_SECONDS))
                else:
                    self._tell(error)
                    wait = backoff(attempt, longest) if self._error is None else retry_in(self._error, attempt, longest)
            else:
                return "finished"
            await pause(self._over, wait)
        return self._why

    async def _rest(self) -> None:
        """Hold nothing while the target is away, until it is this one's turn to try, or until it answers."""
        observer, probing = self._context.ports.observer, self._probing
        try:
            error = await probing.turn(self._over, told=False, empty=True)
            if error is not None:
                self._error = error
                observer.blocked(self._place, error, None)
                await probing.turn(self._over, told=True, empty=True)
                observer.unblocked(self._place)
        except Stopped:
            return

    @property
    def _probing(self) -> Probing:
        return self._context.ports.targets[self.target.target_id].probing

    def _tell(self, error: Exception) -> None:
        """Report every error inside; those of our own are troubles of the world, all others are faults."""
        observer = self._context.ports.observer
        if isinstance(error, ExceptionGroup):
            for inner in error.exceptions:
                self._tell(inner)
        elif isinstance(error, ReplicatorError):
            self._error = error
            observer.service_failed(self._service, error)
        else:
            self._error = ReplicatorError(f"{type(error).__name__}: an error that was not expected; the log has it.")
            observer.shard_failed(self._context.lease, self.target, error)

    # -- through the shard ---------------------------------------------------------------------------------------------

    async def _pass_through(self) -> None:
        """Read and apply from the stored position to the end, past every loss that may be passed."""
        self._read_from = None
        self._stop, self._pages, self._more = asyncio.Event(), asyncio.Queue(), asyncio.Event()
        if self._over.is_set():
            raise Stopped
        start = await self._start()
        if parks_refusals(self._rule, self.target.kind):
            for parking in self._context.ports.targets[self.target.target_id].parkings:
                await parking.load()
        await self._drop_what_was_not_kept()
        position = await self._losses.begin(start, self._stop)
        self._context.ports.observer.service_recovered(self._service)
        self._error = None
        if position is None:
            position = self._context.progress.position(self.target)
        while position != END:
            trimmed = await self._flow(position, start)
            if trimmed is None:
                return
            position = await self._losses.behind(trimmed.behind, trimmed.error)
        self._moved(END)

    async def _drop_what_was_not_kept(self) -> None:
        """Owe the drop of entries that were not kept in step up to here, before a position says that they are."""
        progress, target = self._context.progress, self.target
        entries, before = kept_entries(target.caches), progress.kept(target)
        if before is not None:
            caches = self._context.ports.targets[target.target_id].caches
            for name in newly_kept(entries, before):
                dropped = await caches[name].drop_all(self._context.fence)
                self._context.ports.observer.entries_not_kept(self._place, name, dropped=dropped)
        progress.keep(target, entries)

    async def _start(self) -> TargetStart:
        self._context.fence.check()
        return await self._context.ports.registry.start(self._context.lease.stream, self.target)

    async def _flow(self, position: Position, start: TargetStart) -> _Trimmed | None:
        """Read and apply to the end of the shard, or to a place behind which records are gone."""
        most = (
            self._context.limits.page_records * self._held.pages_ahead + 1
        )  # behind a full one the next is still read
        ahead = ReadAhead(most, along=self._keeps)
        self._applier = applier = self._new_applier(start, ahead)
        self._read_from = position
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(position, ahead), name=f"read for {self.target.target_id}")
                while True:
                    pages, behind = await self._waiting()
                    if pages or behind is not None:
                        await self._apply(applier, pages, ahead, is_last=behind is not None)
                    for page in pages:
                        ahead.drop(page.records)
                        self._drop()
                    if isinstance(behind, _Trimmed):
                        return behind
                    if isinstance(behind, _Unreadable):
                        raise behind.error
                    if pages and pages[-1].then == END:
                        return None
        finally:
            applier.give_up()
            while self._in_hand:
                self._drop()

    async def _waiting(self) -> tuple[list[Page], _Trimmed | _Unreadable | None]:
        """All pages that wait, up to the records of a full one, and what stands behind them.

        At the tip pages are small. One by one they would cost a round each, so that a target whose round takes longer
        than a poll fell behind for ever, however few records there are.
        """
        pages: list[Page] = []
        records = 0
        while records < self._context.limits.page_records and not (
            pages and (self._pages.empty() or self._early(pages))
        ):
            got = await self._pages.get()
            if self._pages.empty():
                self._more.clear()
            if got is None or self._stop.is_set():
                raise Stopped
            if not isinstance(got, Page):
                return pages, got
            pages.append(got)
            records += len(got.records)
        return pages, None

    def _drop(self) -> None:
        self._context.reader.drop(self._in_hand.popleft())

    async def _read(self, position: Position, ahead: ReadAhead) -> None:
        """Read ahead while there is room; None says that the program stops."""
        try:
            while position != END:
                self._read_from = position
                page = await self._context.reader.read(position, limit=self._limit, taker=ahead)
                if not self._in_hand:
                    self._progressed_at = self._context.ports.clock.monotonic()
                self._in_hand.append(page)
                first = page.records[0].sequence if page.records else None
                if await self._losses.hidden(page.behind, first):
                    self._put(_Trimmed(position, RecordsTrimmed(_HIDDEN)))
                    return
                unread = first_unread(page.records)
                if unread is not None and not parks_refusals(self._rule, self.target.kind):
                    self._put(_Unreadable(MalformedRecord(unread.why)))
                    return
                if self._idle_seconds() >= _STUCK_SECONDS and not KINDS[self.target.kind].of_many_places:
                    ahead.rest()
                ahead.add(page.records)
                self._put(page)
                position = page.then
        except RecordsTrimmed as error:
            self._put(_Trimmed(position, error))
        except Stopped:
            self._put(None)

    async def _apply(self, applier: TargetApplier, pages: Sequence[Page], ahead: ReadAhead, *, is_last: bool) -> None:
        """Apply pages; all of it if nothing may come behind them before everything is applied."""
        progress = self._context.progress
        records = [record for page in pages for record in page.records]
        await self._held.wait(
            records, self._in_hand, self._context.reader, () if is_last else (ahead.room,), self._stop
        )
        ends = bool(pages) and pages[-1].then == END
        more = None if is_last or ends else self._more
        await applier.apply(
            records, progress.position(self.target), lambda place: progress.moved(self.target, place), more
        )
        if ends:
            self._moved(END)
        self._progressed_at = self._context.ports.clock.monotonic()
        self._limit = min(self._limit * 2, self._context.limits.page_records)

    def _early(self, pages: Sequence[Page]) -> bool:
        """Whether the page behind these still waits for what was made before it."""
        return len(self._in_hand) > len(pages) and self._held.seconds(self._in_hand[len(pages)].records) > 0

    def _moved(self, position: Position) -> None:
        if self._context.progress.position(self.target) != position:
            self._context.progress.moved(self.target, position)
            self._context.ports.observer.moved(self._place, position)

    @property
    def _parking(self) -> Parking | None:
        """Where the target's refusals are set aside, if its rule says so."""
        ports = self._context.ports.targets[self.target.target_id]
        return ports.parking if parks_refusals(self._rule, self.target.kind) else None

    @property
    def _aside(self) -> SetAside | None:
        context, parking = self._context, self._parking
        if parking is None:
            return None
        ports, worker = context.ports, context.lease.owner
        return SetAside(parking, self._place, self._rule.epoch, worker, ports.servers, ports.observer, context.fence)

    def _new_applier(self, start: TargetStart, ahead: ReadAhead) -> TargetApplier:
        context, target_id = self._context, self.target.target_id
        of_target = TargetContext(
            self._rule,
            self._place,
            context.ports.targets[target_id],
            ahead,
            context.limits,
            context.ports.servers,
            context.ports.observer,
            context.fence,
            self._stop,
            self._unfinished,
            self._aside,
            context.lease.owner,
        )
        started_at = start.started_at if self._rule.start is Start.LATEST else None
        return TargetApplier(of_target, started_at=started_at, rewind=context.row.rewinds.get(target_id))

    # -- standing still ------------------------------------------------------------------------------------------------

    def stall(self) -> Stall | None:
        """Why nothing progressed for the bound, if nothing did."""
        return stall_of(self._sign(), self._context.limits.stall_seconds)

    def _sign(self) -> Sign:
        closed, reader, place = self._losses.gate.closed, self._context.reader, self._read_from
        reads = place is not None and not self._in_hand and closed is None
        return Sign(
            idle_seconds=self._unread_seconds(place) if reads and place is not None else self._idle_seconds(),
            write=_write(self._applier) if self._in_hand and self._applier is not None else None,
            reads=reads,
            hungry=place is not None and reader.at(place).hungry,
            closed=closed,
            reading=reader.trouble,
            error=self._error,
        )

    def _unread_seconds(self, place: Position) -> float:
        """For how long nothing was heard from where this pipeline reads; an idle shard is asked less often."""
        self._answered_at = max(self._answered_at, self._context.reader.at(place).answered_at)
        now, idle = self._context.ports.clock.monotonic(), self._context.limits.idle_seconds
        return now - max(self._answered_at, self._progressed_at) - idle


def _write(applier: TargetApplier) -> Write:
    target = applier.place.target
    kind = KINDS[target.kind]
    return Write(target.target_id.text, kind.asks, kind.holds_back, applier.trouble)
