from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation, Reason
from replicator.domain.errors import UnstampedItem
from replicator.domain.image import Image, stamped
from replicator.domain.modes.ordered import (
    Action,
    Change,
    Effect,
    InsertGuard,
    OrderedPolicy,
    Outcome,
    Unstamped,
    replicate_ordered,
)
from replicator.domain.modes.requests import (
    AbsentOrStampBelow,
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Refused,
    Request,
    Response,
    StampBelow,
    TombstoneBelow,
    UnstampedOrStampBelow,
)
from replicator.domain.records import item_key
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import EMPTY, Slot, answer
from tests.unit.strategies import Typed, image

KEY = item_key(b'{"pk":{"S":"k"}}')
LOWER, VERSION, HIGHER = (ordered_version(0, 1, number) for number in (1, 2, 3))
OLD, NEW, OTHER = (image({"pk": {"S": "k"}, "n": {"N": number}}) for number in "123")

TRANSACT = OrderedPolicy()
PROBE = OrderedPolicy(insert_guard=InsertGuard.PROBE)
STOP = OrderedPolicy(unstamped=Unstamped.STOP)
GUARDS = pytest.mark.parametrize("policy", [TRANSACT, PROBE], ids=["transact", "probe"])

INSERT = Change(Action.PUT, KEY, VERSION, None, NEW)
MODIFY = Change(Action.PUT, KEY, VERSION, OLD, NEW)
REMOVE = Change(Action.REMOVE, KEY, VERSION, OLD, None)
REMOVE_IF_PRESENT = Change(Action.REMOVE_IF_PRESENT, KEY, VERSION, OLD, None)


def item(content: Image, stamp: str | Typed | None) -> Image:
    """An item as a replica holds it."""
    if stamp is None:
        return content
    if isinstance(stamp, str):
        return Image(stamped(content, stamp))
    return image({**content.attributes, "_rep": stamp})


def replicate(slot: Slot, change: Change, policy: OrderedPolicy = TRANSACT) -> tuple[Slot, Outcome, list[Request]]:
    """Run a change to its end on what stands under its key."""
    requests: list[Request] = []
    steps = replicate_ordered(change, policy)
    try:
        request = next(steps)
        while True:
            requests.append(request)
            if isinstance(request, LogConflict):
                response: Response = Done()
            else:
                slot, response = answer(slot, request)
            request = steps.send(response)
    except StopIteration as end:
        return slot, end.value, requests


def told(change: Change, policy: OrderedPolicy, responses: Iterable[Response]) -> Outcome | None:
    """Run a change against answers that were decided before."""
    steps = replicate_ordered(change, policy)
    try:
        next(steps)
        for response in responses:
            steps.send(response)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    return None


# -- what is asked -------------------------------------------------------------------------------------------------


def test_a_modification_of_a_present_item_is_one_conditional_put() -> None:
    slot, outcome, requests = replicate(Slot(item(OLD, LOWER)), MODIFY)
    assert requests == [Put(KEY, NEW, VERSION, StampBelow(VERSION))]
    assert (slot, outcome) == (Slot(item(NEW, VERSION)), Outcome(Effect.APPLIED))


def test_an_insert_is_one_transaction_with_the_check_of_the_tombstone() -> None:
    slot, outcome, requests = replicate(EMPTY, INSERT)
    assert requests == [GuardedPut(Put(KEY, NEW, VERSION, AbsentOrStampBelow(VERSION)), TombstoneBelow(VERSION))]
    assert (slot, outcome) == (Slot(item(NEW, VERSION)), Outcome(Effect.APPLIED))


def test_an_insert_with_the_probe_reads_the_tombstone_and_puts() -> None:
    slot, outcome, requests = replicate(EMPTY, INSERT, PROBE)
    assert requests == [GetTombstone(KEY), Put(KEY, NEW, VERSION, AbsentOrStampBelow(VERSION))]
    assert (slot, outcome) == (Slot(item(NEW, VERSION)), Outcome(Effect.APPLIED))


def test_a_removal_raises_the_tombstone_before_it_deletes() -> None:
    slot, outcome, requests = replicate(Slot(item(OLD, LOWER)), REMOVE)
    assert requests == [RaiseTombstone(KEY, VERSION), Delete(KEY, AbsentOrStampBelow(VERSION))]
    assert (slot, outcome) == (Slot(None, VERSION), Outcome(Effect.DELETED))


