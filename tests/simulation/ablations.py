"""Mode `active-active` with a rule taken out: each must be found out by the explorer.

Production has no switches. A rule is one named function of the mode, which is replaced here, or a property of the
world, which is answered otherwise here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from replicator.adapters.memory.stamped import StampedSlot, answer_stamped
from replicator.domain import active_active, applying, classification, verification
from replicator.domain.active_active import (
    Ending,
    Outcome,
    floors,
    parent_hash,
    raw_version,
    replicate_active,
    settle_put,
    version_of_put,
)
from replicator.domain.applying import apply_put, remove
from replicator.domain.image import Image
from replicator.domain.mesh import Mesh, Steps, Write, look, read_row
from replicator.domain.records import ChangeRecord
from replicator.domain.requests import (
    At,
    DeleteMarked,
    Done,
    FoundRow,
    GetItem,
    GetSideRow,
    LogConflict,
    MergeTombstone,
    MeshResponse,
    NoteRemoval,
    RaiseFloor,
    RefusedRow,
    Response,
    Restamp,
    SettleTombstone,
    StampRequest,
)
from replicator.domain.stamps import NO_ROW, Held, Kind, SideRow, Stamp, Tombstone, Version, bumped, held
from tests.simulation.active_world import PRODUCTION, Variant

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is taken out: functions of the mode, and the world around it. `where`: the scenarios that show it."""

    removed: str
    patches: tuple[Patch, ...] = ()
    variant: Variant = PRODUCTION

    @contextmanager
    def applied(self) -> Iterator[Variant]:
        """Run without the rule."""
        kept = [(owner, name, vars(owner)[name]) for owner, name, _ in self.patches]
        try:
            for owner, name, other in self.patches:
                setattr(owner, name, other)
            yield self.variant
        finally:
            for owner, name, original in kept:
                setattr(owner, name, original)


# -- the stamp-back ------------------------------------------------------------------------------------------------


def _never_settled(mesh: Mesh, write: Write) -> Steps[Stamp | Ending | None]:
    assert write.new is not None
    item, row = yield from active_active.look_home(mesh, write)
    return Stamp(version_of_put(write, item, row), Kind.VALUE, write.new.content, parent_hash(write, row))


def _settled_last(mesh: Mesh, write: Write) -> Steps[Ending]:
    assert write.new is not None
    version = bumped(raw_version(write), floors(write, None, NO_ROW))
    stamp = Stamp(version, Kind.VALUE, write.new.content, parent_hash(write, NO_ROW))
    for region in mesh.others:
        yield from apply_put(mesh, region, write, stamp)
    settled = None
    while settled is None:
        settled = yield from settle_put(mesh, write)
    return settled if isinstance(settled, Ending) else Ending.PUT


# -- versions ------------------------------------------------------------------------------------------------------


def _not_bumped(raw: Version, _floors: object) -> Version:
    return raw


def _without_sequence(write: Write) -> Version:
    return replace(raw_version(write), sequence=0)


def _one_floor_after_the_other(raw: Version, lower: Iterator[Version | None]) -> Version:
    version = raw
    for floor in sorted(floor for floor in lower if floor is not None):
        if version <= floor and not floor.is_write(raw.region, raw.sequence):
            version = replace(raw, micros=floor.micros, counter=floor.counter + 1)
    return version


def _always_counted_up(raw: Version, lower: Iterator[Version | None]) -> Version:
    greatest = max((f for f in lower if f is not None and not f.is_write(raw.region, raw.sequence)), default=None)
    if greatest is None or raw > greatest:
        return raw
    return replace(raw, micros=greatest.micros, counter=greatest.counter + 1)


# -- records -------------------------------------------------------------------------------------------------------


def _any_new_stamp_is_ours(old: Held | None, new: Held) -> bool:
    return new.stamp is not None and (old is None or old.seen != new.seen)


def _no_verification(_mesh: Mesh, _write: Write, _tombstone: Tombstone) -> Steps[None]:
    return
    yield


# -- rows and looks ------------------------------------------------------------------------------------------------


def _no_floor(_mesh: Mesh, _write: Write, _row: SideRow, _version: Version) -> Steps[Ending | None]:
    return Ending.GONE
    yield


