"""Records that a target passes over: from before its start, or from before the time that it is rewound to."""

from __future__ import annotations

from replicator.domain.records import ForeignRecord, StreamRecord
from replicator.domain.shards.leases import Rewind

_START_TOLERANCE_SECONDS = 2
_STREAM_SECONDS = 1
"""How exact a stream's times are."""


class Skipping:
    """What one target has no use for on one shard; also records of other tables."""

    def __init__(self, started_at: float | None, rewind: Rewind | None) -> None:
        self._before = None if started_at is None else started_at - _START_TOLERANCE_SECONDS
        self._rewind = rewind
        self.may_skip = started_at is not None or rewind is not None
        """Whether a record of the own table may be passed over."""

    def skips(self, record: StreamRecord) -> bool:
        """Whether a record is passed over.

        Times are whole seconds, rounded down: a record of the rewind's second may be wanted. One without a time is.
        """
        if isinstance(record, ForeignRecord):
            return True
        if self._before is not None and 0 < record.created_at < self._before:
            return True
        rewind = self._rewind
        return (
            rewind is not None
            and 0 < record.created_at < rewind.before - _STREAM_SECONDS
            and rewind.until.covers(record.number)
        )