def test_a_removal_that_may_have_nothing_to_remove_reads_first() -> None:
    slot, outcome, requests = replicate(EMPTY, REMOVE_IF_PRESENT)
    assert requests == [GetItem(KEY)]
    assert (slot, outcome) == (EMPTY, Outcome(Effect.ABSENT))


def test_a_removal_that_finds_something_removes_it_with_a_tombstone() -> None:
    slot, outcome, requests = replicate(Slot(item(OLD, LOWER)), REMOVE_IF_PRESENT)
    assert requests == [GetItem(KEY), RaiseTombstone(KEY, VERSION), Delete(KEY, AbsentOrStampBelow(VERSION))]
    assert (slot, outcome) == (Slot(None, VERSION), Outcome(Effect.DELETED))


# -- stale, repeated, missing --------------------------------------------------------------------------------------


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
@pytest.mark.parametrize("stamp", [VERSION, HIGHER], ids=["equal", "newer"])
def test_a_put_never_replaces_the_same_version_or_a_newer_one(
    change: Change, policy: OrderedPolicy, stamp: str
) -> None:
    before = Slot(item(OTHER, stamp))
    slot, outcome, _ = replicate(before, change, policy)
    assert (slot, outcome) == (before, Outcome(Effect.STALE))


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
@pytest.mark.parametrize("tombstone", [VERSION, HIGHER], ids=["equal", "newer"])
def test_a_put_never_brings_back_what_was_deleted_at_its_version_or_later(
    change: Change, policy: OrderedPolicy, tombstone: str
) -> None:
    before = Slot(None, tombstone)
    slot, outcome, _ = replicate(before, change, policy)
    assert (slot, outcome) == (before, Outcome(Effect.STALE))


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
def test_a_put_creates_an_item_that_was_deleted_earlier(change: Change, policy: OrderedPolicy) -> None:
    slot, outcome, _ = replicate(Slot(None, LOWER), change, policy)
    assert (slot, outcome) == (Slot(item(NEW, VERSION), LOWER), Outcome(Effect.APPLIED))


@GUARDS
def test_an_insert_replaces_an_older_item(policy: OrderedPolicy) -> None:
    slot, outcome, _ = replicate(Slot(item(OLD, LOWER)), INSERT, policy)
    assert (slot, outcome) == (Slot(item(NEW, VERSION)), Outcome(Effect.APPLIED))


@pytest.mark.parametrize("stamp", [VERSION, HIGHER], ids=["equal", "newer"])
def test_a_removal_spares_the_same_version_or_a_newer_one(stamp: str) -> None:
    slot, outcome, _ = replicate(Slot(item(OTHER, stamp)), REMOVE)
    assert (slot, outcome) == (Slot(item(OTHER, stamp), VERSION), Outcome(Effect.STALE))


def test_a_removal_goes_on_below_a_newer_tombstone() -> None:
    slot, outcome, _ = replicate(Slot(item(OLD, LOWER), HIGHER), REMOVE)
    assert (slot, outcome) == (Slot(None, HIGHER), Outcome(Effect.DELETED))


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY, REMOVE, REMOVE_IF_PRESENT])
@pytest.mark.parametrize("start", [EMPTY, Slot(item(OLD, LOWER)), Slot(OTHER), Slot(None, LOWER)])
def test_a_change_that_is_replayed_changes_nothing_more(change: Change, policy: OrderedPolicy, start: Slot) -> None:
    once, _, _ = replicate(start, change, policy)
    twice, outcome, _ = replicate(once, change, policy)
    assert twice == once
    assert not outcome.adopted


# -- items that replicator did not write ---------------------------------------------------------------------------


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
def test_an_unstamped_item_is_older_than_every_version(change: Change, policy: OrderedPolicy) -> None:
    slot, outcome, _ = replicate(Slot(OTHER), change, policy)
    assert (slot, outcome) == (Slot(item(NEW, VERSION)), Outcome(Effect.APPLIED, adopted=True))


