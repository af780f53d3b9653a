"""What of a source without order was sent lately, so that a change that comes twice is one event.

Invariant: only what is durable at the sink, or kept as a row, is noted. It is bounded, and forgotten with the process:
a repeated event has the id that it had, so a consumer tells it all the same.
"""

from __future__ import annotations

from collections import OrderedDict

from replicator.domain.item_events import change_id
from replicator.domain.records import ChangeRecord, ItemKey

_MOST = 20_000


class SentEvents:
    """The last changes, by their ids, and the time of the last one of each key."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._times: OrderedDict[ItemKey, int] = OrderedDict()

    def knows(self, record: ChangeRecord) -> bool:
        """Whether this change was sent."""
        return change_id(record) in self._ids

    def is_late(self, record: ChangeRecord) -> bool:
        """Whether a change of its key that was made later was sent before it."""
        return record.micros < self._times.get(record.key, 0)

    def note(self, record: ChangeRecord) -> None:
        """A change was sent."""
        self._ids[change_id(record)] = None
        self._times[record.key] = max(record.micros, self._times.pop(record.key, 0))
        for kept in (self._ids, self._times):
            if len(kept) > self._most:
                kept.popitem(last=False)
