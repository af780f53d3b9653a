"""What a worker says with its heartbeat of the targets that it reads for: values without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.targets import TargetId


@dataclass(frozen=True, slots=True)
class Statement:
    """What a worker says of one target on one stream: up to when it has everything on the shards that the worker reads.

    `leases`: a digest of those shards and their epochs.
    """

    through: float
    leases: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: a stream and a target. Tables share targets, and a table may have two streams."""

    region: RegionId
    table: TableName
    generation: int
    target_id: TargetId


Statements = Mapping[Subject, Statement]
