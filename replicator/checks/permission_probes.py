"""Permissions, proven: reads of an item at most, and writes whose condition can never hold.

Invariant: nothing is ever written. The condition asks that one attribute both exists and does not, so no item fulfils
it; a service evaluates it only for a caller that may write.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from msgspec import Struct

from replicator.adapters.aws.errors import error_code, member
from replicator.checks.comparison import World, table_at
from replicator.checks.described_tables import Keys, Table, ask, own_tables
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.checks.world import KinesisWorld
from replicator.domain.errors import AccessRefused, KeyRefused, ReplicatorError, WorldMismatch
from replicator.settings import ActiveRule, OrderedRule

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import RuleSettings, Settings

_AT_ONCE = 8
_NEVER = "attribute_exists(#never) AND attribute_not_exists(#never)"
_CONDITION_FAILED = "ConditionalCheckFailed"
_NO_SHARD = "shardId-999999999999"
_KMS_KEY, _KMS_ACTION = re.compile(r"arn:[\w-]+:kms:[\w-]+:\d{12}:key/[\w-]+"), re.compile(r"\bkms:[A-Z]\w+")
_PERMISSIONS, _READABLE, _JOBS = "permissions", "stream may be read", "jobs may read it"


async def prove(settings: Settings, places: Mapping[str, Place], world: World) -> list[Fact]:
    """Every permission that the daemon needs, on the tables that are there."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def bounded(work: Awaitable[Fact]) -> Fact:
        async with slots:
            return await work

    return list(await asyncio.gather(*(bounded(work) for work in _works(settings, places, world))))


def _works(settings: Settings, places: Mapping[str, Place], world: World) -> Iterator[Awaitable[Fact]]:
    for region, name in {place: None for rule in settings.rules for place in rule.sources}:
        table, kinesis = table_at(world, region, name), world[region].kinesis.get(name)
        if isinstance(kinesis, KinesisWorld):
            yield _kinesis(places[region], name, kinesis)
        elif table is not None and table.stream_arn is not None and kinesis is None:
            yield _stream(places[region], table, table.stream_arn)
    writers = {place: rule for rule in settings.rules for place in rule.replica_tables}
    for (region, name), writer in writers.items():
        table = table_at(world, region, name)
        side = table_at(world, region, settings.side_table_name)
        if table is not None:
            calls = _written(places[region], table, writer, side)
            yield _verdict(places[region], f"table {name} in {region}", table, calls)
    yield from _canaries(settings, places, world, writers.keys())
    for (region, name), by_itself in _compared(settings).items():
        table = table_at(world, region, name)
        if table is not None:
            calls = _read_by_jobs(places[region], table, is_written=(region, name) in writers)
            yield _readable(places[region], table, calls, by_itself=by_itself)
    for own in own_tables(settings):
        table = table_at(world, own.region, own.name)
        if table is not None and table.keys == own.keys:
            calls = _own(places[own.region], table, own.purpose)
            yield _verdict(places[own.region], own.subject, table, calls)


def _canaries(
    settings: Settings, places: Mapping[str, Place], world: World, written: Collection[tuple[str, str]]
) -> Iterator[Awaitable[Fact]]:
    """Tables in which canaries are written and nothing else."""
    for region, name in {place: None for rule in settings.rules if rule.canary for place in rule.sources}:
        table = table_at(world, region, name)
        if table is not None and (region, name) not in written:
            calls = [_Call("PutItem", places[region].dynamodb.put_item, {"Item": _key(table.keys), **_never(table)})]
            yield _verdict(places[region], f"table {name} in {region}", table, calls)


def _compared(settings: Settings) -> dict[tuple[str, str], bool]:
    """Tables that jobs go through, and whether a rule starts such jobs by itself: behind a gap, or as sweeps."""
    found: dict[tuple[str, str], bool] = {}
    for rule in settings.rules:
        by_itself = rule.on_gap == "resync" or rule.verify is not None
        for place in (*rule.sources, *rule.replica_tables) if rule.replica_tables else ():
            found[place] = found.get(place, False) or by_itself
    return found


