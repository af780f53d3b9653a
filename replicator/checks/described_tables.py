"""Tables as DynamoDB describes them, and the tables that replicator keeps for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.adapters.dynamodb.expressions import TOMBSTONE_EXPIRY, TOMBSTONE_KEY
from replicator.adapters.dynamodb.owed_rows import EXPIRY, PARTITION, SORT
from replicator.domain.errors import NotDynamoDB, TableMissing, Throttled, Unreachable
from replicator.domain.values import replace
from replicator.domain.versions import RESERVED_PREFIX, STAMP

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.key_mapping import KeyMapping
    from replicator.settings import Settings

_TRIES = {Throttled: 6, Unreachable: 2}
_FIRST_PAUSE_SECONDS = 0.2

Answer = TypeVar("Answer")
Keys = tuple[tuple[str, str], ...]
"""(attribute name, type), the hash key first."""


class Index(Struct, frozen=True):
    """A secondary index; `local` ones bound the size of an item collection."""

    name: str
    keys: Keys
    local: bool = False


class Table(Struct, frozen=True):
    """A table that exists."""

    name: str
    arn: str
    table_id: str
    keys: Keys
    indexes: tuple[Index, ...]
    types: dict[str, str]
    active: bool
    items: int
    stream_arn: str | None
    stream_view: str | None
    size: int = 0
    """Bytes, as of some hours ago."""
    key_arn: str | None = None
    """The key of KMS that encrypts it; None when that is one that AWS owns."""

    @property
    def account(self) -> str:
        """The account that owns it, from its ARN."""
        parts = self.arn.split(":")
        return parts[4] if len(parts) > 4 else ""  # noqa: PLR2004 - arn:partition:service:region:account:...


class OwnTable(Struct, frozen=True):
    """A table that replicator keeps for itself, in one region."""

    region: str
    name: str
    purpose: str
    keys: Keys
    indexes: tuple[Index, ...] = ()
    expiry: str | None = None

    @property
    def subject(self) -> str:
        """How facts name it."""
        return f"{self.purpose} {self.name} in {self.region}"


SIDE_KEYS: Keys = ((TOMBSTONE_KEY, "S"),)
OWED_KEYS: Keys = ((PARTITION, "S"), (SORT, "S"))
COORDINATION_KEYS: Keys = (("pk", "S"), ("sk", "S"))
CONFLICT_KEYS: Keys = (("id", "S"),)
CONFLICT_INDEXES = (
    Index("by_rule", (("rule", "S"), ("detected_at", "S"))),
    Index("by_key", (("item", "S"), ("detected_at", "S"))),
)
CONFLICT_EXPIRY = "exp"


def own_tables(settings: Settings) -> list[OwnTable]:
    """Every table that the rules need beside the users' own: side tables, owed keys, coordination, conflicts."""
    regions = {region: None for rule in settings.rules for region in rule.regions_written}
    owed = {region: None for rule in settings.rules for region in rule.owed_regions}
    owed |= {settings.caches[action.cache].region: None for rule in settings.rules for action in rule.cache}
    home = settings.coordination.region
    return [
        *(
            OwnTable(region, settings.side_table_name, "side table", SIDE_KEYS, expiry=TOMBSTONE_EXPIRY)
            for region in regions
        ),
        *(OwnTable(region, settings.owed_table_name, "owed table", OWED_KEYS, expiry=EXPIRY) for region in owed),
        OwnTable(home, settings.coordination.table, "coordination table", COORDINATION_KEYS),
        OwnTable(
            home,
            settings.conflict_table_name,
            "conflict table",
            CONFLICT_KEYS,
            CONFLICT_INDEXES,
            expiry=CONFLICT_EXPIRY,
        ),
    ]


