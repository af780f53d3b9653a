"""Mode `active-active`, the daemon's own records: nothing is replicated, what happened is verified.

Invariants: a put that slipped in between a tombstone and its look is taken away again; every write that a daemon's
write overwrote is logged, since exactly the record of that write holds both images.
"""

from __future__ import annotations

from replicator.domain.conflicts import Resolution
from replicator.domain.image import Image, restamped
from replicator.domain.modes.active_active.apply import remove_intact
from replicator.domain.modes.active_active.conflicts import (
    Contender,
    delete_of,
    log_loss,
    met_unseen,
    stamped_write,
    unversioned_write,
)
from replicator.domain.modes.active_active.mesh import Mesh, Write, look, read_row
from replicator.domain.modes.requests import At, NoteRemoval, Steps
from replicator.domain.records import ChangeRecord
from replicator.domain.stamps import Held, StampKind, Tombstone, Version, content_of_bare, stamp_in


def verify_insert(mesh: Mesh, write: Write) -> Steps[None]:
    """The daemon put an item where none was: a newer delete takes it away again, and the loser of the two is logged."""
    row = yield from read_row(mesh.home, write.key)
    item, tombstone = write.new, row.tombstone
    assert item is not None, "the daemon inserted an item"
    assert item.stamp is not None, "with its stamp"
    if tombstone is None:
        return
    if tombstone.version > item.stamp.version:
        yield from take_back(mesh, write, tombstone)
    elif met_unseen(item.stamp.version, item.stamp.parent, tombstone.version):
        yield from log_loss(mesh, write.key, stamped_write(item), delete_of(tombstone))


def take_back(mesh: Mesh, write: Write, tombstone: Tombstone) -> Steps[None]:
    """Remove what a newer delete had already removed; a still newer put that is met instead beats that delete."""
    met = yield from remove_intact(mesh, mesh.home, write.key, tombstone)
    # Only a put with a version can beat the delete: no item, a bare one and a marked one are not logged.
    if met is None or met.stamp is None or met.kind is StampKind.MARK:
        return
    if met_unseen(met.stamp.version, met.stamp.parent, tombstone.version):
        yield from log_loss(mesh, write.key, stamped_write(met), delete_of(tombstone))


def verify_removal(mesh: Mesh, write: Write) -> Steps[None]:
    """The daemon finished a marked delete: later local writes have seen it, one between mark and delete was lost."""
    old = write.old
    assert old is not None, "the daemon removed an item"
    assert old.version is not None, "that it had marked"
    yield At(mesh.home, NoteRemoval(write.key, write.sequence, old.version))
    if not old.intact:
        delete = Contender(old.version, None)
        yield from log_loss(
            mesh, write.key, delete, unversioned_write(old), (yield from _resolution(mesh, write, old.version))
        )


def is_own_stamp(record: ChangeRecord, attribute: str) -> bool:
    """Whether a record shows just that the daemon stamped an item, which asks for nothing.

    Recognised in one look, for every write of a user has such a record: `classify` says `ECHO_MODIFY` of it then, and
    `verify_overwrite` finds nothing. False: perhaps.
    """
    if record.old is None or record.new is None:
        return False
    alike = restamped(record.old, record.new, attribute)
    if alike is None:
        return False
    bare, seen, given = alike
    old, new = stamp_in(seen), stamp_in(given)
    if new is None or new.kind is not StampKind.VALUE or new.content != content_of_bare(Image(bare), attribute):
        return False
    return old is None or (old.kind is StampKind.VALUE and old.version < new.version)


def verify_overwrite(mesh: Mesh, write: Write) -> Steps[None]:
    """The daemon wrote over an item: whatever its write did not know of is logged."""
    old, new = write.old, write.new
    assert old is not None, "the daemon overwrote an item"
    assert new is not None, "by an item"
    assert new.version is not None, "with its stamp"
    winner = stamped_write(new)
    if _hides_local_write(old, new):
        yield from log_loss(
            mesh, write.key, winner, unversioned_write(old), (yield from _resolution(mesh, write, new.version))
        )
    if _beats_stamped_write(old, new):
        yield from log_loss(mesh, write.key, winner, stamped_write(old))


def overwrites_unseen(old: Held, new: Held) -> bool:
    """Whether `verify_overwrite` has something to log of a daemon's write."""
    return _hides_local_write(old, new) or _beats_stamped_write(old, new)


def _is_more_than_a_stamp(old: Held, new: Held) -> bool:
    return old.content != new.content or new.kind is StampKind.MARK


def _hides_local_write(old: Held, new: Held) -> bool:
    """Whether the item was a local write without a stamp of its own yet."""
    return _is_more_than_a_stamp(old, new) and not old.intact


def _beats_stamped_write(old: Held, new: Held) -> bool:
    """Whether the stamp that was overwritten named a write which the new one did not know of."""
    if old.stamp is None or new.stamp is None:
        return False
    overwritten = old.intact and _is_more_than_a_stamp(old, new)
    unmarked = old.kind is StampKind.MARK and new.kind is StampKind.VALUE
    # A put over a mark beats the delete that set the mark, even with the same content.
    return (overwritten or unmarked) and met_unseen(new.stamp.version, new.stamp.parent, old.stamp.version)


def _resolution(mesh: Mesh, write: Write, over: Version) -> Steps[Resolution]:
    """What became of the local write that `over` took away: repaired if it is already there again, newer."""
    assert write.old is not None, "something was taken away"
    item = yield from look(mesh, mesh.home, write.key)
    # The loser counts as repaired only when its own content came back above what had taken it away.
    back = item is not None and item.content == write.old.content and item.version is not None and item.version > over
    return Resolution.REPAIRED if back else Resolution.OVERWRITTEN
