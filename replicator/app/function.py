"""The engine as a function: what an event source mapping read is brought to the targets of its rules.

The mapping owns shards, order, retries and scale. Invariant: a record that is not reported as failed is durable at
every target of every rule that reads its table; what cannot be told apart is reported. Nothing is sent for a rule that
is not known to be driven by functions.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Self

import msgspec
import structlog

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.sinks.opening import open_sinks
from replicator.app.held_rules import HeldRules
from replicator.app.preflight import prepare_start
from replicator.app.vouching import Premises
from replicator.app.wiring import HOME_CONNECTIONS, Assembly, caches_of, connections_of, regions_of
from replicator.app.worker_ids import new_id
from replicator.checks.table_choices import TableFinder
from replicator.domain.driving import Drivers, Driving
from replicator.domain.errors import ConfigurationInvalid, Disposition, ReplicatorError, WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.records import ChangeRecord, StreamRecord
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

CONCURRENCY = "LAMBDA_CONCURRENCY"
"""Names how many processes of the function there are at most: write units are divided by it."""

_SPARE_SECONDS = 2.0
"""So long before the end nothing new is begun."""

_CUT_SECONDS = 0.7
"""So long before the end what is under way is given up."""

_NOTE_SECONDS = 60.0
"""Time between two notes of one process that batches are durable."""

_NEVER_AWAY = timedelta(days=1)
"""A region of a mesh that does not answer is waited for: the mapping keeps the records, and no function drains."""

_ENCODE = msgspec.json.Encoder().encode


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
        self._processes = _processes(settings)
        self._noted_hours: dict[tuple[RuleName, str], int] = {}
        self._noted_at: dict[tuple[RuleName, str], float] = {}
        self.unknown: Counter[str] = Counter()
        """Records of tables that no rule reads, by table."""

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
        self._ports = BatchPorts(assembly.limits, clock, self._observer, new_id())
        self._looked_at = clock.monotonic()
        return self

    async def close(self) -> None:
        """Close every client."""
        await self._stack.aclose()

    async def batch(self, arn: str, records: Sequence[StreamRecord], ends_at: float) -> int:
        """Bring records of one stream to all targets of its rules; returns how many from the first on are done.

        `ends_at`: by the loop's time, when the invocation ends. Raises what keeps all of them from being begun.
        """
        async with asyncio.timeout_at(ends_at - _CUT_SECONDS):
            await self._look()
            targets = await self._targets(arn, len(records))
            await self._note({each.rule.name for each in targets if self._drives(each.rule)}, targets, records)
        async with self._watched(ends_at - _SPARE_SECONDS) as stop:
            bringing = (self._bring(records, each, stop, ends_at - _CUT_SECONDS) for each in targets)
            done = await asyncio.gather(*bringing)
        missed = {each.rule.name for each, count in zip(targets, done, strict=True) if count < len(records)}
        await self._note_durable({each.rule.name for each in targets} - missed, targets, ends_at)
        return min(done, default=len(records))

    # -- what pods need to know when they take over --------------------------------------------------------------------

    async def _note(
        self, rules: Collection[RuleName], targets: Sequence[BatchTarget], records: Sequence[StreamRecord]
    ) -> None:
        """Note how old records come, before they are brought: behind a loss they are as old as a stream keeps them."""
        oldest = min((record.created_at for record in records if record.created_at), default=math.inf)
        hours = max(0, int((self._clock.now() - oldest) // 3600)) if oldest < math.inf else 0
        for rule in rules:
            stream = targets[0].place.stream
            if hours > self._noted_hours.get((rule, stream.arn), 0):
                await self._assembly.function_notes.note(rule, stream, hours, seen_at=None)
                self._noted_hours[rule, stream.arn] = hours

    async def _note_durable(self, rules: Collection[RuleName], targets: Sequence[BatchTarget], ends_at: float) -> None:
        """Note from time to time that whole batches are durable; without the note pods suppose a loss."""
        now = self._clock.now()
        for rule in rules:
            stream = targets[0].place.stream
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
                f"Rule {rule.name} has insert_guard probe, which leases make safe, and functions have none.",
                advice="Set `insert_guard: transact`, or let pods drive the rule.",
            )
        return None

    async def _targets(self, arn: str, records: int) -> list[BatchTarget]:
        """The targets of all rules that read a stream; none of an unknown table."""
        aws, table, label = stream_of(arn)
        regions = [name for name in self._settings.regions if self._settings.regions[name].region == aws]
        for rule in self._held.resting(self._chosen):
            if rule.table == table and rule.source in regions:
                raise WorldMismatch(
                    f"Rule {rule.name} is held: its world is wrong.", advice="`replicator check` says what is."
                )
        sources = [
            source
            for source in self._assembly.sources(self._held.running(self._chosen))
            if source.table == table and source.region in regions
        ]
        if len(sources) > 1:
            raise WorldMismatch(
                f"Table {table} is read in two configured regions that are both {aws}, and events do not tell which.",
                advice="Let pods drive its rules, or give each region a function and a configuration of its own.",
            )
        if not sources:
            self._count_unknown(f"{aws}:{table}", records)
            return []
        (source,) = sources
        stream = StreamRef(source.region, source.table, arn, generation_of(label))
        source.ports.holdings.tell(stream, (SHARD,), self._processes, self._processes)
        return [await self._target(source, stream, rule, target) for rule in source.rules for target in rule.targets]

    async def _target(self, source: Source, stream: StreamRef, rule: Rule, target: Target) -> BatchTarget:
        ports, started_at = source.ports.targets[target.target_id], await self._start(stream, rule, target)
        return BatchTarget(rule, Place(stream, SHARD, target), ports, self._fence(rule.name), started_at)

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


def stream_of(arn: str) -> tuple[str, TableName, str]:
    """Region, table and label of a stream, from its ARN."""
    parts = arn.split(":", 5)
    names = parts[-1].split("/")
    if len(parts) != 6 or len(names) != 4 or (names[0], names[2]) != ("table", "stream"):  # noqa: PLR2004
        raise WorldMismatch(
            f"The event source {arn!r} is no stream of a DynamoDB table.", advice="Map streams of tables only."
        )
    return parts[3], TableName(names[1]), names[3]


def stream_record(event: Mapping[str, Any]) -> StreamRecord:
    """One record of an event: what a stream sends, but for times, which streams round down to whole seconds."""
    record = parse_record(_ENCODE(event))
    if isinstance(record, ChangeRecord):
        return msgspec.structs.replace(record, created_at=float(math.floor(record.created_at)))
    return record


def _processes(settings: Settings) -> int:
    """How many processes there are at most; only write units ask."""
    said = os.environ.get(CONCURRENCY, "")
    if said.isascii() and said.isdecimal() and int(said):
        return int(said)
    bounded = [rule.name for rule in settings.rules if rule.write_units]
    if said or bounded:
        why = (
            f"{CONCURRENCY} is {said!r}, which is no number." if said else f"Rule {bounded[0]} bounds its write units."
        )
        raise ConfigurationInvalid(
            why, advice=f"Set {CONCURRENCY} to the function's reserved concurrency, by which they are divided."
        )
    return 1
