"""Gauges that grow by themselves: set from the board before every scrape, in one walk over the shards.

Labels are rules, tables and regions, so the answer is as long with a thousand shards as with one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from replicator.domain.presence import Standing
from replicator.observability import jobs, paced_tables
from replicator.observability.readiness import standing

if TYPE_CHECKING:
    from prometheus_client import Gauge

    from replicator.domain.gaps import Gap
    from replicator.domain.identifiers import RuleName
    from replicator.observability.metrics import Metrics
    from replicator.observability.status_board import Board
    from replicator.ports.events import OwedRows

    Values = dict[tuple[str, ...], float]


def refresh(metrics: Metrics, board: Board) -> None:
    """Set them all; what no shard speaks of any more vanishes."""
    _targets(metrics, board)
    _group(metrics, board)
    _shards(metrics, board)
    _parked(metrics, board)
    _regions(metrics, board)
    _held(metrics, board)
    paced_tables.refresh(metrics.writes, board)
    metrics.caches.refresh(board)
    metrics.canaries.refresh(board)
    jobs.refresh(metrics.jobs, board)


def _targets(metrics: Metrics, board: Board) -> None:
    """The worst of a target's shards. What is not known has no sample, and is counted as unknown."""
    lags: Values = {}
    idle: Values = defaultdict(float)
    backlog: Values = {}
    left: Values = {}
    states: Values = defaultdict(float)
    unknown: Values = defaultdict(float)
    for each in board.figures():
        target = (str(each.target.rule), str(each.target.label))
        if each.lag is not None:
            table = (str(each.stream.table), str(each.stream.region))
            lags[target] = max(lags.get(target, 0.0), each.lag)
            backlog[table] = max(backlog.get(table, 0.0), each.lag)
        if each.retention_left is not None:
            left[target] = min(left.get(target, each.retention_left), each.retention_left)
        unknown[target] += each.lag is None
        idle[target] = max(idle[target], each.idle)
        states[*target, each.state] += 1
    _set(metrics.lag, lags)
    _set(metrics.idle, idle)
    _set(metrics.backlog, backlog)
    _set(metrics.retention_left, left)
    _set(metrics.lag_unknown, unknown)
    _set(metrics.target_shards, states)
    blocked: Values = defaultdict(float)
    for _, state in board.targets():
        blocked[str(state.place.target.rule), str(state.place.target.label)] += state.trouble is not None
    _set(metrics.blocked, blocked)


def _group(metrics: Metrics, board: Board) -> None:
    """What one worker reports for all, and whether the coordination table takes our heartbeats."""
    metrics.unreachable.set(board.unreachable_seconds)
    metrics.clock_behind.set(board.clock_behind)
    refused = board.configuration
    metrics.configuration.set(0.0 if refused is None else board.clock.monotonic() - refused.since)
    overview, now = board.overview, board.wall
    paused: Values = {} if overview is None else {(rule,): now - since for rule, since in overview.paused.items()}
    _set(metrics.paused, paused)
    workers: Values = {} if overview is None else {("live",): overview.live, ("silent",): overview.silent}
    _set(metrics.workers, workers)
    owned: Values = dict.fromkeys(((table, region) for region, table in board.cycled), 0.0)
    for shard in board.shards.values():
        place = (str(shard.stream.table), str(shard.stream.region))
        owned[place] = owned.get(place, 0.0) + (shard.lease is not None)
    _set(metrics.owned, owned)


def _shards(metrics: Metrics, board: Board) -> None:
    """Gaps and stalls; 0 is an answer, so that an alert ends."""
    gaps: Values = {(target.rule, target.label): 0.0 for rule in board.rules for target in rule.targets}
    unrepaired: Values = dict.fromkeys(gaps, 0.0)
    for target_id, number in board.open_gaps.items():
        places: list[tuple[str, str]] = (
            [(target_id.rule, target_id.label)] if target_id.label else _sources(board, target_id.rule)
        )
        for labels in places:
            unrepaired[labels] = unrepaired.get(labels, 0.0) + number
    stalled: Values = {(rule.name, rule.source): 0.0 for rule in board.rules}
    for shard in board.shards.values():
        for gap in shard.gaps.values():
            labels = gap_labels(gap)
            gaps[labels] = gaps.get(labels, 0.0) + 1
        for rule in {target_id.rule for target_id in shard.stalls}:
            stalled[rule, shard.stream.region] = stalled.get((rule, shard.stream.region), 0.0) + 1
    waiting: Values = {}
    for each in standing(board):
        place = (each.standstill.rule, each.stream.region, each.standstill.why.value)
        waiting[place] = waiting.get(place, 0.0) + max(1, len(each.standstill.shards))
    _set(metrics.waiting, waiting)
    _set(metrics.gaps_open, gaps)
    _set(metrics.gaps_unrepaired, unrepaired)
    _set(metrics.stalled, stalled)


def _parked(metrics: Metrics, board: Board) -> None:
    """What targets refused and is kept, over all tables of a rule; 0 is an answer, so that an alert ends."""
    kept: Values = {}
    ages: Values = {}
    for rule in board.rules:
        for rows in board.refused_by(rule):
            labels = (rule.name, rows.to.target_id.label or rule.source)
            kept[labels] = kept.get(labels, 0.0) + rows.keys + rows.records
            ages[labels] = max(ages.get(labels, 0.0), _age(board, rows))
    _set(metrics.parked, kept)
    _set(metrics.parked_age, ages)


def _regions(metrics: Metrics, board: Board) -> None:
    """Other regions of meshes: whether they are away for this worker, and what they missed, where it is counted."""
    away: Values = {}
    kept: Values = {}
    ages: Values = {}
    for rule in board.rules:
        for region in rule.mesh.others if rule.mesh else ():
            labels = (rule.name, region)
            state, _ = board.regions.get(labels, (None, 0.0))
            away[labels] = float(state is not None and state.standing is Standing.AWAY)
            rows = board.missed_by(rule, region)
            if rows is not None:
                kept[labels] = kept.get(labels, 0.0) + rows.keys
                ages[labels] = max(ages.get(labels, 0.0), _age(board, rows))
    _set(metrics.away, away)
    _set(metrics.owed, kept)
    _set(metrics.owed_age, ages)


def _age(board: Board, rows: OwedRows) -> float:
    return 0.0 if rows.oldest is None else max(0.0, board.wall - rows.oldest)


def _held(metrics: Metrics, board: Board) -> None:
    """What is held, by the region where it would be written; of a whole rule by that where it reads."""
    sources = {(rule.name, rule.table): rule.source for rule in (*board.resting, *board.rules)}
    _set(
        metrics.held,
        {
            (row.held.rule, row.region or sources.get((row.held.rule, row.held.table), ""), row.cause.value): 1.0
            for row in board.held_rows()
        },
    )


def _set(gauge: Gauge, values: Values) -> None:
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*labels).set(value)


def _sources(board: Board, rule: RuleName) -> list[tuple[str, str]]:
    """Where a mesh is read: a loss of it counts in each of its regions."""
    return [(each.name, each.source) for each in board.rules if each.name == rule]


def gap_labels(gap: Gap) -> tuple[str, str]:
    """Rule and region: of a mesh the region whose stream lost records."""
    return gap.target_id.rule, gap.target_id.label or gap.stream.region
