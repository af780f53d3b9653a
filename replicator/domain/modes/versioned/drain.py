"""Mode `versioned`, a key that an away region was owed: bring it what stands at home, once it is back.

Invariant: only images and deletes that home holds are joined, so a rank is never lowered (J1). Where nothing is
brought, a user has deleted what the region was owed, and the record of that delete is ahead (J2).
"""

from __future__ import annotations

from collections.abc import Collection

from replicator.domain.identifiers import RegionId
from replicator.domain.image import unreserved
from replicator.domain.modes.drained import Drained
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import At, RaiseTombstone, RegionSteps
from replicator.domain.modes.versioned.ranks import Rank, rank_of
from replicator.domain.modes.versioned.replicate import (
    Party,
    VersionedMesh,
    item_in,
    join,
    log_removed,
    remove,
    tombstone_in,
)
from replicator.domain.records import ItemKey


def drain(
    mesh: VersionedMesh, region: RegionId, key: ItemKey, replaced: Collection[str] = (), left: str | None = None
) -> RegionSteps[Drained]:
    """Bring a region what its home region has under a key now, whichever version it was owed.

    `replaced`: marks of what the changes that the region was owed had replaced at home (`replaced_by`): each stood
    there and is accounted for there, so one of them in the region goes without an entry in the log; anything else does
    not. `left`: the mark of what the last of those changes left (`left_by`), None when that is not known. Another image
    at home has a record of its own, which knows what it replaced: only that may replace what is not known here.
    """
    item = yield from item_in(mesh.home, key)
    tombstone = yield from tombstone_in(mesh.home, key)
    if item is not None and (tombstone is None or tombstone < mesh.version.of(item)):
        image = unreserved(item)
        party = Party(rank_of(mesh.version, image), image, mesh.home, None)
        decides = left in {None, party.rank.mark}
        effect = yield from join(mesh, key, party, region, replaced, (), decides=decides)
        return Drained.NOTHING if effect is Effect.OWED else Drained.PUT
    if tombstone is None:
        return Drained.NOTHING
    delete = Party(Rank(tombstone, deleted=True, content=""), None, mesh.home, None)
    yield from delete_again(mesh, region, key, delete, replaced)
    return Drained.DELETED


def delete_again(
    mesh: VersionedMesh, region: RegionId, key: ItemKey, delete: Party, replaced: Collection[str]
) -> RegionSteps[None]:
    """Let a region remember a delete and carry it out, where what the delete removed at home is not known any more."""
    yield At(region, RaiseTombstone(key, delete.rank.version))
    standing = yield from item_in(region, key)
    if standing is None or mesh.version.of(standing) > delete.rank.version:
        return
    if rank_of(mesh.version, standing).mark not in replaced:
        yield from log_removed(mesh, key, delete, region, standing, ())
    yield from remove(mesh, key, delete, region, standing)
