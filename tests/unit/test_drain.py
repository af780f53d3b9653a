"""What is brought to a region that is back and was owed a key, in both modes of a mesh."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.conflicts import ConflictKind, LogConflict
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.modes.active_active import drain as active_drain
from replicator.domain.modes.active_active.mesh import ActivePolicy, Mesh
from replicator.domain.modes.active_active.replicate import settle as settle_active
from replicator.domain.modes.drained import Drained
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import At, Done, GetItem, GetSideRow, StampRequest
from replicator.domain.modes.versioned import drain as versioned_drain
from replicator.domain.modes.versioned.ranks import Rank, VersionAttribute, rank_of, rank_of_delete
from replicator.domain.modes.versioned.replicate import (
    Settled,
    VersionedMesh,
    left_by,
    replaced_by,
    settle,
    write_of,
)
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.domain.stamps import (
    NO_PARENT,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    content_of,
    held,
    write_sequence,
)
from replicator.laboratory.memory import EMPTY, Slot, answer
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped
from tests.unit.strategies import image

KEY = item_key(b'{"pk":{"S":"k"}}')
HOME, AWAY, THIRD = map(RegionId, ("aa", "bb", "cc"))
GENERATION = 1_700_000_000_000
NOTHING = StampedSlot()


# -- versions of rows ----------------------------------------------------------------------------------------------

versions = st.text(st.sampled_from('\0 !"#0A~é\U0001f600'), max_size=4)
ranks = st.builds(Rank, versions, st.booleans(), st.sampled_from(["", "0a", "ff"]))


@given(ranks, ranks)
def test_the_text_of_ranks_sorts_by_its_bytes_like_ranks(one: Rank, other: Rank) -> None:
    assert (one.text.encode() < other.text.encode()) == (one < other)
    assert (one.text == other.text) == (one == other)


# -- mode `active-active` ------------------------------------------------------------------------------------------

ONE, TWO = (image({"pk": {"S": "k"}, "n": {"N": number}}) for number in "12")


def version(second: int, region: str, number: int = 1) -> Version:
    return Version(second * 1_000_000, 0, region, write_sequence(GENERATION, number))


def holding(content: Image, at: Version, kind: StampKind = StampKind.VALUE, hashed: Image | None = None) -> Image:
    stamp = Stamp(at, kind, content_of(hashed or content), NO_PARENT)
    return Image(stamped(content, stamp.sealed("nonce---")))


def deleted(at: Version) -> SideRow:
    return SideRow(Tombstone(at, NO_PARENT, content_of(ONE)))


class Regions:
    """Regions of mode `active-active` under one key; what is asked of them is noted."""

    def __init__(self, home: StampedSlot, away: StampedSlot = NOTHING) -> None:
        self.slots = {HOME: home, AWAY: away, THIRD: StampedSlot()}
        self.asked: list[tuple[str, type[object]]] = []

    def drained(self) -> Drained:
        mesh = Mesh(HOME, (AWAY, THIRD), GENERATION, ActivePolicy(waits=0))
        drained: Drained = self.run(active_drain.drain(mesh, AWAY, KEY))
        return drained

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        try:
            request = next(steps)
            while True:
                assert isinstance(request, At)
                assert isinstance(request.request, GetItem | StampRequest)
                self.asked.append((request.region, type(request.request)))
                slot, response = answer_stamped(self.slots[request.region], request.request, "12345678")
                self.slots[request.region] = slot
                request = steps.send(response)
        except StopIteration as end:
            return end.value

    @property
    def away(self) -> StampedSlot:
        return self.slots[AWAY]


def test_what_stands_at_home_is_put_under_its_own_version() -> None:
    regions = Regions(StampedSlot(holding(TWO, version(5, HOME))), StampedSlot(holding(ONE, version(1, AWAY))))
    assert regions.drained() is Drained.PUT
    item = held(regions.away.item)
    assert item is not None
    assert (unreserved(item.image), item.version, item.intact) == (TWO, version(5, HOME), True)
    assert regions.asked[:2] == [(HOME, GetItem), (HOME, GetSideRow)], "the item first"


def test_what_is_greater_in_the_region_stays() -> None:
    newer = StampedSlot(holding(ONE, version(6, AWAY)))
    regions = Regions(StampedSlot(holding(TWO, version(5, HOME))), newer)
    assert regions.drained() is Drained.PUT
    assert regions.away == newer


@pytest.mark.parametrize("standing", [None, holding(ONE, version(1, AWAY))])
def test_a_delete_is_brought_as_its_tombstone(standing: Image | None) -> None:
    regions = Regions(StampedSlot(None, deleted(version(5, HOME))), StampedSlot(standing))
    assert regions.drained() is Drained.DELETED
    assert regions.away == StampedSlot(None, deleted(version(5, HOME)))


@pytest.mark.parametrize(
    "home",
    [
        StampedSlot(holding(ONE, version(3, HOME)), deleted(version(5, HOME))),  # brought back by a slow worker
        StampedSlot(holding(ONE, version(3, THIRD)), deleted(version(5, HOME))),
        StampedSlot(holding(ONE, version(5, HOME), StampKind.MARK), deleted(version(5, HOME))),
    ],
)
def test_an_item_that_its_regions_delete_has_still_to_take_away_is_deleted(home: StampedSlot) -> None:
    regions = Regions(home, StampedSlot(holding(ONE, version(1, AWAY))))
    assert regions.drained() is Drained.DELETED
    assert regions.away.item is None


def test_an_item_above_an_older_delete_is_put() -> None:
    regions = Regions(StampedSlot(holding(TWO, version(5, HOME)), deleted(version(4, HOME))))
    assert regions.drained() is Drained.PUT


@pytest.mark.parametrize(
    "home",
    [
        StampedSlot(),  # deleted by a user: the record of that is ahead
        StampedSlot(TWO),  # a user's write without a version
        StampedSlot(TWO, deleted(version(5, HOME))),
        StampedSlot(holding(TWO, version(5, HOME), hashed=ONE)),  # changed by a user
        StampedSlot(holding(TWO, version(5, HOME), StampKind.MARK, ONE), deleted(version(5, HOME))),
        StampedSlot(holding(TWO, version(5, THIRD))),
        StampedSlot(holding(TWO, version(6, THIRD)), deleted(version(5, HOME))),
        StampedSlot(None, deleted(version(5, THIRD))),
        StampedSlot(holding(ONE, version(3, HOME)), deleted(version(5, THIRD))),
    ],
)
def test_what_has_a_record_of_its_own_is_not_brought(home: StampedSlot) -> None:
    regions = Regions(home, StampedSlot(holding(ONE, version(1, AWAY))))
    assert regions.drained() is Drained.NOTHING
    assert regions.asked == [(HOME, GetItem), (HOME, GetSideRow)]


def record(old: Image | None, new: Image | None) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    return ChangeRecord(event, KEY, old, new, SequenceNumber("7"), 5.0)


def test_a_row_names_the_version_that_is_durable_at_home() -> None:
    regions = Regions(StampedSlot(TWO))
    mesh = Mesh(HOME, (AWAY, THIRD), GENERATION, ActivePolicy(waits=0))
    settled = regions.run(settle_active(mesh, mesh.write(record(None, TWO))))
    stamped_home = held(regions.slots[HOME].item)
    assert stamped_home is not None
    assert stamped_home.version is not None
    assert settled.owed_version == stamped_home.version.text


def test_the_row_of_a_delete_names_its_tombstone() -> None:
    regions = Regions(StampedSlot())
    mesh = Mesh(HOME, (AWAY, THIRD), GENERATION, ActivePolicy(waits=0))
    settled = regions.run(settle_active(mesh, mesh.write(record(ONE, None))))
    tombstone = regions.slots[HOME].row.tombstone
    assert tombstone is not None
    assert settled.owed_version == tombstone.version.text


# -- mode `versioned` ----------------------------------------------------------------------------------------------

VERSION = VersionAttribute("ver")
MESH = VersionedMesh(HOME, (AWAY, THIRD), VERSION)


def ranked(number: int, note: str = "a", **more: Any) -> Image:
    return image({"pk": {"S": "k"}, "note": {"S": note}, "ver": {"N": str(number)}, **more})


def mark(item: Image) -> str:
    return rank_of(VERSION, item).mark


class Ranked:
    """Regions of mode `versioned` under one key."""

    def __init__(self, home: Slot, away: Slot = EMPTY) -> None:
        self.slots = {HOME: home, AWAY: away}
        self.logged: list[LogConflict] = []

    def drained(self, *replaced: str, left: str | None = None) -> Drained:
        drained: Drained = self.run(versioned_drain.drain(MESH, AWAY, KEY, replaced, left))
        return drained

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        response: Any = None
        while True:
            try:
                request = steps.send(response)
            except StopIteration as end:
                return end.value
            if isinstance(request, LogConflict):
                self.logged.append(request)
                response = Done()
            else:
                self.slots[request.region], response = answer(self.slots[request.region], request.request)


def test_what_stands_at_home_is_joined() -> None:
    reserved: dict[str, Any] = {"aws:rep:updateregion": {"S": "us"}}
    standing = ranked(7, **reserved)
    regions = Ranked(Slot(standing), Slot(ranked(5)))
    assert regions.drained(mark(ranked(4)), mark(ranked(5)), left=mark(ranked(6))) is Drained.PUT
    assert regions.slots[AWAY].item == ranked(7)
    assert regions.logged == [], "it had replaced what stood there"


@pytest.mark.parametrize("replaced", [(), (mark(ranked(4)),)])
@pytest.mark.parametrize("left", [None, mark(ranked(7))])
def test_what_home_had_not_replaced_is_logged(replaced: tuple[str, ...], left: str | None) -> None:
    regions = Ranked(Slot(ranked(7)), Slot(ranked(5)))
    assert regions.drained(*replaced, left=left) is Drained.PUT
    assert [(entry.kind, entry.loser) for entry in regions.logged] == [(ConflictKind.PUT_PUT, ranked(5))]


def test_what_is_not_known_to_be_replaced_is_left_to_the_record_of_what_stands_at_home() -> None:
    regions = Ranked(Slot(ranked(7)), Slot(ranked(5)))
    assert regions.drained(mark(ranked(4)), left=mark(ranked(6))) is Drained.NOTHING
    assert (regions.slots[AWAY], regions.logged) == (Slot(ranked(5)), [])


def test_a_greater_image_stays() -> None:
    regions = Ranked(Slot(ranked(7)), Slot(ranked(8)))
    assert regions.drained() is Drained.PUT
    assert (regions.slots[AWAY].item, regions.logged) == (ranked(8), [])


@pytest.mark.parametrize("home", [None, ranked(5), ranked(6)])
@pytest.mark.parametrize(
    ("away", "replaced", "left", "logged"),
    [
        (None, (), None, []),
        (ranked(5), (mark(ranked(4)), mark(ranked(5))), None, []),
        (ranked(5), (mark(ranked(4)),), None, [ranked(5)]),
        (ranked(5), (), None, [ranked(5)]),
        (ranked(7), (), ranked(7), []),
    ],
)
def test_a_delete_is_remembered_and_carried_out(
    home: Image | None, away: Image | None, replaced: tuple[str, ...], left: Image | None, logged: list[Image]
) -> None:
    version = VERSION.of(ranked(6))
    regions = Ranked(Slot(home, version), Slot(away))
    assert regions.drained(*replaced) is Drained.DELETED
    assert regions.slots[AWAY] == Slot(left, version)
    assert [entry.loser for entry in regions.logged] == logged
    assert {entry.kind for entry in regions.logged} <= {ConflictKind.DELETE_PUT}


def test_an_item_that_a_user_deleted_has_a_record_of_its_own() -> None:
    regions = Ranked(Slot(), Slot(ranked(5)))
    assert regions.drained() is Drained.NOTHING
    assert regions.slots[AWAY] == Slot(ranked(5))


@pytest.mark.parametrize(
    ("old", "new", "owed", "replaced"),
    [
        (None, ranked(6), rank_of(VERSION, ranked(6)), ()),
        (ranked(5), ranked(6), rank_of(VERSION, ranked(6)), (mark(ranked(5)),)),
        (ranked(5), None, rank_of_delete(VERSION, ranked(5)), (mark(ranked(5)),)),
        (ranked(6), ranked(5), rank_of(VERSION, ranked(6)), ()),
    ],
)
def test_a_row_names_the_rank_that_is_to_be_joined_and_what_it_replaced(
    old: Image | None, new: Image | None, owed: Rank, replaced: tuple[str, ...]
) -> None:
    write = write_of(record(old, new))
    settled = Ranked(Slot(new)).run(settle(MESH, write, ()))
    assert isinstance(settled, Settled)
    assert settled.owed_version == owed.text
    assert replaced_by(MESH, write) == replaced
    assert left_by(MESH, write) == owed.mark


def test_only_regions_that_answered_are_known_to_hold_an_image() -> None:
    settled = Settled(rank_of(VERSION, ranked(6)), {})
    assert settled.joined(MESH, {THIRD: Effect.APPLIED}).regions == (HOME, THIRD)
