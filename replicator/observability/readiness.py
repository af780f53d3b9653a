"""Why a worker does not do its work now, in sentences."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial

from replicator.domain.errors import Disposition, Unreachable
from replicator.domain.held import cause_of
from replicator.domain.identifiers import RegionId, ShardId, TableName
from replicator.domain.shards.leases import StreamRef
from replicator.observability.held_rows import is_held
from replicator.observability.status_board import Board
from replicator.observability.target_states import Waiting, spot_of
from replicator.ports.services import ServiceKind

_Source = tuple[RegionId, TableName]
"""A region and a table that is read there."""

_MOST_REASONS = 20
"""Reasons for not being ready that are written out; an outage may give every shard one of its own."""


def unready(board: Board) -> list[str]:
    """Reasons why this worker does not do its work now; empty when it does.

    What is held is none while some rule runs, and neither is a region of a mesh that does not answer while another one
    is read: neither a restart nor another worker could do more.
    """
    away = _away(board)
    rows = board.held_rows()
    held = [rule for rule in board.rules if is_held(rule, rows)]
    names = {rule.name for rule in held}
    reasons = ["draining"] if board.draining else []
    if (wedged := board.health()) is not None:
        reasons.append(wedged)
    if not board.rules and board.worker is None:
        reasons.append("the tables of the rules have not been checked yet")
    reasons += [
        f"rule {rule.name}: the stream of {rule.table} in {rule.source} was not listed yet"
        for rule in board.rules
        if (rule.source, rule.table) not in {*board.cycled, *away} and rule not in held
    ]
    if rows and not board.choices and len(held) == len(board.rules):
        reasons += [row.sentence for row in rows]
    told = [row.error for row in rows]
    resting = {(rule.source, rule.table) for rule in held}
    resting -= {(rule.source, rule.table) for rule in board.rules if rule not in held}
    reasons += [
        f"{service.shown}: {trouble.error.worker_sentence}"
        for service, trouble in board.services.items()
        if trouble.error not in told and (service.region, service.table) not in resting
        if service.kind not in {ServiceKind.DEBT, ServiceKind.VERIFYING}  # nothing that is replicated waits for that
        if not (isinstance(trouble.error, Unreachable) and (service.region, service.table) in away)
    ]
    for shard, state in board.targets():
        if state.trouble is None or cause_of(state.trouble.error) is not None or _source(shard.stream) in away:
            continue
        if state.trouble.error.disposition is not Disposition.PARK:
            reasons.append(f"{state.place.target.target_id}: {state.trouble.error.worker_sentence}")
    reasons += _stalls(board, away)
    reasons += [
        f"rule {each.standstill.rule} on {each.stream.table} in {each.stream.region} does not progress:"
        f" {each.standstill.reason} {each.standstill.remedy}"
        for each in standing(board)
        if each.standstill.rule not in names and _source(each.stream) not in away
    ]
    reasons = list(dict.fromkeys(reasons))
    more = len(reasons) - _MOST_REASONS
    return reasons if more <= 0 else [*reasons[:_MOST_REASONS], f"{more} more reasons: see /status"]


def _source(stream: StreamRef) -> _Source:
    return stream.region, stream.table


def _away(board: Board) -> set[_Source]:
    """Sources of meshes that do not answer while another member of each of their rules does."""
    silent: set[tuple[RegionId | None, TableName | None]] = {
        (service.region, service.table)
        for service, trouble in board.services.items()
        if isinstance(trouble.error, Unreachable)
    }
    silent |= {
        _source(shard.stream)
        for shard, state in board.targets()
        if state.trouble is not None and isinstance(state.trouble.error, Unreachable) and state.place.target.members
    }
    read = board.cycled.keys() - silent
    stands = {
        (rule.source, rule.table) for rule in board.rules if rule.mesh is None or not read.intersection(rule.members)
    }
    return {(rule.source, rule.table) for rule in board.rules if (rule.source, rule.table) in silent} - stands


def standing(board: Board) -> Iterator[Waiting]:
    """Standstills that no target or pipeline of ours tells the reason of."""
    for waiting in board.waiting.values():
        for each in waiting:
            if not each.standstill.shards or not all(map(partial(_is_told, board, each), each.standstill.shards)):
                yield each


def _is_told(board: Board, waiting: Waiting, shard_id: ShardId) -> bool:
    rule, shard = waiting.standstill.rule, board.shards.get(spot_of(waiting.stream, shard_id))
    return shard is not None and (
        any(each.rule == rule for each in shard.stalls)
        or any(each.trouble is not None and each.place.target.rule == rule for each in shard.targets.values())
    )


def _stalls(board: Board, away: Container[_Source]) -> Iterator[str]:
    """Shards that do not progress for a reason that is not reported already."""
    for shard in (shard for shard in board.shards.values() if _source(shard.stream) not in away):
        for target_id, stall in shard.stalls.items():
            state = shard.targets.get(target_id)
            if state is None or state.trouble is None:
                yield f"{target_id} on {shard.shown} does not progress: {stall.reason} {stall.remedy}".rstrip()
