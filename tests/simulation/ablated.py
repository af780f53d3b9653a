"""Functions that stand in for rules of mode `active-active`, and worlds that answer otherwise (`ablations`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from msgspec.structs import replace

from replicator.domain.conflicts import LogConflict
from replicator.domain.modes.active_active import apply, classify, replicate
from replicator.domain.modes.active_active.apply import apply_put
from replicator.domain.modes.active_active.classify import Origin
from replicator.domain.modes.active_active.mesh import Mesh, Write, look, read_row
from replicator.domain.modes.active_active.replicate import Ending, Finished, replicate_active, settle_put
from replicator.domain.modes.active_active.versions import floors, parent_hash, raw_version, version_of_put
from replicator.domain.modes.requests import (
    At,
    DeleteMarked,
    Done,
    FoundAhead,
    FoundRow,
    GetItem,
    GetSideRow,
    LookAhead,
    MergeTombstone,
    MeshResponse,
    NoteRemoval,
    RaiseFloor,
    RefusedRow,
    Remover,
    Response,
    Restamp,
    SettleTombstone,
    StampRequest,
    Steps,
)
from replicator.domain.records import ChangeRecord
from replicator.domain.stamps import NO_ROW, Held, SideRow, Stamp, StampKind, Tombstone, Version, bumped, held
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped
from tests.simulation.active_owed import NoAnswer, Owed, Settle, as_the_engine_does, owing

# -- the stamp-back ------------------------------------------------------------------------------------------------


def never_settled(mesh: Mesh, write: Write) -> Steps[Stamp | Ending | None]:
    assert write.new is not None
    item, row = yield from replicate.look_home(mesh, write)
    return Stamp(version_of_put(write, item, row), StampKind.VALUE, write.new.content, parent_hash(write, row))


def settled_last(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """The mode, but a local put is brought to other regions before it is stamped at home."""
    write = mesh.write(record)
    if classify.classify(write.old, write.new, by_ttl=write.by_ttl) is not Origin.LOCAL_PUT:
        return (yield from replicate_active(record, mesh))
    assert write.new is not None
    version = bumped(raw_version(write), floors(write, None, NO_ROW))
    stamp = Stamp(version, StampKind.VALUE, write.new.content, parent_hash(write, NO_ROW))
    for region in mesh.others:
        yield from apply_put(mesh, region, write, stamp)
    settled = yield from replicate.until_settled(settle_put, mesh, write)
    return Finished(Origin.LOCAL_PUT, settled if isinstance(settled, Ending) else Ending.PUT)


# -- versions ------------------------------------------------------------------------------------------------------


def not_bumped(raw: Version, _floors: object) -> Version:
    return raw


def without_sequence(write: Write) -> Version:
    return replace(raw_version(write), sequence=0)


def one_floor_after_the_other(raw: Version, lower: Iterator[Version | None]) -> Version:
    version = raw
    for floor in sorted(floor for floor in lower if floor is not None):
        if version <= floor and not floor.is_write(raw.region, raw.sequence):
            version = replace(raw, micros=floor.micros, counter=floor.counter + 1)
    return version


def always_counted_up(raw: Version, lower: Iterator[Version | None]) -> Version:
    greatest = max((f for f in lower if f is not None and not f.is_write(raw.region, raw.sequence)), default=None)
    if greatest is None or raw > greatest:
        return raw
    return replace(raw, micros=greatest.micros, counter=greatest.counter + 1)


# -- records -------------------------------------------------------------------------------------------------------


def any_new_stamp_is_ours(old: Held | None, new: Held) -> bool:
    return new.stamp is not None and (old is None or old.seen != new.seen)


def no_verification(_mesh: Mesh, _write: Write, _tombstone: Tombstone) -> Steps[None]:
    yield from ()


# -- rows and looks ------------------------------------------------------------------------------------------------


def no_floor(_mesh: Mesh, _write: Write, _row: SideRow, _version: Version) -> Steps[Ending | None]:
    yield from ()
    return Ending.GONE


def row_first_for_deletes(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    if write.new is not None:
        item = yield from look(mesh, mesh.home, write.key)
        return item, (yield from read_row(mesh.home, write.key))
    row = yield from read_row(mesh.home, write.key)
    return (yield from look(mesh, mesh.home, write.key)), row


def no_row_for_a_present_item(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    item = yield from look(mesh, mesh.home, write.key)
    if item is not None and write.old is not None and write.new is not None:
        return item, NO_ROW
    return item, (yield from read_row(mesh.home, write.key))


def asked_ahead_only(mesh: Mesh, write: Write, _row: SideRow) -> Steps[bool]:
    """As if a missing item without a tombstone told nothing."""
    answer = yield LookAhead(write.key, write.sequence)
    assert isinstance(answer, FoundAhead)
    return answer.remover is Remover.USER


def users_unless_found(mesh: Mesh, write: Write, row: SideRow) -> Steps[bool]:
    """What took the item was a user's delete, unless a removal by the daemon was read already."""
    if row.tombstone is None:
        return True
    answer = yield LookAhead(write.key, write.sequence)
    assert isinstance(answer, FoundAhead)
    return answer.remover is not Remover.DAEMON


