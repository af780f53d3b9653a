"""Leases, progress, heartbeats and gaps in one DynamoDB table.

Rows (hash `pk`, range `sk`), each with a schema version `sv`:

    <group>|<region>|<stream ARN>   shard|<shard id>        owner, epoch, and `at:<rule>/<region>` per target
    <group>|<region>|<stream ARN>   target|<rule>/<region>  started_at
    <group>|workers                 <worker id>             beat
    <group>|streams                 <region>|<table>|<ms>   arn, drained
    <group>|gaps                    <target>|<shard>|<pos>  after, found_at, why, stream

Invariant: a checkpoint is written only by the owner that the row names, under the epoch that it claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from replicator.adapters.aws import CLIENT_ERRORS, error_code, member, translate
from replicator.domain.assignment import LeaseRow
from replicator.domain.errors import LeaseLost, WorldMismatch
from replicator.domain.progress import Position, parse_position
from replicator.domain.records import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.rules import Target
from replicator.ports import Gap, Lease, StreamRef, TargetStart

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    Row = Mapping[str, AttributeValueTypeDef]

SCHEMA = 1
"""Version of the layout of these rows."""

CHECKPOINT = "at:"
"""Prefix of the attributes that hold a target's position."""

_ADVICE_SHARD = "Delete the row: its shard is then read again from the trim horizon, which is safe."
_ADVICE_TARGET = "Delete the row: the target's start is then noted anew; its stored positions stay."
_ADVICE_BY_PARTITION = {
    "workers": "Delete the row: a worker that lives writes it again.",
    "streams": "Delete the row: the table's present stream is noted again; what is left of an older one is not read.",
}

_STREAM_PARTS = 3
_CONDITION_FAILED = "ConditionalCheckFailedException"


@dataclass(frozen=True, slots=True)
class Names:
    """Keys of one group's rows."""

    group: str

    @property
    def workers(self) -> str:
        """Partition of the heartbeats."""
        return f"{self.group}|workers"

    @property
    def streams(self) -> str:
        """Partition of the streams that were read."""
        return f"{self.group}|streams"

    @property
    def gaps(self) -> str:
        """Partition of the loss intervals."""
        return f"{self.group}|gaps"

    def stream(self, stream: StreamRef) -> str:
        """Partition of one stream; the region id is part of it, because ARNs alone may collide."""
        return f"{self.group}|{stream.region}|{stream.arn}"


class CorruptRow(WorldMismatch):
    """A row of ours that cannot be read."""


