"""The engine as a function: what an event source mapping read is brought to the targets of its rules.

The mapping owns shards, order, retries and scale. Invariant: a record that is not reported as failed is durable at
every target of every rule that reads its table; what cannot be distinguished is reported. Nothing is sent for a rule
that is not known to be driven by functions.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import structlog

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.kinesis.envelope import Delivered, parse_change
from replicator.adapters.kinesis.streams import kinesis_arn
from replicator.adapters.sinks.opening import open_sinks
from replicator.app.bounds import HOME_CONNECTIONS, caches_of, connections_of, processes_of, regions_of
from replicator.app.event_records import parts_of
from replicator.app.held_rules import HeldRules
from replicator.app.preflight import prepare_start
from replicator.app.rule_preflight import Premises
from replicator.app.wiring import Assembly
from replicator.app.worker_ids import new_id
from replicator.checks.table_choices import TableFinder
from replicator.domain.drivers import Drivers
from replicator.domain.driving import Driving
from replicator.domain.errors import Disposition, ReplicatorError, WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.records import ForeignRecord, StreamRecord
from replicator.domain.rules import Rule, Start, Target, rests
from replicator.domain.shards.leases import StreamRef
from replicator.domain.versions import generation_of
from replicator.engine.applying.gate import Gates
from replicator.engine.batches import BatchPorts, BatchTarget, bring_batch
from replicator.engine.membership.session import DriveFence
from replicator.engine.ownership.sources import Source
from replicator.engine.waiting import backoff
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.ports.events import Place
from replicator.settings import Settings
from replicator.settings.compiled_rules import rules_of

SHARD = ShardId("lambda")
"""Events do not name the shard of a record."""

_SPARE_SECONDS = 2.0
"""So long before the end nothing new is begun."""

_CUT_SECONDS = 0.7
"""So long before the end what is under way is given up."""

_NOTE_SECONDS = 60.0
"""Time between two notes of one process that batches are durable."""

_NEVER_AWAY = timedelta(days=1)
"""A region of a mesh that does not answer is waited for: the mapping keeps the records, and no function drains."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch as one table's: records of others are in it by their places only."""

    source: Source
    stream: StreamRef
    records: Sequence[StreamRecord]


