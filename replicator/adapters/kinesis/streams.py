"""A Kinesis stream that a table's changes go to, as the stream of that table.

Invariant: nothing that was trimmed is passed in silence, though Kinesis itself goes on at the oldest record that is
left: a place is read *at* its record first, and what is read close to the end of the retention is taken only right
behind a place that was seen to be there. Shards that are pushed are so only behind an answer that was asked for, and
only to what goes on reading: a place that was left for a while is looked at anew.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, member, translate
from replicator.adapters.kinesis.destinations import destinations, problem, stream_name
from replicator.adapters.kinesis.envelope import Delivered, parse_change
from replicator.adapters.kinesis.fan_out import FanOut, Pace
from replicator.adapters.kinesis.wire import Answer, Pushed, parse_answer, parse_listing
from replicator.domain.errors import (
    IteratorExpired,
    RecordsTrimmed,
    ReplicatorError,
    ShardGone,
    StreamUnusable,
    TableMissing,
    Throttled,
    Unreachable,
)
from replicator.domain.identifiers import RegionId, SequenceNumber, ShardId, TableName
from replicator.domain.progress import END, Position
from replicator.domain.rules import KinesisSource
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.values import replace
from replicator.ports.sources import RecordPage, ShardPage

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place

_PACE = Pace()
_ENCODE = msgspec.json.Encoder().encode
_MOST_LISTED = 1000
_MOST_BYTES = 2 * 1024 * 1024
"""What a page should hold at most; Kinesis sends up to 10 MB."""

_PEEKS = 10
"""So many answers are asked for before a place is said not to be known."""

_EDGE_SECONDS = 600.0
"""What is read so close to the end of the retention may have lost what was before it."""

_HOUR_SECONDS = 3600.0
_UNKNOWN, _SEEN, _HORIZON = "-", "s", "h"
"""Of the place that an iterator begins at: nothing is known, it was just seen, or it is the oldest that is left."""


class Summary(msgspec.Struct, frozen=True):
    """A Kinesis stream: its ARN, when it was made (milliseconds since 1970), and how long it keeps records.

    `key`: what encrypts it, as the stream names it, if a key of the key service does.
    """

    arn: str
    created_ms: int
    retention_seconds: float
    open_shards: int
    key: str = ""


async def summary(place: Place, stream: str) -> Summary:
    """A stream by its name or ARN; `StreamUnusable` when there is none."""
    name = stream_name(stream)
    what = f"DescribeStreamSummary on Kinesis stream {name} in {place.region_id}"
    client, _ = await place.kinesis.opened()
    try:
        answer = await client.describe_stream_summary(StreamName=name)
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            raise StreamUnusable(
                f"There is no Kinesis stream {name} in {place.region_id}.",
                advice="Create it, or correct `stream: {kinesis: ...}` of the rule; replicator never creates one.",
            ) from error
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    described = member(answer, "StreamDescriptionSummary", what)
    arn, created = str(member(described, "StreamARN", what)), member(described, "StreamCreationTimestamp", what)
    if stream not in {name, arn}:
        raise StreamUnusable(f"Kinesis stream {name} in {place.region_id} is {arn} and not {stream}.")
    hours = float(member(described, "RetentionPeriodHours", what))
    moment = created if isinstance(created, int | float) else created.timestamp()
    key = str(described.get("KeyId", "")) if described.get("EncryptionType") == "KMS" else ""
    return Summary(arn, round(moment * 1000), hours * _HOUR_SECONDS, int(described.get("OpenShardCount", 0)), key)


def kinesis_arn(stream: StreamRef) -> str:
    """The ARN of the Kinesis stream that a reference is about; empty when it is about a table's own stream."""
    arn, _, _ = stream.arn.rpartition(f"/{stream.table}/")
    return arn if ":kinesis:" in arn else ""


