"""Mode `versioned`: bring what stood in the regions together before their streams, and repair what differs.

Invariant: only images and deletes that a region holds are joined, so a rank only rises (J1), whatever users and workers
do meanwhile. The one exception is an operator's policy that deletes what one region lacks.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from replicator.domain.conflicts import ConflictKind
from replicator.domain.copying.contents import Kind, is_same
from replicator.domain.copying.looks import Ended
from replicator.domain.copying.meshes import (
    Items,
    MeshCandidate,
    MeshDifference,
    MeshMended,
    Missing,
    judged,
    logged_as,
    prints,
)
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.requests import RegionSteps
from replicator.domain.modes.versioned.drain import delete_again
from replicator.domain.modes.versioned.ranks import Rank, rank_of
from replicator.domain.modes.versioned.replicate import Party, VersionedMesh, item_in, join, tombstone_in
from replicator.domain.records import ItemKey
from replicator.domain.values import replace


class Standing(Struct, frozen=True):
    """What one region holds under a key: its item, without reserved attributes, and the version of its tombstone."""

    item: Image | None
    tombstone: str | None


Seen = Mapping[RegionId, Standing]


def seed_versioned(mesh: VersionedMesh, key: ItemKey, image: Image) -> RegionSteps[None]:
    """Join an item that was scanned in the home region into every other region, as a record of it would."""
    party = Party(rank_of(mesh.version, bare := unreserved(image)), bare, mesh.home, None)
    for region in mesh.others:
        yield from logged_as(ConflictKind.SEED, join(mesh, key, party, region, (), ()))


def look_versioned(mesh: VersionedMesh, key: ItemKey) -> RegionSteps[Seen]:
    """The second look at a key: in every region at the item, then at its side row."""
    seen: dict[RegionId, Standing] = {}
    for region in (mesh.home, *mesh.others):
        item = yield from item_in(region, key)
        tombstone = yield from tombstone_in(region, key)
        seen[region] = Standing(None if item is None else unreserved(item), tombstone)
    return seen


def first_look(mesh: VersionedMesh, key: ItemKey, items: Items, looked_at: float) -> MeshCandidate | None:
    """Whether a key is to be looked at again. `items`: of every region; however far apart they were read."""
    bare = _bare(items)
    seen = {region: Standing(item, None) for region, item in bare.items()}
    return MeshCandidate(key, prints(bare), looked_at) if differences(mesh, seen) else None


def judge(
    mesh: VersionedMesh, candidate: MeshCandidate, seen: Seen, looked_at: float
) -> MeshDifference[Seen] | MeshCandidate | Ended:
    """What `look_versioned` makes of a candidate."""
    items = {region: its.item for region, its in seen.items()}
    return judged(candidate, differences(mesh, seen), items, seen, looked_at)


def _bare(items: Items) -> dict[RegionId, Image | None]:
    return {region: None if item is None else unreserved(item) for region, item in items.items()}


class Verdict(Struct, frozen=True):
    """The greatest of what regions hold: an item and the region that holds it, or a delete (`item` None).

    `lacking`: regions without the item that remember no delete which says why.
    """

    rank: Rank
    item: Image | None
    region: RegionId
    lacking: frozenset[RegionId]


def verdict(mesh: VersionedMesh, seen: Seen) -> Verdict | None:
    """What all regions should hold; None when none holds an item."""
    held = [(rank_of(mesh.version, it.item), it.item, region) for region, it in seen.items() if it.item is not None]
    if not held:
        return None
    rank, item, region = max(held, key=lambda known: known[0])
    deletes = [(its.tombstone, where) for where, its in seen.items() if its.tombstone is not None]
    version, where = max(deletes, default=("", region))
    if version >= rank.version:
        return Verdict(Rank(version, deleted=True, content=""), None, where, frozenset())
    return Verdict(rank, item, region, frozenset(region for region, its in seen.items() if its.item is None))


def differences(mesh: VersionedMesh, seen: Seen) -> dict[RegionId, Kind]:
    """How each region differs from what all should hold."""
    should = verdict(mesh, seen)
    if should is None:
        return {}
    found: dict[RegionId, Kind] = {}
    for region, its in seen.items():
        if not is_same(should.item, its.item):
            found[region] = Kind.EXTRA if should.item is None else Kind.MISSING if its.item is None else Kind.DIFFERS
    return found


def repair_versioned(
    mesh: VersionedMesh, key: ItemKey, seen: Seen, missing: Missing = Missing.KEEP
) -> RegionSteps[MeshMended]:
    """Bring all regions what the greatest of them holds."""
    should = verdict(mesh, seen)
    if should is None:
        return MeshMended.LEFT
    rank = should.rank
    if should.lacking and missing is Missing.MANUAL:
        return MeshMended.LEFT
    if should.lacking and missing is Missing.DELETE:
        rank = Rank(rank.version, deleted=True, content="")
    party = Party(rank, None if rank.deleted else should.item, should.region, None)
    for region, its in seen.items():
        if rank.deleted:  # also where nothing stood: an older image may have been brought there since
            steps = delete_again(replace(mesh, home=region), region, key, party, ())
            yield from logged_as(ConflictKind.REPAIR, steps)
        elif not is_same(should.item, its.item):
            yield from logged_as(ConflictKind.REPAIR, join(mesh, key, party, region, (), ()))
    return MeshMended.DELETED if rank.deleted else MeshMended.PUT
