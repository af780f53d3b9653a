"""One walk over a stream's listing, and the shards that several of them leave out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct, field

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard, merged

_LISTINGS_WITHOUT = 3
"""A shard that so many listings in a row leave out has vanished."""


class Listing(Struct):
    """A walk that is under way. `known`: shards that had a row when it began; a later one may be too young for it."""

    known: frozenset[ShardId]
    first_call: int = 0
    seen: dict[ShardId, Shard] = field(default_factory=dict)
    after: ShardId | None = None
    failures: int = 0
    _cursors: set[ShardId] = field(default_factory=set)

    def take(self, shards: Iterable[Shard], last: ShardId | None) -> bool:
        """Add a page, behind which the listing goes on at `last`; returns whether the walk is over.

        An endpoint that names a cursor twice begins anew again and again: its listing has ended.
        """
        self.seen = merged(self.seen, shards)
        self.failures = 0
        if last is None or last in self._cursors:
            return True
        self._cursors.add(last)
        self.after = last
        return False


def counted_misses(
    misses: Mapping[ShardId, int], listing: Listing, present: Collection[ShardId]
) -> tuple[dict[ShardId, int], list[ShardId]]:
    """How many whole listings in a row left each shard out, behind one more, and those that have vanished by that.

    `misses`: the same before this listing. `present`: shards that are stored and not noted as vanished.
    """
    left_out = (listing.known - listing.seen.keys()) & set(present)
    counted = {shard_id: misses.get(shard_id, 0) + 1 for shard_id in sorted(left_out)}
    return counted, [shard_id for shard_id, count in counted.items() if count >= _LISTINGS_WITHOUT]
