"""Rules and their targets: what is read where, and where its changes go.

Invariant: a target's identity follows from where it writes: from its table, or from the members of its mesh.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from replicator.domain.cache_keys import CacheRule
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.key_mapping import KeyMapping
from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.modes.ordered import OrderedPolicy
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.targets import TargetId, TargetKind, events_id, mesh_id, replica_id, source_caches_id
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import STAMP

Members = tuple[tuple[RegionId, TableName], ...]
"""The regions of a mesh with their tables, by region."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule's changes go: a region with its table and caches. `table` is None beside the source: caches only.

    `sink` is the name of a sink of events, which has neither table nor caches.

    In a mesh the region is the home region, whose stream is read, and `members` are all of its regions: a record is
    done only when every one of them has answered. They follow from the rule, which sets them. `transform`: how items at
    a replica differ from the source's.
    """

    rule: RuleName
    region: RegionId
    table: TableName | None
    caches: tuple[CacheRule, ...] = ()
    members: Members = ()
    sink: str | None = None
    transform: Transform | None = None
    target_id: TargetId = field(init=False)
    """Identity of this target's progress on a stream."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_id", self._identity())

    def _identity(self) -> TargetId:
        if self.members:
            return mesh_id(self.rule, self.members)
        if self.sink is not None:
            return events_id(self.rule, self.region, self.sink)
        if self.table is None:
            return source_caches_id(self.rule, self.region)
        return replica_id(self.rule, self.region, self.table)

    @property
    def kind(self) -> TargetKind:
        """What it is."""
        return self.target_id.kind

    @property
    def keys(self) -> KeyMapping | None:
        """How keys there are made from the source's; None: they are the source's."""
        return None if self.transform is None else self.transform.key

    @property
    def label(self) -> str:
        """How metrics name it beside its rule: by its region, and of a sink of events by that and its name."""
        return self.target_id.label or self.region

    @property
    def parts(self) -> frozenset[str]:
        """What a record must reach to be done: every member of a mesh, or the one table or region."""
        if self.members:
            return frozenset(f"{region}:{table}" for region, table in self.members)
        return frozenset({self.target_id.name})


class Start(enum.Enum):
    """Where a target without progress begins."""

    TRIM_HORIZON = "trim_horizon"
    LATEST = "latest"


class TtlDeletes(enum.Enum):
    """What becomes of deletes that the source's TTL made."""

    REPLICATE = "replicate"
    SKIP = "skip"


class OnGap(enum.Enum):
    """What to do when records were trimmed before they were read; the gap is recorded either way."""

    STOP = "stop"
    RESYNC = "resync"  # goes on at once; a repair of the table follows
    SKIP = "skip"


class OnRefusal(enum.Enum):
    """What to do with a record that a target refuses for good."""

    PARK = "park"  # set it aside as an owed key, and go on
    STOP = "stop"  # wait until it is taken, or superseded


class VersionedPlan(msgspec.Struct, frozen=True):
    """Mode `versioned`: the other regions of the mesh, and the attribute that orders images.

    `tables`: those of the others that have another name than the table at home.
    """

    others: tuple[RegionId, ...]
    version: VersionAttribute
    tables: Members = ()


class ActivePlan(msgspec.Struct, frozen=True):
    """Mode `active-active`: the other regions of the mesh, and the rule's choices; `tables` as in `VersionedPlan`."""

    others: tuple[RegionId, ...]
    policy: ActivePolicy = msgspec.field(default_factory=ActivePolicy)
    tables: Members = ()


_LONGEST_CONSUMER = 119
"""Of a consumer's 128 characters, those before what tells its name apart."""


