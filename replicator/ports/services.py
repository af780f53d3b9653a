"""Background services by what they are about: the identity under which their troubles are reported and taken back.

Invariant: the text of a service is for people alone; nothing is found, compared or ended by it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId


class ServiceKind(enum.Enum):
    """What a service does; the value shows it, with what it is about."""

    HEARTBEAT = "heartbeat"
    MEMBERS = "members"
    OVERVIEW = "overview of the group"
    ALL_TABLES = "tables of the rules"
    TABLES = "tables of rule {rule}"
    HELD = "looks at held rules"
    SOURCE = "stream of {source}"
    SHARDS = "shards of {source}"
    ROWS = "rows of {source}"
    DISCOVERY = "discovery of shards of {source}"
    READING = "reading {shard}"
    CHECKPOINT = "checkpoint of {shard}"
    PARKED = "parked keys of {source}"
    OWED = "keys of {source} that {to} missed for rule {rule}"
    DEBT = "entries that cache {cache} is owed"
    VERIFYING = "verification of cache {cache}"
    TARGET = "{target} on {shard}"
    JOBS = "jobs"
    JOB = "job {job}"


class ServiceId(Struct, frozen=True):
    """One service: of the process, of a rule, of a source table, of one of its streams, or of a shard of that."""

    kind: ServiceKind
    region: RegionId | None = None
    table: TableName | None = None
    arn: str | None = None
    shard_id: ShardId | None = None
    rule: RuleName | None = None
    target: TargetId | None = None
    to: RegionId | None = None
    job: str | None = None
    cache: str | None = None

    @property
    def shown(self) -> str:
        """The service for people. Two streams of one table may show the same; their ARNs tell them apart."""
        source = f"{self.table} in {self.region}"
        shard = f"shard {self.shard_id} of {source}"
        return self.kind.value.format(
            source=source, shard=shard, rule=self.rule, target=self.target, to=self.to, job=self.job, cache=self.cache
        )

    def is_of_shard(self, stream: StreamRef, shard_id: ShardId) -> bool:
        """Whether it is about a shard."""
        return (self.region, self.arn, self.shard_id) == (stream.region, stream.arn, shard_id)


OF_A_STREAM = frozenset({ServiceKind.SHARDS, ServiceKind.ROWS, ServiceKind.DISCOVERY})
"""Services of a stream as a whole."""


def source_service(kind: ServiceKind, region: RegionId, table: TableName) -> ServiceId:
    """A service of a source table."""
    return ServiceId(kind, region, table)


def owed_service(region: RegionId, table: TableName, rule: RuleName, to: RegionId) -> ServiceId:
    """A service about what one region of a rule's mesh is owed by another."""
    return ServiceId(ServiceKind.OWED, region, table, rule=rule, to=to)


def stream_service(kind: ServiceKind, stream: StreamRef) -> ServiceId:
    """A service of one stream of a source table."""
    return ServiceId(kind, stream.region, stream.table, stream.arn)


def shard_service(kind: ServiceKind, stream: StreamRef, shard_id: ShardId, rule: RuleName | None = None) -> ServiceId:
    """A service of a shard, or of a rule on it."""
    return ServiceId(kind, stream.region, stream.table, stream.arn, shard_id, rule)


def target_service(stream: StreamRef, shard_id: ShardId, target_id: TargetId) -> ServiceId:
    """A target on a shard."""
    return ServiceId(
        ServiceKind.TARGET, stream.region, stream.table, stream.arn, shard_id, target_id.rule, target=target_id
    )
