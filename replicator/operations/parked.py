"""What targets refused, tried again or given up by an operator's word.

Invariant: a row is settled as it was shown or not at all, and what is given up stands in the conflict log before its
row is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_caches
from replicator.adapters.conflict_sinks import conflict_table
from replicator.adapters.dynamodb.stream_wire import parse_record
from replicator.adapters.kinesis.envelope import parse_kept
from replicator.adapters.sinks.opening import open_sinks
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Operation, Resolution, Witness
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, unreserved
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement
from replicator.domain.records import Event, ItemKey
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetKind
from replicator.domain.values import replace
from replicator.domain.versions import generation_in
from replicator.engine.applying.bringing import bring
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.retrying import Retrial, Retried
from replicator.engine.limits import Limits
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.operations.errors import RequestRefused
from replicator.operations.item_region import item_in, region_of
from replicator.operations.parked_rows import Parked, ParkedRow, kept_body, tables_of
from replicator.operations.times import moment
from replicator.ports.events import Place
from replicator.ports.targets import OPEN
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.adapters.sinks.opening import SinkId
    from replicator.domain.rules import Rule, Target
    from replicator.operations.group import Group
    from replicator.settings import Settings

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class RetriedRow:
    """What came of a retry: `settled` None when the row stays, and why."""

    row: ParkedRow
    settled: Settlement | None
    why: str


# -- trying again ------------------------------------------------------------------------------------------------------


async def retry(group: Group, rows: Sequence[Parked], *, by: str) -> list[RetriedRow]:
    """Try rows again beside living workers, a few at a time; what comes of one keeps no other from being tried.

    The group has clients of every region of the rules.
    """
    clock = await group.time()
    caches = {name for rule in group.settings.rules for name in rule.caches_used}
    slots = asyncio.Semaphore(_AT_ONCE)
    turns: dict[tuple[OwedTo, ItemKey | None], asyncio.Lock] = {}
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_caches(group.settings, caches))
        sinks = await stack.enter_async_context(open_sinks(group.settings, group.places, opened, clock))
        funnels = {name: CacheFunnel(cache) for name, cache in opened.items()}
        events = {name: EventFunnel(sink) for name, sink in sinks.items()}

        async def one(parked: Parked) -> RetriedRow:
            owed = parked.owed
            async with turns.setdefault((owed.to, owed.key), asyncio.Lock()), slots:
                try:
                    owing = _owing_rule(group.settings, parked)
                    if owing is None:
                        retried = await _retrial(group, parked, funnels, events, by).retry(owed)
                    else:
                        retried = await _bring(group, parked, owing, by)
                except ReplicatorError as error:
                    return RetriedRow(parked.row, None, error.sentence)
                return RetriedRow(parked.row, retried.how, retried.why)

        # A key may have several refused events: the locks let them go in the order of their versions.
        tried = await asyncio.gather(*(one(each) for each in sorted(rows, key=lambda each: each.owed.version)))
        by_row = {each.row.row: each for each in tried}
        return [by_row[each.row.row] for each in rows]


def _retrial(
    group: Group,
    parked: Parked,
    funnels: Mapping[str, CacheFunnel],
    events: Mapping[SinkId, EventFunnel],
    by: str,
) -> Retrial:
    settings = group.settings
    found = _target(settings, parked.owed)
    if found is None:
        raise RequestRefused(
            f"Target {parked.owed.to.target_id} on table {parked.owed.to.table} is not configured any more.",
            advice="Configure it again, move it to its new name (`replicator rules rename`), or drop the row.",
        )
    rule, target = found
    clock = group.table.clock
    source = region_of(settings, group.places[rule.source], rule.table)
    region = None
    if target.table is not None:
        region = region_of(settings, group.places[target.region], target.table, keys=target.keys, clock=clock)
    return Retrial(
        rule,
        target,
        TargetPorts(
            region,
            funnels,
            conflict_table(group.places[settings.coordination.region].dynamodb, settings),
            events=events.get((rule.name, target.region, target.sink or "")),
            source=source,
        ),
        source,
        tables_of(group)[parked.region],
        lambda kept: parse_kept(kept) or parse_record(kept),
        settings.tombstone_ttl.total_seconds(),
        clock,
        LiveObserver(Board(settings.group, (rule,), clock), Metrics(), clock),
        OPEN,
        by,
    )


def _owing_rule(settings: Settings, parked: Parked) -> Rule | None:
    """The rule of a mesh as the home region of a row runs it; None when the row is no debt to a region of a mesh."""
    to = parked.owed.to
    for written in settings.rules:
        if written.name != to.target_id.rule or isinstance(written, OrderedRule):
            continue
        for rule in rule_per_source(settings, written if written.choice is None else written.on(to.table)):
            others = rule.mesh.others if rule.mesh else ()
            if (rule.source, rule.table) == (parked.region, to.table) and to.target_id in map(rule.as_replica, others):
                return rule
    return None


async def _bring(group: Group, parked: Parked, rule: Rule, by: str) -> Retried:
    """Bring a region of a mesh what stands at home under a key that it refused, as a drain does."""
    owed, settings = parked.owed, group.settings
    region = owed.to.target_id.region
    assert region is not None, "a replica has a region"
    clock = group.table.clock
    tables = dict(rule.members)
    home = region_of(settings, group.places[rule.source], rule.table, rule.stamp, clock=clock)
    port = region_of(settings, group.places[region], tables[region], rule.stamp, clock=clock)
    ports = TargetPorts(home, {}, conflict_table(group.places[settings.coordination.region].dynamodb, settings))
    stream = StreamRef(rule.source, rule.table, "", generation_in(owed.version))
    context = TargetContext(
        rule,
        Place(stream, owed.shard, rule.targets[0]),
        ports,
        ReadAhead(),
        Limits(),
        clock,
        LiveObserver(Board(settings.group, (rule,), clock), Metrics(), clock),
        OPEN,
        asyncio.Event(),
    )
    try:
        await bring(context, owed, region, port)
    except ReplicatorError as error:
        return Retried(None, error.sentence)
    if await tables_of(group)[parked.region].settle(owed, Settlement.RETRIED, by, OPEN):
        return Retried(Settlement.RETRIED)
    return Retried(None, "It was meanwhile refused again with a newer version.")


def _target(settings: Settings, owed: OwedKey) -> tuple[Rule, Target] | None:
    """The target as it is configured now; None when it is not."""
    for written in settings.rules:
        if written.name != owed.to.target_id.rule:
            continue
        for rule in rule_per_source(settings, written if written.choice is None else written.on(owed.to.table)):
            for target in rule.targets:
                if (rule.table, target.target_id) == (owed.to.table, owed.to.target_id):
                    return rule, target
    return None


# -- giving up ---------------------------------------------------------------------------------------------------------


async def drop(group: Group, parked: Parked, *, by: str) -> ParkedRow:
    """Give a change up: it is logged as a conflict that it lost, then its row is settled."""
    owed, settings, now = parked.owed, group.settings, (await group.time()).now()
    entry = ConflictEntry(
        conflict=await _lost(group, parked),
        table=owed.to.table,
        rule=owed.to.target_id.rule,
        mode=next((rule.mode for rule in settings.rules if rule.name == owed.to.target_id.rule), "ordered"),
        witness=Witness(RegionId(parked.region), owed.shard, owed.sequence),
        detected_at=now,
    )
    await conflict_table(group.places[settings.coordination.region].dynamodb, settings).write(entry)
    if not await tables_of(group)[parked.region].settle(owed, Settlement.DROPPED, by, OPEN):
        raise RequestRefused(
            f"Parked key {parked.row.row} was meanwhile refused again with a newer version, and was not dropped.",
            advice="See its present state with `replicator parked show`.",
        )
    return replace(parked.row, settled=Settlement.DROPPED, settled_at=moment(now), settled_by=by)


async def _lost(group: Group, parked: Parked) -> LogConflict:
    """The refused change as the loser, and what the target holds as the winner."""
    owed = parked.owed
    found, mesh = _target(group.settings, owed), _owing_rule(group.settings, parked)
    region, standing = owed.to.target_id.region, None
    if mesh is not None and owed.key is not None and region is not None:
        table = dict(mesh.members)[region]
        standing = await item_in(region_of(group.settings, group.places[region], table, mesh.stamp), owed.key)
    elif found is not None and owed.key is not None and found[1].table is not None:
        _, target = found
        there = region_of(group.settings, group.places[target.region], found[1].table, keys=target.keys)
        standing = await item_in(there, owed.key)
    body = await kept_body(group, parked) if owed.is_put and owed.to.target_id.kind is not TargetKind.EVENTS else None
    return LogConflict(
        key=owed.key or ItemKey((("sequence", "S", owed.sequence), ("shard", "S", owed.shard))),
        kind=ConflictKind.DROPPED,
        winner_version="" if standing is None else standing.stamp or "",
        winner=None if standing is None else unreserved(standing),
        loser=None if body is None else Image(body),
        loser_version=owed.version,
        winner_region=owed.to.target_id.region,
        loser_region=parked.region,
        loser_micros=int(owed.changed_at * 1_000_000) if owed.changed_at else None,
        winner_op=Operation.DELETE if standing is None else Operation.PUT,
        loser_op=Operation.DELETE if owed.event is Event.REMOVE else Operation.PUT,
        outcome=Resolution.GIVEN_UP,
    )
