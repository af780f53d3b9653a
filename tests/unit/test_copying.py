"""What a copier decides: what differs, whether a look counts, and what a repair writes in mode `ordered`."""

from __future__ import annotations

import pytest

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation
from replicator.domain.copying.contents import Kind, digest, is_asked_for, is_same, print_of, wanted
from replicator.domain.copying.fences import has_passed, stands, stands_at
from replicator.domain.copying.looks import (
    MOST_LOOKS,
    Candidate,
    Difference,
    Ended,
    On,
    Seen,
    Side,
    first_look,
    judge,
    kind_of,
    second_look,
)
from replicator.domain.copying.ordered import Extra, Mended, base_version, repair_ordered, seed_ordered
from replicator.domain.filters import Equals, Filter
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.image import Image, stamped
from replicator.domain.modes.ordered import Effect, InsertGuard, OrderedPolicy, Outcome, Steps, Unstamped
from replicator.domain.modes.requests import (
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Request,
    Response,
)
from replicator.domain.records import Event, item_key
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.values import replace
from replicator.domain.versions import is_ordered_version, ordered_version
from replicator.laboratory.memory import Slot, answer

KEY = item_key(b'{"pk":{"S":"k"}}')
GENERATION = 1_700_000_000_000
BASE = base_version(1, GENERATION)
OLDER, NEWER = ordered_version(1, GENERATION - 1, 9), ordered_version(1, GENERATION, 9)
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())


def item(value: str) -> Image:
    return Image(b'{"pk":{"S":"k"},"value":{"S":"%b"}}' % value.encode())


def ours(value: str, version: str = NEWER) -> Image:
    return Image(stamped(item(value), version))


A, B = item("a"), item("b")


def difference(slot: Slot, source: Image | None) -> Difference:
    kind = kind_of(RULE, source, slot.item)
    assert kind is not None
    return Difference(KEY, kind, source, Seen(KEY, slot.item, slot.tombstone, source))


def repaired(
    slot: Slot,
    source: Image | None,
    *,
    seen: Slot | None = None,
    policy: OrderedPolicy = OrderedPolicy(),
    extra: Extra = Extra.LIST,
) -> tuple[Slot, Mended, list[Request]]:
    """What a repair makes of a replica; `seen`: what it was at the second look, if it has changed since."""
    steps = repair_ordered(difference(seen or slot, source), BASE, policy, extra)
    asked: list[Request] = []
    response: Response | None = None
    while True:
        try:
            request = next(steps) if response is None else steps.send(response)
        except StopIteration as end:
            return slot, end.value, asked
        if isinstance(request, LogConflict):
            asked.append(request)
            response = Done()
            continue
        assert request.side is Side.TARGET, "a repair asks nothing of the source"
        asked.append(request.request)
        slot, response = answer(slot, request.request)


# -- the table of repairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tombstone", [None, OLDER])
def test_a_missing_item_is_put_below_every_record_of_the_stream(tombstone: str | None) -> None:
    slot, mended, asked = repaired(Slot(None, tombstone), A)
    assert (mended, slot) == (Mended.PUT, Slot(ours("a", BASE), tombstone))
    assert [type(request) for request in asked] == [GuardedPut]


def test_a_lost_item_behind_a_delete_gets_the_version_of_the_delete() -> None:
    slot, mended, _ = repaired(Slot(None, NEWER), A)
    assert (mended, slot) == (Mended.PUT, Slot(ours("a", NEWER), NEWER))


@pytest.mark.parametrize("version", [OLDER, BASE, NEWER])
def test_what_differs_keeps_its_version(version: str) -> None:
    slot, mended, asked = repaired(Slot(ours("b", version)), A)
    assert (mended, slot) == (Mended.PUT, Slot(ours("a", version)))
    assert [type(request) for request in asked] == [LogConflict, Put]


@pytest.mark.parametrize("tombstone", [None, OLDER, NEWER])
def test_an_item_without_a_version_is_adopted(tombstone: str | None) -> None:
    slot, mended, _ = repaired(Slot(B, tombstone), A)
    assert (mended, slot) == (Mended.PUT, Slot(ours("a", NEWER if tombstone == NEWER else BASE), tombstone))


def test_an_item_without_a_version_stays_where_the_rule_stops_at_it() -> None:
    slot, mended, asked = repaired(Slot(B), A, policy=OrderedPolicy(unstamped=Unstamped.STOP))
    assert (mended, slot, asked) == (Mended.LEFT, Slot(B), [])


def test_our_copy_of_what_is_gone_is_deleted_behind_its_tombstone() -> None:
    slot, mended, asked = repaired(Slot(ours("a")), None)
    assert (mended, slot) == (Mended.DELETED, Slot(None, NEWER))
    assert [type(request) for request in asked] == [LogConflict, RaiseTombstone, Delete]


