"""Mode `active-active`: users write in every region, and every region ends with the last write.

Owns what happens to one record of one region's stream, as a generator of requests. Invariants (docs/protocol.md): K1
stamps and tombstones only rise; K2 a version is durable at home before any other region sees it; K3 an item that is
not as it was stamped has a local record ahead; K4 a record is done only when every region has answered, or something
newer was seen at home; K5 versions follow the order of each stream and what users overwrote.
Leaves retries, fencing, nonces, waiting and looking ahead to whoever drives it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from replicator.domain.modes.active_active.apply import apply_delete, apply_put, remove
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.modes.active_active.conflicts import Contender, log_loss, met_unseen, stamped_write
from replicator.domain.modes.active_active.echoes import verify_insert, verify_overwrite, verify_removal
from replicator.domain.modes.active_active.mesh import Mesh, Steps, Write, attempt, look, read_row
from replicator.domain.modes.requests import (
    Absent,
    At,
    Done,
    FoundAhead,
    LookAhead,
    RaiseFloor,
    Remover,
    Restamp,
    SettleTombstone,
    StampedPut,
    StampIs,
)
from replicator.domain.records import ChangeRecord
from replicator.domain.stamps import (
    NO_PARENT,
    Held,
    Kind,
    SideRow,
    Stamp,
    Tombstone,
    Version,
    bumped,
    given_before,
    parent_of,
)


class Ending(enum.Enum):
    """What became of a record."""

    PUT = "put"  # every region holds this write or a newer one
    DELETED = "deleted"  # every region holds this delete or something newer
    SUPERSEDED = "superseded"  # something newer stands at home; its own record delivers it
    BEATEN = "beaten"  # a newer delete stands at home
    GONE = "gone"  # a later delete of this region owns the key
    VERIFIED = "verified"  # the daemon's own write: nothing to replicate


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whose write a record was, and what became of it."""

    origin: Origin
    ending: Ending


def replicate_active(record: ChangeRecord, mesh: Mesh) -> Steps[Outcome]:
    """Bring one record of the home region's stream to every region of the mesh."""
    write = mesh.write(record)
    origin = classify(write.old, write.new, by_ttl=write.by_ttl)
    match origin:
        case Origin.LOCAL_PUT:
            return Outcome(origin, (yield from replicate_put(mesh, write)))
        case Origin.LOCAL_DELETE | Origin.LOCAL_EXPIRY:
            return Outcome(origin, (yield from replicate_delete(mesh, write)))
        case Origin.ECHO_INSERT:
            yield from verify_insert(mesh, write)
        case Origin.ECHO_MODIFY:
            yield from verify_overwrite(mesh, write)
        case Origin.ECHO_REMOVE:
            yield from verify_removal(mesh, write)
        case _:
            assert_never(origin)
    return Outcome(origin, Ending.VERIFIED)


