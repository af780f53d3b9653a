"""What a shard worker needs of the outside."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from replicator.domain.shards.holdings import Holdings
from replicator.domain.targets import TargetId
from replicator.engine.applying.context import TargetPorts
from replicator.engine.probing import Probing
from replicator.engine.reading.memory_budget import ByteBudget
from replicator.ports.clock import Clock, ServersTime
from replicator.ports.coordination import Coordination, Registry
from replicator.ports.events import Observer
from replicator.ports.sources import Stream


class ShardPorts(Struct, frozen=True):
    """What a shard needs of the outside; targets by their id."""

    stream: Stream
    coordination: Coordination
    registry: Registry
    targets: Mapping[TargetId, TargetPorts]
    clock: Clock
    servers: ServersTime
    observer: Observer
    budget: ByteBudget
    """Shared by every shard of the process."""
    holdings: Holdings = field(default_factory=Holdings)
    """What this process reads of all; shared by every stream."""
    probing: Probing = field(default_factory=Probing)
    """Whether the stream answers; shared by all shards of it."""
