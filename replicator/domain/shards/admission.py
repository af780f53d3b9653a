"""Which seen shards may be stored: a child only behind its parents, or once they are proven gone.

Invariant: a stored shard without a stored parent has none that could still be read, so it is never begun before an
ancestor that was only listed late. What waits is bounded by one listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Graph, Shard, merged, storable

_PROOFS = 3
"""So many answers that a shard is gone are believed,"""
_CYCLES = 2
"""and they come from so many listings without it."""
_LATE_SECONDS = 30.0
"""A parent that can be read but stays out of the listing for so long is taken in as it is."""


class _Proof(Struct):
    since: float
    gone: int = 0
    cycles: int = 0

    @property
    def is_gone(self) -> bool:
        return self.gone >= _PROOFS and self.cycles >= _CYCLES


class Admission:
    """Shards that were seen and wait for a parent."""

    def __init__(self) -> None:
        self._held: dict[ShardId, Shard] = {}
        self._proofs: dict[ShardId, _Proof] = {}

    @property
    def waits(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    @property
    def unstored(self) -> dict[ShardId, tuple[ShardId, ...]]:
        """What is held back, with the parents that it comes from."""
        return {shard_id: shard.parents for shard_id, shard in self._held.items()}

    def admit(self, known: Graph, seen: Iterable[Shard]) -> tuple[dict[ShardId, Shard], list[Shard]]:
        """All that is known afterwards, and the new shards in it, parents first; the rest is held back."""
        held = {shard_id: shard for shard_id, shard in self._held.items() if shard_id not in known}
        graph = merged(known, [*held.values(), *seen])
        gone = {parent for parent, proof in self._proofs.items() if proof.is_gone}
        new = storable(graph, known.keys(), gone)
        admitted = known.keys() | {shard.shard_id for shard in new}
        self._held = {shard_id: shard for shard_id, shard in graph.items() if shard_id not in admitted}
        return {shard_id: graph[shard_id] for shard_id in graph if shard_id in admitted}, new

    def missing(self, known: Graph, listed: Collection[ShardId], now: float) -> list[ShardId]:
        """Behind a whole listing: parents that are to be proven gone. What it did not show is held back no more."""
        self._held = {shard_id: shard for shard_id, shard in self._held.items() if shard_id in listed}
        there = known.keys() | self._held.keys()
        missing = {parent for shard in self._held.values() for parent in shard.parents} - there
        self._proofs = {parent: self._proofs.get(parent) or _Proof(now) for parent in sorted(missing)}
        for proof in self._proofs.values():
            proof.cycles += 1
        return sorted(parent for parent, proof in self._proofs.items() if not proof.is_gone)

    def is_gone(self, parent: ShardId) -> None:
        """A missing parent cannot be read."""
        self._proofs[parent].gone += 1

    def is_there(self, parent: ShardId, now: float) -> None:
        """A missing parent can be read: it is listed late, or never."""
        proof = self._proofs[parent]
        proof.gone = 0
        if now - proof.since >= _LATE_SECONDS:
            self._held[parent] = Shard(parent, closed=True)
