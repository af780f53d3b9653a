"""One walk over a stream's listing, and the questions that wait for what it says.

Invariant: an answer is taken only from calls that were made after the question; that a shard is over is believed at
once, that it is not only when a whole listing was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard, merged
from replicator.ports.sources import ShardPage


@dataclass(slots=True)
class Listing:
    """A walk that is under way. `known`: shards that had a row when it began; a later one may be too young for it."""

    known: frozenset[ShardId]
    first_call: int = 0
    seen: dict[ShardId, Shard] = field(default_factory=dict)
    after: ShardId | None = None
    failures: int = 0
    _cursors: set[ShardId] = field(default_factory=set)

    def take(self, page: ShardPage) -> bool:
        """A page came; returns whether it is the last one. An endpoint that begins anew again and again has ended."""
        self.seen = merged(self.seen, page.shards)
        self.failures = 0
        if page.last is None or page.last in self._cursors:
            return True
        self._cursors.add(page.last)
        self.after = page.last
        return False
