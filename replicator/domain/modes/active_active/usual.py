"""Mode `active-active`, what is usual of a local put: the next request where every answer so far is what most are.

A put is usual where its item stands at home as its record shows it, with nothing beside it in the side table, and in
another region as the put found it. `replicate` asks the same then, and decides in every other case. Invariant: a
request here is the one that `replicate` makes behind the same answers.
"""

from __future__ import annotations

from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import Guard, Mesh, Write
from replicator.domain.modes.active_active.versions import parent_hash, raw_version
from replicator.domain.modes.requests import Restamp, StampedPut, StampIs
from replicator.domain.stamps import NO_ROW, SideRow, Stamp, StampKind


def is_usual(mesh: Mesh, write: Write) -> bool:
    """Whether a write is certain to be a user's put: it left the stamp as it was, or took it away."""
    old, new = write.old, write.new
    if new is None or mesh.policy.guard is not Guard.READ:
        return False
    return new.seen is None or (old is not None and old.seen == new.seen)


def stamped_at_home(write: Write, item: Image | None, row: SideRow) -> Restamp | None:
    """How a usual put is stamped, behind the looks at its item and its side row; None: that is for `replicate`."""
    old, new = write.old, write.new
    assert new is not None, "a put carries an image"
    if row is not NO_ROW or item is None or item.wire != new.image.wire:
        return None
    version = raw_version(write)
    for image in (old, new):
        if image is not None and image.version is not None and image.version >= version:
            return None
    if write.is_version(new.version):
        return None
    return Restamp(write.key, Stamp(version, StampKind.VALUE, new.content, parent_hash(write, row)), StampIs(new.seen))


def put_elsewhere(write: Write, stamp: Stamp, item: Image | None) -> StampedPut | None:
    """How it is put in another region, behind the look at its item there; None: that is for `replicate`."""
    old, new = write.old, write.new
    assert new is not None, "a put carries an image"
    if old is None or item is None or item.wire != old.image.wire or not old.intact:
        return None
    if old.version is None or old.version >= stamp.version:
        return None
    return StampedPut(write.key, new.bare, stamp, StampIs(old.seen))