# -- what is asked of each kind of table ---------------------------------------------------------------------------


class _Call(Struct, frozen=True):
    """One request that changes nothing."""

    action: str
    operation: Callable[..., Awaitable[Any]]
    parameters: dict[str, Any]
    writes: bool = True


def _written(place: Place, table: Table, rule: RuleSettings, side: Table | None) -> list[_Call]:
    """What a rule asks of a table that it writes."""
    client, never, key = place.dynamodb, _never(table), _key(table.keys)
    calls = [
        _Call("GetItem", client.get_item, {"TableName": table.name, "Key": key}, writes=False),
        _Call("PutItem", client.put_item, {"Item": key, **never}),
        _Call("DeleteItem", client.delete_item, {"Key": key, **never}),
    ]
    if isinstance(rule, ActiveRule):
        calls.append(_Call("UpdateItem", client.update_item, {"Key": key, **never}))
    if isinstance(rule, OrderedRule) and side is not None:  # inserts of transactions, and every repair
        items = [
            {"ConditionCheck": {"Key": _key(side.keys), **_never(side)}},
            {"Put": {"Item": key, **never}},
        ]
        calls.append(_Call("ConditionCheckItem", client.transact_write_items, {"TransactItems": items}))
    return calls


def _read_by_jobs(place: Place, table: Table, *, is_written: bool) -> list[_Call]:
    """What bootstrap, verify and repair read; of a table that is written, single items are asked for already."""
    client, key = place.dynamodb, _key(table.keys)
    keys = {table.name: {"Keys": [key], "ConsistentRead": True}}
    single = {"TableName": table.name, "Key": key}
    return [
        _Call("Scan", client.scan, {"TableName": table.name, "Limit": 1}, writes=False),
        _Call("BatchGetItem", client.batch_get_item, {"RequestItems": keys}, writes=False),
        *(() if is_written else (_Call("GetItem", client.get_item, single, writes=False),)),
    ]


def _own(place: Place, table: Table, purpose: str) -> list[_Call]:
    client, never, key = place.dynamodb, _never(table), _key(table.keys)
    if purpose == "conflict table":
        return [_Call("PutItem", client.put_item, {"Item": key, **never})]
    calls = [
        _Call("GetItem", client.get_item, {"TableName": table.name, "Key": key}, writes=False),
        _Call("UpdateItem", client.update_item, {"Key": key, **never}),
    ]
    if purpose == "owed table":
        calls.append(_Call("PutItem", client.put_item, {"Item": key, **never}))
    if purpose in {"coordination table", "owed table"}:
        name = table.keys[0][0]
        query = {
            "TableName": table.name,
            "KeyConditionExpression": "#pk = :pk",
            "ExpressionAttributeNames": {"#pk": name},
            "ExpressionAttributeValues": {":pk": key[name]},
        }
        calls.append(_Call("DeleteItem", client.delete_item, {"Key": key, **never}))
        calls.append(_Call("Query", client.query, query, writes=False))
    return calls


def _never(table: Table) -> dict[str, Any]:
    return {
        "TableName": table.name,
        "ConditionExpression": _NEVER,
        "ExpressionAttributeNames": {"#never": table.keys[0][0]},
    }


def _key(keys: Keys) -> dict[str, Any]:
    """A key that no item has, of the right types."""
    token = f"replicator-probe-{secrets.token_hex(8)}"
    values = {"S": token, "N": str(secrets.randbelow(10**15)), "B": token.encode()}
    return {name: {kind: values[kind]} for name, kind in keys}


# -- asking --------------------------------------------------------------------------------------------------------


