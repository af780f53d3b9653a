"""Mode `active-active`: bring what stood in the regions together before their streams, and repair what differs.

Invariants: K1 and K2 of the mode. What is seeded gets a version below every write (`seed_version`), durable in its own
region before another one sees it. What a region shows without a record that would bring it anywhere is stamped as if it
had just been written there. So a copier can do nothing that a slow worker may not do.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation
from replicator.domain.copying.contents import Kind
from replicator.domain.copying.looks import Ended
from replicator.domain.copying.meshes import (
    Items,
    MeshCandidate,
    MeshDifference,
    MeshMended,
    Missing,
    judged,
    prints,
)
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.modes.active_active.apply import apply_delete, apply_put
from replicator.domain.modes.active_active.drain import as_write
from replicator.domain.modes.active_active.mesh import Mesh, attempt, look, read_row
from replicator.domain.modes.requests import Restamp, StampIs, Steps
from replicator.domain.records import ItemKey
from replicator.domain.stamps import (
    NO_PARENT,
    NO_ROW,
    Held,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    bumped,
    held,
    parent_of,
    seed_version,
)
from replicator.domain.values import replace

# -- seeding -------------------------------------------------------------------------------------------------------


def seed_active(mesh: Mesh, key: ItemKey, image: Image) -> Steps[bool]:
    """Stamp an item that was scanned in the home region, if it has no stamp, and bring it to every other region.

    False: it has a version already, or is gone; the worker that gave it that version brings it to the others.
    """
    mesh = _hasty(mesh)
    scanned = held(image, mesh.policy.attribute)
    assert scanned is not None, "an item was scanned"
    item = yield from _seeded(mesh, mesh.home, key, scanned)
    stamp = None if item is None else item.stamp
    if item is None or stamp is None or not item.intact or stamp.version != seed_version(mesh.home):
        return False
    for region in mesh.others:
        yield from _bring_seed(mesh, region, key, item, stamp)
    return True


def _seeded(mesh: Mesh, region: RegionId, key: ItemKey, item: Held) -> Steps[Held | None]:
    """The item as it is once it carries a stamp: the least that there is, where it has none."""
    if item.seen is not None:
        return item
    stamp = Stamp(seed_version(region), StampKind.VALUE, item.content, NO_PARENT)
    done, standing = yield from attempt(mesh, region, Restamp(key, stamp, StampIs(None)))
    return structs.replace(item, stamp=stamp) if done else standing


def _bring_seed(mesh: Mesh, region: RegionId, key: ItemKey, item: Held, stamp: Stamp) -> Steps[None]:
    """Bring a seeded item to another region; what is equal there only gets the stamp, and is no conflict.

    What has no stamp there gets its own first, unless it is equal and its own is the lesser: the greatest shall win, in
    whatever order regions are scanned.
    """
    there = yield from look(mesh, region, key)
    is_equal = there is not None and there.content == item.content and seed_version(region) < stamp.version
    if there is not None and there.seen is None and not is_equal:
        there = yield from _seeded(mesh, region, key, there)
    while there is not None and there.content == item.content and there.kind is not StampKind.MARK:
        if there.version is not None and there.version >= stamp.version:
            return
        done, there = yield from attempt(mesh, region, Restamp(key, stamp, StampIs(there.seen)))
        if done:
            return
    yield from apply_put(mesh, region, as_write(mesh, key, item, stamp), stamp)


def _hasty(mesh: Mesh) -> Mesh:
    """The mesh for a copier, which waits for no single item."""
    return replace(mesh, policy=replace(mesh.policy, waits=0))


# -- looking -------------------------------------------------------------------------------------------------------


class Standing(Struct, frozen=True):
    """What one region holds under a key."""

    item: Held | None
    row: SideRow


Seen = Mapping[RegionId, Standing]


def look_active(mesh: Mesh, key: ItemKey) -> Steps[Seen]:
    """The second look at a key: in every region at the item, then at its side row."""
    seen: dict[RegionId, Standing] = {}
    for region in (mesh.home, *mesh.others):
        item = yield from look(mesh, region, key)
        seen[region] = Standing(item, (yield from read_row(region, key)))
    return seen


def first_look(mesh: Mesh, key: ItemKey, items: Items, looked_at: float) -> MeshCandidate | None:
    """Whether a key is to be looked at again. `items`: of every region; however far apart they were read."""
    held_there = {region: held(item, mesh.policy.attribute) for region, item in items.items()}
    seen = {region: Standing(item, NO_ROW) for region, item in held_there.items()}
    return MeshCandidate(key, prints(items), looked_at) if differences(seen) else None


def judge(candidate: MeshCandidate, seen: Seen, looked_at: float) -> MeshDifference[Seen] | MeshCandidate | Ended:
    """What `look_active` makes of a candidate."""
    items = {region: None if its.item is None else its.item.image for region, its in seen.items()}
    return judged(candidate, differences(seen), items, seen, looked_at)


def differences(seen: Seen) -> dict[RegionId, Kind]:
    """How each region differs from what all should hold; all are equal when contents and versions are."""
    found: dict[RegionId, Kind] = {}
    items = [its.item for its in seen.values() if its.item is not None and not _is_marked(its.item)]
    if not items:  # what is left of a delete that was not finished goes
        return {region: Kind.EXTRA for region, its in seen.items() if its.item is not None}
    best = max(items, key=_order)
    deleted = _greatest_delete(seen)
    is_deleted = deleted is not None and best.intact and best.version is not None and best.version < deleted.version
    for region, its in seen.items():
        kind = Kind.EXTRA if is_deleted and its.item is not None else None if is_deleted else _kind(best, its.item)
        if kind is not None:
            found[region] = kind
    return found


def _kind(best: Held, item: Held | None) -> Kind | None:
    if item is None or _is_marked(item):
        return Kind.MISSING
    if item.stamp is None:
        return Kind.UNSTAMPED
    return None if item.intact and (item.content, item.version) == (best.content, best.version) else Kind.DIFFERS


def _is_marked(item: Held) -> bool:
    """Whether a delete has marked an item that no user wrote since."""
    return item.kind is StampKind.MARK and item.intact


def _order(item: Held) -> tuple[bool, Version, str]:
    """The greatest of several items: one without a version of its own will get one above all others."""
    return not item.intact, item.version or Version(0, 0, "", 0), item.content


def _greatest_delete(seen: Seen) -> Tombstone | None:
    tombstones = [its.row.tombstone for its in seen.values() if its.row.tombstone is not None]
    return max(tombstones, key=lambda tombstone: tombstone.version, default=None)


# -- repairing -----------------------------------------------------------------------------------------------------


def repair_active(  # noqa: PLR0911 - one per verdict
    mesh: Mesh, key: ItemKey, seen: Seen, now_micros: int, missing: Missing = Missing.KEEP
) -> Steps[MeshMended]:
    """Bring all regions what the greatest of them holds. `now_micros`: microseconds since 1970, new for every try."""
    if missing is Missing.MANUAL and Kind.MISSING in differences(seen).values():
        return MeshMended.LEFT  # also what could be stamped: a version that is not brought everywhere would divide them
    mesh = _hasty(mesh)
    items = yield from _items(mesh, key, seen, now_micros)
    if items is None:
        return MeshMended.CHANGED
    if not items:
        return (yield from _delete(mesh, key, seen, items, _greatest_delete(seen)))
    best = max(items, key=lambda region: _order(items[region]))
    item, deleted = items[best], _greatest_delete(seen)
    assert item.stamp is not None, "every item has a version by now"
    if deleted is not None and deleted.version > item.stamp.version:
        return (yield from _delete(mesh, key, seen, items, deleted))
    lacking = seen.keys() - items.keys()
    if lacking and missing is Missing.DELETE:
        tombstone = _lost_delete(min(lacking), item, now_micros)
        return (yield from _delete(mesh, key, seen, items, tombstone))
    if any(_is_twin(item, other) for other in items.values()):
        return (yield from _decide_twins(mesh, key, seen, items, best, now_micros))
    yield from _put(_at_home(mesh, best), key, items, item)
    return MeshMended.PUT


def _items(mesh: Mesh, key: ItemKey, seen: Seen, now_micros: int) -> Steps[dict[RegionId, Held] | None]:
    """The items that were seen, every one with a version of its own by now; None when one has changed meanwhile."""
    items: dict[RegionId, Held] = {}
    for region, its in seen.items():
        item = its.item
        if item is not None and not item.intact:
            item = yield from _versioned(mesh, region, key, its, now_micros)
            if item is None:
                return None
        if item is not None and item.kind is StampKind.VALUE:
            items[region] = item
    return items


def _decide_twins(  # noqa: PLR0913, PLR0917 - what was seen, and where
    mesh: Mesh, key: ItemKey, seen: Seen, items: Mapping[RegionId, Held], best: RegionId, now_micros: int
) -> Steps[MeshMended]:
    """One version was given to two contents: one of them gets another."""
    item = yield from _versioned(mesh, best, key, Standing(items[best], seen[best].row), now_micros)
    if item is None:
        return MeshMended.CHANGED
    yield from _put(_at_home(mesh, best), key, items, item)
    return MeshMended.PUT


def _at_home(mesh: Mesh, region: RegionId) -> Mesh:
    """The mesh as seen from another of its regions."""
    others = tuple(other for other in (mesh.home, *mesh.others) if other != region)
    return replace(mesh, home=region, others=others)


def _is_twin(item: Held, other: Held) -> bool:
    """Whether one version was given to two contents: neither would take the place of the other."""
    return item.version == other.version and item.content != other.content


def _versioned(mesh: Mesh, region: RegionId, key: ItemKey, its: Standing, now_micros: int) -> Steps[Held | None]:
    """Stamp what a region shows as if it had just been written there; None when it has changed meanwhile."""
    item, row = its.item, its.row
    assert item is not None, "an item was seen"
    version = bumped(Version(now_micros, 0, region, 0), (item.version, row.deleted, row.floor))
    parent = NO_PARENT if item.version is None else parent_of(item.version)
    stamp = Stamp(version, StampKind.VALUE, item.content, parent)
    done, _ = yield from attempt(mesh, region, Restamp(key, stamp, StampIs(item.seen)))
    return structs.replace(item, stamp=stamp) if done else None


def _lost_delete(region: RegionId, item: Held, now_micros: int) -> Tombstone:
    """The delete that a region which lacks an item is taken to have lost."""
    assert item.version is not None, "every item has a version by now"
    version = bumped(Version(now_micros, 0, region, 0), (item.version,))
    return Tombstone(version, parent_of(item.version), item.content)


def _put(mesh: Mesh, key: ItemKey, items: Mapping[RegionId, Held], item: Held) -> Steps[None]:
    assert item.stamp is not None, "every item has a version by now"
    write = as_write(mesh, key, item, item.stamp)
    for region in mesh.others:
        there = items.get(region)
        if there is not None and there.version is not None and there.version < item.stamp.version:
            yield from _log(key, there, item.stamp.version, item)
        yield from apply_put(mesh, region, write, item.stamp)


def _delete(
    mesh: Mesh, key: ItemKey, seen: Seen, items: Mapping[RegionId, Held], tombstone: Tombstone | None
) -> Steps[MeshMended]:
    if tombstone is None:
        return MeshMended.LEFT
    # Where nothing is to be removed first: the delete is durable there before any other region sees it.
    for region in sorted(seen, key=lambda region: (region in items, region)):
        there = items.get(region)
        if there is not None and there.version is not None and there.version < tombstone.version:
            yield from _log(key, there, tombstone.version, None)
        yield from apply_delete(mesh, region, key, tombstone)
    return MeshMended.DELETED


def _log(key: ItemKey, loser: Held, winner_version: Version, winner: Held | None) -> Steps[None]:
    """Keep what is replaced, under the id that the record of the overwriting would give it."""
    assert loser.version is not None, "every item has a version by now"
    if winner is not None and winner.content == loser.content:
        return
    yield LogConflict(
        key=key,
        kind=ConflictKind.REPAIR,
        winner_version=winner_version.text,
        winner=None if winner is None else winner.bare,
        loser=loser.bare,
        loser_version=loser.version.text,
        winner_region=winner_version.region,
        loser_region=loser.version.region,
        winner_micros=winner_version.micros,
        loser_micros=loser.version.micros,
        winner_op=Operation.DELETE if winner is None else Operation.PUT,
    )
