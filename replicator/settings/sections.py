"""The sections of the configuration, each judged by itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from replicator.settings.values import (
    AttributeName,
    ByteSize,
    CacheUrl,
    Duration,
    Frozen,
    Integer,
    Number,
    RegionName,
    Share,
    Table,
)

_LEAST_BETWEEN_LOOKS = timedelta(seconds=1)
_LEAST_MEMORY, _MOST_MEMORY = 16 * 2**20, 2**40


def _without_user(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("must not contain a user or a password; name a profile or a role instead")
    return url


Endpoint = Annotated[HttpUrl, AfterValidator(_without_user)]


class Endpoints(Frozen):
    """Endpoints of one region, when they differ by service."""

    dynamodb: Endpoint | None = None
    streams: Endpoint | None = None
    kinesis: Endpoint | None = None
    sts: Endpoint | None = None
    s3: Endpoint | None = Field(default=None, description="where exports lie, and data of events that are too long")
    sqs: Endpoint | None = None
    sns: Endpoint | None = None
    events: Endpoint | None = Field(default=None, description="EventBridge")
    firehose: Endpoint | None = None

    @property
    def any_but_sts(self) -> bool:
        """Whether a service has an endpoint of its own; roles are assumed elsewhere than where tables are."""
        return any(endpoint is not None for service, endpoint in self if service != "sts")


class Region(Frozen):
    """A place: account, AWS region and endpoints."""

    region: str = Field(min_length=1, description="AWS region, for example us-east-1")
    endpoint_url: Endpoint | None = Field(default=None, description="one endpoint for every service of this region")
    endpoints: Endpoints = Field(default=Endpoints(), description="endpoints by service; they win over endpoint_url")
    profile: str | None = Field(default=None, description="profile of the shared AWS configuration")
    role_arn: str | None = Field(default=None, pattern=r"^arn:", description="role to assume for this region")
    external_id: str | None = Field(default=None, description="external id for role_arn")

    @model_validator(mode="after")
    def _external_id_needs_role(self) -> Self:
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id is set but role_arn is not")
        return self

    @property
    def place(self) -> tuple[str | None, ...]:
        """What distinguishes two places, as far as the file shows."""
        endpoint = self.endpoints.dynamodb or self.endpoint_url
        return (self.region, None if endpoint is None else str(endpoint), self.profile, self.role_arn)


class CoordinationSettings(Frozen):
    """Where leases and progress live, and their times."""

    region: RegionName
    table: Table = "replicator-coordination"
    lease: Duration = Field(default=timedelta(seconds=10), description="a worker silent for so long loses its shards")
    heartbeat: Duration = Field(default=timedelta(seconds=3), description="time between two signs of life")
    checkpoint: Duration = Field(default=timedelta(seconds=1), description="least time between two saves of a shard")
    discovery: Duration = Field(default=timedelta(seconds=10), description="time between two listings of a stream")
    watch: Duration = Field(default=timedelta(milliseconds=500), description="time between two looks at other workers")
    tables: Duration = Field(default=timedelta(seconds=60), description="time between two looks for a choice's tables")
    held: Duration = Field(
        default=timedelta(seconds=60),
        description="time between two looks at what is held, and at the other tables",
    )
    moves: Integer = Field(default=8, ge=1, le=1000, description="shards that a worker hands over at a time")
    describes_per_second: Number = Field(
        default=8, gt=0, le=10, description="DescribeStream calls of all workers together, per region"
    )
    drained: Duration = Field(
        default=timedelta(seconds=60), description="a replaced stream is left when so long nothing more was found in it"
    )
    stall: Duration = Field(
        default=timedelta(seconds=60), description="a leased shard that makes no progress for so long is reported"
    )

    @model_validator(mode="after")
    def _times_fit_each_other(self) -> Self:
        if self.heartbeat * 2 > self.lease:
            raise ValueError("heartbeat must be at most half of lease, or one lost request loses every shard")
        if self.tables < _LEAST_BETWEEN_LOOKS:
            raise ValueError("tables must be at least 1s, because a look may ask about every table of a region")
        if self.held < _LEAST_BETWEEN_LOOKS:
            raise ValueError("held must be at least 1s, because a look asks about many tables")
        return self


class Polling(Frozen):
    """How a shard is read."""

    interval: Duration = Field(default=timedelta(milliseconds=250), description="least time between reads of a shard")
    idle_max: Duration = Field(default=timedelta(seconds=1), description="longest wait of an idle shard")
    page: Integer = Field(default=1000, ge=1, le=1000, description="records per read")
    memory: ByteSize = Field(
        default=256 * 2**20, description="records that are read and not yet applied, over all shards of a process"
    )

    @field_validator("memory")
    @classmethod
    def _room_for_pages(cls, value: int) -> int:
        if not _LEAST_MEMORY <= value <= _MOST_MEMORY:
            raise ValueError("must be at least 16MiB, because a page may hold a few, and at most 1TiB")
        return value


class Apply(Frozen):
    """How replicas are written."""

    concurrency: Integer = Field(default=256, ge=1, le=1000, description="requests in flight per target at most")
    connect_timeout: Duration = timedelta(seconds=3)
    read_timeout: Duration = timedelta(seconds=10)
    backoff_max: Duration = Field(
        default=timedelta(seconds=20), description="longest wait between two tries of what is throttled or refused"
    )


class Log(Frozen):
    """Logging to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field(default="auto", description="auto: console on a terminal")


