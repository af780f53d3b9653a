"""What most changes of most rules ask for, in one step: a put of the last image over an older version of its item.

A rule without filter, transform and source of its own kind asks that of every item that was there before and is there
still, and of its caches that one entry each is dropped. Everything else is for the general way (`ordered_driver.py`),
which makes the same of these; that takes thirty calls instead of three, and several times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicator.domain.cache_keys import Invalidate
from replicator.domain.coalescing import Run
from replicator.domain.filters import Filter
from replicator.domain.image import is_bare
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES
from replicator.domain.modes.requests import Put, StampBelow
from replicator.domain.rules import Rule, Target
from replicator.domain.versions import version_of
from replicator.engine.applying.cache_batcher import CacheRequest

_LONGEST = LARGEST_ITEM - STAMP_BYTES
"""An image that is no longer fits into an item with its version."""


class UsualPut(msgspec.Struct, frozen=True, eq=False):
    """The first request to the replica, which says all if it is done, and what the caches are asked behind it."""

    put: Put
    drops: Sequence[CacheRequest]


class UsualPuts:
    """The usual changes of one target."""

    def __init__(self, rule: Rule, target: Target, generation: int) -> None:
        self._epoch, self._generation = rule.epoch, generation
        self._caches = target.caches
        passes_all = rule.stream is None and rule.filter == Filter() and target.transform is None
        self._is_possible = passes_all and all(each.is_plain and not each.verb.stores for each in target.caches)

    def of(self, run: Run) -> UsualPut | None:
        """What a run asks for; None where that is not as usual."""
        if not self._is_possible:
            return None
        last = run.records[-1]
        new = last.new
        if new is None or last.by_ttl or run.records[0].old is None or len(new.wire) > _LONGEST or not is_bare(new):
            return None
        drops = []
        for each in self._caches:
            entry = each.key.of_every(run.key)
            if entry is None:
                return None
            drops.append(CacheRequest(each.cache, (Invalidate(entry),), rule=each))
        version = version_of(self._epoch, self._generation, last.sequence)
        return UsualPut(Put(run.key, new, version, StampBelow(version)), drops)