def look_home(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    """Item and side row at home, in this order: a tombstone that is written between the two looks must be seen."""
    item = yield from look(mesh, mesh.home, write.key)
    row = yield from read_row(mesh.home, write.key)
    return item, row


# -- versions ------------------------------------------------------------------------------------------------------


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
    if item is not None and item.kind is Kind.VALUE and write.is_version(item.version):
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


# -- a local put ---------------------------------------------------------------------------------------------------


def replicate_put(mesh: Mesh, write: Write) -> Steps[Ending]:
    """Make a local put's version durable at home, then bring it to the others."""
    settled = None
    while settled is None:
        settled = yield from settle_put(mesh, write)
    if isinstance(settled, Ending):
        return settled
    for region in mesh.others:
        yield from apply_put(mesh, region, write, settled)
    return Ending.PUT


def settle_put(mesh: Mesh, write: Write) -> Steps[Stamp | Ending | None]:
    """Stamp a local put at home: its stamp once that is durable, an ending when it lost, None to look again."""
    assert write.new is not None, "a put carries an image"
    item, row = yield from look_home(mesh, write)
    version = version_of_put(write, item, row)
    stamp = Stamp(version, Kind.VALUE, write.new.content, parent_hash(write, row))
    newer = row.tombstone if row.tombstone is not None and row.tombstone.version > version else None
    if item is None:
        return Ending.BEATEN if newer is not None else (yield from settle_missing(mesh, write, row, stamp))
    if newer is not None:
        return (yield from give_way(mesh, write, item, newer))
    if item.version is not None and item.version >= version:
        return stamp if item.version == version else Ending.SUPERSEDED
    return (yield from stamp_item(mesh, write, item, stamp))


def settle_missing(mesh: Mesh, write: Write, row: SideRow, stamp: Stamp) -> Steps[Stamp | Ending | None]:
    """The item of a local put is gone: leave a floor for the delete that took it, or put it back if the daemon did."""
    assert write.new is not None, "a put carries an image"
    if mesh.policy.look_ahead:
        answer = yield LookAhead(write.key, write.sequence)
        assert isinstance(answer, FoundAhead), "somebody looked ahead"
        if answer.remover is Remover.USER:
            return (yield from leave_floor(mesh, write, row, stamp.version))
    request = StampedPut(write.key, mesh.bare(write.new), stamp, Absent())
    done, _ = yield from attempt(mesh, mesh.home, request)
    return stamp if done else None


def leave_floor(mesh: Mesh, write: Write, row: SideRow, version: Version) -> Steps[Ending | None]:
    """Keep the version of a put that a later local delete owns: that delete must be newer."""
    if row.floor is not None and row.floor >= version:
        return Ending.GONE
    answer = yield At(mesh.home, RaiseFloor(write.key, row, version))
    return Ending.GONE if isinstance(answer, Done) else None


def give_way(mesh: Mesh, write: Write, item: Held, newer: Tombstone) -> Steps[Ending | None]:
    """A newer delete stands beside the item: remove what that delete should have removed, unless it is newer still."""
    assert write.new is not None, "a put carries an image"
    if item.version is not None and item.version > newer.version:
        return Ending.SUPERSEDED
    if item.intact or item.content == write.new.content:  # else the item's own record will look at the tombstone
        met = yield from remove(mesh, mesh.home, write.key, newer)
        if met is not None:
            return None
    return Ending.BEATEN


def stamp_item(mesh: Mesh, write: Write, item: Held, stamp: Stamp) -> Steps[Stamp | None]:
    """Stamp back, never touching the content of a later local write; over an older daemon's image, repair."""
    assert write.new is not None, "a put carries an image"
    when = StampIs(item.seen)
    request: Restamp | StampedPut = Restamp(write.key, stamp, when)
    if item.intact and item.content != write.new.content:
        request = StampedPut(write.key, mesh.bare(write.new), stamp, when)
    done, _ = yield from attempt(mesh, mesh.home, request)
    return stamp if done else None


# -- a local delete ------------------------------------------------------------------------------------------------


def replicate_delete(mesh: Mesh, write: Write) -> Steps[Ending]:
    """Make a local delete durable at home, then bring it to the others."""
    settled = None
    while settled is None:
        settled = yield from settle_delete(mesh, write)
    if isinstance(settled, Ending):
        return settled
    for region in mesh.others:
        yield from apply_delete(mesh, region, write.key, settled)
    return Ending.DELETED


def settle_delete(mesh: Mesh, write: Write) -> Steps[Tombstone | Ending | None]:
    """Write a local delete's tombstone at home: the tombstone, an ending when it lost, None to look again."""
    assert write.old is not None, "a delete removed an image"
    item, row = yield from look_home(mesh, write)
    version = version_of_delete(write, item, row)
    if row.deleted is not None and row.deleted > version:
        yield from log_lost_delete(mesh, write, item, version)
        return Ending.BEATEN
    tombstone = Tombstone(version, parent_hash(write, row), write.old.content)
    later_removal = row.removed is not None and row.removed > version
    request = SettleTombstone(write.key, row, tombstone, None if later_removal else write.sequence)
    answer = yield At(mesh.home, request)
    if not isinstance(answer, Done):
        return None
    yield from log_lost_delete(mesh, write, item, version)
    if item is not None and item.intact and item.version is not None and item.version < version:
        yield from remove(mesh, mesh.home, write.key, tombstone)
    return tombstone


def log_lost_delete(mesh: Mesh, write: Write, item: Held | None, version: Version) -> Steps[None]:
    """A newer put of another region, which did not know of this delete, already stands there: the delete lost."""
    if item is None or item.stamp is None or item.kind is not Kind.VALUE or item.stamp.version < version:
        return
    if met_unseen(item.stamp.version, item.stamp.parent, version):
        yield from log_loss(mesh, write.key, stamped_write(mesh, item), Contender(version, None))
