"""Mode `active-active`, a key that an away region was owed: bring it what stands at home, once it is back.

Invariant: nothing is brought but what a slow worker of the home region might still bring. Where nothing is brought,
home holds more than this region wrote, or a write of a user, and that has a record of its own (K3, K4).
"""

from __future__ import annotations

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active.apply import apply_delete, apply_put
from replicator.domain.modes.active_active.mesh import Mesh, Write, look, read_row
from replicator.domain.modes.drained import Drained
from replicator.domain.modes.requests import Steps
from replicator.domain.records import ItemKey
from replicator.domain.stamps import Held, Stamp, StampKind, Tombstone


def drain(mesh: Mesh, region: RegionId, key: ItemKey) -> Steps[Drained]:
    """Bring a region what its home region has under a key now, whichever version it was owed.

    Read in this order: a tombstone that is written between the two looks is seen.
    """
    item = yield from look(mesh, mesh.home, key)
    row = yield from read_row(mesh.home, key)
    stamp = stamp_of_home(mesh, item)
    if item is not None and stamp is not None and (row.deleted is None or row.deleted < stamp.version):
        yield from apply_put(mesh, region, as_write(mesh, key, item, stamp), stamp)
        return Drained.PUT
    tombstone = row.tombstone
    if tombstone is None or tombstone.version.region != mesh.home or is_later(item, tombstone):
        return Drained.NOTHING
    yield from apply_delete(mesh, region, key, tombstone)
    return Drained.DELETED


def stamp_of_home(mesh: Mesh, item: Held | None) -> Stamp | None:
    """The stamp of an item that is as a write of the home region made it."""
    if item is None or item.stamp is None or not item.intact or item.stamp.kind is not StampKind.VALUE:
        return None
    return item.stamp if item.stamp.version.region == mesh.home else None


def as_write(mesh: Mesh, key: ItemKey, item: Held, stamp: Stamp) -> Write:
    """The write that an item's stamp names; what it overwrote is not known any more."""
    version = stamp.version
    return Write(key, mesh.home, version.sequence, version.micros, by_ttl=False, old=None, new=item)


def is_later(item: Held | None, tombstone: Tombstone) -> bool:
    """Whether an item is more than a delete: a greater version, or a user's write that has none yet."""
    if item is None:
        return False
    return not item.intact or (item.version is not None and item.version > tombstone.version)