def test_adopting_on_modify_takes_the_insert_path_with_its_tombstone_check() -> None:
    _, _, requests = replicate(Slot(OLD), MODIFY)
    assert requests == [
        Put(KEY, NEW, VERSION, StampBelow(VERSION)),
        GuardedPut(Put(KEY, NEW, VERSION, AbsentOrStampBelow(VERSION)), TombstoneBelow(VERSION)),
        GuardedPut(Put(KEY, NEW, VERSION, UnstampedOrStampBelow(VERSION)), TombstoneBelow(VERSION)),
    ]


@pytest.mark.parametrize("change", [REMOVE, REMOVE_IF_PRESENT], ids=["remove", "remove if present"])
def test_an_unstamped_item_is_deleted_like_any_other(change: Change) -> None:
    slot, outcome, requests = replicate(Slot(OTHER), change)
    assert (slot, outcome) == (Slot(None, VERSION), Outcome(Effect.DELETED, adopted=True))
    assert requests[-1] == Delete(KEY, UnstampedOrStampBelow(VERSION))


@pytest.mark.parametrize("change", [INSERT, MODIFY, REMOVE], ids=["insert", "modify", "remove"])
def test_an_unknown_image_is_logged_before_it_is_lost(change: Change) -> None:
    _, _, requests = replicate(Slot(OTHER), change)
    operation = Operation.DELETE if change is REMOVE else Operation.PUT
    kind, reason = ConflictKind.UNVERSIONED, Reason.VERSION
    logged = LogConflict(KEY, kind, VERSION, change.new, OTHER, reason=reason, winner_op=operation)
    assert requests.count(logged) == 1
    assert requests.index(logged) == len(requests) - 2


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        (INSERT, NEW),
        (MODIFY, OLD),
        (MODIFY, NEW),
        (REMOVE, OLD),
        (MODIFY, image({"n": {"N": "1.0"}, "pk": {"S": "k"}})),
    ],
)
def test_an_image_that_the_record_knows_is_adopted_without_a_log_entry(change: Change, standing: Image) -> None:
    _, outcome, requests = replicate(Slot(standing), change)
    assert outcome.adopted
    assert not [request for request in requests if isinstance(request, LogConflict)]


@pytest.mark.parametrize("guard", InsertGuard, ids=lambda guard: guard.value)
@pytest.mark.parametrize("change", [INSERT, MODIFY, REMOVE, REMOVE_IF_PRESENT])
def test_under_stop_an_unstamped_item_stays_and_is_named(change: Change, guard: InsertGuard) -> None:
    with pytest.raises(UnstampedItem, match="pk=k") as raised:
        replicate(Slot(OTHER), change, OrderedPolicy(insert_guard=guard, unstamped=Unstamped.STOP))
    assert "adopt" in raised.value.advice


def test_under_stop_an_older_item_of_ours_is_replaced_and_deleted() -> None:
    assert replicate(Slot(item(OLD, LOWER)), MODIFY, STOP)[1] == Outcome(Effect.APPLIED)
    assert replicate(EMPTY, INSERT, STOP)[1] == Outcome(Effect.APPLIED)
    assert replicate(Slot(item(OLD, LOWER)), REMOVE, STOP)[1] == Outcome(Effect.DELETED)


@GUARDS
@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
@pytest.mark.parametrize("unstamped", Unstamped, ids=lambda policy: policy.value)
def test_an_unstamped_item_below_a_newer_tombstone_is_left_alone(
    change: Change, policy: OrderedPolicy, unstamped: Unstamped
) -> None:
    before = Slot(OTHER, HIGHER)
    slot, outcome, requests = replicate(before, change, OrderedPolicy(policy.insert_guard, unstamped))
    assert (slot, outcome) == (before, Outcome(Effect.STALE))
    assert not [request for request in requests if isinstance(request, LogConflict)]


@pytest.mark.parametrize("change", [INSERT, MODIFY, REMOVE], ids=["insert", "modify", "remove"])
@pytest.mark.parametrize("stamp", [{"N": "1"}, {"S": "zz"}, {"M": {}}, {"S": "9" * 57}])
def test_a_foreign_stamp_that_cannot_be_compared_stops_with_a_remedy(change: Change, stamp: Typed) -> None:
    before = Slot(item(OTHER, stamp))
    with pytest.raises(UnstampedItem, match="`_rep`") as raised:
        replicate(before, change)
    assert "Remove that attribute" in raised.value.advice


