from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from replicator.domain.conflicts import ConflictKind, LogConflict, Reason, Resolution
from replicator.domain.identifiers import RegionId, SequenceNumber
from replicator.domain.image import Image, content_hash
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import At, Done, GetItem, GetTombstone, RaiseTombstone, Remove, Replace
from replicator.domain.modes.versioned.ranks import LOWEST, VersionAttribute, VersionType, rank_of, rank_of_delete
from replicator.domain.modes.versioned.replicate import Joined, Known, VersionedMesh, replicate_versioned
from replicator.domain.records import ChangeRecord, Event, item_key
from replicator.laboratory.memory import EMPTY, Slot, answer
from tests.unit.strategies import image

KEY = item_key(b'{"pk":{"S":"k"}}')
US, EU, AP = map(RegionId, ("us", "eu", "ap"))
NUMBER = VersionAttribute("ver")
STRING = VersionAttribute("ver", VersionType.TIME)


def item(version: str | None, note: str = "a", kind: str = "N", **more: Any) -> Image:
    typed = {} if version is None else {"ver": {kind: version}}
    return image({"pk": {"S": "k"}, "note": {"S": note}, **typed, **more})


V1, V2, V3 = item("1"), item("2"), item("3")
LESS, GREATER = sorted((item("2", "x"), item("2", "y")), key=content_hash)

Interference = Callable[[int, dict[RegionId, Slot]], None]


class Run:
    """A record brought to its end."""

    def __init__(
        self,
        slots: Mapping[RegionId, Slot],
        old: Image | None,
        new: Image | None,
        *,
        version: VersionAttribute = NUMBER,
        known: Known = (),
        before: Interference = lambda _number, _slots: None,
        others: tuple[RegionId, ...] = (EU,),
    ) -> None:
        self.slots = dict.fromkeys((US, *others), EMPTY) | dict(slots)
        self.logged: list[LogConflict] = []
        self.requests: list[tuple[str, str]] = []
        event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
        record = ChangeRecord(event, KEY, old, new, SequenceNumber("1"), 1_790_000_000.0)
        steps = replicate_versioned(record, VersionedMesh(US, others, version), known)
        try:
            request = next(steps)
            while True:
                before(len(self.requests), self.slots)
                request = steps.send(self._answered(request))
        except StopIteration as end:
            self.joined: Joined = end.value

    def _answered(self, request: At | LogConflict) -> Any:
        if isinstance(request, LogConflict):
            self.logged.append(request)
            self.requests.append(("log", request.kind))
            return Done()
        self.requests.append((request.region, type(request.request).__name__))
        self.slots[request.region], response = answer(self.slots[request.region], request.request)
        return response

    @property
    def effects(self) -> list[Effect]:
        return list(self.joined.effects.values())


GET, GET_TOMBSTONE, RAISE = GetItem.__name__, GetTombstone.__name__, RaiseTombstone.__name__
PUT, REMOVE = Replace.__name__, Remove.__name__


# -- join ----------------------------------------------------------------------------------------------------------


def test_a_new_item_is_put_where_nothing_stands_and_no_tombstone_forbids_it() -> None:
    run = Run({US: Slot(V2)}, None, V2)
    assert run.slots[EU] == Slot(V2)
    assert run.requests == [("us", GET_TOMBSTONE), ("eu", GET), ("eu", GET_TOMBSTONE), ("eu", PUT)]
    assert (run.effects, run.joined.regions) == ([Effect.APPLIED], (US, EU))
    assert run.joined.rank == rank_of(NUMBER, V2)


@pytest.mark.parametrize(("tombstone", "effect"), [("1", Effect.APPLIED), ("2", Effect.STALE), ("3", Effect.STALE)])
def test_a_put_onto_a_missing_key_needs_a_higher_version_than_its_tombstone(tombstone: str, effect: Effect) -> None:
    run = Run({US: Slot(V2), EU: Slot(None, NUMBER.of(item(tombstone)))}, V1, V2)
    assert run.effects == [effect]