class KinesisSource(msgspec.Struct, frozen=True):
    """A Kinesis stream that a table's changes go to, by name or ARN.

    `in_microseconds`: times in milliseconds are refused. `reorder_seconds`: so much later than others that were made
    after it a change may come. `group`: whose consumers its shards are pushed to; empty: shards are polled.
    """

    stream: str
    in_microseconds: bool = True
    reorder_seconds: float = 2.0
    group: str = ""

    @property
    def name(self) -> str:
        """The name, of an ARN too."""
        return self.stream.rpartition(":stream/")[2]

    def consumer_of(self, table: str) -> str:
        """The consumer to which shards are pushed for a table; empty: they are polled.

        A consumer has each shard once at a time, so each table has its own. A name that is too long is cut; what is
        behind it tells such names apart.
        """
        if not self.group:
            return ""
        told_apart = crc32(f"{self.group}/{table}".encode())
        return f"{f'replicator-{self.group}-{table}'[:_LONGEST_CONSUMER]}-{told_apart:08x}"


class Sweep(msgspec.Struct, frozen=True):
    """How often a rule is compared as a whole, with which read units per second and region; whether that repairs."""

    every_seconds: float
    read_units: int
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it reads one source, in domain values.

    Without `mesh` its mode is `ordered`. A mesh is read in each of its regions, by one `Rule` each: `source` is then
    the home region, and the first target stands for the rule as a whole; sinks of its events may follow.
    """

    name: RuleName
    source: RegionId
    table: TableName
    targets: tuple[Target, ...]
    policy: OrderedPolicy = OrderedPolicy()
    mesh: VersionedPlan | ActivePlan | None = None
    epoch: int = 0
    start: Start = Start.TRIM_HORIZON
    ttl_deletes: TtlDeletes = TtlDeletes.REPLICATE
    on_gap: OnGap = OnGap.STOP
    refused: OnRefusal = OnRefusal.STOP
    filter: Filter = field(default_factory=Filter)
    sweep: Sweep | None = None
    stream: KinesisSource | None = None
    """Where the source's changes are read; None: in the table's own stream."""
    canary: float | None = None
    """Every how many seconds its canary is written; None: it has none."""

    def __post_init__(self) -> None:
        if self.mesh is not None:
            among = tuple(
                replace(target, members=self.members) if target.sink is None else target for target in self.targets
            )
            object.__setattr__(self, "targets", among)

    @property
    def disorder_seconds(self) -> float:
        """How much earlier a change may have been made than one that came before it; 0: the source keeps the order."""
        return 0.0 if self.stream is None else self.stream.reorder_seconds

    @property
    def kinesis(self) -> str:
        """The name of the Kinesis stream that it reads; empty where it reads the table's own stream."""
        return "" if self.stream is None else self.stream.name

    @property
    def source_name(self) -> str:
        """Whose versions its writes have: the source table, and the way on which its changes come."""
        table = f"{self.source}:{self.table}"
        return f"{table} through Kinesis stream {self.kinesis}" if self.kinesis else table

    @property
    def stamp(self) -> str:
        """The attribute that carries versions."""
        return self.mesh.policy.attribute if isinstance(self.mesh, ActivePlan) else STAMP

    def among(self, targets: Iterable[Target]) -> Rule:
        """The same rule for some of its targets only."""
        chosen = tuple(targets)
        return self if chosen == self.targets else replace(self, targets=chosen)

    @property
    def members(self) -> Members:
        """The regions whose streams are read together, with their tables: those of a mesh, or the source alone."""
        if self.mesh is None:
            return ((self.source, self.table),)
        tables = dict(self.mesh.tables)
        others = ((region, tables.get(region, self.table)) for region in self.mesh.others)
        return tuple(sorted(((self.source, self.table), *others)))

    def as_replica(self, region: RegionId) -> TargetId:
        """Another region of the mesh as one to which this one owes keys."""
        return replica_id(self.name, region, dict(self.members)[region])

    @property
    def mode(self) -> str:
        """The mode as the configuration names it."""
        if self.mesh is None:
            return "ordered"
        return "versioned" if isinstance(self.mesh, VersionedPlan) else "active-active"


def rests(target: Target, rules: Collection[RuleName], regions: Collection[tuple[RuleName, RegionId]]) -> bool:
    """Whether operators have paused a target: its rule, or the replica's region for it.

    A mesh does not rest because of a region: what that misses is owed to it.
    """
    in_region = target.kind is TargetKind.REPLICA and (target.rule, target.region) in regions
    return target.rule in rules or in_region