def blind_floors(slot: StampedSlot, request: GetItem | StampRequest, nonce: str) -> tuple[StampedSlot, Response]:
    """Leave a floor whatever stands in the row."""
    if isinstance(request, RaiseFloor):
        return slot._replace(row=replace(slot.row, floor=request.floor)), Done()
    return answer_stamped(slot, request, nonce)


def removed_and_done(mesh: Mesh, write: Write, item: Held, newer: Tombstone) -> Steps[Ending | None]:
    assert write.new is not None
    only_intact = item.content != write.new.content
    yield from apply.take_away(mesh, mesh.home, write.key, newer, only_intact=only_intact)
    return Ending.BEATEN


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
        case Restamp(stamp=Stamp(kind=StampKind.MARK)):
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


def silent(record: ChangeRecord, mesh: Mesh, *, after: type[object] | None) -> Steps[Finished]:
    """The mode, but entries of the conflict log right behind a request of this kind, or a look, are never written."""
    steps, behind = replicate_active(record, mesh), after is None
    answer: MeshResponse | None = None
    while True:
        try:
            request = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            outcome: Finished = end.value
            return outcome
        answer = Done() if behind and isinstance(request, LogConflict) else (yield request)
        asked = request.request if isinstance(request, At) else None
        behind = after is not None and (isinstance(asked, after) or (behind and isinstance(asked, GetItem)))


def never_looked_again(_mesh: Mesh, _write: Write, item: Held | None, _row: SideRow) -> Steps[Held | None]:
    yield from ()
    return item


def silent_where_a_delete_was_settled(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """A delete that was written but had lost already says nothing."""
    return (yield from silent(record, mesh, after=SettleTombstone))


def silent_removal(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """The daemon's removal of an item says nothing."""
    return (yield from silent(record, mesh, after=NoteRemoval))


# -- owed keys -----------------------------------------------------------------------------------------------------


def never_owed(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """A record counts as done for a region that does not answer, although no row says so."""
    write = mesh.write(record)
    settled = yield from replicate.settle(mesh, write)
    if isinstance(settled, Finished):
        return settled
    for region in mesh.others:
        with suppress(NoAnswer):
            yield from replicate.deliver(mesh, region, write, settled)
    return settled.finished


def owed_with_its_image(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """A row keeps the write itself."""
    return (
        yield from owing(record, mesh, lambda write, settled: (as_the_engine_does(write, settled)[0], (write, settled)))
    )


def image_drained(mesh: Mesh, owed: Owed) -> Steps[None]:
    """Bring the image that a row keeps, whatever stands at home by now."""
    yield from replicate.deliver(mesh, owed.region, *owed.kept)
    yield Settle(owed.region)  # type: ignore[misc]


def always_settled(_read: str, _standing: str) -> bool:
    """A row is taken away, whatever became of it since it was read."""
    return True


def any_item_is_later(item: Held | None, _tombstone: Tombstone) -> bool:
    """Whatever stands at home is left to its own record."""
    return item is not None
