"""What a copier decides in the modes of a mesh: looks, verdicts and repairs of one key in two regions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from replicator.domain.conflicts import ConflictKind, LogConflict
from replicator.domain.copying import active_active, versioned
from replicator.domain.copying.contents import Kind
from replicator.domain.copying.looks import MOST_LOOKS, Ended
from replicator.domain.copying.meshes import MeshCandidate, MeshDifference, MeshMended, Missing
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, stamped
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import At, Done, Restamp
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.modes.versioned.replicate import VersionedMesh
from replicator.domain.records import item_key
from replicator.domain.stamps import NO_PARENT, SideRow, Stamp, StampKind, Tombstone, Version, content_of, held
from replicator.laboratory.memory import Slot, answer

KEY = item_key(b'{"pk":{"S":"k"}}')
A, B = RegionId("aa"), RegionId("bb")
ACTIVE = Mesh(A, (B,), 1_700_000_000_000)
RANKED = VersionedMesh(A, (B,), VersionAttribute("ver"))
NOW = 9_000_000
World = dict[RegionId, Slot]


def plain(value: str) -> Image:
    return Image(b'{"pk":{"S":"k"},"value":{"S":"%b"}}' % value.encode())


def version(second: int, region: RegionId = A) -> Version:
    return Version(second * 1_000_000, 0, region, 1)


def active(value: str, second: int, region: RegionId = A, kind: StampKind = StampKind.VALUE) -> Image:
    stamp = Stamp(version(second, region), kind, content_of(plain(value)), NO_PARENT)
    return Image(stamped(plain(value), stamp.sealed("--------")))


def changed(value: str, second: int) -> Image:
    """An item that was updated under its stamp."""
    stamp = held(active("other", second))
    assert stamp is not None
    assert stamp.stamp is not None
    return Image(stamped(plain(value), stamp.stamp.sealed("--------")))


def deleted(second: int, region: RegionId = A) -> SideRow:
    return SideRow(Tombstone(version(second, region), NO_PARENT, content_of(plain("gone"))))


def ranked(value: str, number: int) -> Image:
    return Image(b'{"pk":{"S":"k"},"value":{"S":"%b"},"ver":{"N":"%d"}}' % (value.encode(), number))


def tombstone(number: int) -> str:
    return RANKED.version.of(ranked("", number))


def driven(world: World, steps: Generator[Any, Any, Any], logged: list[LogConflict] | None = None) -> Any:
    response: Any = None
    while True:
        try:
            request = steps.send(response)
        except StopIteration as end:
            return end.value
        if isinstance(request, At):
            nonce = "n" * 8
            world[request.region], response = answer(world[request.region], request.request, nonce)
        else:
            response = Done()
            if isinstance(request, LogConflict) and logged is not None:
                logged.append(request)


def mended_active(world: World, missing: Missing = Missing.KEEP) -> tuple[MeshMended, list[LogConflict]]:
    logged: list[LogConflict] = []
    seen = driven(world, active_active.look_active(ACTIVE, KEY))
    return driven(world, active_active.repair_active(ACTIVE, KEY, seen, NOW, missing), logged), logged


def mended_ranked(world: World, missing: Missing = Missing.KEEP) -> tuple[MeshMended, list[LogConflict]]:
    logged: list[LogConflict] = []
    seen = driven(world, versioned.look_versioned(RANKED, KEY))
    return driven(world, versioned.repair_versioned(RANKED, KEY, seen, missing), logged), logged


def shown(world: World) -> list[str | None]:
    return [None if slot.item is None else slot.item.attributes["value"]["S"] for slot in world.values()]


# -- active-active -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "kinds"),
    [
        (Slot(), Slot(), {}),
        (Slot(active("a", 1)), Slot(active("a", 1)), {}),
        (Slot(active("a", 1)), Slot(active("b", 2)), {A: Kind.DIFFERS}),
        (Slot(active("a", 1)), Slot(active("a", 2)), {A: Kind.DIFFERS}),
        (Slot(active("a", 1)), Slot(), {B: Kind.MISSING}),
        (Slot(active("a", 1)), Slot(plain("a")), {A: Kind.DIFFERS, B: Kind.UNSTAMPED}),
        (Slot(active("a", 1)), Slot(None, row=deleted(2)), {A: Kind.EXTRA}),
        (Slot(active("a", 1)), Slot(active("a", 2, kind=StampKind.MARK)), {B: Kind.MISSING}),
    ],
)
def test_how_regions_differ(here: Slot, there: Slot, kinds: dict[RegionId, Kind]) -> None:
    assert active_active.differences(driven({A: here, B: there}, active_active.look_active(ACTIVE, KEY))) == kinds


@pytest.mark.parametrize(
    ("here", "there", "missing", "mended", "left"),
    [
        (Slot(active("a", 1)), Slot(active("b", 2)), Missing.KEEP, MeshMended.PUT, "b"),
        (Slot(active("a", 1)), Slot(), Missing.KEEP, MeshMended.PUT, "a"),
        (Slot(active("a", 1)), Slot(), Missing.DELETE, MeshMended.DELETED, None),
        (Slot(active("a", 1)), Slot(None, row=deleted(2)), Missing.KEEP, MeshMended.DELETED, None),
        (Slot(plain("a")), Slot(active("b", 2)), Missing.KEEP, MeshMended.PUT, "a"),
        (Slot(changed("a", 1)), Slot(active("b", 2)), Missing.KEEP, MeshMended.PUT, "a"),
        (Slot(active("a", 1)), Slot(active("b", 1)), Missing.KEEP, MeshMended.PUT, None),
        (Slot(active("a", 1, kind=StampKind.MARK), row=deleted(1)), Slot(), Missing.KEEP, MeshMended.DELETED, None),
        (Slot(), Slot(), Missing.KEEP, MeshMended.LEFT, None),
    ],
)
def test_regions_are_brought_what_the_greatest_of_them_holds(
    here: Slot, there: Slot, missing: Missing, mended: MeshMended, left: str | None
) -> None:
    world = {A: here, B: there}
    assert mended_active(world, missing)[0] is mended
    assert len(set(shown(world))) == 1
    if left is not None or mended is not MeshMended.PUT:
        assert shown(world) == [left, left]
    seen = driven(world, active_active.look_active(ACTIVE, KEY))
    assert active_active.differences(seen) == {}


def test_what_a_repair_replaces_in_a_mesh_is_kept() -> None:
    (entry,) = mended_active({A: Slot(active("a", 1)), B: Slot(active("b", 2))})[1]
    assert (entry.kind, entry.loser, entry.winner) == (ConflictKind.REPAIR, plain("a"), plain("b"))
    (entry,) = mended_active({A: Slot(active("a", 1)), B: Slot(None, row=deleted(2))})[1]
    assert (entry.kind, entry.loser, entry.winner) == (ConflictKind.REPAIR, plain("a"), None)
    assert mended_active({A: Slot(active("a", 1)), B: Slot(active("a", 2))})[1] == []


def test_a_key_that_is_to_be_decided_by_hand_is_not_touched() -> None:
    for item in (active("a", 1), plain("a")):
        world = {A: Slot(item), B: Slot()}
        assert mended_active(world, Missing.MANUAL) == (MeshMended.LEFT, [])
        assert world == {A: Slot(item), B: Slot()}
    ranks = {A: Slot(ranked("a", 1)), B: Slot()}
    assert mended_ranked(ranks, Missing.MANUAL) == (MeshMended.LEFT, [])
    assert ranks == {A: Slot(ranked("a", 1)), B: Slot()}


@pytest.mark.parametrize("twin", [plain("a"), active("a", 1)])
def test_what_changed_since_it_was_seen_is_not_stamped(twin: Image) -> None:
    world = {A: Slot(twin), B: Slot(active("b", 1))}
    seen = driven(world, active_active.look_active(ACTIVE, KEY))
    for region in world:
        world[region] = Slot(active("c", 3))
    ended = driven(world, active_active.repair_active(ACTIVE, KEY, seen, NOW))
    assert ended is MeshMended.CHANGED
    assert shown(world) == ["c", "c"]


def test_a_seed_leaves_what_has_a_version_and_what_is_gone() -> None:
    for item in (Slot(active("a", 1)), Slot()):
        for scanned in (plain("a"), active("a", 1)):
            world = {A: item, B: Slot()}
            assert driven(world, active_active.seed_active(ACTIVE, KEY, scanned)) is False
            assert world == {A: item, B: Slot()}


def test_a_seed_gives_way_to_what_came_between_its_look_and_its_stamp() -> None:
    mesh = Mesh(B, (A,), 1)
    steps, world = active_active.seed_active(mesh, KEY, plain("a")), {A: Slot(plain("a")), B: Slot(plain("a"))}
    request: Any = next(steps)
    with pytest.raises(StopIteration) as end:  # noqa: PT012 - the loop ends so
        while True:
            if isinstance(request.request, Restamp) and request.region == A:
                world[A] = Slot(active("a", 3))
            world[request.region], response = answer(world[request.region], request.request, "n" * 8)
            request = steps.send(response)
    assert end.value.value is True
    assert shown(world) == ["a", "a"]


@pytest.mark.parametrize(
    ("here", "there", "left"),
    [("a", "b", ["b", "b"]), ("a", "a", ["a", "a"]), ("a", None, ["a", "a"])],
)
def test_seeds_of_all_regions_come_together(here: str, there: str | None, left: list[str]) -> None:
    world = {A: Slot(plain(here)), B: Slot() if there is None else Slot(plain(there))}
    for mesh, image in ((ACTIVE, plain(here)), (Mesh(B, (A,), 1), None if there is None else plain(there))):
        if image is not None:
            driven(world, active_active.seed_active(mesh, KEY, image))
    assert shown(world) == left
    assert active_active.differences(driven(world, active_active.look_active(ACTIVE, KEY))) == {}


def test_a_greater_seed_stands_where_a_lesser_one_is_brought() -> None:
    world = {A: Slot(plain("a")), B: Slot(plain("a"))}
    driven(world, active_active.seed_active(ACTIVE, KEY, plain("a")))
    assert [held(slot.item).version.region for slot in world.values()] == [A, B]  # type: ignore[union-attr]


def test_a_seed_that_meets_a_write_is_brought_as_it_is() -> None:
    world = {A: Slot(plain("a")), B: Slot(active("b", 2, B))}
    assert driven(world, active_active.seed_active(ACTIVE, KEY, plain("a"))) is True
    assert shown(world) == ["a", "b"]


def test_a_scanned_item_is_joined_and_what_it_replaces_is_logged_as_a_seed() -> None:
    world, logged = {A: Slot(ranked("a", 2)), B: Slot(ranked("b", 1))}, list[LogConflict]()
    driven(world, versioned.seed_versioned(RANKED, KEY, ranked("a", 2)), logged)
    assert shown(world) == ["a", "a"]
    assert [(entry.kind, entry.loser) for entry in logged] == [(ConflictKind.SEED, ranked("b", 1))]


# -- versioned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "kinds"),
    [
        (Slot(), Slot(), {}),
        (Slot(ranked("a", 1)), Slot(ranked("a", 1)), {}),
        (Slot(ranked("a", 1)), Slot(ranked("b", 2)), {A: Kind.DIFFERS}),
        (Slot(ranked("a", 1)), Slot(), {B: Kind.MISSING}),
        (Slot(ranked("a", 1)), Slot(None, tombstone(1)), {A: Kind.EXTRA}),
    ],
)
def test_how_ranked_regions_differ(here: Slot, there: Slot, kinds: dict[RegionId, Kind]) -> None:
    seen = driven({A: here, B: there}, versioned.look_versioned(RANKED, KEY))
    assert versioned.differences(RANKED, seen) == kinds


@pytest.mark.parametrize(
    ("here", "there", "missing", "mended", "left"),
    [
        (Slot(ranked("a", 1)), Slot(ranked("b", 2)), Missing.KEEP, MeshMended.PUT, "b"),
        (Slot(ranked("a", 1)), Slot(), Missing.KEEP, MeshMended.PUT, "a"),
        (Slot(ranked("a", 1)), Slot(), Missing.DELETE, MeshMended.DELETED, None),
        (Slot(ranked("a", 1)), Slot(None, tombstone(1)), Missing.KEEP, MeshMended.DELETED, None),
        (Slot(), Slot(), Missing.KEEP, MeshMended.LEFT, None),
    ],
)
def test_ranked_regions_are_brought_what_the_greatest_of_them_holds(
    here: Slot, there: Slot, missing: Missing, mended: MeshMended, left: str | None
) -> None:
    world = {A: here, B: there}
    ended, logged = mended_ranked(world, missing)
    assert (ended, shown(world)) == (mended, [left, left])
    assert {entry.kind for entry in logged} <= {ConflictKind.REPAIR}


# -- looks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["active", "versioned"])
def test_a_difference_of_a_mesh_is_what_both_looks_agree_on(mode: str) -> None:
    images = [active("a", 1), active("b", 2)] if mode == "active" else [ranked("a", 1), ranked("b", 2)]
    world = {A: Slot(images[0]), B: Slot(images[1])}

    def first(items: dict[RegionId, Image | None]) -> MeshCandidate | None:
        if mode == "active":
            return active_active.first_look(ACTIVE, KEY, items, 7.0)
        return versioned.first_look(RANKED, KEY, items, 7.0)

    def judged(candidate: MeshCandidate) -> Any:
        if mode == "active":
            return active_active.judge(candidate, driven(world, active_active.look_active(ACTIVE, KEY)), 9.0)
        return versioned.judge(RANKED, candidate, driven(world, versioned.look_versioned(RANKED, KEY)), 9.0)

    assert first(dict.fromkeys((A, B), images[0])) is None
    candidate = first({A: images[0], B: images[1]})
    assert candidate is not None
    found = judged(candidate)
    assert isinstance(found, MeshDifference)
    assert found.kinds == {A: Kind.DIFFERS}
    world[A] = Slot()
    again = judged(candidate)
    assert isinstance(again, MeshCandidate)
    assert (again.looked_at, again.looks, again.held[A]) == (9.0, 2, None)
    last = MeshCandidate(KEY, candidate.held, 7.0, MOST_LOOKS)
    assert judged(last) is Ended.MOVING
    world[A] = world[B]
    assert judged(candidate) is Ended.SAME
