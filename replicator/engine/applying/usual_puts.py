"""What most changes of most rules ask for, in one step: a put of the last image, over an older version of its item.

A rule without filter, transform and source of its own kind asks that of every item that is there still, with a look at
its tombstone if it is new, and of its caches that one entry each is dropped. Everything else is for the general way
(`ordered_driver.py`), which makes the same of these; that takes thirty calls instead of three, and several times as
long.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicator.domain.cache_keys import Invalidate
from replicator.domain.canary import is_canary
from replicator.domain.coalescing import Run
from replicator.domain.filters import Filter
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.image import is_bare
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.modes.requests import AbsentOrStampBelow, GuardedPut, Put, StampBelow, TombstoneBelow
from replicator.domain.rules import Rule, Target
from replicator.domain.versions import SEQUENCE_DIGITS, version_of
from replicator.engine.applying.cache_batcher import CacheRequest

_LONGEST = LARGEST_ITEM - STAMP_BYTES
"""An image that is no longer fits into an item with its version."""


class UsualPut(msgspec.Struct, frozen=True, eq=False):
    """The first request to the replica, which says all if it is done, and what the caches are asked behind it."""

    request: Put | GuardedPut
    version: str
    drops: Sequence[CacheRequest]


class UsualPuts:
    """The usual changes of one target."""

    def __init__(self, rule: Rule, target: Target, generation: int) -> None:
        self._stream = version_of(rule.epoch, generation, SequenceNumber(""))[:-SEQUENCE_DIGITS]
        """What all versions of the stream begin with."""
        self._caches = target.caches
        passes_all = rule.stream is None and rule.filter == Filter() and target.transform is None
        self._guards = rule.policy.insert_guard is InsertGuard.TRANSACT
        self._is_possible = passes_all and all(each.is_plain and not each.verb.stores for each in target.caches)

    def of(self, run: Run) -> UsualPut | None:
        """What a run asks for; None where that is not as usual, which no canary is."""
        was_there = run.records[0].old is not None
        if not self._is_possible or not (was_there or self._guards) or is_canary(run.key):
            return None
        last = run.records[-1]
        new = last.new
        if new is None or last.by_ttl or len(new.wire) > _LONGEST or not is_bare(new):
            return None
        drops = []
        for each in self._caches:
            entry = each.key.of_every(run.key)
            if entry is None:
                return None
            drops.append(CacheRequest(each.cache, (Invalidate(entry),), rule=each))
        version = f"{self._stream}{last.sequence:0>{SEQUENCE_DIGITS}}"
        if was_there:
            return UsualPut(Put(run.key, new, version, StampBelow(version)), version, drops)
        put = Put(run.key, new, version, AbsentOrStampBelow(version))
        return UsualPut(GuardedPut(put, TombstoneBelow(version)), version, drops)
