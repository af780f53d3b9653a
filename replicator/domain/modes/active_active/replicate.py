"""Mode `active-active`: users write in every region, and every region ends with the last write.

Owns what happens to one record of one region's stream, as a generator of requests. Invariants (docs/protocol.md): K1
stamps and tombstones only rise; K2 a version is durable at home before any other region sees it; K3 an item that is
not as it was stamped has a local record ahead; K4 a record is done only when every region has answered, or something
newer was seen at home; K5 versions follow the order of each stream and what users overwrote.
Leaves retries, fencing, nonces, waiting and looking ahead to its driver.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import assert_never

import msgspec

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active.apply import apply_delete, apply_put, remove
from replicator.domain.modes.active_active.classify import Origin, classify
from replicator.domain.modes.active_active.conflicts import Contender, log_loss, met_unseen, stamped_write
from replicator.domain.modes.active_active.echoes import verify_insert, verify_overwrite, verify_removal
from replicator.domain.modes.active_active.mesh import Mesh, Write, attempt, look, read_row
from replicator.domain.modes.active_active.versions import parent_hash, version_of_delete, version_of_put
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
    Steps,
)
from replicator.domain.records import ChangeRecord
from replicator.domain.stamps import Held, SideRow, Stamp, StampKind, Tombstone, Version

Versioned = Stamp | Tombstone
"""What a local put or delete becomes once its version is durable at home."""


class Ending(enum.Enum):
    """What became of a record."""

    PUT = "put"  # every region holds this write or a newer one
    DELETED = "deleted"  # every region holds this delete or something newer
    SUPERSEDED = "superseded"  # something newer is at home; its own record delivers it
    BEATEN = "beaten"  # a newer delete is at home
    GONE = "gone"  # a later delete of this region owns the key
    VERIFIED = "verified"  # the daemon's own write: nothing to replicate


class Finished(msgspec.Struct, frozen=True):
    """Whose write a record was, and what became of it."""

    origin: Origin
    ending: Ending


class Settled(msgspec.Struct, frozen=True):
    """A local write whose version is durable at home; `deliver` brings it to every other region."""

    origin: Origin
    version: Versioned

    @property
    def owed_version(self) -> str:
        """What the row of a region that did not answer says: the version that this write was given."""
        return self.version.version.text

    @property
    def finished(self) -> Finished:
        """What the record has become once every other region has answered."""
        return Finished(self.origin, Ending.PUT if isinstance(self.version, Stamp) else Ending.DELETED)


def replicate_active(record: ChangeRecord, mesh: Mesh) -> Steps[Finished]:
    """Bring one record of the home region's stream to every region of the mesh."""
    write = mesh.write(record)
    settled = yield from settle(mesh, write)
    if isinstance(settled, Finished):
        return settled
    for region in mesh.others:
        yield from deliver(mesh, region, write, settled)
    return settled.finished


def settle(mesh: Mesh, write: Write) -> Steps[Settled | Finished]:
    """What a record asks of its home region: an outcome if that is all, else what other regions are to be brought.

    A driver that has settled a record goes on from here when another region did not answer: it need not look again.
    """
    origin = classify(write.old, write.new, by_ttl=write.by_ttl)
    settled: Versioned | Ending = Ending.VERIFIED
    match origin:
        case Origin.LOCAL_PUT:
            settled = yield from until_settled(settle_put, mesh, write)
        case Origin.LOCAL_DELETE | Origin.LOCAL_EXPIRY:
            settled = yield from until_settled(settle_delete, mesh, write)
        case Origin.ECHO_INSERT:
            yield from verify_insert(mesh, write)
        case Origin.ECHO_MODIFY:
            yield from verify_overwrite(mesh, write)
        case Origin.ECHO_REMOVE:
            yield from verify_removal(mesh, write)
        case _:
            assert_never(origin)
    return Finished(origin, settled) if isinstance(settled, Ending) else Settled(origin, settled)


def until_settled(
    look_once: Callable[[Mesh, Write], Steps[Versioned | Ending | None]], mesh: Mesh, write: Write
) -> Steps[Versioned | Ending]:
    """Look at the home region until what was seen there still held when it was acted on."""
    settled = None
    while settled is None:
        settled = yield from look_once(mesh, write)
    return settled


def deliver(mesh: Mesh, region: RegionId, write: Write, settled: Settled) -> Steps[None]:
    """Bring a settled write to one other region, unless something newer is there."""
    match settled.version:
        case Stamp():
            yield from apply_put(mesh, region, write, settled.version)
        case Tombstone():
            yield from apply_delete(mesh, region, write.key, settled.version)
        case _:
            assert_never(settled.version)