def test_the_parent_is_replaced_without_an_entry() -> None:
    run = Run({US: Slot(V2), EU: Slot(item("1.0"))}, V1, V2)
    assert (run.slots[EU].item, run.logged) == (V2, [])
    assert run.requests == [("eu", GET), ("eu", PUT)]


def test_reserved_attributes_do_not_travel() -> None:
    reserved: dict[str, Any] = {"_rep": {"S": "x"}, "aws:rep:updateregion": {"S": "us"}}
    new = item("2", **reserved)
    run = Run({US: Slot(new), EU: Slot(V1)}, V1, new)
    assert run.slots[EU].item == V2


def test_an_image_that_is_not_the_parent_is_logged_before_it_is_replaced() -> None:
    run = Run({US: Slot(V3), EU: Slot(V2)}, V1, V3)
    assert run.requests == [("eu", GET), ("log", "put_put"), ("eu", PUT)]
    (entry,) = run.logged
    assert (entry.winner, entry.winner_region, entry.winner_micros) == (V3, "us", 1_790_000_000_000_000)
    assert (entry.loser, entry.loser_region, entry.loser_micros) == (V2, "eu", None)
    assert (entry.reason, entry.outcome) == (Reason.VERSION, Resolution.OVERWRITTEN)
    assert entry.winner_version.startswith("3!P!")


def test_a_loser_without_a_version_is_logged_as_such() -> None:
    for loser in (item(None), item("new", kind="S")):
        (entry,) = Run({US: Slot(V1), EU: Slot(loser)}, None, V1).logged
        assert (entry.kind, entry.loser_version, entry.reason) == (ConflictKind.UNVERSIONED, None, Reason.VERSION)


def test_an_equal_or_greater_image_stays() -> None:
    for standing in (V2, V3, item("2.0")):
        run = Run({US: Slot(V2), EU: Slot(standing)}, V1, V2)
        assert (run.effects, run.slots[EU].item, run.logged) == ([Effect.STALE], standing, [])


def test_of_equal_versions_the_greater_content_wins_and_the_other_is_logged() -> None:
    beaten = Run({US: Slot(LESS), EU: Slot(GREATER)}, V1, LESS)
    winning = Run({US: Slot(GREATER), EU: Slot(LESS)}, V1, GREATER)
    for run in (beaten, winning):
        (entry,) = run.logged
        assert (entry.winner, entry.loser, entry.reason) == (GREATER, LESS, Reason.HASH_TIE)
        assert run.slots[EU].item == GREATER


def test_what_comes_between_look_and_put_is_looked_at_again() -> None:
    def insert(number: int, slots: dict[RegionId, Slot]) -> None:
        if number == 2:
            slots[EU] = Slot(V2)

    run = Run({US: Slot(V3)}, V1, V3, before=insert)
    assert run.requests == [("eu", GET), ("eu", GET_TOMBSTONE), ("eu", PUT), ("log", "put_put"), ("eu", PUT)]
    assert run.slots[EU].item == V3


@pytest.mark.parametrize(
    ("unseen", "entries"),
    [
        (LESS, [(LESS, Resolution.OVERWRITTEN)]),
        (item("2.0", "the parent"), []),
    ],
)
def test_an_image_of_the_same_version_that_came_between_is_logged(
    unseen: Image, entries: list[tuple[Image, Resolution]]
) -> None:
    def write(number: int, slots: dict[RegionId, Slot]) -> None:
        if number == 1:
            slots[EU] = Slot(unseen)

    parent = item("2", "the parent")
    run = Run({US: Slot(V3), EU: Slot(parent)}, parent, V3, before=write)
    assert run.slots[EU].item == V3
    assert [(entry.loser, entry.outcome) for entry in run.logged] == entries