async def ask(what: str, operation: Callable[..., Awaitable[Answer]], **parameters: object) -> Answer:
    """Call a client's method, a few times when it is throttled; a translated error when it fails for good."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await operation(**parameters)
        except CLIENT_ERRORS as error:
            translated = translate(error, what)
            if attempt >= _TRIES.get(type(translated), 1):
                raise translated from error
        await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))


async def pages(what: str, operation: Callable[..., Awaitable[Any]], **parameters: Any) -> AsyncIterator[Any]:
    """Every item of a Query or a Scan, page by page."""
    while True:
        answer = await ask(what, operation, **parameters)
        for item in member(answer, "Items", what):
            yield item
        if not answer.get("LastEvaluatedKey"):
            return
        parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def parse_table(described: Mapping[str, Any]) -> Table:
    """A `Table` member of an answer as a `Table`."""
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in described.get("AttributeDefinitions", [])}
    stream = described.get("StreamSpecification") or {}
    indexes = [(index, False) for index in described.get("GlobalSecondaryIndexes") or []]
    indexes += [(index, True) for index in described.get("LocalSecondaryIndexes") or []]
    return Table(
        name=described["TableName"],
        arn=described.get("TableArn", ""),
        table_id=described.get("TableId", ""),
        keys=_keys(described["KeySchema"], types),
        indexes=tuple(Index(index["IndexName"], _keys(index["KeySchema"], types), local) for index, local in indexes),
        types=types,
        active=described.get("TableStatus", "ACTIVE") in {"ACTIVE", "UPDATING"},
        items=int(described.get("ItemCount", 0)),
        stream_arn=described.get("LatestStreamArn") if stream.get("StreamEnabled") else None,
        stream_view=stream.get("StreamViewType") if stream.get("StreamEnabled") else None,
        size=int(described.get("TableSizeBytes", 0)),
        key_arn=(described.get("SSEDescription") or {}).get("KMSMasterKeyArn"),
    )


def _keys(schema: Iterable[Mapping[str, Any]], types: dict[str, str]) -> Keys:
    ordered = sorted(schema, key=lambda entry: entry["KeyType"] != "HASH")
    return tuple((entry["AttributeName"], types.get(entry["AttributeName"], "?")) for entry in ordered)


async def describe(place: Place, name: str) -> Table:
    """A table as it is now; `TableMissing` when it is not there."""
    what = f"DescribeTable on {name} in {place.region_id}"
    try:
        answer = await ask(what, place.dynamodb.describe_table, TableName=name)
    except TableMissing as error:
        raise TableMissing(f"Table {name} in {place.region_id} does not exist.") from error
    described = answer.get("Table")
    if not described:
        raise not_dynamodb(place.region_id)
    return parse_table(described)


def not_dynamodb(region: str) -> NotDynamoDB:
    """What to say when an endpoint answers, but is something else."""
    return NotDynamoDB(
        f"The endpoint of {region} does not answer as DynamoDB does.",
        advice=f"Correct endpoint_url or endpoints of regions.{region}.",
    )


async def expiry_attribute(place: Place, name: str) -> str | None:
    """The attribute of the table's TTL, None when it is off."""
    what = f"DescribeTimeToLive on {name} in {place.region_id}"
    answer = await ask(what, place.dynamodb.describe_time_to_live, TableName=name)
    described = answer.get("TimeToLiveDescription", {})
    if described.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
        return None
    attribute: str | None = described.get("AttributeName")
    return attribute


def shown(keys: Keys) -> str:
    """A key schema for people: `pk (S), sk (N)`."""
    return ", ".join(f"{name} ({kind})" for name, kind in keys)


def as_mapped(source: Table, mapping: KeyMapping | None) -> Table:
    """A source as a replica is to look whose keys are made from the source's."""
    if mapping is None:
        return source
    keys = tuple(mapping.kinds(dict(source.keys)))
    return replace(source, keys=keys, types={**source.types, **dict(keys)})


def reserved_keys(table: Table) -> list[str]:
    """Key attributes that no image is copied with: our stamp and those of the 2017 Global Tables."""
    return [name for name, _ in table.keys if name == STAMP or name.startswith(RESERVED_PREFIX)]


def schema_difference(table: Table, wanted: OwnTable) -> str | None:
    """What keeps an existing table from being one of ours, None when it fits."""
    if table.keys != wanted.keys:
        return f"its key is {shown(table.keys)} instead of {shown(wanted.keys)}"
    present = {index.name: index.keys for index in table.indexes}
    for index in wanted.indexes:
        if index.name not in present:
            return f"it has no index {index.name} over {shown(index.keys)}"
        if present[index.name] != index.keys:
            return f"its index {index.name} is over {shown(present[index.name])} instead of {shown(index.keys)}"
    return None