class Function:
    """Everything that one process keeps between invocations."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"away_after": _NEVER_AWAY})
        self._clock = SystemClock()
        self._stack = AsyncExitStack()
        self._log = structlog.get_logger("replicator")
        self._starts: dict[tuple[str, str], float] = {}
        self._looked_at = self._asked_at = float("-inf")
        self._driven: Mapping[RuleName, Driving] = {}
        self._handed_over: dict[RuleName, float] = {}
        self._fences: dict[RuleName, DriveFence] = {}
        self._paused: Mapping[RuleName, float] = {}
        self._resting: frozenset[tuple[RuleName, RegionId]] = frozenset()
        self._processes = processes_of(settings)
        self._streams: dict[tuple[RegionId, TableName], StreamRef] = {}
        """Kinesis streams as those of tables, until the world is looked at again."""
        self._noted_hours: dict[tuple[RuleName, str], int] = {}
        self._noted_at: dict[tuple[RuleName, str], float] = {}
        self.unknown: Counter[str] = Counter()  # records of tables that no rule reads, by table

    async def open(self) -> Self:
        """Look at the world as a daemon does before its start; raises what forbids it."""
        settings, stack, clock = self._settings, self._stack, self._clock
        try:
            places = await stack.enter_async_context(
                open_places(settings, regions_of(settings), connections_of(settings), stream_connections=1)
            )
            home = await stack.enter_async_context(places[settings.coordination.region].beside(HOME_CONNECTIONS))
            caches = await stack.enter_async_context(open_caches(settings, caches_of(settings)))
            sinks = await stack.enter_async_context(open_sinks(settings, places, caches, clock))
            self._observer = LiveObserver(Board(settings.group, rules_of(settings), clock), Metrics(), clock)
            self._gates = Gates()
            self._assembly = assembly = Assembly(
                settings, places, home, caches, sinks, clock, self._observer, self._gates, settles=False
            )
            finder = TableFinder(settings, places)
            premises = Premises(
                settings, places, caches, assembly.registry, assembly.succession, clock, finder, assembly.identities
            )
            start = await prepare_start(premises)
        except BaseException:
            await self.close()
            raise
        self._chosen = start.survey.settings
        self._held = HeldRules(premises, start, self._gates, self._observer, lambda: self._chosen)
        self._ports = BatchPorts(assembly.limits, assembly.rows.clock, self._observer, new_id())
        self._looked_at = clock.monotonic()
        return self

    async def close(self) -> None:
        """Close every client."""
        await self._stack.aclose()

    async def batch(self, arn: str, records: Sequence[StreamRecord] | Sequence[Delivered], ends_at: float) -> int:
        """Bring records of one stream to all targets of its rules; returns how many from the first on are done.

        `ends_at`: by the loop's time, when the invocation ends. Raises what keeps all of them from being begun.
        """
        async with asyncio.timeout_at(ends_at - _CUT_SECONDS):
            await self._look()
            readings = await self._readings(arn, records)
            brought = [(reading, each) for reading in readings for each in await self._targets(reading)]
            for reading in readings:
                await self._note(reading)
        async with self._watched(ends_at - _SPARE_SECONDS) as stop:
            cut = ends_at - _CUT_SECONDS
            done = await asyncio.gather(*(self._bring(reading.records, each, stop, cut) for reading, each in brought))
        whole = {(reading.stream, each.rule.name) for reading, each in brought}
        whole -= {
            (reading.stream, each.rule.name)
            for (reading, each), count in zip(brought, done, strict=True)
            if count < len(records)
        }
        await self._note_durable(whole, ends_at)
        return min(done, default=len(records))

    # -- what pods need to know when they take over --------------------------------------------------------------------

    async def _note(self, reading: Reading) -> None:
        """Note how old records come, before they are brought: behind a loss they are as old as a stream keeps them."""
        oldest = min((record.created_at for record in reading.records if record.created_at), default=math.inf)
        hours = max(0, int((self._assembly.rows.clock.latest() - oldest) // 3600)) if oldest < math.inf else 0
        for rule in reading.source.rules:
            known = (rule.name, reading.stream.arn)
            if self._drives(rule) and hours > self._noted_hours.get(known, 0):
                await self._assembly.function_notes.note(rule.name, reading.stream, hours, seen_at=None)
                self._noted_hours[known] = hours

    async def _note_durable(self, whole: Collection[tuple[StreamRef, RuleName]], ends_at: float) -> None:
        """Note from time to time that whole batches are durable; without the note pods suppose a loss."""
        now = self._assembly.rows.clock.earliest()
        for stream, rule in whole:
            if now - self._noted_at.get((rule, stream.arn), 0.0) < _NOTE_SECONDS:
                continue
            try:
                async with asyncio.timeout_at(ends_at - _CUT_SECONDS):
                    await self._assembly.function_notes.note(rule, stream, 0, seen_at=now)
            except (ReplicatorError, TimeoutError) as error:
                self._log.warning("note_failed", rule=rule, reason=str(error))
            else:
                self._noted_at[rule, stream.arn] = now

    @asynccontextmanager
    async def _watched(self, stops_at: float) -> AsyncIterator[asyncio.Event]:
        """Look at what operators want while a batch is under way; the event: nothing more is to be begun."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        timer = loop.call_at(stops_at, stop.set)
        if loop.time() >= stops_at:
            stop.set()

        async def doubt() -> None:
            await self._gates.doubted.wait()
            stop.set()

        async def watch() -> None:
            while True:
                await asyncio.sleep(self._assembly.limits.heartbeat_seconds)
                try:
                    await self._ask()
                except ReplicatorError as error:  # the fences fall by themselves
                    self._log.warning("look_failed", reason=error.sentence)

        watching = [loop.create_task(each, name="watch of a batch") for each in (doubt(), watch())]
        try:
            yield stop
        finally:
            timer.cancel()
            for each in watching:
                each.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _bring(self, records: Sequence[StreamRecord], each: BatchTarget, stop: asyncio.Event, cut: float) -> int:
        """One target's part; what is wrong with it costs the others nothing."""
        try:
            refusal = each.ports.gate.refusal() or self._refusal(each.rule, each.place.target)
            if refusal is not None:
                raise refusal  # noqa: TRY301 - logged as every other error
            return await bring_batch(records, each, self._ports, stop, cut)
        except ReplicatorError as error:
            self._log.error("batch_refused", target=each.place.target.target_id.text, reason=error.sentence)
        except Exception:  # noqa: BLE001 - the boundary: a fault at one target costs no other one
            self._log.exception("batch_failed", target=each.place.target.target_id.text)
        return 0

    # -- what runs here ------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask what operators want, and look again at what is held, when that is due; raises what lasts."""
        coordination, attempt = self._settings.coordination, 0
        while self._clock.monotonic() - self._asked_at >= self._assembly.limits.heartbeat_seconds:
            try:
                await self._ask()
            except ReplicatorError as error:
                # Connections of a process that was frozen may be dead.
                attempt += 1
                if error.disposition is not Disposition.RETRY:
                    raise
                self._log.warning("look_failed", reason=error.sentence)
                await asyncio.sleep(backoff(attempt, self._assembly.limits.backoff_seconds))
        now = self._clock.monotonic()
        if self._gates.doubted.is_set() or now - self._looked_at >= coordination.held.total_seconds():
            self._gates.doubted.clear()
            await self._held.look()
            self._streams = {}
            self._looked_at = now

    async def _ask(self) -> None:
        """Ask what operators want; a fence is set anew by what was asked, and falls with the answer."""
        membership, asked_at = self._assembly.membership, self._clock.monotonic()
        self._driven = await membership.driven()
        for rule, driving in self._driven.items():
            if driving.since != self._handed_over.get(rule):  # what was noted before is forgotten
                self._handed_over[rule] = driving.since
                self._noted_hours, self._noted_at = {}, {}
            if driving.lets(Drivers.LAMBDA, self._assembly.limits.lease_seconds):
                self._fence(rule).extend(asked_at)
            else:
                self._fence(rule).revoke()
        self._paused, self._resting = await membership.paused(), await membership.resting()
        self._asked_at = asked_at

    def _fence(self, rule: RuleName) -> DriveFence:
        return self._fences.setdefault(rule, DriveFence(rule, self._clock, self._assembly.limits.lease_seconds))

    def _drives(self, rule: Rule) -> bool:
        driving = self._driven.get(rule.name)
        return driving is not None and driving.lets(Drivers.LAMBDA, self._assembly.limits.lease_seconds)

    def _refusal(self, rule: Rule, target: Target) -> ReplicatorError | None:
        """What keeps a target from being brought anything here; None when nothing does."""
        driving = self._driven.get(rule.name)
        if driving is None or driving.by is not Drivers.LAMBDA:
            return WorldMismatch(
                f"Rule {rule.name} is driven by pods.",
                advice=f"`replicator rules drive {rule.name} --by lambda` hands it over.",
            )
        if not self._drives(rule):
            return WorldMismatch(
                f"Rule {rule.name} was handed over {driving.age:.0f} s ago, and pods may not have ended yet.",
                advice="Nothing to do: functions begin when a lease has passed.",
            )
        others = rule.mesh.others if rule.mesh else ()
        # A region of a mesh that rests is owed what it misses, and functions owe nothing.
        if rests(target, self._paused, self._resting) or any((rule.name, each) in self._resting for each in others):
            return WorldMismatch(
                f"Rule {rule.name} is paused, or a region of it is.",
                advice=f"`replicator resume {rule.name}` lets it go on.",
            )
        if rule.mesh is None and rule.policy.insert_guard is InsertGuard.PROBE:
            return WorldMismatch(
                f"Rule {rule.name} has `insert_guard: probe`, which needs leases, and functions have no leases.",
                advice="Set `insert_guard: transact`, or let pods run the rule.",
            )
        return None

    async def _readings(self, arn: str, records: Sequence[StreamRecord] | Sequence[Delivered]) -> list[Reading]:
        """What a batch is for each table that is read in its stream; nothing of a stream that no rule reads."""
        first = next(iter(records), None)
        if isinstance(first, Delivered):
            return await self._of_kinesis(arn, [record for record in records if isinstance(record, Delivered)])
        return self._of_table(arn, [record for record in records if not isinstance(record, Delivered)])

    def _of_table(self, arn: str, records: Sequence[StreamRecord]) -> list[Reading]:
        aws, table, label = parts_of(arn)
        sources = self._sources(aws, lambda rule: rule.table == table)
        if not sources:
            self._count_unknown(f"{aws}:{table}", len(records))
            return []
        if len(sources) > 1:
            raise WorldMismatch(
                f"Table {table} is read in two configured regions that are both {aws}, and events do not say which.",
                advice="Let pods run its rules, or give each region a function and a configuration of its own.",
            )
        (source,) = sources
        if source.rules[0].stream is not None:
            raise WorldMismatch(
                f"Rule {source.rules[0].name} reads the changes of table {table} in Kinesis, and this event is of the"
                " table's own stream.",
                advice="Map the Kinesis stream, or take `stream` out of the rule.",
            )
        return [Reading(source, StreamRef(source.region, source.table, arn, generation_of(label)), records)]

    async def _of_kinesis(self, arn: str, records: Sequence[Delivered]) -> list[Reading]:
        head, _, name = (arn := arn.partition("/consumer/")[0]).partition(":stream/")
        aws = head.split(":")[3] if head.count(":") > 3 else ""  # noqa: PLR2004 - the place of the region
        sources = self._sources(aws, lambda rule: rule.stream is not None and rule.stream.name == name)
        if not sources:
            self._count_unknown(f"{aws}:{name}", len(records))
        readings = []
        for source in sources:
            place = (source.region, source.table)
            if place not in self._streams:
                self._streams[place] = await source.ports.stream.current(source.table)
            stream = self._streams[place]
            if kinesis_arn(stream) != arn:
                raise WorldMismatch(
                    f"The event is of {arn}, and rule {source.rules[0].name} reads {kinesis_arn(stream)}.",
                    advice="Map the stream that the rule names.",
                )
            readings.append(Reading(source, stream, [parse_change(record, source.table) for record in records]))
        known = {source.table for source in sources}
        foreign = [each.table for each in readings[0].records if isinstance(each, ForeignRecord)] if readings else []
        for table, count in Counter(each for each in foreign if each not in known).items():
            self._count_unknown(f"{aws}:{name}:{table}", count)
        return readings

    def _sources(self, aws: str, wanted: Callable[[Rule], bool]) -> list[Source]:
        """What is read in an AWS region by rules that are meant; raises when one of them is held."""
        regions = {name for name, region in self._settings.regions.items() if region.region == aws}
        for rule in self._held.resting(self._chosen):
            if rule.source in regions and wanted(rule):
                raise WorldMismatch(
                    f"Rule {rule.name} is held: its world is wrong.", advice="`replicator check` shows the reason."
                )
        sources = self._assembly.sources(self._held.running(self._chosen))
        return [each for each in sources if each.region in regions and wanted(each.rules[0])]

    async def _targets(self, reading: Reading) -> list[BatchTarget]:
        """The targets of all rules that read a table there."""
        source, stream = reading.source, reading.stream
        source.ports.holdings.tell(stream, (SHARD,), self._processes, self._processes)
        ports, targets = source.ports.targets, []
        for rule, target in ((each, target) for each in source.rules for target in each.targets):
            fence, started_at = self._fence(rule.name), await self._start(stream, rule, target)
            targets.append(BatchTarget(rule, Place(stream, SHARD, target), ports[target.target_id], fence, started_at))
        return targets

    def _count_unknown(self, name: str, records: int) -> None:
        if not self.unknown[name]:
            self._log.warning("unknown_table", table=name, reason="No rule reads this table; its records are passed.")
        self.unknown[name] += records

    async def _start(self, stream: StreamRef, rule: Rule, target: Target) -> float | None:
        """When a target started on a stream, if its rule begins with the latest records."""
        place = (stream.arn, target.target_id.text)
        if place not in self._starts:
            registry = self._assembly.registry
            await registry.remember_stream(stream)
            self._starts[place] = (await registry.start(stream, target)).started_at
        return self._starts[place] if rule.start is Start.LATEST else None
