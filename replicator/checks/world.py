"""The world as it is: per region whether it answers, to which identity, and its tables; nothing is judged here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from msgspec import Struct, field

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.adapters.kinesis.consumers import Consumer, described
from replicator.adapters.kinesis.destinations import Destination, destinations
from replicator.adapters.kinesis.streams import Summary, summary
from replicator.checks.described_tables import Table, describe, expiry_attribute, not_dynamodb, own_tables
from replicator.domain.errors import AccessRefused, ReplicatorError, Unreachable, WorldMismatch
from replicator.domain.identifiers import TableName
from replicator.domain.rules import KinesisSource
from replicator.settings.compiled_rules import kinesis_source

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings

_AT_ONCE = 16
_SERVER_ERRORS = 500
Found = TypeVar("Found")


class KinesisWorld(Struct, frozen=True):
    """A Kinesis stream that a table's changes are read in, and all streams that the table sends them to.

    `consumer`: to which its shards are pushed, if that is asked for.
    """

    source: KinesisSource
    stream: Summary
    destinations: list[Destination]
    consumer: Consumer | None


class RegionWorld(Struct, frozen=True):
    """One region. `down`: nothing more can be learned about it, and why. `tables` hold what was found or why not."""

    region: str
    down: ReplicatorError | None = None
    account: str | None = None
    identity_error: ReplicatorError | None = None
    skew_seconds: float | None = None
    tables: Mapping[str, Table | ReplicatorError] = field(default_factory=dict)
    expiries: Mapping[str, str | ReplicatorError | None] = field(default_factory=dict)
    kinesis: Mapping[str, KinesisWorld | ReplicatorError] = field(default_factory=dict)
    """By table, what is read in place of its own stream."""


def tables_by_region(settings: Settings) -> dict[str, list[str]]:
    """Every table that the configuration speaks of, by region id; regions that nothing uses are left out."""
    names: dict[str, dict[str, None]] = {}
    for rule in settings.rules:
        for region, table in (*rule.sources, *rule.replica_tables):
            names.setdefault(region, {})[table] = None
    for own in own_tables(settings):
        names.setdefault(own.region, {})[own.name] = None
    return {region: list(tables) for region, tables in names.items()}


def _kinesis_by_region(settings: Settings) -> dict[str, dict[str, KinesisSource]]:
    """Kinesis streams that are read, by region id and table."""
    found: dict[str, dict[str, KinesisSource]] = {}
    for rule in settings.rules:
        for region, table in rule.sources:
            source = kinesis_source(rule, region, settings.group)
            if source is not None:
                found.setdefault(region, {})[table] = source
    return found


async def look(settings: Settings, places: Mapping[str, Place], *, thorough: bool) -> dict[str, RegionWorld]:
    """Every region that is used, all at once; `thorough` also asks for identities and TTL."""
    wanted, kinesis = tables_by_region(settings), _kinesis_by_region(settings)
    found = await asyncio.gather(
        *(
            _look(places[region], tables, kinesis.get(region, {}), thorough=thorough)
            for region, tables in wanted.items()
        )
    )
    return {world.region: world for world in found}


async def _look(place: Place, names: list[str], kinesis: Mapping[str, KinesisSource], *, thorough: bool) -> RegionWorld:
    region = place.region_id
    refused, skew = await _greet(place, names[0])
    if isinstance(refused, Unreachable | WorldMismatch):
        return RegionWorld(region, down=refused)
    account, identity_error = await account_of(place) if thorough else (None, None)
    if isinstance(refused, AccessRefused) and isinstance(identity_error, AccessRefused):
        return RegionWorld(region, down=refused, identity_error=identity_error, skew_seconds=skew)
    slots = asyncio.Semaphore(_AT_ONCE)
    tables = await _each(names, slots, lambda name: describe(place, name))
    present = [name for name, table in tables.items() if isinstance(table, Table)] if thorough else []
    expiries = await _each(present, slots, lambda name: expiry_attribute(place, name))
    streams = await _each(kinesis, slots, lambda name: _look_at_kinesis(place, TableName(name), kinesis[name]))
    owners = (table.account for table in tables.values() if isinstance(table, Table))
    return RegionWorld(
        region=region,
        account=account or next(owners, None) or None,
        identity_error=identity_error,
        skew_seconds=skew,
        tables=tables,
        expiries=expiries,
        kinesis=streams,
    )


async def _look_at_kinesis(place: Place, table: TableName, source: KinesisSource) -> KinesisWorld:
    found, sent_to, name = (
        await summary(place, source.stream),
        await destinations(place, table),
        source.consumer_of(table),
    )
    return KinesisWorld(source, found, sent_to, await described(place, found.arn, name) if name else None)


async def _each(
    names: Iterable[str], slots: asyncio.Semaphore, ask: Callable[[str], Awaitable[Found]]
) -> dict[str, Found | ReplicatorError]:
    """An answer, or the error in its place, for every name; a bounded number at once."""

    async def one(name: str) -> Found | ReplicatorError:
        async with slots:
            try:
                return await ask(name)
            except ReplicatorError as error:
                return error

    ordered = list(names)
    return dict(zip(ordered, await asyncio.gather(*map(one, ordered)), strict=True))


async def _greet(place: Place, table: str) -> tuple[ReplicatorError | None, float | None]:
    """Why the region does not let us in, and how far our clock is ahead of its clock (any answer shows it)."""
    what = f"DescribeTable on {table} in {place.region_id}"
    refused: ReplicatorError | None = None
    before = time.time()
    try:
        answer: Any = await place.dynamodb.describe_table(TableName=table)
    except ClientError as error:
        answer = error.response
        refused = translate(error, what)
        if isinstance(refused, Unreachable):
            refused = _whose(error, place.region_id, refused)
    except ResponseParserError:
        return not_dynamodb(place.region_id), None
    except CLIENT_ERRORS as error:
        return translate(error, what), None
    after = time.time()
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return refused, None if date is None else _skew(date, before, after)


def _whose(error: ClientError, region: str, refused: Unreachable) -> ReplicatorError | None:
    """What an unknown refusal means: DynamoDB troubles, something that is not DynamoDB, or only this table (None)."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERRORS)
    if status >= _SERVER_ERRORS:
        return refused
    return not_dynamodb(region) if error_code(error) in {"", str(status)} else None


def _skew(date: str, before: float, after: float) -> float | None:
    """Seconds that our clock is ahead; the header has whole seconds, so half a second is the best guess."""
    try:
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
    except ValueError:
        return None
    return (before + after) / 2 - theirs


async def account_of(place: Place) -> tuple[str | None, ReplicatorError | None]:
    """The account of a region's identity, or why it is not known."""
    what = f"GetCallerIdentity for region {place.region_id}"
    try:
        async with place.sts() as sts:
            answer = await sts.get_caller_identity()
    except (ResponseParserError, KeyError):  # an answer in another format
        return None, Unreachable(f"{what} was answered by something that is not STS.")
    except CLIENT_ERRORS as error:
        return None, translate(error, what)
    return str(answer["Account"]), None
