"""One region's table and its side rows in memory.

`answer` is the whole of it: a pure function from what one key holds and a request to what the key holds
afterwards and the response. `MemoryRegion` keeps many keys and adds faults. Invariant: conditions mean exactly what
DynamoDB makes of their rendered expressions, above all that a comparison with a missing attribute, or with one of
another type, is false; the contract suite holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import assert_never

import msgspec

from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import PoisonRecord, ReplicatorError, Throttled
from replicator.domain.image import Image, stamped
from replicator.domain.modes.requests import (
    Absent,
    AbsentOrStampBelow,
    Condition,
    ContentIs,
    Delete,
    DeleteMarked,
    Done,
    Found,
    GetItem,
    GetSideRow,
    GetTombstone,
    GuardedPut,
    MergeTombstone,
    NoteRemoval,
    Put,
    RaiseFloor,
    RaiseTombstone,
    Refused,
    Remove,
    Replace,
    Request,
    Response,
    Restamp,
    SeenCondition,
    SettleTombstone,
    StampBelow,
    StampedPut,
    StampIs,
    TombstoneBelow,
    TombstoneIs,
    Unstamp,
    UnstampedOrStampBelow,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import NO_ROW, SideRow
from replicator.domain.values import replace
from replicator.domain.versions import STAMP
from replicator.laboratory.memory.faults import Faults
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped, attribute_is, holds_stamped
from replicator.laboratory.memory.versioned import answer_versioned
from replicator.ports.targets import Fence

_DONE = Done()
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Slot:
    """What one key holds: the item, and the version of its tombstone; in mode `active-active` its side row."""

    item: Image | None = None
    tombstone: str | None = None
    row: SideRow = NO_ROW


EMPTY = Slot()


def answer(  # noqa: C901, PLR0911 - one per kind of request
    slot: Slot, request: Request, nonce: str = "--------", attribute: str = STAMP
) -> tuple[Slot, Response]:
    """Carry a request out on one key; `nonce` seals a stamp that is written to `attribute`."""
    match request:
        case Put():
            return _put(slot, request)
        case GuardedPut(put, guard):
            return _guarded_put(slot, put, guard)
        case Delete(_, when):
            if not holds(when, slot.item):
                return slot, Refused(item=slot.item)
            return Slot(None, slot.tombstone), _DONE
        case RaiseTombstone(_, version):
            if not _tombstone_below(slot, version):
                return slot, Refused(by_tombstone=True)
            return Slot(slot.item, version), _DONE
        case GetItem():
            return slot, Found(item=slot.item)
        case GetTombstone():
            return slot, Found(tombstone=slot.tombstone)
        case Replace() | Remove():
            item, response = answer_versioned(slot.item, request)
            return replace(slot, item=item), response
        case (
            StampedPut()
            | Restamp()
            | Unstamp()
            | DeleteMarked()
            | GetSideRow()
            | MergeTombstone()
            | SettleTombstone()
            | RaiseFloor()
            | NoteRemoval()
        ):
            after, response = answer_stamped(StampedSlot(slot.item, slot.row), request, nonce, attribute)
            return replace(slot, item=after.item, row=after.row), response
        case LogConflict():
            raise ReplicatorError("A conflict entry was sent to a table; it belongs to the conflict log.")
        case _:
            assert_never(request)


def _put(slot: Slot, put: Put) -> tuple[Slot, Response]:
    if not holds(put.when, slot.item):
        return slot, Refused(item=slot.item)
    return Slot(Image(stamped(put.image, put.version)), slot.tombstone), _DONE


def _guarded_put(slot: Slot, put: Put, guard: TombstoneBelow | TombstoneIs) -> tuple[Slot, Response]:
    if isinstance(guard, TombstoneIs):
        allowed = slot.tombstone == guard.version
    else:
        allowed = _tombstone_below(slot, guard.version)
    after, response = _put(slot, put)
    if allowed:
        return after, response
    # A cancelled transaction gives the reason of each of its parts.
    item = response.item if isinstance(response, Refused) else None
    return slot, Refused(item=item, by_tombstone=True)


def holds(when: Condition | SeenCondition, item: Image | None) -> bool:
    """Whether a condition holds for an item."""
    match when:
        case Absent() | StampIs():
            return holds_stamped(when, item)
        case ContentIs(seen):
            return item is not None and STAMP not in item.attributes and _shows(item, seen)
        case StampBelow(version):
            return item is not None and _stamp_below(item, version)
        case AbsentOrStampBelow(version):
            return item is None or _stamp_below(item, version)
        case UnstampedOrStampBelow(version):
            return item is None or STAMP not in item.attributes or _stamp_below(item, version)
        case _:
            assert_never(when)


def _shows(item: Image, seen: Image) -> bool:
    """Whether an item has every attribute of `seen`; that it has no others, no expression can state."""
    return all(attribute_is(item, name, _ENCODE(typed)) for name, typed in seen.attributes.items())


def _stamp_below(item: Image, version: str) -> bool:
    stamp = item.attributes.get(STAMP, {}).get("S")
    return isinstance(stamp, str) and stamp < version


def _tombstone_below(slot: Slot, version: str) -> bool:
    return slot.tombstone is None or slot.tombstone < version


class MemoryRegion:
    """One replica table with its side table; `nonce` seals stamps, which are in the attribute `stamp_attribute`."""

    def __init__(
        self, faults: Faults | None = None, *, nonce: Callable[[], str] | None = None, stamp_attribute: str = STAMP
    ) -> None:
        self.faults = faults or Faults()
        self._nonce = nonce or map("{:08d}".format, count()).__next__
        self._stamp_attribute = stamp_attribute
        self.slots: dict[ItemKey, Slot] = {}
        self.sent: list[Request] = []
        """Every request that reached the region, in order, whatever became of it."""
        self._poisoned: dict[ItemKey, str] = {}
        self.hot: set[ItemKey] = set()
        """Keys whose partition is throttled."""

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out."""
        async with self.faults.around(type(request).__name__):
            fence.check()
            self.sent.append(request)
            if self.hot and _key(request) in self.hot:
                raise Throttled(f"{type(request).__name__} failed: the memory world throttles this key's partition.")
            put = request.put if isinstance(request, GuardedPut) else request
            if isinstance(put, Put | StampedPut | Restamp | Replace) and put.key in self._poisoned:
                raise PoisonRecord(f"{type(request).__name__} failed: {self._poisoned[put.key]}")
            return self.carry_out(request)

    def carry_out(self, request: Request) -> Response:
        """Carry a request out at once: no faults, no fence."""
        after, response = answer(self.slot(_key(request)), request, self._nonce(), self._stamp_attribute)
        self.slots[_key(request)] = after
        return response

    def slot(self, key: ItemKey) -> Slot:
        """What a key holds."""
        return self.slots.get(key, EMPTY)

    def item(self, key: ItemKey) -> Image | None:
        """The item under a key."""
        return self.slot(key).item

    def items(self) -> Iterator[tuple[ItemKey, Image]]:
        """Every item."""
        return ((key, slot.item) for key, slot in self.slots.items() if slot.item is not None)

    def write_foreign(self, key: ItemKey, item: Image | None) -> None:
        """Put or delete an item as another writer would: unconditionally, stamped or not."""
        self.slots[key] = replace(self.slot(key), item=item)

    def poison(self, key: ItemKey, why: str) -> None:
        """Refuse every put of this key for good, as DynamoDB does with an item that is too large."""
        self._poisoned[key] = why

    def cure(self, key: ItemKey) -> None:
        """Accept puts of this key again."""
        del self._poisoned[key]


def _key(request: Request) -> ItemKey:
    return request.put.key if isinstance(request, GuardedPut) else request.key