@pytest.mark.parametrize("change", [INSERT, MODIFY], ids=["insert", "modify"])
def test_a_newer_item_that_arrives_while_an_unstamped_one_is_adopted_stays(change: Change) -> None:
    refusals: list[Response] = [Refused(item=OLD)] if change is INSERT else [Refused(item=OLD), Refused(item=OLD)]
    logs: list[Response] = [Done()] if change is INSERT else []
    newer = Refused(item=item(OTHER, HIGHER))
    answers: list[Response] = [*refusals, *logs, newer]
    assert told(change, TRANSACT, answers) == Outcome(Effect.STALE)


def test_a_tombstone_that_arrives_while_an_unstamped_item_is_adopted_wins() -> None:
    answers: list[Response] = [Refused(item=NEW), Refused(by_tombstone=True)]
    assert told(INSERT, TRANSACT, answers) == Outcome(Effect.STALE)
    assert told(INSERT, PROBE, [Found(), Refused(item=NEW), Found(tombstone=VERSION)]) == Outcome(Effect.STALE)


def test_a_newer_item_that_arrives_while_an_unstamped_one_is_deleted_stays() -> None:
    answers: list[Response] = [Done(), Refused(item=OLD), Refused(item=item(OTHER, HIGHER))]
    assert told(REMOVE, TRANSACT, answers) == Outcome(Effect.STALE)


def test_an_item_that_vanishes_between_a_modification_and_its_insert_is_created() -> None:
    assert told(MODIFY, TRANSACT, [Refused(), Done()]) == Outcome(Effect.APPLIED)


# -- changes of one millisecond ------------------------------------------------------------------------------------

THERE = ordered_version(0, 1, 7_003)
COARSE = {
    "version": ordered_version(0, 1, 7_005),
    "below": ordered_version(0, 1, 7_000),
    "is_coarse": True,
    "replaced": OLD,
}


@pytest.mark.parametrize("change", [MODIFY, REMOVE, REMOVE_IF_PRESENT])
@GUARDS
def test_a_change_of_a_millisecond_that_replaced_what_is_there_follows_it(
    change: Change, policy: OrderedPolicy
) -> None:
    tied = msgspec.structs.replace(change, **COARSE)
    slot, outcome, _ = replicate(Slot(item(OLD, THERE)), tied, policy)
    assert outcome == Outcome(Effect.STALE, tied=THERE, follows=True)
    assert slot.item == item(OLD, THERE)
    over = msgspec.structs.replace(tied, below=ordered_version(0, 1, 7_004))
    assert replicate(Slot(item(OLD, THERE)), over, policy)[1].effect in {Effect.APPLIED, Effect.DELETED}


@pytest.mark.parametrize(
    ("standing", "tied"),
    [
        (Slot(item(OTHER, THERE)), True),
        (Slot(item(NEW, THERE)), False),  # a repeat
        (Slot(item(OLD, ordered_version(0, 1, 8_000))), False),
        (Slot(item(OLD, ordered_version(0, 2, 7_000))), False),
        (Slot(None, THERE), True),
        (Slot(None, ordered_version(0, 1, 8_000)), False),
    ],
)
@GUARDS
def test_it_goes_over_no_other_one_whose_order_is_not_known(standing: Slot, tied: bool, policy: OrderedPolicy) -> None:
    slot, outcome, _ = replicate(standing, msgspec.structs.replace(MODIFY, **COARSE), policy)
    assert outcome == Outcome(Effect.STALE, tied=THERE if tied else None)
    assert slot == standing


@GUARDS
def test_what_was_made_anew_behind_a_delete_of_its_millisecond_follows_that(policy: OrderedPolicy) -> None:
    anew = msgspec.structs.replace(INSERT, **{**COARSE, "replaced": None})
    assert replicate(Slot(None, THERE), anew, policy)[1] == Outcome(Effect.STALE, tied=THERE, follows=True)
    beside = Slot(item(OTHER, THERE), ordered_version(0, 1, 7_001))
    assert replicate(beside, anew, policy)[1] == Outcome(Effect.STALE, tied=THERE)