async def _verdict(place: Place, subject: str, table: Table, calls: list[_Call]) -> Fact:
    """One fact for all permissions on a table."""
    try:
        denied = await _denied(table, place, calls)
    except ReplicatorError as error:
        return failed(subject, _PERMISSIONS, error)
    if denied is not None:
        found, remedy = denied
        return wrong(subject, _PERMISSIONS, found, f"{remedy}.")
    return ok(subject, _PERMISSIONS, f"{', '.join(call.action for call in calls)}; nothing was written.")


async def _readable(place: Place, table: Table, calls: list[_Call], *, by_itself: bool) -> Fact:
    """Whether jobs may read a table; that no rule starts one by itself makes it a warning."""
    subject = f"table {table.name} in {place.region_id}"
    try:
        denied = await _denied(table, place, calls)
    except ReplicatorError as error:
        return failed(subject, _JOBS, error)
    if denied is None:
        return ok(subject, _JOBS, f"{', '.join(call.action for call in calls)}.")
    found, remedy = denied
    remedy = f"{remedy}: bootstrap, verify and repair need it, and so does what follows a gap with on_gap: resync."
    return (wrong if by_itself else warning)(subject, _JOBS, found, remedy)


async def _denied(table: Table, place: Place, calls: list[_Call]) -> tuple[str, str] | None:
    """What is refused, and what to grant, with no full stop; None when nothing is."""
    where = f"{table.name} in {place.region_id}"
    denied: list[str] = []
    reason = ""
    for call in calls:
        try:
            await _attempt(call, f"{call.action} on {where}")
        except KeyRefused as error:
            return _of_the_key(error, where, table.key_arn, place)
        except AccessRefused as error:
            denied.append(call.action)
            reason = reason or error.message.partition(" failed: ")[2]
    if not denied:
        return None
    actions = ", ".join(f"dynamodb:{action}" for action in denied)
    return (
        f"{', '.join(denied)} on {where} is denied ({reason.rstrip('.')}).",
        f"Grant {actions} on the table to the identity of regions.{place.region_id}",
    )


def _of_the_key(error: KeyRefused, where: str, known: str | None, place: Place) -> tuple[str, str]:
    """Which key may not be used, and what to grant. `known`: the key that encrypts it, as far as that is described."""
    named, asked = _KMS_KEY.search(error.message), _KMS_ACTION.search(error.message)
    key = named[0] if named else known
    action = asked[0] if asked else "kms:Decrypt"
    subject = f"The key {key} of KMS" if key else "The key of KMS"
    found = f"{subject}, which encrypts {where}, may not be used: {error.message.rstrip('.')}."
    remedy = f"Grant {action} on {key or 'it'} to the identity of regions.{place.region_id}, in its policy"
    where_else = "where the key is of another account or does not leave it to policies, in the key's own"
    return found, f"{remedy} (`replicator iam` prints it) and, {where_else}"


async def _attempt(call: _Call, what: str) -> None:
    """Make a call; a write must be refused by its condition."""

    async def once(**parameters: object) -> bool:
        try:
            await call.operation(**parameters)
        except ClientError as error:
            if _by_condition(error):
                return True
            raise
        return not call.writes

    if not await ask(what, once, **call.parameters):
        raise WorldMismatch(
            f"{what} went through although its condition can never hold.",
            advice="Use an endpoint that evaluates conditions, as DynamoDB does; every write here depends on them.",
        )


def _by_condition(error: ClientError) -> bool:
    if error_code(error) == "TransactionCanceledException":
        reasons: Any = error.response.get("CancellationReasons", [])
        codes = {reason.get("Code") for reason in reasons}
        return _CONDITION_FAILED in codes and codes <= {_CONDITION_FAILED, "None", None}
    return error_code(error) == f"{_CONDITION_FAILED}Exception"


