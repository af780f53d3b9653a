"""What a worker says with its heartbeat of the targets that it reads for: values without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.targets import TargetId


class Statement(Struct, frozen=True):
    """What a worker says of one target on one stream: up to when it has everything on the shards that the worker reads.

    `leases`: a digest of those shards and their epochs.
    """

    through: float
    leases: str


class Subject(Struct, frozen=True):
    """What a statement is about: a stream and a target. Tables share targets, and a table may have two streams."""

    region: RegionId
    table: TableName
    generation: int
    target_id: TargetId


Statements = Mapping[Subject, Statement]
