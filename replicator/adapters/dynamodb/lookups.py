"""Items of one table by their keys, many at a time, as untouched wire JSON.

Invariant: an answer is whole. Keys that the service left unprocessed are asked for again, a bounded number of times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.dynamodb.scans import key_reader
from replicator.domain.errors import Throttled, Unreachable
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.ports.lookups import LookedUp

if TYPE_CHECKING:
    from replicator.adapters.aws.wire import Wire

_ENCODE = msgspec.json.Encoder().encode
_TRIES = 8
_FIRST_PAUSE_SECONDS = 0.05


class _Left(msgspec.Struct):
    Keys: list[msgspec.Raw] = []


class _Consumed(msgspec.Struct):
    CapacityUnits: float = 0.0


class _Answer(msgspec.Struct):
    Responses: dict[str, list[msgspec.Raw]] = {}
    UnprocessedKeys: dict[str, _Left] = {}
    ConsumedCapacity: list[_Consumed] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


@lru_cache(maxsize=64)
def _key_reader(names: tuple[str, ...]) -> Callable[[bytes], ItemKey]:
    return key_reader(list(names))


class DynamoLookups:
    """One table."""

    def __init__(self, calls: Wire, *, region_id: str, table: str) -> None:
        self._calls = calls
        self._table = table
        self._what = f"BatchGetItem on {table} in {region_id}"

    async def items(self, keys: Sequence[ItemKey]) -> LookedUp:
        """The items of these keys, read consistently."""
        if not keys:
            return LookedUp({})
        key_of, wanted = _key_reader(keys[0].names), [msgspec.Raw(key.wire) for key in keys]
        found: dict[ItemKey, Image] = {}
        units = 0.0
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
            answer = await self._ask(wanted)
            items = map(bytes, answer.Responses.get(self._table, ()))
            found.update((key_of(item), Image(item)) for item in items)
            units += sum(each.CapacityUnits for each in answer.ConsumedCapacity or ())
            left = answer.UnprocessedKeys.get(self._table)
            if left is None or not left.Keys:
                return LookedUp(found, units)
            wanted = left.Keys
        raise Throttled(f"{self._what} leaves {len(wanted)} keys unprocessed again and again.")

    async def _ask(self, keys: Sequence[msgspec.Raw]) -> _Answer:
        asked = {"ConsistentRead": True, "Keys": keys}
        body = _ENCODE({"RequestItems": {self._table: asked}, "ReturnConsumedCapacity": "TOTAL"})
        given = await self._calls.call("BatchGetItem", body, None, self._what, RequestItems={self._table: {}})
        answer = wire.decoded(_ANSWER, given.body, self._what)
        if self._table not in answer.Responses and self._table not in answer.UnprocessedKeys:
            raise Unreachable(f"{self._what} got an answer without the table, so it is not DynamoDB's.")
        return answer
