"""The watchdog of a stream: what does not progress there, whichever worker should read it, reported while it lasts.

Pipelines of this worker report their own standstills; this one reports every other shard that a rule needs. Invariant:
what is reported is the whole list, so what is over is taken back.
"""

from __future__ import annotations

from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import Observed, Patience, Watch
from replicator.engine.limits import Limits
from replicator.ports.clock import Clock
from replicator.ports.events import Observer

_LOOKS_PER_STALL = 4
"""How often within the bound of a standstill the rows are compared."""

_DRAINS = 3
"""A replaced stream is left after one `drained` and some listings; behind so many its end is no ordinary one."""


class Watchdog:
    """What stands still on one stream."""

    def __init__(self, ref: StreamRef, *, limits: Limits, clock: Clock, observer: Observer) -> None:
        self._ref = ref
        self._clock = clock
        self._observer = observer
        stall = limits.stall_seconds
        self._watch = Watch(Patience(stall=stall, children=stall + _DRAINS * limits.drained_seconds))
        self._every = stall / _LOOKS_PER_STALL
        self._due_at = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether the rows are to be looked at again."""
        return self._clock.monotonic() >= self._due_at

    def look(self, snapshot: Snapshot, observed: Observed) -> None:
        """Compare the rows with those of the last look."""
        now = self._clock.monotonic()
        self._due_at = now + self._every
        self._observer.standstills(self._ref, self._watch.look(snapshot, observed, now))
