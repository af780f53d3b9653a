"""Parallel scans: items as untouched bytes, with their keys.

Invariant: every page is read consistently, and its time is not before the moment at which it was read.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.aws.errors import CLIENT_ERRORS, member, translate
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.ports.copying import KeyReader, ScannedItem, ScannedPage

if TYPE_CHECKING:
    from replicator.adapters.aws.wire import Wire

_ENCODE = msgspec.json.Encoder().encode
_DATE_SECONDS = 1.0
"""The Date of an answer is in whole seconds, rounded down."""


class _Consumed(msgspec.Struct):
    CapacityUnits: float = 0.0


class _Answer(msgspec.Struct):
    Items: list[msgspec.Raw]
    LastEvaluatedKey: msgspec.Raw = msgspec.Raw()
    ConsumedCapacity: _Consumed = msgspec.field(default_factory=_Consumed)


_ANSWER = msgspec.json.Decoder(_Answer)


class DynamoScan:
    """One region's table, to be read as a whole."""

    def __init__(self, calls: Wire, client: Any, *, region_id: str, table: str) -> None:
        """`client` describes the table, once: its key is known from there."""
        self._calls = calls
        self._client = client
        self._table = table
        self._where = f"{table} in {region_id}"
        self._key_of: KeyReader | None = None

    async def page(self, segment: int, of: int, after: str | None, most: int | None = None) -> ScannedPage:
        """The next page of one of `of` segments, of at most `most` items."""
        key_of = await self.key_reader()
        more = b"" if after is None else b',"ExclusiveStartKey":%b' % after.encode()
        more += b"" if most is None else b',"Limit":%d' % most
        body = (
            b'{"TableName":%b,"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL","Segment":%d,"TotalSegments":%d%b}'
        )
        what = f"Scan on {self._where}"
        answer = await self._calls.call(
            "Scan", body % (_ENCODE(self._table), segment, of, more), None, what, TableName=self._table
        )
        found = wire.decoded(_ANSWER, answer.body, what)
        last = bytes(found.LastEvaluatedKey)
        return ScannedPage(
            tuple(ScannedItem(key_of(image), Image(image)) for image in map(bytes, found.Items)),
            last.decode() if last.startswith(b"{") else None,
            _time_of(answer.date or ""),
            found.ConsumedCapacity.CapacityUnits,
        )

    async def key_reader(self) -> KeyReader:
        """What reads keys of this table; it is described once."""
        if self._key_of is not None:
            return self._key_of
        what = f"DescribeTable of {self._where}"
        try:
            answer = await self._client.describe_table(TableName=self._table)
        except CLIENT_ERRORS as error:
            raise translate(error, what) from error
        self._key_of = key_reader([each["AttributeName"] for each in member(answer, "Table", what)["KeySchema"]])
        return self._key_of


def key_reader(names: list[str]) -> KeyReader:
    """What reads the key out of an item's bytes, and nothing else of it."""
    ordered = sorted(names)
    fields = [(f"part{number}", dict[str, str]) for number in range(len(ordered))]
    renamed = {field: name for (field, _), name in zip(fields, ordered, strict=True)}
    decode = msgspec.json.Decoder(msgspec.defstruct("Key", fields, rename=renamed.get)).decode

    def read(image: bytes) -> ItemKey:
        try:
            key = decode(image)
            typed = [next(iter(getattr(key, field).items())) for field, _ in fields]
        except (msgspec.DecodeError, ValueError, StopIteration) as error:
            raise MalformedRecord(f"An item has not the key of its table ({error}).") from error
        return ItemKey(tuple((name, kind, value) for name, (kind, value) in zip(ordered, typed, strict=True)))

    return read


@lru_cache(maxsize=8)
def _time_of(date: str) -> float | None:
    """A time by which an answer had been given; a Date that cannot be read tells none."""
    try:
        return parsedate_to_datetime(date).timestamp() + _DATE_SECONDS
    except ValueError:
        return None