@pytest.mark.parametrize("extra", Extra)
def test_a_foreign_item_goes_only_where_that_is_asked(extra: Extra) -> None:
    slot, mended, _ = repaired(Slot(A), None, extra=extra)
    deletes = extra is Extra.DELETE
    assert (mended, slot) == ((Mended.DELETED, Slot()) if deletes else (Mended.LEFT, Slot(A)))


def test_an_item_with_something_else_in_place_of_a_version_is_foreign() -> None:
    odd = Image(b'{"pk":{"S":"k"},"_rep":{"N":"7"}}')
    assert repaired(Slot(odd), None, extra=Extra.DELETE)[:2] == (Slot(), Mended.DELETED)
    assert repaired(Slot(odd), A)[:2] == (Slot(ours("a", BASE)), Mended.PUT)


@pytest.mark.parametrize(
    ("seen", "standing", "source"),
    [
        (Slot(), Slot(ours("b")), A),
        (Slot(), Slot(None, NEWER), A),
        (Slot(None, NEWER), Slot(None, NEWER + "x"), A),
        (Slot(ours("b")), Slot(ours("c", NEWER + "x")), A),
        (Slot(ours("b")), Slot(), A),
        (Slot(B), Slot(ours("b")), A),
        (Slot(B), Slot(B, NEWER), A),
        (Slot(ours("b")), Slot(ours("c", NEWER + "x")), None),
        (Slot(B), Slot(A), None),
        (Slot(B), Slot(ours("b")), None),
    ],
)
def test_nothing_is_written_over_what_was_not_seen(seen: Slot, standing: Slot, source: Image | None) -> None:
    slot, mended, _ = repaired(standing, source, seen=seen, extra=Extra.DELETE)
    assert mended is Mended.CHANGED
    assert slot.item == standing.item


def test_what_is_replaced_is_kept_and_what_was_missing_replaces_nothing() -> None:
    entry = repaired(Slot(ours("b")), A)[2][0]
    assert isinstance(entry, LogConflict)
    assert (entry.kind, entry.winner_version, entry.winner, entry.loser) == (ConflictKind.REPAIR, NEWER, A, ours("b"))
    entry = repaired(Slot(ours("b")), None)[2][0]
    assert isinstance(entry, LogConflict)
    assert (entry.winner, entry.winner_op, entry.loser) == (None, Operation.DELETE, ours("b"))
    assert not any(isinstance(request, LogConflict) for request in repaired(Slot(), A)[2])


@pytest.mark.parametrize("guard", InsertGuard)
def test_a_repair_puts_onto_a_missing_key_in_one_transaction_whatever_the_rule_says(guard: InsertGuard) -> None:
    policy = OrderedPolicy(insert_guard=guard)
    assert [type(request) for request in repaired(Slot(), A, policy=policy)[2]] == [GuardedPut]


def carried_out(slot: Slot, steps: Steps) -> tuple[Slot, Outcome]:
    response: Response | None = None
    while True:
        try:
            request = next(steps) if response is None else steps.send(response)
        except StopIteration as end:
            return slot, end.value
        slot, response = (slot, Done()) if isinstance(request, LogConflict) else answer(slot, request)


# -- seeding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "effect", "after"),
    [
        (Slot(), Effect.APPLIED, Slot(ours("a", BASE))),
        (Slot(None, OLDER), Effect.APPLIED, Slot(ours("a", BASE), OLDER)),
        (Slot(ours("b", OLDER)), Effect.APPLIED, Slot(ours("a", BASE))),
        (Slot(ours("b")), Effect.STALE, Slot(ours("b"))),
        (Slot(None, NEWER), Effect.STALE, Slot(None, NEWER)),
        (Slot(ours("a", BASE)), Effect.STALE, Slot(ours("a", BASE))),
        (Slot(A), Effect.APPLIED, Slot(ours("a", BASE))),
    ],
)
@pytest.mark.parametrize("guard", InsertGuard)
def test_a_scanned_item_is_put_unless_something_newer_is_there(
    slot: Slot, effect: Effect, after: Slot, guard: InsertGuard
) -> None:
    slot, outcome = carried_out(slot, seed_ordered(KEY, A, BASE, OrderedPolicy(insert_guard=guard)))
    assert (outcome.effect, slot) == (effect, after)


def test_the_base_version_is_below_every_record() -> None:
    assert is_ordered_version(BASE)
    assert OLDER < BASE < ordered_version(1, GENERATION, 1)


# -- looks ---------------------------------------------------------------------------------------------------------