class _Iterator(msgspec.Struct, frozen=True):
    """A place to read from: `sequence` is the record before it, if there is one, `inner` Kinesis' own iterator, if any.

    `known`: of the place. `pushed`: whether what is there may be pushed. `at`: when it was made,
    by this machine's clock, which goes on while that sleeps; one that jumps costs a new iterator.
    """

    table: str
    shard_id: ShardId
    known: str
    pushed: bool
    sequence: SequenceNumber | None
    inner: str
    at: float = msgspec.field(default_factory=time.time)

    def __str__(self) -> str:
        before = self.sequence or ""
        return f"{self.table}|{self.shard_id}|{self.known}|{self.pushed:d}|{before}|{self.at}|{self.inner}"

    @classmethod
    def parse(cls, text: str) -> _Iterator:
        table, shard_id, known, pushed, sequence, at, inner = text.split("|", 6)
        before = SequenceNumber(sequence) if sequence else None
        return cls(table, ShardId(shard_id), known, pushed == "1", before, inner, float(at))


class KinesisStreams:
    """One Kinesis stream in one configured region, for the tables that send their changes there.

    A stream may be read for several tables, and a stream of the same name may be made again: both are part of a
    reference, so that each has leases and positions of its own, and for shards that are pushed a consumer of its own.
    """

    def __init__(self, place: Place, source: KinesisSource, pace: Pace = _PACE) -> None:
        self._place = place
        self._pace = pace
        self._source = source
        self._name = source.name
        self._retention_seconds = 24 * _HOUR_SECONDS
        self._described_at = float("-inf")
        """When the stream was last described, or was to be; by the loop's time."""
        self._record_bytes = 1024.0
        self._ahead_seconds = 0.0
        """How far the server's clock is ahead of this machine's."""
        self._fan_outs: dict[str, FanOut] = {}
        """By table."""

    async def current(self, table: TableName) -> StreamRef:
        """The stream, as the one of a table; an error with the remedy when the table's changes do not come there."""
        found = await summary(self._place, self._source.stream)
        region = self._place.region_id
        wrong = problem(await destinations(self._place, table), table, region, self._source)
        if wrong is not None:
            raise wrong
        return self._ref(table, found)

    def _ref(self, table: TableName, found: Summary) -> StreamRef:
        self._retention_seconds, self._described_at = found.retention_seconds, _now()
        arn = f"{found.arn}/{table}/{found.created_ms}"
        return StreamRef(RegionId(self._place.region_id), table, arn, found.created_ms)

    async def streams(self, table: TableName) -> list[StreamRef]:
        """The stream alone: one that was deleted cannot be read any more."""
        return [self._ref(table, await summary(self._place, self._source.stream))]

    def reads(self, stream: StreamRef) -> bool:
        """Whether a stream is the one that is read here, made anew or not."""
        return stream.kinesis == self._name

    def kept_seconds(self, stream: StreamRef) -> float | None:
        """As the stream said last."""
        return self._retention_seconds if self.reads(stream) and self._described_at > float("-inf") else None

    async def _look(self) -> None:
        """Learn how long the stream keeps records, now and then: that may be changed."""
        if _now() - self._described_at < self._pace.described:
            return
        if self._described_at > float("-inf"):
            self._described_at = _now()
            with suppress(ReplicatorError):
                self._retention_seconds = (await summary(self._place, self._source.stream)).retention_seconds
            return
        try:
            self._retention_seconds = (await summary(self._place, self._source.stream)).retention_seconds
        except StreamUnusable as error:
            raise ShardGone(f"{error.message} Its shards are gone.") from error
        self._described_at = _now()

    async def shows_images(self, stream: StreamRef) -> bool:
        """Always, as long as it is the one that is there: DynamoDB sends both images."""
        return stream in await self.streams(stream.table)

    async def shard_page(self, stream: StreamRef, after: ShardId | None) -> ShardPage:
        """One page of the listing; `ShardGone` when the stream is gone, or another one of its name is there."""
        what = f"ListShards on Kinesis stream {self._name} in {self._place.region_id}"
        if after is None:
            await self._check(stream, what)
        asked: dict[str, Any] = {"StreamName": self._name, "MaxResults": _MOST_LISTED}
        if after is not None:
            asked["ExclusiveStartShardId"] = after
        try:
            body = await self._call("ListShards", asked, what)
        except TableMissing as error:
            raise ShardGone(f"{what}: the stream is gone.") from error
        shards, more = parse_listing(body, what)
        if more and (not shards or shards[-1].shard_id == after):
            raise Unreachable(f"{what} does not progress.")
        return ShardPage(tuple(shards), shards[-1].shard_id if more else None)

    async def _check(self, stream: StreamRef, what: str) -> None:
        try:
            if await self.shows_images(stream):
                return
        except StreamUnusable as error:
            raise ShardGone(f"{what}: the stream is gone.") from error
        raise ShardGone(f"{what}: the stream was deleted, and another was created with its name.")

    async def children(self, stream: StreamRef, parent: ShardId) -> list[Shard] | None:
        """Kinesis cannot be asked for them alone."""
        del stream, parent
        return None

    # -- reading -------------------------------------------------------------------------------------------------------

    async def iterator(
        self, stream: StreamRef, shard_id: ShardId, position: Position, first: SequenceNumber | None = None
    ) -> str:
        """An iterator right behind a position; `RecordsTrimmed` or `ShardGone` when that place is no more.

        Whether a shard's first record was trimmed cannot be asked: its starting number is no record's.
        """
        del first
        assert position != END, "nothing is read behind the end of a shard"
        await self._look()
        consumer = self._source.consumer_of(stream.table)
        if consumer and stream.table not in self._fan_outs:
            self._fan_outs[stream.table] = FanOut(self._place, kinesis_arn(stream), consumer, self._pace)
        if position.sequence is None:
            inner = await self._iterator(shard_id, "TRIM_HORIZON", None)
            return str(_Iterator(stream.table, shard_id, _HORIZON, pushed=False, sequence=None, inner=inner))
        await self._see(shard_id, position, position.sequence)
        inner = await self._iterator(shard_id, "AFTER_SEQUENCE_NUMBER", position.sequence)
        return str(_Iterator(stream.table, shard_id, _SEEN, pushed=False, sequence=position.sequence, inner=inner))

    async def _see(self, shard_id: ShardId, position: Position, sequence: SequenceNumber) -> None:
        """Raise `RecordsTrimmed` unless the record before a place is there, or everything was read up to lately."""
        iterator: str | None = await self._iterator(shard_id, "AT_SEQUENCE_NUMBER", sequence)
        for _ in range(_PEEKS):
            if iterator is None:
                break
            answer, at = await self._answer(iterator, 1)
            if answer.records:
                if answer.records[0].sequence == sequence:
                    return
                break
            if answer.behind_ms == 0:
                break
            iterator = answer.next_iterator
        else:
            raise Unreachable(f"Kinesis stream {self._name} does not say what is at a place of shard {shard_id}.")
        kept_from = at - self._retention_seconds + _EDGE_SECONDS
        if position.through is None or position.through < kept_from:
            raise RecordsTrimmed(
                f"Records of shard {shard_id} of Kinesis stream {self._name} behind {sequence} left the retention."
            )

    async def _iterator(self, shard_id: ShardId, kind: Any, sequence: SequenceNumber | None) -> str:
        what = f"GetShardIterator on shard {shard_id} of Kinesis stream {self._name} in {self._place.region_id}"
        more: dict[str, Any] = {} if sequence is None else {"StartingSequenceNumber": sequence}
        client, _ = await self._place.kinesis.opened()
        try:
            answer = await client.get_shard_iterator(
                StreamName=self._name, ShardId=shard_id, ShardIteratorType=kind, **more
            )
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                raise ShardGone(f"{what}: the shard is gone.") from error
            if error_code(error) == "InvalidArgumentException" and sequence is not None:
                # A number of a stream that was deleted and made again, or that no record of this shard has.
                raise RecordsTrimmed(f"{what}: {sequence} is no place of this shard.") from error
            raise translate(error, what) from error
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error
        iterator: str = member(answer, "ShardIterator", what)
        return iterator

    async def read(self, iterator: str, limit: int) -> RecordPage:
        """The next page of a shard; its time lies before that of the answer, because what was made then may follow.

        A page of one record is a look, which is asked for. What is pushed is never level: when it was sent is unknown.
        """
        place = _Iterator.parse(iterator)
        if not 0 <= time.time() - place.at <= self._pace.lives:  # something may have been trimmed behind it meanwhile
            raise IteratorExpired(f"An iterator of shard {place.shard_id} was not used for long.")
        await self._look()
        if not place.pushed or limit == 1:
            return await self._asked(place, limit)
        pushed = await self._fan_outs[place.table].after(place.shard_id, place.sequence)
        if pushed is None or pushed.asks:
            return replace(await self._asked(place, limit), pushed=pushed is not None)
        return self._pushed(place, pushed)

    async def _asked(self, place: _Iterator, limit: int) -> RecordPage:
        most = max(1, min(limit, int(_MOST_BYTES / self._record_bytes)))
        if not place.inner:
            kind = "TRIM_HORIZON" if place.sequence is None else "AFTER_SEQUENCE_NUMBER"
            place = replace(place, inner=await self._iterator(place.shard_id, kind, place.sequence))
        answer, at = await self._answer(place.inner, most)
        if answer.records:
            size = sum(len(record.data) for record in answer.records) / len(answer.records)
            self._record_bytes = max(size, (self._record_bytes + size) / 2)
        following = None
        known = self._checked(place, answer.records, at)
        if answer.next_iterator is not None:
            pushed = place.table in self._fan_outs and not self._leaves(answer.records, at)
            following = _behind(replace(place, known=known, pushed=pushed), answer.records, answer.next_iterator)
        records = tuple(parse_change(record, place.table) for record in answer.records)
        level = None if answer.behind_ms is None else answer.behind_ms == 0
        return RecordPage(records, following, at - self._source.reorder_seconds, is_level=level)

    def _pushed(self, place: _Iterator, pushed: Pushed) -> RecordPage:
        known = self._checked(place, pushed.records, time.time() + self._ahead_seconds)
        following = None
        if not pushed.ended:
            following = _behind(replace(place, known=known), pushed.records, "" if pushed.records else place.inner)
        records = tuple(parse_change(record, place.table) for record in pushed.records)
        return RecordPage(records, following, is_level=False, pushed=True)

    def _leaves(self, records: tuple[Delivered, ...], at: float) -> bool:
        """Whether records are about to leave the retention."""
        arrived_at = records[0].arrived_at if records else 0.0
        return arrived_at > 0 and at - arrived_at > self._retention_seconds - _EDGE_SECONDS

    def _checked(self, place: _Iterator, records: tuple[Delivered, ...], at: float) -> str:
        """What is known of the place behind these records; raise when some that were before them may be gone."""
        if place.known == _UNKNOWN and self._leaves(records, at):
            raise RecordsTrimmed(f"Kinesis stream {self._name} is read where records leave its retention.")
        return _HORIZON if place.known == _HORIZON and not records else _UNKNOWN

    async def _answer(self, iterator: str, limit: int) -> tuple[Answer, float]:
        """An answer and the server's time of it.

        Where no iterator follows the shard is over, as its listing has to say, too; some endpoints count on from there
        how far behind the end lies.
        """
        what = f"GetRecords on Kinesis stream {self._name} in {self._place.region_id}"
        _, wire = await self._place.kinesis.opened()
        body = _ENCODE({"ShardIterator": iterator, "Limit": limit})
        try:
            answer = await wire.call("GetRecords", body, None, what)
        except TableMissing as error:
            raise ShardGone(f"{what}: the shard is gone.") from error
        except Throttled as error:
            raise Throttled(
                error.message, advice="A shard is read five times a second by all of its readers: give it fewer."
            ) from error
        try:
            at = parsedate_to_datetime(answer.date or "").timestamp()
        except ValueError as error:
            raise Unreachable(f"{what} got an answer without a Date.") from error
        self._ahead_seconds = at - time.time()
        return parse_answer(answer.body, what), at

    async def _call(self, operation: str, asked: dict[str, Any], what: str) -> bytes:
        _, wire = await self._place.kinesis.opened()
        return (await wire.call(operation, _ENCODE(asked), None, what, StreamName=self._name)).body


def _now() -> float:
    return asyncio.get_running_loop().time()


def _behind(place: _Iterator, records: tuple[Delivered, ...], inner: str) -> str:
    """The iterator of the place behind some records."""
    before = records[-1].sequence if records else place.sequence
    return str(replace(place, sequence=before, inner=inner, at=time.time()))
