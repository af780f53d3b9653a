"""Which shards a worker may take, and which of its own are not its any more: from rows, without a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from replicator.domain.identifiers import RegionId, RuleName, ShardId, WorkerId
from replicator.domain.rules import Rule, rests
from replicator.domain.shards.assignment import Free
from replicator.domain.shards.leases import Lease, LeaseRow, StreamState
from replicator.domain.shards.snapshot import Snapshot


class Wanted(Struct, frozen=True):
    """Shards that may be read now, with the rules and targets they are for, and those that late targets ask about."""

    rules: Mapping[ShardId, list[Rule]]
    late: frozenset[ShardId]


def wanted(
    snapshot: Snapshot,
    rules: Sequence[Rule],
    *,
    paused: Collection[RuleName],
    readable: Collection[ShardId],
    resting: Collection[tuple[RuleName, RegionId]] = (),
) -> Wanted:
    """What is to be read for the targets that do not rest. `readable`: shards that were asked about and can be read.

    `paused`, `resting`: rules, and regions of rules, that operators have paused.
    """
    kept: dict[ShardId, list[Rule]] = {}
    late: set[ShardId] = set()
    awake = [rule.among(each for each in rule.targets if not rests(each, paused, resting)) for rule in rules]
    for shard_id, there in snapshot.wanted(awake).items():
        kept[shard_id] = there
        coming = [target for rule in there for target in rule.targets if snapshot.is_late(target, shard_id)]
        if coming:
            late.add(shard_id)
            if shard_id not in readable:
                kept[shard_id] = [rule.among(each for each in rule.targets if each not in coming) for rule in there]
    read = {shard_id: [rule for rule in there if rule.targets] for shard_id, there in kept.items()}
    return Wanted({shard_id: there for shard_id, there in read.items() if there}, frozenset(late))


def free(
    rows: Mapping[ShardId, LeaseRow],
    candidates: Iterable[ShardId],
    me: WorkerId,
    is_expired: Callable[[WorkerId], bool],
) -> dict[ShardId, LeaseRow]:
    """Candidates that no live worker owns. One is ours though we do not read it: a claim without an answer."""
    found = {shard_id: rows[shard_id] for shard_id in candidates}
    return {
        shard_id: row
        for shard_id, row in found.items()
        if row.owner is None or row.owner == me or is_expired(row.owner)
    }


def offered(
    row: LeaseRow, waiting_seconds: float, *, me: WorkerId, read: Collection[ShardId], known: Collection[ShardId]
) -> Free:
    """A free shard as the assignment sees it. `read`: shards that this worker read; `known`: those that have a row.

    A new shard falls first to the worker that read its parent. One that had an owner before was handed over, so it is
    no more its parents' reader's than anyone's.
    """
    is_new = row.epoch == 0
    ours = row.owner == me or (is_new and not set(read).isdisjoint(row.shard.parents))
    theirs = is_new and not ours and not set(known).isdisjoint(row.shard.parents)
    return Free(row.shard_id, ours=ours, theirs=theirs, waiting_seconds=waiting_seconds)


def lost(state: StreamState, leases: Iterable[Lease]) -> list[Lease]:
    """Leases that the rows say are not ours. A row that is missing beside an unreadable one may be that one."""
    return [lease for lease in leases if not _stands(state, lease)]


def _stands(state: StreamState, lease: Lease) -> bool:
    row = state.rows.get(lease.shard_id)
    if row is None:
        return state.unreadable is not None
    return (row.owner, row.epoch) == (lease.owner, lease.epoch)


def since(known: Mapping[ShardId, float], now_there: Iterable[ShardId], now: float) -> dict[ShardId, float]:
    """Since when each shard has been in a state; `known`: the same at the look before."""
    return {shard_id: known.get(shard_id, now) for shard_id in now_there}
