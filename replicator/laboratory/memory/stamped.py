"""One key of a region of mode `active-active` in memory: its item and its side row.

`answer_stamped` is a pure function from what the key holds and a request to what it holds afterwards and the
response. Invariant: it means exactly what DynamoDB makes of the rendered expressions; the contract suite holds both
against each other.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

import msgspec
from msgspec.structs import replace

from replicator.domain.image import Image, canonical, stamped
from replicator.domain.modes.requests import (
    Absent,
    DeleteMarked,
    Done,
    Found,
    FoundRow,
    GetItem,
    GetSideRow,
    MergeTombstone,
    NoteRemoval,
    RaiseFloor,
    Refused,
    RefusedRow,
    Response,
    Restamp,
    SettleTombstone,
    StampCondition,
    StampedPut,
    StampIs,
    StampRequest,
    Unstamp,
    UnstampedOrBelow,
)
from replicator.domain.stamps import NO_ROW, SideRow, Version, mark_prefix
from replicator.domain.versions import STAMP

_DONE = Done()


class StampedSlot(NamedTuple):
    """What one key holds."""

    item: Image | None = None
    row: SideRow = NO_ROW


def answer_stamped(  # noqa: C901, PLR0911 - one per kind of request
    slot: StampedSlot, request: GetItem | StampRequest, nonce: str, attribute: str = STAMP
) -> tuple[StampedSlot, Response]:
    """Carry a request out on one key; `nonce` seals the stamp of a write."""
    match request:
        case GetItem():
            return slot, Found(item=slot.item)
        case GetSideRow():
            return slot, FoundRow(slot.row)
        case StampedPut(_, image, stamp, when):
            if not holds_stamped(when, slot.item, attribute):
                return slot, Refused(item=slot.item)
            return slot._replace(item=Image(stamped(image, stamp.sealed(nonce), attribute))), _DONE
        case Restamp(_, stamp, when):
            if slot.item is None or not holds_stamped(when, slot.item, attribute):
                return slot, Refused(item=slot.item)
            return slot._replace(item=_restamped(slot.item, stamp.sealed(nonce), attribute)), _DONE
        case Unstamp(_, when):
            if slot.item is None or not holds_stamped(when, slot.item, attribute):
                return slot, Refused(item=slot.item)
            return slot._replace(item=_unstamped(slot.item, attribute)), _DONE
        case DeleteMarked(_, version):
            if slot.item is None or not (_text(slot.item, attribute) or "").startswith(mark_prefix(version)):
                return slot, Refused(item=slot.item)
            return slot._replace(item=None), _DONE
        case MergeTombstone() | SettleTombstone() | RaiseFloor() | NoteRemoval():
            row = changed_row(slot.row, request)
            return (slot, RefusedRow(slot.row)) if row is None else (slot._replace(row=row), _DONE)
        case _:
            assert_never(request)


def changed_row(row: SideRow, request: MergeTombstone | SettleTombstone | RaiseFloor | NoteRemoval) -> SideRow | None:
    """The side row after a write, None when its condition fails."""
    match request:
        case MergeTombstone(_, tombstone):
            allowed = row.deleted is None or row.deleted < tombstone.version
            return replace(row, tombstone=tombstone) if allowed else None
        case SettleTombstone(_, seen, tombstone, removed_at):
            if not _same(row, seen):
                return None
            settled = replace(row, tombstone=tombstone)
            return settled if removed_at is None else _noted(settled, removed_at, tombstone.version)
        case RaiseFloor(_, seen, floor):
            return replace(row, floor=floor) if _same(row, seen) else None
        case NoteRemoval(_, removed_at, removed):
            allowed = row.removed is None or row.removed <= removed
            return _noted(row, removed_at, removed) if allowed else None
        case _:
            assert_never(request)


def _same(row: SideRow, seen: SideRow) -> bool:
    return (row.deleted, row.floor) == (seen.deleted, seen.floor)


def _noted(row: SideRow, removed_at: int, removed: Version) -> SideRow:
    return replace(row, removed_at=removed_at, removed=removed)


def holds_stamped(when: StampCondition, item: Image | None, attribute: str = STAMP) -> bool:
    """Whether a condition holds for an item."""
    match when:
        case Absent():
            return item is None
        case StampIs(seen):
            return item is not None and attribute_is(item, attribute, seen)
        case UnstampedOrBelow(version):
            if item is None:
                return False
            text = _text(item, attribute)
            return attribute not in item.attributes or (text is not None and text < version.text)
        case _:
            assert_never(when)


def attribute_is(item: Image, attribute: str, seen: bytes | None) -> bool:
    """Whether an attribute has this value (wire JSON), however it is spelled; None: whether there is none."""
    typed = item.attributes.get(attribute)
    if typed is None or seen is None:
        return typed is None and seen is None
    return canonical(Image(msgspec.json.encode({"seen": typed}))) == canonical(Image(b'{"seen":%b}' % seen))


def _text(item: Image, attribute: str) -> str | None:
    value = item.attributes.get(attribute, {}).get("S")
    return value if isinstance(value, str) else None


def _restamped(item: Image, sealed: str, attribute: str) -> Image:
    attributes = {**item.attributes, attribute: {"S": sealed}}
    return Image(msgspec.json.encode(attributes))


def _unstamped(item: Image, attribute: str) -> Image:
    return Image(msgspec.json.encode({name: typed for name, typed in item.attributes.items() if name != attribute}))