async def _stream(place: Place, table: Table, arn: str) -> Fact:
    """Listing, an iterator and one read at the end of a shard, where hardly a record is met."""
    subject = f"table {table.name} in {place.region_id}"
    where = f"the stream of {table.name} in {place.region_id}"
    try:
        shards = await _read_stream(place, table.name, arn, where)
    except KeyRefused as error:
        found, remedy = _of_the_key(error, where, table.key_arn, place)
        return wrong(subject, _READABLE, found, f"{remedy}.")
    except AccessRefused as error:
        remedy = "Grant dynamodb:DescribeStream, dynamodb:GetShardIterator and dynamodb:GetRecords on the stream"
        remedy = f"{remedy}, and dynamodb:ListStreams, to the identity of regions.{place.region_id}."
        return wrong(subject, _READABLE, error.message, remedy)
    except ReplicatorError as error:
        return failed(subject, _READABLE, error)
    return ok(subject, _READABLE, f"{shards} {'shard' if shards == 1 else 'shards'} listed.")


async def _kinesis(place: Place, table: str, kinesis: KinesisWorld) -> Fact:
    """The same of a Kinesis stream that is read in place of a table's own."""
    subject, name = f"table {table} in {place.region_id}", kinesis.source.name
    where = f"Kinesis stream {name} in {place.region_id}"
    try:
        client, _ = await place.kinesis.opened()
        listed = await ask(f"ListShards on {where}", client.list_shards, StreamName=name)
        shards = member(listed, "Shards", f"ListShards on {where}")
        if shards:
            answer = await ask(
                f"GetShardIterator on {where}",
                client.get_shard_iterator,
                StreamName=name,
                ShardId=shards[-1]["ShardId"],
                ShardIteratorType="LATEST",
            )
            await ask(f"GetRecords on {where}", client.get_records, ShardIterator=answer.get("ShardIterator"), Limit=1)
        if kinesis.consumer is not None:
            await ask(f"SubscribeToShard on {where}", _subscribed, place=place, consumer=kinesis.consumer.arn)
    except KeyRefused as error:
        found, remedy = _of_the_key(error, where, kinesis.stream.key or None, place)
        return wrong(subject, _READABLE, found, f"{remedy}.")
    except AccessRefused as error:
        remedy = "Grant kinesis:DescribeStreamSummary, kinesis:ListShards, kinesis:GetShardIterator and"
        remedy = f"{remedy} kinesis:GetRecords on the stream"
        if kinesis.consumer is not None:
            remedy = f"{remedy}, and kinesis:DescribeStreamConsumer and kinesis:SubscribeToShard on its consumer,"
        remedy = f"{remedy} to the identity of regions.{place.region_id}."
        return wrong(subject, _READABLE, error.message, remedy)
    except ReplicatorError as error:
        return failed(subject, _READABLE, error)
    return ok(subject, _READABLE, f"{len(shards)} {'shard' if len(shards) == 1 else 'shards'} listed.")


async def _subscribed(*, place: Place, consumer: str) -> dict[str, Any]:
    """Ask for a shard that no stream has: that shows whether it may be asked, and takes no shard from its reader."""
    try:
        await place.kinesis.subscribe(ConsumerARN=consumer, ShardId=_NO_SHARD, StartingPosition={"Type": "LATEST"})
    except ClientError as error:
        if error_code(error) not in {"ResourceNotFoundException", "InvalidArgumentException"}:
            raise
    return {}


async def _read_stream(place: Place, table: str, arn: str, where: str) -> int:
    client = place.streams
    await ask(f"ListStreams on {table} in {place.region_id}", client.list_streams, TableName=table, Limit=1)
    what = f"DescribeStream on {where}"
    described = member(await ask(what, client.describe_stream, StreamArn=arn), "StreamDescription", what)
    shards = described.get("Shards", [])
    if shards:
        answer = await ask(
            f"GetShardIterator on {where}",
            client.get_shard_iterator,
            StreamArn=arn,
            ShardId=shards[-1]["ShardId"],
            ShardIteratorType="LATEST",
        )
        await ask(f"GetRecords on {where}", client.get_records, ShardIterator=answer.get("ShardIterator"), Limit=1)
    return len(shards)