def look_home(mesh: Mesh, write: Write) -> Steps[tuple[Held | None, SideRow]]:
    """Item and side row at home, in this order: a tombstone that is written between the two looks must be seen."""
    item = yield from look(mesh, mesh.home, write.key, write.new)
    row = yield from read_row(mesh.home, write.key)
    return item, row


# -- a local put ---------------------------------------------------------------------------------------------------


def settle_put(mesh: Mesh, write: Write) -> Steps[Stamp | Ending | None]:
    """Stamp a local put at home: its stamp once that is durable, an ending when it lost, None to look again."""
    assert write.new is not None, "a put carries an image"
    item, row = yield from look_home(mesh, write)
    version = version_of_put(write, item, row)
    stamp = Stamp(version, StampKind.VALUE, write.new.content, parent_hash(write, row))
    newer = row.tombstone if row.tombstone is not None and row.tombstone.version > version else None
    if item is None:
        return Ending.BEATEN if newer is not None else (yield from settle_missing(mesh, write, row, stamp))
    if newer is not None:
        return (yield from give_way(mesh, write, item, newer))
    if item.version is not None and item.version >= version:
        return stamp if item.version == version else Ending.SUPERSEDED
    return (yield from stamp_item(mesh, write, item, stamp))


def settle_missing(mesh: Mesh, write: Write, row: SideRow, stamp: Stamp) -> Steps[Stamp | Ending | None]:
    """The item of a local put is gone: leave a floor if a user deleted it, put it back if the daemon did."""
    assert write.new is not None, "a put carries an image"
    if (yield from user_deleted(mesh, write, row)):
        return (yield from leave_floor(mesh, write, row, stamp.version))
    request = StampedPut(write.key, write.new.bare, stamp, Absent())
    done, _ = yield from attempt(mesh, mesh.home, request)
    return stamp if done else None


def user_deleted(mesh: Mesh, write: Write, row: SideRow) -> Steps[bool]:
    """Whether a user's delete took the item of a local put; that delete is still ahead in this region's stream.

    Every delete of the daemon writes its tombstone first, so without one it was a user. With one, the first removal
    behind the put decides, if it has been read already: it is never waited for, since it may lie any distance ahead.
    """
    if row.tombstone is None:
        return True
    if not mesh.policy.look_ahead:
        return False
    answer = yield LookAhead(write.key, write.sequence)
    assert isinstance(answer, FoundAhead), "the driver answers what it has read"
    return answer.remover is Remover.USER


def leave_floor(mesh: Mesh, write: Write, row: SideRow, version: Version) -> Steps[Ending | None]:
    """Keep the version of a put that a later local delete owns: that delete must be newer."""
    if row.floor is not None and row.floor >= version:
        return Ending.GONE
    answer = yield At(mesh.home, RaiseFloor(write.key, row, version))
    return Ending.GONE if isinstance(answer, Done) else None


def give_way(mesh: Mesh, write: Write, item: Held, newer: Tombstone) -> Steps[Ending | None]:
    """A newer delete is beside the item: remove what that delete should have removed, unless it is newer still."""
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
        request = StampedPut(write.key, write.new.bare, stamp, when)
    done, _ = yield from attempt(mesh, mesh.home, request)
    return stamp if done else None


# -- a local delete ------------------------------------------------------------------------------------------------


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
    item = yield from look_again(mesh, write, item, row)
    yield from log_lost_delete(mesh, write, item, version)
    # Only an intact item below the delete goes; one that is not intact is a user's write with a record of its own.
    if item is not None and item.intact and item.version is not None and item.version < version:
        yield from remove(mesh, mesh.home, write.key, tombstone)
    return tombstone


def look_again(mesh: Mesh, write: Write, item: Held | None, row: SideRow) -> Steps[Held | None]:
    """The item that a settled delete is compared with.

    An earlier try gave the version on a look of its own, and may have logged nothing: ours may be older than that one.
    """
    if row.deleted is None or not write.is_version(row.deleted):
        return item
    return (yield from look(mesh, mesh.home, write.key))


def log_lost_delete(mesh: Mesh, write: Write, item: Held | None, version: Version) -> Steps[None]:
    """A newer put of another region, which did not know of this delete, is already there: the delete lost."""
    # The delete lost only to a put that has a version at or above its own; a mark is a delete itself.
    if item is None or item.stamp is None or item.kind is not StampKind.VALUE or item.stamp.version < version:
        return
    if met_unseen(item.stamp.version, item.stamp.parent, version):
        yield from log_loss(mesh, write.key, stamped_write(item), Contender(version, None))
