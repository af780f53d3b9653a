"""The shards of one stream as they are stored, and the storing of what calls show.

Invariant: what is known only grows. A shard is stored behind its parents, and one that was noted as vanished and is
listed again is noted as present again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from replicator.domain.errors import RecordsTrimmed, ReplicatorError, ShardGone
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import HORIZON
from replicator.domain.shards.admission import Admission
from replicator.domain.shards.discovery_schedule import LONG_AGO
from replicator.domain.shards.leases import StreamRef, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.listing import Listing, counted_misses
from replicator.engine.bounded import each
from replicator.engine.shard.worker import ShardPorts

_PROBES_AT_ONCE = 16
_PROBES_PER_LISTING = 2


class Catalogue:
    """What is stored of a stream's shards, and what was seen and waits for a parent."""

    def __init__(self, ref: StreamRef, ports: ShardPorts) -> None:
        self._ref = ref
        self._ports = ports
        self._state = StreamState({}, None, {}, at=0.0)
        self._seen_at = LONG_AGO
        self.graph: dict[ShardId, Shard] = {}
        self._admission = Admission()
        self._began_at: float | None = None
        """While a stream without rows is listed for the first time: when that began. Shards found then are not new."""
        self._misses: dict[ShardId, int] = {}

    @property
    def state(self) -> StreamState:
        """The rows as they were read last."""
        return self._state

    @property
    def unstored(self) -> dict[ShardId, tuple[ShardId, ...]]:
        """Shards that were seen and could not be stored yet, with the parents that hold them back."""
        return self._admission.unstored

    def see(self, state: StreamState) -> None:
        """Take what is stored now."""
        self._state = state
        self._seen_at = self._ports.clock.monotonic()
        self.graph = {shard_id: row.shard for shard_id, row in state.rows.items()}

    def begin(self) -> None:
        """This worker begins to list the stream."""
        self._began_at = None if self._state.rows else self._server_time()

    async def store(self, listed: Iterable[Shard]) -> list[Shard] | None:
        """Store what is new; returns the shards that had no row before, None when nothing was new at all."""
        known, seen = self.graph, list(listed)
        graph, new = self._admission.admit(known, seen)
        back = {shard.shard_id for shard in seen if self._is_noted_vanished(shard.shard_id)}
        grown = [graph[shard_id] for shard_id, shard in known.items() if graph[shard_id] != shard or shard_id in back]
        if not grown and not new:
            return None
        found_at = self._server_time() if self._began_at is None else self._began_at
        await self._ports.coordination.discover(self._ref, [*grown, *new], found_at)
        self.graph = {**self.graph, **graph}
        return new

    def completed(self) -> None:
        """A whole listing was read: shards that come from now on are new, unless some are held back still."""
        if not self._admission.waits:
            self._began_at = None

    async def mark_vanished(self, listing: Listing) -> bool:
        """Note shards that several whole listings left out; returns whether there were any."""
        rows = self._state.rows
        present = [shard_id for shard_id, row in rows.items() if not row.vanished]
        self._misses, vanished = counted_misses(self._misses, listing, present)
        for shard_id in vanished:
            await self._ports.coordination.mark_vanished(self._ref, shard_id, self._server_time())
        return bool(vanished)

    async def prove_gone(self, listed: Collection[ShardId]) -> Sequence[ReplicatorError] | None:
        """Ask whether parents that a whole listing does not name can still be read.

        Returns what kept questions from being answered; None when there was nothing to ask. A row that is unreadable
        may be one of them.
        """
        missing = self._admission.missing(self.graph, listed, self._ports.clock.monotonic())
        if not missing or self._state.unreadable is not None:
            return None
        return await each(missing, self._probe, at_once=_PROBES_AT_ONCE, name="probe a parent")

    async def _probe(self, parent: ShardId) -> None:
        for _ in range(_PROBES_PER_LISTING):
            try:
                await self._ports.stream.iterator(self._ref, parent, HORIZON)
            except ShardGone:
                self._admission.is_gone(parent)
                continue
            except RecordsTrimmed:
                pass
            self._admission.is_there(parent, self._ports.clock.monotonic())
            return

    def _is_noted_vanished(self, shard_id: ShardId) -> bool:
        row = self._state.rows.get(shard_id)
        return row is not None and row.vanished

    def _server_time(self) -> float:
        """The time that the last reading of the rows brought, and what passed since: starts are compared with it.

        The worker's own wall clock may be wrong, and is another one than that of the worker that notes a start.
        """
        return self._state.at + self._ports.clock.monotonic() - self._seen_at
