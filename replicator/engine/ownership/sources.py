"""The source tables that a worker reads; they may change while it runs.

Invariant: a source that stays is the same object as before, so changes of others leave its shards alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.rules import Rule
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Flag


class Sources:
    """What is to be read now, and an event for the coordinators."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self.now: tuple[Source, ...] = tuple(sources)
        self.changed = Flag()
        """Set, and replaced, whenever `now` is another."""

    def put(self, sources: Sequence[Source]) -> None:
        """From now on these are to be read."""
        if [id(source) for source in sources] == [id(source) for source in self.now]:
            return
        self.now = tuple(sources)
        changed, self.changed = self.changed, Flag()
        changed.set()


class Source(Struct, frozen=True):
    """A source table, and the rules that read its stream."""

    region: RegionId
    table: TableName
    rules: tuple[Rule, ...]
    ports: ShardPorts
    succession: TargetSuccession
