"""Mode `active-active`, versions: which version a local write gets, and which one it overwrote.

Invariant: a write keeps a version that it was already given durably; a new one is the least above everything that the
write is later than, so a version never exceeds what a later write of its region was given before.
"""

from __future__ import annotations

from collections.abc import Iterable

from replicator.domain.modes.active_active.mesh import Write
from replicator.domain.stamps import NO_PARENT, Held, SideRow, StampKind, Version, bumped, given_before, parent_of


def raw_version(write: Write) -> Version:
    """The version by the clock alone. An expiry is no decision of a user: it only beats what it expired."""
    return Version(0 if write.new is None and write.by_ttl else write.micros, 0, write.region, write.sequence)


def floors(write: Write, item: Held | None, row: SideRow) -> Iterable[Version | None]:
    """Everything that a local write is later than: what it overwrote or kept, and earlier writes of its region."""
    where = write.region, write.sequence
    yield from (None if image is None else image.version for image in (write.old, write.new))
    yield given_before(None if item is None else item.version, *where)
    yield given_before(row.deleted, *where)
    yield given_before(row.floor, *where)
    yield row.removed_before(write.sequence)


def version_of_put(write: Write, item: Held | None, row: SideRow) -> Version:
    """The version of a local put: the one it was already given durably, else the least above its floors."""
    # The stamp is of this very write when it was written before a crash; a mark would be of a delete.
    if item is not None and item.kind is StampKind.VALUE and write.is_version(item.version):
        assert item.version is not None, "a version of this write"
        return item.version
    if row.floor is not None and write.is_version(row.floor):
        return row.floor
    return bumped(raw_version(write), floors(write, item, row))


def version_of_delete(write: Write, item: Held | None, row: SideRow) -> Version:
    """The version of a local delete: the one it was already given durably, else the least above its floors."""
    if row.deleted is not None and write.is_version(row.deleted):
        return row.deleted
    return bumped(raw_version(write), floors(write, item, row))


def parent_hash(write: Write, row: SideRow) -> str:
    """Hash of the version that a local write overwrote, as far as that is known: an image's, or a delete's."""
    if write.old is not None:
        return parent_of(write.old.version) if write.old.intact and write.old.version is not None else NO_PARENT
    seen = deletion_seen(write, row)
    return NO_PARENT if seen is None else parent_of(seen)


def deletion_seen(write: Write, row: SideRow) -> Version | None:
    """The tombstone's version, if this write came after the delete took effect in its region."""
    if row.deleted is None:
        return None
    own = given_before(row.deleted, write.region, write.sequence) is not None
    return row.deleted if own or row.removed_before(write.sequence) == row.deleted else None
