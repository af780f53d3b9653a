"""Up to when targets have everything on what this session reads, as its heartbeats publish it.

Invariant: what is said is of the moment at which it is asked for, and of leases that this session holds then.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from replicator.domain.shards.applied_through import Held, stated
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.statements import Statement, Statements, Subject

MOST_STATEMENTS = 1000
"""So many are published at most, those that are furthest behind: a heartbeat is one small row."""


class Reach:
    """What one session reads, stream by stream."""

    def __init__(self) -> None:
        self._held: dict[StreamRef, Callable[[], Iterable[Held]]] = {}

    def ask(self, stream: StreamRef, held: Callable[[], Iterable[Held]]) -> None:
        """From now on this says what is read of a stream."""
        self._held[stream] = held

    def leave(self, stream: StreamRef) -> None:
        """A stream is read no more."""
        self._held.pop(stream, None)

    def statements(self) -> Statements:
        """What can be said now."""
        found: dict[Subject, Statement] = {}
        for stream, held in self._held.items():
            found.update(stated(stream, held()))
        if len(found) <= MOST_STATEMENTS:
            return found
        least = heapq.nsmallest(MOST_STATEMENTS, found, key=lambda about: found[about].through)
        return {about: found[about] for about in least}
