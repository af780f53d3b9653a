"""What this process itself brought to regions a moment ago.

Invariant: an entry only ever says "this rank stood here after my write"; forgetting one costs reads, never correctness.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from replicator.domain.ranks import Rank
from replicator.domain.records import ItemKey, RegionId
from replicator.domain.versioned import Joined

KEEP_SECONDS = 300.0
"""Far below every tombstone's life: what is remembered longer than a tombstone could hide a new item."""


class OwnWrites:
    """The last rank that was joined into every region, of the keys that were written last; `capacity` keys at most."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[ItemKey, tuple[float, Mapping[RegionId, Rank]]] = OrderedDict()

    def known(self, key: ItemKey, now: float) -> Mapping[RegionId, Rank]:
        """What stood in which region after a write of ours; `now` in seconds of a clock that never jumps."""
        at, ranks = self._entries.get(key, (now, {}))
        return ranks if now - at < KEEP_SECONDS else {}

    def note(self, key: ItemKey, joined: Joined, now: float) -> None:
        """Remember how a record ended."""
        self._entries[key] = (now, dict.fromkeys(joined.regions, joined.rank))
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
