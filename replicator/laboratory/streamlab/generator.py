"""Changes made by the laboratory itself: a seeded life of some items.

Invariant: the images form a chain per item - a change's old image is the new image of the one before it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from replicator.laboratory.streamlab.changes import Change, hash_of

if TYPE_CHECKING:
    from replicator.laboratory.streamlab.gateway import Gateway
    from replicator.laboratory.streamlab.tables import LabTable, Tables

_DELETES: Final = 0.15
_BATCH: Final = 100
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted: changes, of how many items, bytes of filler, changes a second (0: at once), written or not."""

    count: int
    keys: int
    size: int
    rate: float
    apply: bool


@dataclass(slots=True)
class Generator:
    """Some items and what was made of them so far."""

    random: Random
    items: dict[int, bytes] = field(default_factory=dict)
    made: int = 0

    async def run(self, table: LabTable, tables: Tables, gateway: Gateway, order: Order) -> int:
        """Make changes; returns how many."""
        started = time.monotonic()
        for n in range(order.count):
            change, request = self._next(table, order)
            if order.apply:
                await gateway.upstream.call(table.scope, *request)
            if table.made:
                tables.record(table, table.present, [change])
            if order.rate > 0:
                await asyncio.sleep(max(0.0, started + (n + 1) / order.rate - time.monotonic()))
            elif n % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        if order.apply:
            await gateway.settled(table)
        return order.count

    def _next(self, table: LabTable, order: Order) -> tuple[Change, tuple[str, dict[str, Any]]]:
        which = self.random.randrange(order.keys)
        key = _key(table, which)
        old = self.items.get(which, b"")
        self.made += 1
        new = b""
        request: tuple[str, dict[str, Any]] = ("DeleteItem", {"TableName": table.name, "Key": key})
        if not old or self.random.random() >= _DELETES:
            item = key | {"n": {"N": str(self.made)}, "filler": {"S": "x" * order.size}}
            new = self.items[which] = _ENCODE(item)
            request = ("PutItem", {"TableName": table.name, "Item": item})
        else:
            del self.items[which]
        return _change(table, key, old, new), request

    def expire(self, table: LabTable, key: dict[str, Any]) -> Change | None:
        """The removal of an item; None when it is not there."""
        for which, old in self.items.items():
            if _key(table, which) == key:
                del self.items[which]
                return _change(table, key, old, b"")
        return None


def _key(table: LabTable, which: int) -> dict[str, Any]:
    return {attribute["AttributeName"]: {"S": f"item-{which}"} for attribute in table.key_schema}


def _change(table: LabTable, key: dict[str, Any], old: bytes, new: bytes) -> Change:
    event = "INSERT" if not old else "MODIFY" if new else "REMOVE"
    return Change(event, _ENCODE(key), new, old, int(time.time()), hash_of(key, table.partition_key))
