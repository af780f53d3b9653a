"""Mode `active-active`, at a region: bring a versioned write or delete there, unless something newer is there.

Invariants: an item's version only rises, since every write is conditional on the full stamp that was seen; a tombstone
is raised before its item is marked, and an item is marked before it is deleted.
"""

from __future__ import annotations

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active.mesh import Guard, Mesh, Write, attempt, look, read_row
from replicator.domain.modes.requests import (
    Absent,
    At,
    DeleteMarked,
    MergeTombstone,
    RefusedRow,
    Restamp,
    StampCondition,
    StampedPut,
    StampIs,
    Steps,
    UnstampedOrBelow,
    Wait,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import Held, Stamp, StampKind, Tombstone


def apply_put(mesh: Mesh, region: RegionId, write: Write, stamp: Stamp) -> Steps[None]:
    """Bring the new image of a write to another region."""
    assert write.new is not None, "a put carries an image"
    image = write.new.bare
    when: StampCondition
    if mesh.policy.guard is Guard.OPTIMISTIC:
        when = UnstampedOrBelow(stamp.version)
        done, item = yield from attempt(mesh, region, StampedPut(write.key, image, stamp, when))
    else:
        done, item = False, (yield from _settled(mesh, region, write))
    while not done:
        if item is None:
            if (yield from _deleted_at_or_above(mesh, region, write, stamp)):
                return
            when = Absent()
        elif item.version is not None and item.version >= stamp.version:
            return
        else:
            when = StampIs(item.seen)
        done, item = yield from attempt(mesh, region, StampedPut(write.key, image, stamp, when))


def _settled(mesh: Mesh, region: RegionId, write: Write) -> Steps[Held | None]:
    """The item, after its region had a bounded time to stamp a local write."""
    item = yield from look(mesh, region, write.key, write.old)
    for tried in range(mesh.policy.waits):
        if item is None or item.intact:
            break
        yield Wait(tried + 1)
        item = yield from look(mesh, region, write.key)
    return item


def _deleted_at_or_above(mesh: Mesh, region: RegionId, write: Write, stamp: Stamp) -> Steps[bool]:
    """Whether a delete forbids this put onto a missing item.

    When the write changed an item that is missing here, a local delete is most likely still to be processed: that gets
    a bounded time too.
    """
    row = yield from read_row(region, write.key)
    parent = write.old.version if write.old is not None and write.old.intact else None
    for tried in range(mesh.policy.waits):
        # Nothing is awaited when the write overwrote nothing known, or once the delete of what it overwrote is here.
        if parent is None or (row.deleted is not None and row.deleted >= parent):
            break
        yield Wait(tried + 1)
        row = yield from read_row(region, write.key)
    return row.deleted is not None and row.deleted >= stamp.version


def apply_delete(mesh: Mesh, region: RegionId, key: ItemKey, tombstone: Tombstone) -> Steps[None]:
    """Bring a delete to another region."""
    answer = yield At(region, MergeTombstone(key, tombstone))
    if isinstance(answer, RefusedRow) and answer.row.deleted != tombstone.version:
        return  # a newer delete is there
    yield from remove(mesh, region, key, tombstone)


def remove(mesh: Mesh, region: RegionId, key: ItemKey, tombstone: Tombstone) -> Steps[Held | None]:
    """Mark an item that is older than a tombstone, then delete it; returns the newer item that was met instead."""
    return (yield from take_away(mesh, region, key, tombstone, only_intact=False))


def remove_intact(mesh: Mesh, region: RegionId, key: ItemKey, tombstone: Tombstone) -> Steps[Held | None]:
    """`remove`, but leave an item that a local write changed: that write's own record will look at the tombstone."""
    return (yield from take_away(mesh, region, key, tombstone, only_intact=True))


def take_away(
    mesh: Mesh, region: RegionId, key: ItemKey, tombstone: Tombstone, *, only_intact: bool
) -> Steps[Held | None]:
    """See `remove` and `remove_intact`."""
    item = yield from look(mesh, region, key)
    while item is not None and not _is_marked_by(item, tombstone):
        if item.version is not None and item.version >= tombstone.version:
            return item
        if only_intact and not item.intact:
            return None
        mark = Stamp(tombstone.version, StampKind.MARK, item.content, tombstone.parent)
        done, standing = yield from attempt(mesh, region, Restamp(key, mark, StampIs(item.seen)))
        if done:
            break
        item = standing
    if item is not None:
        yield At(region, DeleteMarked(key, tombstone.version))
    return None


def _is_marked_by(item: Held, tombstone: Tombstone) -> bool:
    return item.kind is StampKind.MARK and item.version == tombstone.version
