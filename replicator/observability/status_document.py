"""The status board as /status shows it: one JSON document, drawn in one walk over the shards."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from replicator.domain.presence import Standing
from replicator.observability import caches, canaries, jobs, paced_tables
from replicator.observability.readiness import unready
from replicator.observability.target_states import READ_HERE
from replicator.observability.worker_verdict import verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.domain.gaps import Gap
    from replicator.domain.identifiers import RegionId, RuleName, TableName
    from replicator.domain.rules import Rule
    from replicator.observability.held_rows import HeldRow
    from replicator.observability.status_board import Board
    from replicator.observability.target_states import Choice, Figure, ShardState, Stall, TargetState, Trouble, Waiting
    from replicator.ports.events import OwedRows

_MOST_STANDING = 1000
"""So many targets at shards that are not read here are listed."""

_MOST_SHARDS = 100
"""So many shards of one standstill are listed."""


def shown(board: Board) -> dict[str, Any]:
    """The whole board."""
    now, reasons = board.clock.monotonic(), unready(board)
    shards: dict[tuple[RuleName, RegionId, TableName], list[dict[str, Any]]] = {}
    for spot in sorted(board.shards):
        shard = board.shards[spot]
        for rule in _rules(shard):
            shards.setdefault((rule, shard.stream.region, shard.stream.table), []).append(
                _shard(board, shard, rule, now)
            )
    document = {
        "group": board.group,
        "worker": board.worker,
        "draining": board.draining,
        "ready": not reasons,
        "unready": reasons,
        "owned_shards": board.owned,
        "services": _services(board, now),
        "stock_clients": board.stock_clients,
        "coordination": {"unreachable_seconds": round(board.unreachable_seconds, 1)},
        "clock": {"behind_seconds": round(board.clock_behind, 1)},
        "configuration": {
            "refused": None if board.configuration is None else _trouble(board.configuration, now),
            "rules": board.meanings,
        },
        "standing": [_figure(each) for each in islice(_standing(board), _MOST_STANDING)],
        "held": [_held(row, now) for row in board.held_rows()],
        "choices": [_choice(choice) for choice in board.choices],
        "writes": paced_tables.shown(board),
        "caches": caches.shown(board),
        "canaries": canaries.shown(board),
        "jobs": jobs.shown(board),
        "sweeps": jobs.shown_sweeps(board),
        "rules": [_rule(board, rule, shards.get((rule.name, rule.source, rule.table), [])) for rule in board.rules],
    }
    return {**verdict_of(document, board), **document}


def _standing(board: Board) -> Iterator[Figure]:
    """What this worker reports and does not read."""
    return (each for each in board.figures() if each.state not in READ_HERE)


def _figure(figure: Figure) -> dict[str, Any]:
    """A target at a shard that this worker does not read, and reports."""
    lag, left = figure.lag, figure.retention_left
    return {
        "target": figure.target.target_id.text,
        "rule": figure.target.rule,
        "region": figure.target.region,
        "source": figure.stream.region,
        "table": figure.stream.table,
        "stream": figure.stream.arn,
        "shard": figure.shard_id,
        "state": figure.state,
        "lag_seconds": None if lag is None else round(lag, 1),
        "retention_left_seconds": None if left is None else round(left),
        "seconds_since_progress": round(figure.idle, 1),
    }


def _services(board: Board, now: float) -> dict[str, Any]:
    """Services in trouble by what they show, with the ARN where two show the same."""
    found: dict[str, Any] = {}
    for service, trouble in board.services.items():
        name = service.shown if service.shown not in found else f"{service.shown} ({service.arn})"
        found[name] = _trouble(trouble, now)
    return found


def _held(row: HeldRow, now: float) -> dict[str, Any]:
    return {
        "rule": row.held.rule,
        "table": row.held.table,
        "target": None if row.held.target is None else row.held.target.text,
        "cause": row.cause.value,
        "reason": row.error.message,
        "advice": row.error.worker_advice,
        "seconds": round(now - row.since, 1),
    }


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "rule": choice.rule,
        "region": choice.region,
        "chooses": choice.chooses,
        "tables": list(choice.tables),
        "left_out": [
            {"table": table, "reason": reason, "advice": advice}
            for table, (reason, advice) in sorted(choice.left_out.items())
        ],
    }


def _rules(shard: ShardState) -> list[RuleName]:
    """The rules that read a shard here."""
    names = {state.place.target.rule: None for state in shard.targets.values()}
    return list(names | dict.fromkeys(target_id.rule for target_id in shard.stalls))


def _rule(board: Board, rule: Rule, shards: list[dict[str, Any]]) -> dict[str, Any]:
    nothing: Counter[str] = Counter()
    return {
        "name": rule.name,
        "mode": rule.mode,
        "source": rule.source,
        "table": rule.table,
        "paused": rule.name in board.paused,
        "parked": [_owed(board, rows) for rows in board.refused_by(rule)],
        "regions": [_region(board, rule, region) for region in (rule.mesh.others if rule.mesh else ())],
        "totals": {
            target.target_id.text: dict(board.totals.get((rule.source, rule.table, target.target_id), nothing))
            for target in rule.targets
        },
        "standstills": [
            _standstill(waiting, board.clock.monotonic())
            for stream, standing in board.waiting.items()
            for waiting in standing
            if waiting.standstill.rule == rule.name and (stream.region, stream.table) == (rule.source, rule.table)
        ],
        "shards": shards,
    }


def _owed(board: Board, rows: OwedRows) -> dict[str, Any]:
    """What a target refused and is kept."""
    age = None if rows.oldest is None else round(max(0.0, board.wall - rows.oldest), 1)
    return {"target": rows.to.target_id.text, "keys": rows.keys, "records": rows.records, "oldest_seconds": age}


def _region(board: Board, rule: Rule, region: RegionId) -> dict[str, Any]:
    """Another region of a mesh, and what it missed; `keys` is None where another worker counts."""
    rows = board.missed_by(rule, region)
    state, since = board.regions.get((rule.name, region), (None, 0.0))
    return {
        "region": region,
        "standing": Standing.HERE if state is None else state.standing,
        "reason": None if state is None or state.standing is Standing.HERE else state.reason,
        "why": "" if state is None or state.standing is Standing.HERE else state.why,
        "seconds": 0.0 if state is None else round(board.clock.monotonic() - since, 1),
        "keys": None if rows is None else rows.keys,
        "oldest_seconds": None if rows is None or rows.oldest is None else round(max(0.0, board.wall - rows.oldest), 1),
    }


def _shard(board: Board, shard: ShardState, rule: RuleName, now: float) -> dict[str, Any]:
    lease = shard.lease
    stall = next((stall for target_id, stall in shard.stalls.items() if target_id.rule == rule), None)
    return {
        "shard": shard.shard_id,
        "region": shard.stream.region,
        "stream": shard.stream.arn,
        "epoch": None if lease is None else lease.epoch,
        "seconds_since_read": round(now - shard.read_at, 1),
        "stalled": None if stall is None else _stall(stall, now),
        "targets": [
            _target(board, shard, state, now) for state in shard.targets.values() if state.place.target.rule == rule
        ],
    }


def _target(board: Board, shard: ShardState, state: TargetState, now: float) -> dict[str, Any]:
    lag, left = board.lag(shard, state), board.retention_left(shard, state)
    gap, stall = shard.gaps.get(state.place.target.target_id), shard.stalls.get(state.place.target.target_id)
    return {
        "target": state.place.target.target_id.text,
        "region": state.place.target.region,
        "table": state.place.target.table,
        **({} if state.position is None else {"position": state.position.text}),
        "lag_seconds": None if lag is None else round(lag, 1),
        "last_lag_seconds": None if state.last_lag is None else round(state.last_lag, 1),
        "retention_left_seconds": None if left is None else round(left),
        "seconds_since_progress": round(now - state.progress_at, 1),
        "counts": dict(state.counts),
        "blocked": None if state.trouble is None else _trouble(state.trouble, now),
        "stalled": None if stall is None else _stall(stall, now),
        "gap": None if gap is None else _gap(gap),
    }


def _trouble(trouble: Trouble, now: float) -> dict[str, Any]:
    return {
        "reason": trouble.error.message,
        "advice": trouble.error.worker_advice,
        "kind": type(trouble.error).__name__,
        "key": trouble.key,
        "seconds": round(now - trouble.since, 1),
        "times": trouble.times,
    }


def _stall(stall: Stall, now: float) -> dict[str, Any]:
    return {"reason": stall.reason, "remedy": stall.remedy, "seconds": round(now - stall.since, 1)}


def _standstill(waiting: Waiting, now: float) -> dict[str, Any]:
    standstill = waiting.standstill
    return {
        "why": standstill.why,
        "stream": waiting.stream.arn,
        "shards": list(standstill.shards[:_MOST_SHARDS]),
        "count": len(standstill.shards),
        "reason": standstill.reason,
        "remedy": standstill.remedy,
        "seconds": round(now - waiting.since, 1),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "id": gap.gap_id,
        "after": gap.after.text,
        "until": None if gap.until is None else gap.until.text,
        "why": gap.why,
    }
