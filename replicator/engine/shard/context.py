"""A shard that is ours, as the pipelines of its targets see it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from replicator.domain.rules import Target
from replicator.domain.shards.leases import Lease, LeaseRow
from replicator.engine.limits import Limits
from replicator.engine.membership.session import ShardFence
from replicator.engine.reading.reader import ShardReader
from replicator.engine.shard.checkpoints import Progress
from replicator.engine.shard.ports import ShardPorts
from replicator.ports.events import Place
from replicator.ports.sources import Ends


class ShardContext(Struct, frozen=True):
    """What the targets on a shard share. `wake` lets the coordinator plan again."""

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