def _row_first_for_deletes(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    if write.new is not None:
        item = yield from look(mesh, mesh.home, write.key)
        return item, (yield from read_row(mesh.home, write.key))
    row = yield from read_row(mesh.home, write.key)
    return (yield from look(mesh, mesh.home, write.key)), row


def _no_row_for_a_present_item(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    item = yield from look(mesh, mesh.home, write.key)
    if item is not None and write.old is not None and write.new is not None:
        return item, NO_ROW
    return item, (yield from read_row(mesh.home, write.key))


def _removed_and_done(mesh: Mesh, write: Write, item: Held, newer: Tombstone) -> Steps[Ending | None]:
    assert write.new is not None
    only_intact = item.content != write.new.content
    yield from applying.take_away(mesh, mesh.home, write.key, newer, only_intact=only_intact)
    return Ending.BEATEN


RowChange = MergeTombstone | SettleTombstone | RaiseFloor | NoteRemoval


def no_rows(slot: StampedSlot, request: GetItem | StampRequest, nonce: str) -> tuple[StampedSlot, Response]:
    """Remember no deletes and no floors."""
    match request:
        case GetSideRow():
            return slot, FoundRow(NO_ROW)
        case MergeTombstone() | SettleTombstone() | RaiseFloor() | NoteRemoval():
            return slot, Done()
        case _:
            return answer_stamped(slot, request, nonce)


def no_marks(slot: StampedSlot, request: GetItem | StampRequest, nonce: str) -> tuple[StampedSlot, Response]:
    """Delete what is older without marking it first."""
    match request:
        case Restamp(stamp=Stamp(kind=Kind.MARK)):
            return slot, Done()
        case DeleteMarked(_, version):
            item = held(slot.item)
            if item is None or (item.version is not None and item.version >= version):
                return slot, Done()
            return slot._replace(item=None), Done()
        case _:
            return answer_stamped(slot, request, nonce)


def one_removal_per_tombstone(
    slot: StampedSlot, request: GetItem | StampRequest, nonce: str
) -> tuple[StampedSlot, Response]:
    """A new tombstone forgets which one took effect; a removal is noted for the present one only."""
    match request:
        case NoteRemoval(_, _, removed) if slot.row.deleted != removed:
            return slot, RefusedRow(slot.row)
        case MergeTombstone():
            after, response = answer_stamped(slot, request, nonce)
            if isinstance(response, Done):
                after = after._replace(row=replace(after.row, removed_at=None, removed=None))
            return after, response
        case _:
            return answer_stamped(slot, request, nonce)


def no_removals(slot: StampedSlot, request: GetItem | StampRequest, nonce: str) -> tuple[StampedSlot, Response]:
    """Never remember when a delete took effect."""
    after, response = answer_stamped(slot, request, nonce)
    return after._replace(row=replace(after.row, removed_at=None, removed=None)), response


# -- the log -------------------------------------------------------------------------------------------------------


def _silent(record: ChangeRecord, mesh: Mesh, *, after: type[object] | None) -> Steps[Outcome]:
    """The mode, but entries of the conflict log right behind a request of this kind are never written."""
    steps, behind = replicate_active(record, mesh), after is None
    answer: MeshResponse | None = None
    while True:
        try:
            request = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        answer = Done() if behind and isinstance(request, LogConflict) else (yield request)
        behind = isinstance(request, At) and after is not None and isinstance(request.request, after)


def _silent_where_a_delete_was_settled(record: ChangeRecord, mesh: Mesh) -> Steps[Outcome]:
    """A delete that was written but had lost already says nothing."""
    return (yield from _silent(record, mesh, after=SettleTombstone))


def _silent_removal(record: ChangeRecord, mesh: Mesh) -> Steps[Outcome]:
    """The daemon's removal of an item says nothing."""
    return (yield from _silent(record, mesh, after=NoteRemoval))


def _world(answer: Callable[[StampedSlot, GetItem | StampRequest, str], tuple[StampedSlot, Response]]) -> Variant:
    return replace(PRODUCTION, answer=answer)


ABLATIONS = {
    "stamp_back": Ablation("stamp-back", ((active_active, "settle_put", _never_settled),)),
    "stamp_back_first": Ablation("stamp-back before remote writes", ((active_active, "replicate_put", _settled_last),)),
    "tombstones": Ablation("tombstone rows", variant=_world(no_rows)),
    "mark": Ablation("delete mark", variant=_world(no_marks)),
    "verification": Ablation("ECHO-INSERT verification", ((verification, "take_back", _no_verification),)),
    "bump": Ablation("causal bump", ((active_active, "bumped", _not_bumped),)),
    "sequence": Ablation("sequence number in the version", ((active_active, "raw_version", _without_sequence),)),
    "hash": Ablation("content hash in the stamp", ((classification, "_is_echo", _any_new_stamp_is_ours),)),
    "nonce": Ablation("nonce in the stamp", variant=replace(PRODUCTION, nonces=False)),
    "floor": Ablation("floor row", ((active_active, "leave_floor", _no_floor),)),
    "removed_at": Ablation("`ls`: when a delete took effect here", variant=_world(no_removals)),
    "expiry": Ablation("tombstones outlive every replay"),
    "side_read": Ablation("side read on MODIFY", ((active_active, "look_home", _no_row_for_a_present_item),)),
    "V1": Ablation("loop after remove [V1]", ((active_active, "give_way", _removed_and_done),)),
    "V2_least": Ablation("least version above the floors [V2]", ((active_active, "bumped", _always_counted_up),)),
    "V2_greatest": Ablation("greatest floor only [V2]", ((active_active, "bumped", _one_floor_after_the_other),)),
    "V3": Ablation("item first, then row [V3]", ((active_active, "look_home", _row_first_for_deletes),)),
    "V4": Ablation("`lv`: which delete took effect [V4]", variant=_world(one_removal_per_tombstone)),
    "V5": Ablation(
        "log of a delete that lost unmerged [V5]",
        variant=replace(PRODUCTION, mode=_silent_where_a_delete_was_settled),
    ),
    "V6": Ablation(
        "restored images are no echo, and only intact items are taken back [V6]",
        (
            (classification, "stamps_a_restored_image", lambda _old, _new: False),
            (verification, "remove_intact", remove),
        ),
    ),
    "V7": Ablation("log of an update between mark and delete [V7]", variant=replace(PRODUCTION, mode=_silent_removal)),
}


def shown(name: str) -> list[str] | None:
    raise NotImplementedError
