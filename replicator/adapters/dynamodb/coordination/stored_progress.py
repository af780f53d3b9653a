"""What is stored of every stream that a group ever read: its shards, positions and starts, as values.

Invariant: nothing here needs a worker or changes a row, and a row that cannot be read hides no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from replicator.adapters.dynamodb.coordination.leases import DynamoCoordination

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable
    from replicator.domain.errors import WorldMismatch
    from replicator.domain.identifiers import RuleName, ShardId
    from replicator.domain.shards.leases import KnownStream, LeaseRow, Seat, StreamRef, TargetStart
    from replicator.domain.targets import TargetId

_READS_AT_ONCE = 8


class StoredStream(Struct, frozen=True):
    """A stream that the group reads or read, and its rows; `problems`: what is wrong with rows that were left out."""

    known: KnownStream
    rows: Mapping[ShardId, LeaseRow]
    starts: Mapping[TargetId, TargetStart] = field(default_factory=dict)
    seat: Seat | None = None
    problems: tuple[WorldMismatch, ...] = ()
    at: float = 0.0
    """The server's time of this reading, in seconds since 1970."""

    @property
    def stream(self) -> StreamRef:
        """Which stream it is."""
        return self.known.ref

    @property
    def targets(self) -> set[TargetId]:
        """Ids of the targets that have a start or progress here."""
        return set(self.starts) | {name for row in self.rows.values() for name in row.checkpoints}

    @property
    def rules(self) -> set[RuleName]:
        """Names of the rules that have a start or progress here."""
        return {target.rule for target in self.targets}

    @property
    def drained(self) -> bool:
        """Whether every rule that has progress here is through."""
        return self.known.closed or (bool(self.targets) and all(map(self.is_drained_for, self.rules)))

    def is_drained_for(self, rule: RuleName) -> bool:
        """Whether a rule is through: one of its targets is.

        What else it has here is what it was before, with another table or with other members.
        """
        mine = self.targets_of({rule})
        return self.known.closed or rule in self.known.rules or any(map(self.known.is_drained, mine))

    def targets_of(self, rules: Collection[str]) -> set[TargetId]:
        """Those of some rules."""
        return {target for target in self.targets if target.rule in rules}


async def stored_streams(table: CoordinationTable) -> list[StoredStream]:
    """Every stream that was ever read, oldest first."""
    coordination = DynamoCoordination(table)
    turn = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(known: KnownStream) -> StoredStream:
        async with turn:
            found, date = await coordination.read(known.ref)
        problems = (*reversed(found.corrupt), *reversed(found.strange))
        return StoredStream(known, found.shards, found.starts, found.seat, problems, table.seconds_of(date))

    rows = await table.query(table.names.streams)
    found = await asyncio.gather(*(read(table.reader.known_stream(row)) for row in rows))
    return sorted(found, key=lambda stored: (stored.stream.generation, stored.stream.where))
