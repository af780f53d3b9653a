"""What the demo's writers write: items with every kind of attribute value that replication could spoil.

Invariant: `KeyState` is the truth about one key of mode `ordered`, kept outside the program: what the last acknowledged
write left there.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Generic, TypeVar

from replicator.demo.dynamodb import Typed, binary
from replicator.demo.layout import ORDERED, DemoTable, Layout

COUNTER: Final = "counter"
WRITTEN_AT: Final = "written_at_ms"
ORDER_KEYS: Final = 800
_SKEW = 1.1

_NUMBERS = (
    "0",
    "-1",
    "12345678901234567890.123456789012345678",
    "-99999999999999999999999999999999999999",
    "9.9999999999999999999999999999999999999E+125",
    "1E-130",
)
_TEXTS = (
    "",
    "plain",
    'quotes " and \\ backslash',
    "gr\u00fc\u00df dich \u2603 \U0001f680",
    "line\nbreak\ttab\x01",
    "x" * 600,
)


@dataclass(slots=True)
class DemoKey:
    """One key of one table."""

    table: DemoTable
    key: Typed

    @property
    def shown(self) -> str:
        """The key for people."""
        return shown(self.table, self.key)


@dataclass(slots=True)
class KeyState(DemoKey):
    """A key of mode `ordered`, and what its item should be (None: deleted, or never written)."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for a write, so that the order of writes to one key is known."""

    item: Typed | None = None
    counter: int = 0
    deletes: list[int] = field(default_factory=list)
    """The numbers of the writes that deleted it, also of one that is under way."""

    @property
    def deleted(self) -> bool:
        """Whether it was ever deleted: it must never come back by itself."""
        return bool(self.deletes)


Key_co = TypeVar("Key_co", bound=DemoKey, covariant=True)


@dataclass(frozen=True, slots=True)
class Keyspace(Generic[Key_co]):
    """All keys, in an order of popularity that has nothing to do with their names."""

    keys: tuple[Key_co, ...]
    weights: tuple[float, ...]
    """Cumulated weights of a Zipf distribution over `keys`."""

    def popular(self, random: Random) -> Key_co:
        """A key, hot ones more often."""
        return self.keys[bisect(self.weights, random.random() * self.weights[-1])]

    def of(self, table: DemoTable) -> tuple[Key_co, ...]:
        """The keys of one table."""
        return tuple(state for state in self.keys if state.table == table)


def keyspace(random: Random) -> Keyspace[KeyState]:
    """The keys of mode `ordered`."""
    return popularised([KeyState(table, key) for table, key in table_keys(ORDERED)], random)


def hot_keyspace(table: DemoTable, count: int, random: Random) -> Keyspace[KeyState]:
    """A few keys of the orders, which are read and written all the time."""
    keys = [KeyState(each, key) for each, key in table_keys(ORDERED, count) if each.rule == table.rule]
    return popularised([KeyState(table, state.key) for state in keys], random)


def table_keys(layout: Layout, order_keys: int = ORDER_KEYS) -> Iterator[tuple[DemoTable, Typed]]:
    """The demo's keys: customers with some orders each, and sessions."""
    orders, sessions = layout.tables
    for n in range(order_keys):
        yield orders, {"customer": {"S": f"c-{n // 4:04d}"}, "order": {"N": str(n % 4 + 1)}}
    for n in range(order_keys // 4):
        yield sessions, {"id": {"S": f"s/{n:04d}"}}


def popularised(keys: list[Key_co], random: Random) -> Keyspace[Key_co]:
    """These keys, shuffled and weighted."""
    random.shuffle(keys)
    weights = itertools.accumulate(1 / (rank + 1) ** _SKEW for rank in range(len(keys)))
    return Keyspace(tuple(keys), tuple(weights))


def shown(table: DemoTable, item: Typed) -> str:
    """The key of an item for people."""
    return ", ".join(f"{part}={item.get(part, {}).get(kind)}" for part, kind in table.key)


def milliseconds() -> int:
    """The writer's clock."""
    return time.time_ns() // 1_000_000


def new_item(state: DemoKey, counter: int, random: Random) -> Typed:
    """A whole item for this key, with the writer's own time in it."""
    optional = {name: value for name, value in attributes(random).items() if random.random() < 0.7}  # noqa: PLR2004
    return {**state.key, **marks(counter), **optional}


def marks(counter: int) -> Typed:
    """The attributes by which a reader recognises a write: its number for this key, and the writer's time."""
    return {COUNTER: {"N": str(counter)}, WRITTEN_AT: {"N": str(milliseconds())}}


def attributes(random: Random) -> Typed:
    """One attribute of every kind."""
    return {
        "status": {"S": random.choice(("new", "paid", "shipped", "returned"))},
        "note": {"S": random.choice(_TEXTS)},
        "total": {"N": random.choice(_NUMBERS)},
        "exact": {"N": str(random.randrange(10**37, 10**38))},
        "photo": binary(random.randbytes(random.randrange(1, 200))),
        "empty": binary(b""),
        "tags": {"SS": random.sample(["red", "green", "blue", "\u00e9t\u00e9", "x y"], 3)},
        "sizes": {"NS": [str(number) for number in random.sample(range(-50, 50), 3)]},
        "parts": {"BS": [binary(random.randbytes(4) + bytes([n]))["B"] for n in range(2)]},
        "gift": {"BOOL": random.random() < 0.5},  # noqa: PLR2004 - a coin
        "nothing": {"NULL": True},
        "address": _nested(random),
    }


def _nested(random: Random) -> dict[str, Any]:
    lines = [{"N": random.choice(_NUMBERS)}, {"S": random.choice(_TEXTS)}, {"M": {}}, {"L": []}, {"NULL": True}]
    inner = {"lines": {"L": lines}, "": {"S": "an empty name"}, "a.b": {"BOOL": True}, "_rep": {"S": "nested, so ours"}}
    return {"M": {"street": {"S": random.choice(_TEXTS)}, "more": {"M": inner}}}
