"""What this process itself wrote to regions recently.

Invariant: an entry only states that this rank, or something greater, was in a region; forgetting one costs reads, never
correctness.
"""

from __future__ import annotations

from collections import OrderedDict

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.versioned.ranks import Rank
from replicator.domain.modes.versioned.replicate import Joined, Known
from replicator.domain.records import ItemKey

KEEP_SECONDS = 300.0
"""Far below every tombstone's life: what is remembered longer than a tombstone could hide a new item."""

_RANKS_OF_A_KEY = 16


class OwnWrites:
    """The last ranks that were joined, by key and region; of the `capacity` keys that were written last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[ItemKey, dict[tuple[RegionId, Rank], float]] = OrderedDict()

    def known(self, key: ItemKey, now: float) -> Known:
        """Which ranks were in which region; `now` in seconds of a clock that never jumps."""
        return frozenset(place for place, at in self._keys.get(key, {}).items() if now - at < KEEP_SECONDS)

    def note(self, key: ItemKey, joined: Joined, now: float) -> None:
        """Remember how a record ended."""
        places = self._keys.pop(key, {})
        for region in joined.regions:
            places.pop((region, joined.rank), None)
            places[region, joined.rank] = now
        while len(places) > _RANKS_OF_A_KEY:
            del places[next(iter(places))]
        self._keys[key] = places
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)
