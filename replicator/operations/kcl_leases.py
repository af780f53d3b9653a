"""The lease table of a KCL consumer (1.x to 3.x, DynamoDB Streams adapter), and what its rows mean for a rule.

The checkpoint of a KCL lease is the last record that was processed. Invariant: nothing is taken as processed that the
consumer did not process, or had passed over by its own initial position.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.coordination import CorruptRow
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import END, HORIZON, Position

if TYPE_CHECKING:
    from replicator.domain.shards.lineage import Shard

_SHARD = "shardId-"
_INEXACT = {
    "LATEST": "it waited for records from its start on, which is no place; the shard is read from its oldest record",
    "AT_TIMESTAMP": "it was to begin at a time, which is no place; the shard is read from its oldest record",
}
_ADVICE = "Name the lease table of a KCL consumer; its rows have leaseKey and checkpoint."


@dataclass(frozen=True, slots=True)
class KclLease:
    """One row. `table` and `label` name its stream, when the row does."""

    shard: str
    checkpoint: str
    owner: str | None
    counter: int
    table: str | None = None
    label: str | None = None

    @property
    def position(self) -> Position:
        """Where a target goes on."""
        if self.checkpoint == "SHARD_END":
            return END
        return Position(self.checkpoint) if self.checkpoint.isdecimal() else HORIZON


@dataclass(frozen=True, slots=True)
class ImportedShard:
    """What is stored for one shard, and why."""

    shard: Shard
    position: Position
    why: str
    is_exact: bool = True


def lease_of(row: Mapping[str, Any]) -> KclLease | None:
    """A row as a lease; None of a row that is about something else."""
    key, checkpoint = (row.get(name, {}).get("S") for name in ("leaseKey", "checkpoint"))
    if not isinstance(key, str) or not isinstance(checkpoint, str):
        return None
    head, separator, shard = key.rpartition(":")
    if not (shard if separator else key).startswith(_SHARD):
        return None
    _known(key, checkpoint)
    counter = row.get("leaseCounter", {}).get("N", "0")
    owner = row.get("leaseOwner", {}).get("S")
    if not separator:
        return KclLease(key, checkpoint, owner, int(counter))
    _, _, stream = head.partition(":")
    table, _, label = stream.partition(":")
    return KclLease(shard, checkpoint, owner, int(counter), table or None, label or None)


def _known(key: str, checkpoint: str) -> None:
    """Refuse a checkpoint that says nothing, rather than guess."""
    special = {"TRIM_HORIZON", "SHARD_END", *_INEXACT}
    if checkpoint not in special and not (checkpoint.isascii() and checkpoint.isdecimal()):
        raise CorruptRow(
            f"The KCL lease {key} has the checkpoint {checkpoint!r}, which is no place in a stream.", advice=_ADVICE
        )


def moved(before: Iterable[KclLease], now: Iterable[KclLease]) -> list[str]:
    """Owners whose counters rise: consumers that still run."""
    counters = {(lease.table, lease.label, lease.shard): lease.counter for lease in before}
    rising = (
        lease.owner or "a worker without a name"
        for lease in now
        if lease.counter > counters.get((lease.table, lease.label, lease.shard), lease.counter)
    )
    return sorted(set(rising))


def of_stream(leases: Iterable[KclLease], table: str, label: str) -> list[KclLease]:
    """Leases of one stream: those that name it, and those that name none."""
    return [lease for lease in leases if lease.table in {None, table} and lease.label in {None, label}]


def takings(leases: Sequence[KclLease], listed: Sequence[Shard]) -> Iterator[ImportedShard]:
    """A position for every listed shard.

    A shard without a lease whose descendant has one is over: KCL drops the lease of a shard once it is done with it,
    and makes none for what lies before its initial position.
    """
    known = {lease.shard: lease for lease in leases}
    passed = _ancestors(listed, known)
    for shard in listed:
        lease = known.get(shard.shard_id)
        if lease is not None:
            why = _INEXACT.get(lease.checkpoint, f"its lease is at {lease.checkpoint}")
            yield ImportedShard(shard, lease.position, why, is_exact=lease.checkpoint not in _INEXACT)
        elif shard.shard_id in passed:
            yield ImportedShard(shard, END, "it has no lease any more, and its descendants have")
        else:
            yield ImportedShard(shard, HORIZON, "it has no lease yet")


def _ancestors(listed: Sequence[Shard], known: Collection[str]) -> set[ShardId]:
    parents = {shard.shard_id: shard.parents for shard in listed}
    waiting = [parent for shard_id in known for parent in parents.get(ShardId(shard_id), ())]
    found: set[ShardId] = set()
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += parents.get(parent, ())
    return found