class Telemetry(Frozen):
    """Traces to a collector of OpenTelemetry; needs the extra `telemetry`."""

    endpoint: str = Field(
        pattern=r"^https?://[^\s@]+$", description="a collector's base URL, e.g. http://localhost:4318 (OTLP over HTTP)"
    )
    sample: Number = Field(default=0.01, gt=0, le=1, description="the share of pages and batches that have a span")


class ConflictSettings(Frozen):
    """Where conflict entries go: a DynamoDB table in the coordination region, and a file if one is named."""

    table: Table | None = Field(default=None, description="default: replicator-conflicts-<group>")
    ttl: Duration = Field(default=timedelta(days=30), description="how long an entry is kept")
    file: Path | None = Field(default=None, description="the same entries as JSON lines, written by one daemon only")
    file_max_bytes: Integer = Field(
        default=100_000_000, ge=1_000_000, description="a longer file is renamed to <file>.1"
    )
    file_keep: Integer = Field(default=5, ge=1, le=1000, description="renamed files that are kept")
    mask: list[AttributeName] = Field(default=[], description="attributes whose values no entry shows")


class ParkingSettings(Frozen):
    """How much of what targets refuse is kept."""

    max: Integer = Field(default=10_000, ge=1, le=100_000, description="parked keys per target; beyond them it stops")
    max_unread: Integer = Field(default=100, ge=1, le=10_000, description="the same for records that cannot be read")
    ttl: Duration = Field(default=timedelta(days=30), description="how long a resolved row is kept")


class CopyingSettings(Frozen):
    """How jobs go through whole tables: bootstrap, verify, repair."""

    read_units: Integer = Field(
        default=3000, ge=1, le=10_000_000, description="per second and on-demand region, all workers together"
    )
    write_units: Integer = Field(
        default=12_000, ge=1, le=10_000_000, description="the same; a provisioned table gives a quarter of what it has"
    )
    margin: Duration = Field(
        default=timedelta(seconds=5), description="what is waited beyond the place up to which a stream is applied"
    )
    yield_lag: Duration = Field(
        default=timedelta(seconds=60), description="jobs pause while the stream's lag is greater than this"
    )
    segments: Integer = Field(default=8, ge=1, le=64, description="segments that a worker works on at once")
    pages: Integer = Field(default=32, ge=1, le=1024, description="pages of 1 MB that a worker holds for jobs at most")


class Debt(Frozen):
    """What is kept of actions that a cache did not carry out."""

    max_keys: Integer = Field(default=100_000, ge=1, le=10_000_000, description="entries that it may be in its backlog")
    policy: Literal["flush", "wait", "ignore"] | None = Field(
        default=None,
        description="beyond them: flush drops all entries of the rules when it is back, wait has replicas wait for it,"
        " ignore leaves entries stale; default flush, or wait where a key begins with an attribute",
    )
    on_restore: Literal["flush", "debt", "ignore"] = Field(
        default="debt",
        description="another server answers, whose entries may be older; debt: what was done within restore_window is"
        " done again, and all entries are dropped when that is not known or the server was started from a snapshot",
    )
    restore_window: Duration = Field(default=timedelta(minutes=10), description="how long actions are remembered")
    flush: Literal["keys", "database"] = Field(
        default="keys", description="database: the whole database is ours, and a flush drops all of it"
    )


class CacheVerification(Frozen):
    """How many of the entries that were acted on are read again, to see whether they show what the table holds."""

    share: Share = Field(default=0.01, description="of the entries that were acted on: 1% or 0.01; 0 for none")
    reads: Integer = Field(
        default=5, ge=1, le=1000, description="consistent reads of tables per second and worker at most"
    )


class Cache(Frozen):
    """A Redis or Valkey beside a region's table."""

    region: RegionName
    url: CacheUrl = Field(
        pattern=r"^(rediss?(\+(sentinel|cluster))?|unix)://",
        description="rediss://host:port/db; redis:// without TLS; redis+sentinel://host:port,host:port/service/db;"
        " redis+cluster://host:port,host:port",
    )
    username: str | None = None
    password: SecretStr | None = None
    sentinel_username: str | None = Field(
        default=None, description="of Sentinels that ask for one, when the url names any"
    )
    sentinel_password: SecretStr | None = Field(default=None, description="the same")
    prefix: str = Field(default="", max_length=200, description="put in front of every key of rules, as it is")
    debt: Debt = Field(default=Debt(), description="what becomes of actions while it is away")
    verify: CacheVerification = Field(
        default=CacheVerification(), description="what is read again 1, 5 and 60 seconds behind an action"
    )

    @model_validator(mode="after")
    def _one_place_for_credentials(self) -> Self:
        if "@" in self.url and not self.url.startswith("unix:///") and (self.username or self.password):
            raise ValueError("has credentials in its url and in username or password; keep them in one place")
        return self