def test_a_greater_image_of_the_same_version_that_came_between_is_logged_as_coming_back() -> None:
    images = sorted((item("2", note) for note in "xyz"), key=content_hash)

    def write(number: int, slots: dict[RegionId, Slot]) -> None:
        if number == 1:
            slots[EU] = Slot(images[2])

    run = Run({US: Slot(images[1]), EU: Slot(images[0])}, images[0], images[1], before=write)
    assert [(entry.loser, entry.outcome) for entry in run.logged] == [(images[2], Resolution.REPAIRED)]


def test_what_is_known_is_not_looked_after_again() -> None:
    rank = rank_of(NUMBER, V2)
    run = Run({US: Slot(V2)}, V1, V2, known={(EU, rank), (AP, rank_of(NUMBER, V1))}, others=(EU, AP))
    assert [region for region, _ in run.requests] == ["ap", "ap", "ap"]
    assert run.effects == [Effect.STALE, Effect.APPLIED]


# -- regress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lesser", [V1, item(None), item("x", kind="S"), LESS], ids=["lower", "lost", "mistyped", "tie"]
)
def test_a_lesser_image_is_logged_and_taken_back_everywhere(lesser: Image) -> None:
    run = Run({US: Slot(lesser), EU: Slot(GREATER), AP: Slot(lesser)}, GREATER, lesser, others=(EU, AP))
    assert {slot.item for slot in run.slots.values()} == {GREATER}
    assert run.effects == [Effect.APPLIED, Effect.STALE, Effect.APPLIED]
    first = run.logged[0]
    assert run.requests[0] == ("log", "version_regress")
    assert (first.winner, first.loser, first.loser_region) == (GREATER, lesser, "us")
    assert first.reason is (Reason.HASH_TIE if lesser == LESS else Reason.VERSION)
    assert [entry.loser for entry in run.logged] == [lesser, lesser], "the same two again in ap, with the same id"


def test_what_is_known_of_the_home_region_does_not_keep_it_from_being_repaired() -> None:
    known = {(region, rank_of(NUMBER, V2)) for region in (US, EU)}
    run = Run({US: Slot(V1), EU: Slot(V2)}, V2, V1, known=known)
    assert run.slots[US].item == V2
    assert {region for region, _ in run.requests} == {"log", "us"}


# -- deletes -------------------------------------------------------------------------------------------------------


def test_a_delete_is_remembered_everywhere_and_carried_out() -> None:
    run = Run({EU: Slot(V2)}, V2, None)
    assert run.requests == [("us", RAISE), ("us", REMOVE), ("eu", RAISE), ("eu", REMOVE)]
    assert run.slots == {US: Slot(None, NUMBER.of(V2)), EU: Slot(None, NUMBER.of(V2))}
    assert (run.effects, run.logged) == ([Effect.ABSENT, Effect.DELETED], [])
    assert run.joined.rank == rank_of_delete(NUMBER, V2)


def test_a_delete_loses_to_a_higher_version() -> None:
    run = Run({EU: Slot(V3)}, V2, None)
    assert run.slots[EU] == Slot(V3, NUMBER.of(V2))
    assert run.effects == [Effect.ABSENT, Effect.STALE]


def test_a_delete_leaves_a_newer_tombstone() -> None:
    run = Run({EU: Slot(None, NUMBER.of(V3))}, V2, None)
    assert run.slots[EU].tombstone == NUMBER.of(V3)


def test_a_lower_image_is_logged_before_it_goes_with_a_delete() -> None:
    run = Run({EU: Slot(V1)}, V2, None)
    assert run.requests[2:] == [("eu", RAISE), ("eu", REMOVE), ("log", "delete_put"), ("eu", REMOVE)]
    assert run.effects == [Effect.ABSENT, Effect.DELETED]


def test_what_comes_between_the_log_and_the_delete_is_logged_too() -> None:
    def change(number: int, slots: dict[RegionId, Slot]) -> None:
        if number == 5:
            slots[EU] = Slot(LESS)

    run = Run({EU: Slot(V1)}, V3, None, before=change)
    assert [entry.loser for entry in run.logged] == [V1, LESS]
    assert run.slots[EU].item is None


