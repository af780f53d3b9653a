"""A shard that is ours, as the pipelines of its rules see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replicator.domain.assignment import LeaseRow
from replicator.domain.rules import Target
from replicator.engine.checkpoints import Progress
from replicator.engine.desk import ShardPorts
from replicator.engine.leases import ShardFence
from replicator.engine.listing import Ends
from replicator.engine.pacing import Limits
from replicator.engine.reader import ShardReader
from replicator.ports import Lease, Place


@dataclass(frozen=True, slots=True)
class HeldShard:
    """What the rules on a shard share. `wake` tells whoever plans that something changed."""

    lease: Lease
    row: LeaseRow
    ports: ShardPorts
    fence: ShardFence
    progress: Progress
    reader: ShardReader
    ends: Ends
    limits: Limits
    wake: Callable[[], None]

    def place(self, target: Target) -> Place:
        """A target on this shard."""
        return Place(self.lease.stream, self.lease.shard_id, target)
