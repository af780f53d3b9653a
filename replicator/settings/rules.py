"""Rules as the configuration writes them, one model per mode."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from replicator.domain.versions import MAX_EPOCH, STAMP
from replicator.settings.cache_actions import CacheAction
from replicator.settings.events import AwsSink, EventSink, RedisStreamSink
from replicator.settings.filters import FilterSettings, MeshFilter
from replicator.settings.streams import Source, StreamSettings, region_of_source, stream_of_source
from replicator.settings.tables import TableChoice, TableSelection
from replicator.settings.transforms import ReplicaTransform
from replicator.settings.values import AttributeName, Duration, Frozen, Integer, Name, RegionName, Table, no_truth


class Member(Frozen):
    """A region of a rule that is written."""

    region: RegionName
    table: Table | None = Field(default=None, description="default: the rule's table name")
    write_units: Annotated[int, Field(ge=1, le=10_000_000), BeforeValidator(no_truth)] | None = Field(
        default=None,
        description="write units per second that replication may take there, all workers together; default: no bound",
    )


class Replica(Member):
    """A region that receives the rule's items."""

    transform: ReplicaTransform | None = Field(
        default=None, description="how items differ there from what the source holds"
    )


class MeshMember(Member):
    """A region whose table is read and written."""

    stream: StreamSettings | None = Field(default=None, description="default: the rule's, else the table's own")

    @model_validator(mode="before")
    @classmethod
    def _has_no_transform(cls, value: Any) -> Any:
        if isinstance(value, dict) and "transform" in value:
            raise ValueError(
                "has a transform, but in a mesh every region is the source of the others, so what it changes would come"
                " back; only replicas of mode ordered have one"
            )
        return value


def _replica(value: object) -> object:
    return {"region": value} if isinstance(value, str) else value


def _write_units(members: Sequence[Member]) -> dict[str, int]:
    return {member.region: member.write_units for member in members if member.write_units is not None}


_Replica = Annotated[Replica, BeforeValidator(_replica, json_schema_input_type=RegionName | Replica)]
_Member = Annotated[MeshMember, BeforeValidator(_replica, json_schema_input_type=RegionName | MeshMember)]


def _seldom(every: timedelta) -> timedelta:
    if every < timedelta(seconds=1):
        raise ValueError("is less than 1s")
    return every


class SweepSettings(Frozen):
    """A comparison of all that a rule replicates, again and again."""

    every: Duration = Field(default=timedelta(days=7), description="time from the begin of one to that of the next")
    read_units: Integer = Field(
        default=50, ge=1, le=10_000_000, description="read units per second and region that it may take"
    )
    repair: bool = Field(default=False, description="whether it corrects what differs, and drops stale cache entries")


class CanarySettings(Frozen):
    """An item that is written again and again, to see how long it takes to arrive."""

    every: Annotated[Duration, AfterValidator(_seldom)] = Field(
        default=timedelta(seconds=30), description="time between two of its writes, at least 1s"
    )


class _Rule(Frozen):
    """What rules of every mode say."""

    name: Name
    table: TableSelection = Field(description="a table's name, a glob over names, or a choice by glob and tag")
    start: Literal["trim_horizon", "latest"] = "trim_horizon"
    on_gap: Literal["stop", "resync", "skip"] = "resync"
    primary_key: list[AttributeName] = Field(
        default=[], max_length=2, description="the tables' key attributes, so that the file alone can be judged by them"
    )
    cache: list[CacheAction] = Field(default=[])
    stream: StreamSettings | None = Field(
        default=None, description="where changes are read in every region that is read; default: the tables' own"
    )
    verify: SweepSettings | None = Field(default=None, description="compare all that it replicates, again and again")
    canary: CanarySettings | None = Field(
        default=None, description="measure how long a write takes to arrive, by an item of the daemon's own"
    )
    events: list[EventSink] = Field(default=[], max_length=16, description="where every change goes as an event")

    @property
    @abstractmethod
    def regions_read(self) -> list[str]:
        """Ids of the regions whose streams are read."""

    @property
    def regions_of_sinks(self) -> set[str]:
        """Ids of the regions whose services its events go to."""
        buckets = {region for sink in self.events if (region := self.region_of_bucket(sink)) is not None}
        return buckets.union(*(self.regions_of(sink) for sink in self.events if isinstance(sink, AwsSink)))

    def regions_of(self, sink: EventSink) -> list[str]:
        """Ids of the regions where a sink is: where it says, else in every region whose changes go to it."""
        return [sink.region] if sink.region else self.regions_read

    def region_of_bucket(self, sink: EventSink) -> str | None:
        """Id of the region whose bucket takes what is too long for a sink; None where that is parked."""
        if sink.oversize is None:
            return None
        return sink.oversize.s3.region or sink.region or self.regions_read[0]

    @property
    def caches_used(self) -> set[str]:
        """Names of the caches that it acts on, or whose servers hold its events."""
        beside = {sink.cache for sink in self.events if isinstance(sink, RedisStreamSink)}
        return beside | {action.cache for action in self.cache}

    @property
    def choice(self) -> TableChoice | None:
        """How the rule chooses its tables; None of a rule that names one."""
        return self.table if isinstance(self.table, TableChoice) else None

    @property
    def table_name(self) -> str:
        """The table of a rule that names one; a rule that chooses is asked once per table that it found (`on`)."""
        assert isinstance(self.table, str), "a choice has no name"
        return self.table

    def on(self, table: str) -> Self:
        """This rule as if it named one table."""
        return self.model_copy(update={"table": table})


