"""What `init` does: create the tables and consumers that are missing, turn TTL on, enable streams when asked.

Invariant: idempotent, and nothing that exists is changed but TTL of our own tables and, when asked, a missing stream.
Of users' tables only replicas are created, and when asked.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from replicator.adapters.kinesis.consumers import consumer_problem, described, register
from replicator.adapters.kinesis.destinations import destinations, enable, problem
from replicator.adapters.kinesis.streams import summary
from replicator.checks.described_tables import (
    Index,
    OwnTable,
    as_mapped,
    ask,
    describe,
    expiry_attribute,
    own_tables,
    schema_difference,
)
from replicator.domain.errors import ReplicatorError, TableMissing, Unreachable, WorldMismatch
from replicator.domain.identifiers import TableName
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import kinesis_source
from replicator.settings.cross_checks import key_problems, written_under

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from replicator.adapters.aws.clients import Place
    from replicator.domain.key_mapping import KeyMapping
    from replicator.domain.rules import KinesisSource
    from replicator.settings import Settings

NEEDED_VIEW = "NEW_AND_OLD_IMAGES"
ACTIVE_SECONDS = 120.0
_POLL_SECONDS = 0.25
_ENDED = frozenset({"DISABLED", "ENABLE_FAILED"})


class Step(Struct, frozen=True):
    """One thing that was done, would be done, or was there already."""

    subject: str
    action: str
    error: ReplicatorError | None = None


async def initialise(
    settings: Settings, places: Mapping[str, Place], *, dry_run: bool, enable_streams: bool, replicas: bool = False
) -> list[Step]:
    """Make what the rules need; a failed step does not keep the others from being tried."""
    copies = {
        place: (rule, keys)
        for rule in settings.rules
        if replicas and isinstance(rule, OrderedRule) and rule.sources
        for place, keys in written_under(rule)
    }
    own = [_step(table.subject, _own(places[table.region], table, dry_run=dry_run)) for table in own_tables(settings)]
    own += [
        _step(f"table {place[1]} in {place[0]}", _replica(places, rule, place, keys, dry_run=dry_run))
        for place, (rule, keys) in copies.items()
    ]
    readers = [(rule, place) for rule in settings.rules for place in rule.sources]
    sources = {place: kinesis_source(rule, place[0], settings.group) for rule, place in readers}
    streams = [
        _step(
            f"consumer of {table} in {region}",
            _consumer(places[region], kinesis, kinesis.consumer_of(table), dry_run=dry_run),
        )
        for (region, table), kinesis in sources.items()
        if kinesis is not None and kinesis.group
    ]
    if enable_streams:
        streams += [
            _step(
                f"stream of {table} in {region}",
                _stream(places[region], table, dry_run=dry_run)
                if kinesis is None
                else _destination(places[region], TableName(table), kinesis, dry_run=dry_run),
            )
            for (region, table), kinesis in sources.items()
        ]
    return [step for steps in await asyncio.gather(*own, *streams) for step in steps]


async def _step(subject: str, work: Awaitable[list[str]]) -> list[Step]:
    try:
        return [Step(subject, action) for action in await work]
    except ReplicatorError as error:
        return [Step(subject, "failed", error)]


# -- our own tables ------------------------------------------------------------------------------------------------


async def _own(place: Place, wanted: OwnTable, *, dry_run: bool) -> list[str]:
    try:
        table = await describe(place, wanted.name)
    except TableMissing:
        if dry_run:
            return ["would create"]
        await _create(place, wanted)
        await _expire(place, wanted)
        return ["created"]
    difference = schema_difference(table, wanted)
    if difference is not None:
        raise WorldMismatch(
            f"The table {wanted.name} in {wanted.region} exists, but {difference}.",
            advice=f"Name another {wanted.purpose} in the configuration; replicator never changes or deletes a table.",
        )
    if not dry_run:
        await _until_active(place, wanted)
    if wanted.expiry is None or await expiry_attribute(place, wanted.name) == wanted.expiry:
        return ["exists"]
    if dry_run:
        return ["exists", f"would turn TTL on {wanted.expiry} on"]
    await _expire(place, wanted)
    return ["exists", f"turned TTL on {wanted.expiry} on"]


async def _create(place: Place, wanted: OwnTable) -> None:
    attributes = dict(wanted.keys) | {name: kind for index in wanted.indexes for name, kind in index.keys}
    parameters: dict[str, Any] = {
        "TableName": wanted.name,
        "KeySchema": _schema(wanted.keys),
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in attributes.items()],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if wanted.indexes:
        parameters["GlobalSecondaryIndexes"] = [_index(index) for index in wanted.indexes]
    what = f"CreateTable {wanted.name} in {wanted.region}"
    try:
        await ask(what, place.dynamodb.create_table, **parameters)
    except Unreachable:
        # Another caller was faster, or an answer was lost: then the table is there, and is looked at again.
        table = await describe(place, wanted.name)
        if schema_difference(table, wanted) is not None:
            raise
    await _until_active(place, wanted)


async def _replica(
    places: Mapping[str, Place],
    rule: OrderedRule,
    place: tuple[str, str],
    mapping: KeyMapping | None,
    *,
    dry_run: bool,
) -> list[str]:
    """A replica's table, with the key that the source's items have there."""
    source = await describe(places[rule.source], rule.table_name)
    for said in () if mapping is None else key_problems(mapping, dict(source.keys)):
        raise WorldMismatch(f"transform.key of rule {rule.name} {said} of {rule.table_name} in {rule.source}.")
    region, name = place
    wanted = OwnTable(region, name, "replica table", as_mapped(source, mapping).keys)
    return await _own(places[region], wanted, dry_run=dry_run)


def _index(index: Index) -> dict[str, Any]:
    return {"IndexName": index.name, "KeySchema": _schema(index.keys), "Projection": {"ProjectionType": "ALL"}}


def _schema(keys: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    roles = ("HASH", "RANGE")
    return [{"AttributeName": name, "KeyType": role} for (name, _), role in zip(keys, roles, strict=False)]


async def _until_active(place: Place, wanted: OwnTable) -> None:
    deadline = time.monotonic() + ACTIVE_SECONDS
    while True:
        try:
            if (await describe(place, wanted.name)).active:
                return
        except TableMissing:
            pass  # a table that was created a moment ago may not be listed yet
        if time.monotonic() > deadline:
            raise Unreachable(
                f"Table {wanted.name} in {wanted.region} is not active after {ACTIVE_SECONDS:.0f} s.",
                advice="Check it in the AWS console, then run `replicator init` again; it continues where it stopped.",
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _expire(place: Place, wanted: OwnTable) -> None:
    if wanted.expiry is None:
        return
    specification = {"Enabled": True, "AttributeName": wanted.expiry}
    what = f"UpdateTimeToLive on {wanted.name} in {wanted.region}"
    await ask(what, place.dynamodb.update_time_to_live, TableName=wanted.name, TimeToLiveSpecification=specification)


# -- streams of source tables --------------------------------------------------------------------------------------


async def _stream(place: Place, name: str, *, dry_run: bool) -> list[str]:
    table = await describe(place, name)
    if table.stream_view == NEEDED_VIEW:
        return ["exists"]
    if table.stream_view is not None:
        raise WorldMismatch(
            f"The stream of table {name} in {place.region_id} has view type {table.stream_view}, not {NEEDED_VIEW}.",
            advice="A view type cannot be changed: when no consumer reads the stream, disable it and retry.",
        )
    if dry_run:
        return [f"would enable with {NEEDED_VIEW}"]
    await ask(
        f"UpdateTable on {name} in {place.region_id}",
        place.dynamodb.update_table,
        TableName=name,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": NEEDED_VIEW},
    )
    return [f"enabled with {NEEDED_VIEW}"]


async def _consumer(place: Place, source: KinesisSource, name: str, *, dry_run: bool) -> list[str]:
    """Register the consumer to which a stream's shards are pushed, and wait for it."""
    stream = await summary(place, source.stream)
    found, action = await described(place, stream.arn, name), "exists"
    if found is None and dry_run:
        return [f"would register {name}"]
    if found is None:
        await register(place, stream.arn, name)
        found, action = await described(place, stream.arn, name), "registered"
    deadline = time.monotonic() + ACTIVE_SECONDS
    while (trouble := consumer_problem(found, name, source.name, place.region_id)) is not None:
        if dry_run or time.monotonic() > deadline:
            raise trouble
        await asyncio.sleep(_POLL_SECONDS)
        found = await described(place, stream.arn, name)
    return [f"{action}, {name}"]


async def _destination(place: Place, table: TableName, source: KinesisSource, *, dry_run: bool) -> list[str]:
    """Let a table's changes go to a Kinesis stream that is there; none is made, since its size is a choice."""
    stream = await summary(place, source.stream)
    found = await destinations(place, table)
    mine = [each for each in found if each.stream_arn == stream.arn and each.status not in _ENDED]
    if mine:
        wrong = problem(mine, table, place.region_id, source)
        if wrong is not None:
            raise wrong
        return [f"exists, in Kinesis stream {source.name}"]
    if dry_run:
        return [f"would enable in Kinesis stream {source.name}, in microseconds"]
    await enable(place, table, stream.arn)
    return [f"enabled in Kinesis stream {source.name}, in microseconds"]