def test_a_second_look_reads_the_target_before_the_source() -> None:
    steps = second_look(KEY)
    asked = [next(steps), steps.send(Found(item=B)), steps.send(Found(tombstone=NEWER))]
    assert asked == [On(Side.TARGET, GetItem(KEY)), On(Side.TARGET, GetTombstone(KEY)), On(Side.SOURCE, GetItem(KEY))]
    with pytest.raises(StopIteration) as end:
        steps.send(Found(item=A))
    assert end.value.value == Seen(KEY, B, NEWER, A)


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        (None, None, None),
        (A, ours("a"), None),
        (A, None, Kind.MISSING),
        (None, ours("a"), Kind.EXTRA),
        (None, A, Kind.EXTRA),
        (A, ours("b"), Kind.DIFFERS),
        (A, A, Kind.UNSTAMPED),
        (A, B, Kind.UNSTAMPED),
    ],
)
def test_how_a_replica_differs(source: Image | None, target: Image | None, kind: Kind | None) -> None:
    assert kind_of(RULE, source, target) is kind
    found = first_look(RULE, KEY, source, target, 7.0)
    assert found == (None if kind is None else Candidate(KEY, digest(source), print_of(target), 7.0))


def test_a_difference_is_what_both_looks_agree_on() -> None:
    candidate = Candidate(KEY, digest(A), None, 7.0)
    assert judge(RULE, candidate, Seen(KEY, None, None, A), 9.0) == Difference(
        KEY, Kind.MISSING, A, Seen(KEY, None, None, A)
    )
    assert judge(RULE, candidate, Seen(KEY, ours("a"), None, A), 9.0) is Ended.SAME
    again = replace(candidate, looked_at=9.0, looks=2, in_order=True)
    assert judge(RULE, candidate, Seen(KEY, None, None, B), 9.0) == replace(again, wanted=digest(B))
    assert judge(RULE, candidate, Seen(KEY, ours("b"), None, A), 9.0) == replace(again, found=print_of(ours("b")))
    assert judge(RULE, replace(candidate, looks=MOST_LOOKS), Seen(KEY, None, None, B), 9.0) is Ended.MOVING


def test_a_report_takes_two_looks_in_order_with_no_delete_between_them() -> None:
    candidate, seen = Candidate(KEY, digest(A), None, 7.0), Seen(KEY, None, None, A)
    once = judge(RULE, candidate, seen, 9.0, strict=True)
    assert once == Candidate(KEY, digest(A), None, 9.0, 2, None, in_order=True)
    assert isinstance(judge(RULE, once, seen, 11.0, strict=True), Difference)
    deleted = judge(RULE, once, replace(seen, tombstone=NEWER), 11.0, strict=True)
    assert deleted == Candidate(KEY, digest(A), None, 11.0, 3, NEWER, in_order=True)


def test_what_the_filter_keeps_out_should_not_be_there() -> None:
    rule = replace(RULE, filter=Filter(equals=(Equals("value", "a"),)))
    assert wanted(rule, A) == A
    assert wanted(rule, B) is None
    assert kind_of(rule, wanted(rule, B), ours("b")) is Kind.EXTRA


def test_equal_contents_are_equal_however_they_are_spelled() -> None:
    one = Image(b'{"pk":{"S":"k"},"n":{"N":"1.10"},"s":{"NS":["1","2"]},"_rep":{"S":"x"},"aws:rep:y":{"S":"z"}}')
    other = Image(b'{"s":{"NS":["2.0","1"]},"n":{"N":"1.1"},"pk":{"S":"k"}}')
    assert is_same(one, other)
    assert digest(one) == digest(other)
    assert not is_same(one, A)
    assert not is_same(one, None)
    assert is_same(None, None)
    assert digest(None) is None


@pytest.mark.parametrize("kind", Kind)
def test_what_a_rule_leaves_out_is_no_difference(kind: Kind) -> None:
    assert not is_asked_for(RULE, kind)
    only = {
        Kind.MISSING: frozenset({Event.MODIFY, Event.REMOVE}),
        Kind.EXTRA: frozenset({Event.INSERT, Event.MODIFY}),
        Kind.DIFFERS: frozenset({Event.INSERT, Event.REMOVE}),
    }
    if kind in only:
        assert is_asked_for(replace(RULE, filter=Filter(events=only[kind])), kind)


def test_a_replica_that_keeps_what_expired_may_hold_more() -> None:
    rule = replace(RULE, ttl_deletes=TtlDeletes.SKIP)
    assert first_look(rule, KEY, None, ours("a"), 7.0) is None


# -- fences --------------------------------------------------------------------------------------------------------


def test_a_look_has_passed_once_everything_before_it_was_applied_with_a_margin() -> None:
    assert has_passed(105.0, 100.0, 5.0)
    assert not has_passed(104.9, 100.0, 5.0)
    assert not has_passed(None, 100.0, 5.0)


def test_a_look_counts_only_when_no_forgotten_worker_can_still_write() -> None:
    assert stands(100.0, None, 21.0)
    assert stands(121.0, 100.0, 21.0)
    assert not stands(120.9, 100.0, 21.0)
    assert not stands(90.0, 100.0, 21.0)
    assert stands_at(100.0, 21.0) == 121.0
    assert stands_at(None, 21.0) < 0