class OrderedRule(_Rule):
    """One writer region, replicas that only replicator writes, and the caches beside them."""

    mode: Literal["ordered"] = "ordered"
    source: Annotated[RegionName, BeforeValidator(region_of_source, json_schema_input_type=RegionName | Source)] = (
        Field(description="the writer region, or that and its stream")
    )
    replicas: list[_Replica] = Field(default=[])
    ttl_deletes: Literal["replicate", "skip"] = "replicate"
    unstamped: Literal["adopt", "stop"] = "adopt"
    insert_guard: Literal["transact", "probe"] = "transact"
    refused: Literal["park", "stop"] = Field(
        default="park", description="park: a refused change is stored as a row, and later changes continue"
    )
    epoch: Integer = Field(
        default=0, ge=0, le=MAX_EPOCH, description="raised when another region is promoted to writer"
    )
    filter: FilterSettings = FilterSettings()

    @model_validator(mode="before")
    @classmethod
    def _take_the_sources_stream(cls, value: Any) -> Any:
        return stream_of_source(value)

    @property
    def streams(self) -> dict[str, StreamSettings]:
        """Kinesis streams that are read, by region id; elsewhere the table's own stream is."""
        return {} if self.stream is None else {self.source: self.stream}

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(region id, table) of every table whose stream is read; none while it is open which ones that are."""
        return [] if self.choice else [(self.source, self.table_name)]

    @property
    def write_units(self) -> dict[str, int]:
        """What it may take of regions' write units per second, by region id; as far as that is bounded."""
        return _write_units(self.replicas)

    @property
    def owed_regions(self) -> list[str]:
        """Ids of the regions that keep rows of what targets are owed: the source's, if refusals are set aside."""
        return [self.source] if self.refused == "park" else []

    @property
    def regions_read(self) -> list[str]:
        """Ids of the regions whose streams are read: the source's."""
        return [self.source]

    @property
    def regions_used(self) -> list[str]:
        """Ids of the regions that it reads or writes, the one whose tables are chosen first."""
        return [self.source, *self.regions_written]

    @property
    def regions_written(self) -> list[str]:
        """Ids of the regions whose tables are written."""
        return [replica.region for replica in self.replicas]

    @property
    def replica_tables(self) -> list[tuple[str, str]]:
        """(region id, table) of every table that is written."""
        return [] if self.choice else [(replica.region, replica.table or self.table_name) for replica in self.replicas]


class _MeshRule(_Rule):
    """Users write in every region."""

    regions: list[_Member] = Field(min_length=2, max_length=8, description="every region; users may write in each")
    refused: Literal["park", "stop"] = Field(
        default="park",
        description="park: a change that another region refuses is stored as a row, and later changes continue",
    )
    filter: MeshFilter = MeshFilter()

    @property
    def streams(self) -> dict[str, StreamSettings]:
        """Kinesis streams that are read, by region id; elsewhere the table's own stream is."""
        named = {member.region: member.stream or self.stream for member in self.regions}
        return {region: stream for region, stream in named.items() if stream is not None}

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(region id, table) of every table whose stream is read; none while it is open which ones that are."""
        return [] if self.choice else [(member.region, member.table or self.table_name) for member in self.regions]

    @property
    def write_units(self) -> dict[str, int]:
        """What it may take of regions' write units per second, by region id; as far as that is bounded."""
        return _write_units(self.regions)

    @property
    def owed_regions(self) -> list[str]:
        """Ids of the regions that keep rows of what others are owed: every region, for others may be away."""
        return self.regions_used

    @property
    def regions_used(self) -> list[str]:
        """Ids of the regions that it reads and writes, the one whose tables are chosen first."""
        return [member.region for member in self.regions]

    @property
    def regions_read(self) -> list[str]:
        """The same."""
        return self.regions_used

    @property
    def regions_written(self) -> list[str]:
        """The same."""
        return self.regions_used

    @property
    def replica_tables(self) -> list[tuple[str, str]]:
        """(region id, table) of every table that is written."""
        return self.sources


class VersionAttribute(Frozen):
    """The attribute that the application raises with every write."""

    attribute: AttributeName
    type: Literal["number", "string", "time"] = Field(
        default="number", description="string and time: one fixed width, so that their bytes sort as they do"
    )
    width: Annotated[int, Field(ge=1, le=255), BeforeValidator(no_truth)] | None = Field(
        default=None, description="characters of every string or time; another length counts as missing"
    )

    @model_validator(mode="after")
    def _width_belongs_to_text(self) -> Self:
        if self.type == "number" and self.width is not None:
            raise ValueError("width belongs to type string or time")
        return self


def _version(value: object) -> object:
    return {"attribute": value} if isinstance(value, str) else value


class VersionedRule(_MeshRule):
    """Users write in every region and raise a version; the greatest version wins."""

    mode: Literal["versioned"]
    version: Annotated[
        VersionAttribute, BeforeValidator(_version, json_schema_input_type=AttributeName | VersionAttribute)
    ]


class ActiveRule(_MeshRule):
    """Users write in every region, as they like; the last writer wins."""

    mode: Literal["active-active"]
    guard: Literal["read", "optimistic"] = Field(
        default="read", description="read: give another region's unstamped write a moment before it is overwritten"
    )
    stamp: AttributeName = Field(default=STAMP, description="name of the attribute that carries an item's version")


MODES = ("ordered", "versioned", "active-active")


def _mode(value: object) -> str:
    mode = value.get("mode", MODES[0]) if isinstance(value, dict) else getattr(value, "mode", MODES[0])
    return mode if isinstance(mode, str) else ""


MeshRule = VersionedRule | ActiveRule
RuleSettings = Annotated[
    Annotated[OrderedRule, Tag("ordered")]
    | Annotated[VersionedRule, Tag("versioned")]
    | Annotated[ActiveRule, Tag("active-active")],
    Discriminator(_mode),
]
"""One rule; its mode decides which keys it has."""