class DynamoCoordination:
    """Leases, progress, heartbeats, starts and gaps of one group."""

    def __init__(self, client: DynamoDBClient, *, table: str, group: str, region_id: str) -> None:
        self._client = client
        self._table = table
        self._names = Names(group)
        self._where = f"coordination table {table} in {region_id}"
        self._unreadable: dict[StreamRef, CorruptRow] = {}

    # -- leases and progress ---------------------------------------------------------------------------------------

    async def rows(self, stream: StreamRef) -> dict[ShardId, LeaseRow]:
        """Every shard row of a stream, read consistently; one that is corrupt does not hide the others.

        `unreadable` tells of it, and so does this when there is no other row. Such a shard cannot be claimed.
        """
        found = await self._query(self._names.stream(stream), "shard|")
        self._unreadable.pop(stream, None)
        rows: dict[ShardId, LeaseRow] = {}
        for entry in found:
            try:
                row = self._lease_row(entry)
            except CorruptRow as error:
                self._unreadable[stream] = error
            else:
                rows[row.shard_id] = row
        if stream in self._unreadable and not rows:
            raise self._unreadable[stream]
        return rows

    def unreadable(self, stream: StreamRef) -> WorldMismatch | None:
        """What was wrong with a shard row that the last `rows` left out."""
        return self._unreadable.get(stream)

    def problem(self, row: Row) -> WorldMismatch | None:
        """What is wrong with a row of a stream's partition, for `check`."""
        try:
            if self._text(row, "sk").startswith("shard|"):
                self._lease_row(row)
            elif "started_at" in row:
                self._target_start(row)
        except WorldMismatch as error:
            return error
        return None

    async def claim(
        self, stream: StreamRef, shard_id: ShardId, seen: LeaseRow | None, owner: WorkerId
    ) -> LeaseRow | None:
        """Take a shard if its row still is as seen, and raise its epoch; None when somebody was faster."""
        values: dict[str, AttributeValueTypeDef] = {
            ":me": {"S": owner},
            ":next": {"N": str(1 if seen is None else seen.epoch + 1)},
            ":sv": {"N": str(SCHEMA)},
        }
        if seen is None:
            condition = "attribute_not_exists(#epoch)"
        else:
            values[":epoch"] = {"N": str(seen.epoch)}
            condition = "#epoch = :epoch AND attribute_not_exists(#owner)"
            if seen.owner is not None:
                values[":owner"] = {"S": seen.owner}
                condition = "#epoch = :epoch AND #owner = :owner"
        answer = await self._update(
            self._shard_key(stream, shard_id),
            "SET #owner = :me, #epoch = :next, #sv = :sv",
            condition,
            {"#owner": "owner", "#epoch": "epoch", "#sv": "sv"},
            values,
        )
        return None if answer is None else self._lease_row(answer)

    async def save(self, lease: Lease, checkpoints: Mapping[str, Position]) -> None:
        """Store positions by target id; `LeaseLost` unless owner and epoch still are ours."""
        names = {"#owner": "owner", "#epoch": "epoch"}
        values = self._ownership(lease)
        assignments = []
        for index, (target_id, position) in enumerate(checkpoints.items()):
            names[f"#c{index}"] = CHECKPOINT + target_id
            values[f":c{index}"] = {"S": position.text}
            assignments.append(f"#c{index} = :c{index}")
        answer = await self._update(
            self._shard_key(lease.stream, lease.shard_id),
            "SET " + ", ".join(assignments),
            "#owner = :me AND #epoch = :epoch",
            names,
            values,
        )
        if answer is None:
            raise LeaseLost(f"The lease on shard {lease.shard_id} of {lease.stream.table} went to another worker.")

    async def release(self, lease: Lease) -> None:
        """Give the shard back in its row, so that the next worker need not wait; quiet when it is not ours."""
        await self._update(
            self._shard_key(lease.stream, lease.shard_id),
            "REMOVE #owner",
            "#owner = :me AND #epoch = :epoch",
            {"#owner": "owner", "#epoch": "epoch"},
            self._ownership(lease),
        )

    async def forget(self, stream: StreamRef, shard_id: ShardId) -> None:
        """Delete the row of a shard."""
        await self._delete(self._shard_key(stream, shard_id))

    # -- membership ------------------------------------------------------------------------------------------------

    async def beat(self, worker: WorkerId, counter: int) -> None:
        """Show a sign of life."""
        await self._update(
            self._key(self._names.workers, worker),
            "SET #beat = :beat, #sv = :sv",
            None,
            {"#beat": "beat", "#sv": "sv"},
            {":beat": {"N": str(counter)}, ":sv": {"N": str(SCHEMA)}},
        )

    async def members(self) -> dict[WorkerId, int]:
        """Every worker's last counter; a row without one shows no life, as an absent row."""
        counters: dict[WorkerId, int] = {}
        for row in await self._query(self._names.workers, ""):
            with suppress(CorruptRow):
                counters[WorkerId(self._text(row, "sk"))] = self._number(row, "beat")
        return counters

    async def leave(self, worker: WorkerId) -> None:
        """Remove a worker's row."""
        await self._delete(self._key(self._names.workers, worker))

    # -- streams, starts, gaps -------------------------------------------------------------------------------------

    async def starts(self, stream: StreamRef) -> dict[str, TargetStart]:
        """Targets that ever started on this stream, by target id."""
        found = await self._query(self._names.stream(stream), "target|")
        starts = (self._target_start(row) for row in found if "started_at" in row)
        return {start.target_id: start for start in starts}

    async def start(self, stream: StreamRef, target: Target, *, started_at: float | None = None) -> TargetStart:
        """Store the start of a target (None: the server's time now) unless one is stored; returns what is stored."""
        key = self._key(self._names.stream(stream), f"target|{target.target_id}")
        try:
            answer = await self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        except CLIENT_ERRORS as error:
            raise self._translated("GetItem", error) from error
        if "started_at" in answer.get("Item", {}):
            return self._target_start(answer["Item"])
        if started_at is None:
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            if date is None:
                raise WorldMismatch(f"The {self._where} answers without a Date, so a start cannot be noted.")
            started_at = parsedate_to_datetime(date).timestamp()
        stored = await self._update(
            key,
            "SET #at = if_not_exists(#at, :at), #sv = :sv",
            None,
            {"#at": "started_at", "#sv": "sv"},
            {":at": {"N": str(int(started_at))}, ":sv": {"N": str(SCHEMA)}},
        )
        assert stored is not None, "an update without a condition is never refused"
        return self._target_start(stored)

    async def note_shape(self, stream: StreamRef, target: Target, shape: str) -> bool:
        """Store the digest of a target's filter and templates; returns whether another one was stored before."""
        row = await self._update(
            self._key(self._names.stream(stream), f"target|{target.target_id}"),
            "SET #shape = :shape, #sv = :sv",
            None,
            {"#shape": "shape", "#sv": "sv"},
            {":shape": {"S": shape}, ":sv": {"N": str(SCHEMA)}},
            returning="ALL_OLD",
        )
        return row is not None and "shape" in row and self._text(row, "shape") != shape

    async def record_gap(self, gap: Gap) -> None:
        """Store a loss interval; the first finding of the same gap stays."""
        attributes = {
            "stream": gap.stream.arn,
            "region": gap.stream.region,
            "table": gap.stream.table,
            "shard": gap.shard_id,
            "target": gap.target_id,
            "after": gap.after.text,
            "why": gap.why,
        }
        names = {f"#a{index}": name for index, name in enumerate(attributes)}
        values: dict[str, AttributeValueTypeDef] = {
            f":a{index}": {"S": value} for index, value in enumerate(attributes.values())
        }
        assignments = [f"#a{index} = :a{index}" for index in range(len(attributes))]
        await self._update(
            self._key(self._names.gaps, f"{gap.target_id}|{gap.stream.arn}|{gap.shard_id}|{gap.after.text}"),
            f"SET {', '.join(assignments)}, #at = :at, #sv = :sv",
            "attribute_not_exists(#at)",
            {**names, "#at": "found_at", "#sv": "sv"},
            {**values, ":at": {"N": str(int(gap.found_at))}, ":sv": {"N": str(SCHEMA)}},
        )

    async def streams(self, region: RegionId, table: TableName) -> list[StreamRef]:
        """Streams of this table that were read before and not yet drained, oldest first."""
        found = await self._query(self._names.streams, f"{region}|{table}|")
        return [self.stream_of(row) for row in found if "drained" not in row]

    def stream_of(self, row: Row) -> StreamRef:
        """The stream that a row of the streams' partition is about."""
        parts = self._text(row, "sk").split("|")
        if len(parts) != _STREAM_PARTS:
            raise self._corrupt(row, "sk")
        return StreamRef(RegionId(parts[0]), TableName(parts[1]), self._text(row, "arn"), self._generation(row))

    async def remember_stream(self, stream: StreamRef, *, drained: bool) -> None:
        """Note that a stream is being read, or that it was read to its end."""
        values: dict[str, AttributeValueTypeDef] = {":arn": {"S": stream.arn}, ":sv": {"N": str(SCHEMA)}}
        names = {"#arn": "arn", "#sv": "sv"}
        update = "SET #arn = :arn, #sv = :sv"
        if drained:
            update, names["#drained"], values[":drained"] = update + ", #drained = :drained", "drained", {"BOOL": True}
        key = self._key(self._names.streams, f"{stream.region}|{stream.table}|{stream.generation:013d}")
        await self._update(key, update, None, names, values)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _lease_row(self, row: Row) -> LeaseRow:
        self._check_schema(row)
        checkpoints = {}
        for name in row:
            if name.startswith(CHECKPOINT):
                position = parse_position(self._text(row, name))
                if position is None:
                    raise self._corrupt(row, name)
                checkpoints[name.removeprefix(CHECKPOINT)] = position
        return LeaseRow(
            shard_id=ShardId(self._text(row, "sk").removeprefix("shard|")),
            owner=WorkerId(self._text(row, "owner")) if "owner" in row else None,
            epoch=self._number(row, "epoch"),
            checkpoints=checkpoints,
        )

    def _target_start(self, row: Row) -> TargetStart:
        self._check_schema(row)
        target_id = self._text(row, "sk").removeprefix("target|")
        return TargetStart(RuleName(target_id.split("/", maxsplit=1)[0]), target_id, self._number(row, "started_at"))

    def _generation(self, row: Row) -> int:
        text = self._text(row, "sk").rsplit("|", 1)[1]
        if not (text.isascii() and text.isdecimal()):
            raise self._corrupt(row, "sk")
        return int(text)

    def _check_schema(self, row: Row) -> None:
        if self._number(row, "sv") > SCHEMA:
            raise WorldMismatch(
                f"The {self._where} holds rows of a newer replicator"
                f" (schema {self._number(row, 'sv')}, ours {SCHEMA}).",
                advice="Upgrade this program to the version of its newest worker.",
            )

    def _text(self, row: Row, name: str) -> str:
        value = row.get(name, {}).get("S")
        if not isinstance(value, str):
            raise self._corrupt(row, name)
        return value

    def _number(self, row: Row, name: str) -> int:
        value = row.get(name, {}).get("N")
        if not isinstance(value, str) or not value.lstrip("-").isdecimal():
            raise self._corrupt(row, name)
        return int(value)

    def _corrupt(self, row: Row, name: str) -> CorruptRow:
        partition, sort = (str(row.get(key, {}).get("S")) for key in ("pk", "sk"))
        advice = _ADVICE_BY_PARTITION.get(partition.removeprefix(f"{self._names.group}|"))
        if advice is None:
            advice = _ADVICE_SHARD if sort.startswith("shard|") else _ADVICE_TARGET
        return CorruptRow(
            f"The row {partition} / {sort} of the {self._where} is corrupt:"
            f" attribute {name!r} is missing or unreadable.",
            advice=advice,
        )

    # -- calls -----------------------------------------------------------------------------------------------------

    def _key(self, partition: str, sort: str) -> dict[str, AttributeValueTypeDef]:
        return {"pk": {"S": partition}, "sk": {"S": sort}}

    def _shard_key(self, stream: StreamRef, shard_id: ShardId) -> dict[str, AttributeValueTypeDef]:
        return self._key(self._names.stream(stream), f"shard|{shard_id}")

    def _ownership(self, lease: Lease) -> dict[str, AttributeValueTypeDef]:
        return {":me": {"S": lease.owner}, ":epoch": {"N": str(lease.epoch)}}

    async def _query(self, partition: str, prefix: str) -> list[Row]:
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": partition}},
        }
        if prefix:
            request["KeyConditionExpression"] += " AND begins_with(sk, :prefix)"
            request["ExpressionAttributeValues"][":prefix"] = {"S": prefix}
        rows: list[Row] = []
        while True:
            try:
                answer = await self._client.query(**request)
            except CLIENT_ERRORS as error:
                raise self._translated("Query", error) from error
            rows += member(answer, "Items", f"Query on the {self._where}")
            if not answer.get("LastEvaluatedKey"):
                return rows
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _update(  # noqa: PLR0913 - the parts of one UpdateItem
        self,
        key: dict[str, AttributeValueTypeDef],
        update: str,
        condition: str | None,
        names: dict[str, str],
        values: dict[str, AttributeValueTypeDef],
        *,
        returning: Literal["ALL_NEW", "ALL_OLD"] = "ALL_NEW",
    ) -> Row | None:
        """The row after the update, or before it if asked; None when the condition failed."""
        request: dict[str, Any] = {} if condition is None else {"ConditionExpression": condition}
        try:
            answer = await self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression=update,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValues=returning,
                **request,
            )
        except ClientError as error:
            if error_code(error) == _CONDITION_FAILED:
                return None
            raise self._translated("UpdateItem", error) from error
        except CLIENT_ERRORS as error:
            raise self._translated("UpdateItem", error) from error
        if returning == "ALL_OLD":
            return answer.get("Attributes", {})
        row: Row = member(answer, "Attributes", f"UpdateItem on the {self._where}")
        return row

    async def _delete(self, key: dict[str, AttributeValueTypeDef]) -> None:
        try:
            await self._client.delete_item(TableName=self._table, Key=key)
        except CLIENT_ERRORS as error:
            raise self._translated("DeleteItem", error) from error

    def _translated(self, operation: str, error: Exception) -> Exception:
        return translate(error, f"{operation} on the {self._where}")