@pytest.mark.parametrize("other", [V1, item("2", "other"), item(None)], ids=["lower", "equal", "none"])
def test_a_delete_of_an_image_that_it_did_not_know_is_logged(other: Image) -> None:
    run = Run({EU: Slot(other)}, V2, None)
    (entry,) = run.logged
    assert (entry.winner_op, entry.winner, entry.winner_version) == ("delete", None, "2!D")
    assert (entry.loser, entry.reason) == (other, Reason.VERSION)
    assert entry.kind == (ConflictKind.UNVERSIONED if "ver" not in other.attributes else ConflictKind.DELETE_PUT)


@pytest.mark.parametrize(
    ("then", "effect"), [(Slot(item("later", kind="S")), Effect.DELETED), (EMPTY, Effect.ABSENT)], ids=["stays", "goes"]
)
def test_a_text_that_is_no_version_is_deleted_although_it_sorts_higher(then: Slot, effect: Effect) -> None:
    moment = "2026-07-01T12:00:00Z"
    mistyped = Slot(item("sometime", kind="S"))

    def change(number: int, slots: dict[RegionId, Slot]) -> None:
        if number == 4:
            slots[EU] = then

    run = Run({EU: mistyped}, item(moment, kind="S"), None, version=STRING, before=change)
    assert run.effects == [Effect.ABSENT, effect]
    assert run.slots[EU].item is None


def test_a_known_delete_is_not_done_again() -> None:
    rank = rank_of_delete(NUMBER, V2)
    assert Run({}, V2, None, known={(US, rank), (EU, rank)}).requests == []
    assert [region for region, _ in Run({}, V2, None, known={(US, rank)}).requests] == ["eu", "eu"]


# -- creation below a tombstone ------------------------------------------------------------------------------------


def test_an_item_created_below_its_tombstone_is_logged_and_deleted_and_goes_nowhere() -> None:
    run = Run({US: Slot(V1, NUMBER.of(V2))}, None, V1)
    assert run.requests == [("us", GET_TOMBSTONE), ("us", GET), ("log", "stale_create"), ("us", REMOVE)]
    assert run.slots == {US: Slot(None, NUMBER.of(V2)), EU: EMPTY}
    (entry,) = run.logged
    assert (entry.winner_version, entry.winner_op, entry.loser) == ("2!D", "delete", V1)
    assert run.joined.regions == (US,)


def test_everything_up_to_the_tombstone_goes_with_it() -> None:
    run = Run({US: Slot(V2, NUMBER.of(V3))}, None, V1)
    assert run.slots[US].item is None
    assert [entry.kind for entry in run.logged] == ["stale_create", "delete_put"]


@pytest.mark.parametrize(("standing", "entries"), [(V1, 1), (None, 0)])
@pytest.mark.parametrize("tombstone", [V1, V3], ids=["of its own version", "of a higher version"])
def test_only_what_still_stands_below_its_tombstone_is_lost(
    tombstone: Image, standing: Image | None, entries: int
) -> None:
    run = Run({US: Slot(standing, NUMBER.of(tombstone))}, None, V1)
    assert len(run.logged) == entries
    assert run.slots[US] == Slot(None, NUMBER.of(tombstone))


def test_what_the_daemon_itself_put_there_is_no_users_creation() -> None:
    run = Run({US: Slot(V1, NUMBER.of(V2))}, None, V1, known={(US, rank_of(NUMBER, V1))})
    assert (run.logged, run.slots[US].item) == ([], None)


def test_an_item_without_a_version_cannot_be_created_again_below_any_tombstone() -> None:
    run = Run({US: Slot(item(None), LOWEST)}, None, item(None))
    assert run.slots == {US: Slot(None, LOWEST), EU: EMPTY}
    assert run.logged[0].winner_version == "-!D"
