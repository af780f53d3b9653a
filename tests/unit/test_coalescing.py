from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from replicator.domain.coalescing import Run, behind, coalesce, plan_run
from replicator.domain.conflicts import LogConflict
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, TableName
from replicator.domain.image import Image, canonical, stamped
from replicator.domain.modes.ordered import (
    Action,
    Change,
    Effect,
    InsertGuard,
    OrderedPolicy,
    Outcome,
    replicate_ordered,
)
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, Target, TtlDeletes
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import MemoryRegion
from tests.unit.strategies import image

GENERATION = 1_700_000_000_000
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())
SEEN = Filter(exists=("seen",))


def key(name: str) -> ItemKey:
    return ItemKey((("pk", "S", name),))


def content(name: str, number: int, *, seen: bool = True) -> Image:
    return image({"pk": {"S": name}, "n": {"N": str(number)}, **({"seen": {"BOOL": True}} if seen else {})})


def record(number: int, old: Image | None, new: Image | None, *, name: str = "k", by_ttl: bool = False) -> ChangeRecord:
    event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
    return ChangeRecord(event, key(name), old, new, SequenceNumber(str(number)), 0.0, by_ttl)


IN1, IN2 = content("k", 1), content("k", 2)
OUT1, OUT2 = content("k", 3, seen=False), content("k", 4, seen=False)


def plan(*records: ChangeRecord, rule: Rule = RULE) -> Change | None:
    return plan_run(rule, Run(key("k"), records), GENERATION)


def filtered(events: frozenset[Event] = frozenset(Event)) -> Rule:
    return replace(RULE, filter=replace(SEEN, events=events))


# -- records without their old image -------------------------------------------------------------------------------


def partial(number: int, new: Image | None) -> ChangeRecord:
    return structs.replace(record(number, None, new), partial=True, event=Event.REMOVE if new is None else Event.INSERT)


@pytest.mark.parametrize(
    ("rule", "new", "action"),
    [
        (RULE, IN1, Action.PUT),
        (RULE, None, Action.REMOVE),
        (filtered(), IN1, Action.PUT),
        (filtered(), OUT1, Action.REMOVE_IF_PRESENT),
        (filtered(), None, Action.REMOVE_IF_PRESENT),
        (replace(RULE, filter=Filter(key_prefix=(("pk", "k"),))), None, Action.REMOVE),
        (replace(RULE, filter=Filter(key_prefix=(("pk", "x"),))), None, Action.REMOVE_IF_PRESENT),
    ],
)
def test_what_a_partial_record_does_not_show_may_have_passed_the_filter(
    rule: Rule, new: Image | None, action: Action
) -> None:
    change = plan(partial(1, new), rule=rule)
    assert change is not None
    assert change.action is action
    assert change.old is None


# -- runs ----------------------------------------------------------------------------------------------------------


def test_records_are_grouped_by_key_in_the_order_of_their_first() -> None:
    records = [record(number, None, content(name, number), name=name) for number, name in enumerate("abacb")]
    runs = coalesce(records)
    assert [(run.key.parts[0][2], [each.number for each in run.records]) for run in runs] == [
        ("a", [0, 2]),
        ("b", [1, 4]),
        ("c", [3]),
    ]


def test_the_last_image_wins_under_the_last_sequence_number() -> None:
    change = plan(record(7, None, IN1), record(8, IN1, IN2))
    assert change == Change(Action.PUT, key("k"), ordered_version(0, GENERATION, 8), None, IN2, RULE.source, 0.0)


def test_changes_of_one_time_that_each_left_what_the_other_replaced_go_by_their_ids() -> None:
    there = structs.replace(record(1, IN1, IN2), micros=7_000, event_id="a")
    back = structs.replace(record(2, IN2, IN1), micros=7_000, event_id="b")
    for group in ([there, back], [back, there]):
        (run,) = coalesce(group)
        assert [each.event_id for each in run.records] == ["a", "b"]


def test_a_change_of_a_millisecond_is_moved_behind_one_that_is_there_with_all_that_follow_it() -> None:
    before = structs.replace(record(1, None, IN1), micros=6_000)
    one = structs.replace(record(2, IN1, IN2), micros=7_000, event_id="a")
    two = structs.replace(record(3, IN2, IN1), micros=7_001, event_id="b")
    moved = behind(Run(key("k"), (before, one, two)), ordered_version(0, GENERATION, 7_004))
    assert moved is not None
    assert [each.micros for each in moved.records] == [6_000, 7_005, 7_006]
    assert moved.over == 7_005, "what came there meanwhile may be later"
    ahead = behind(Run(key("k"), (two,)), ordered_version(0, GENERATION, 7_000))
    assert ahead is not None
    assert [each.micros for each in ahead.records] == [7_001]
    assert behind(Run(key("k"), (one, two)), ordered_version(0, GENERATION, 7_998)) is None
    assert behind(Run(key("k"), (one,)), ordered_version(0, GENERATION, 7_998)) is not None


def test_the_epoch_of_the_rule_is_part_of_the_version() -> None:
    change = plan(record(7, None, IN1), rule=replace(RULE, epoch=3))
    assert change is not None
    assert change.version == ordered_version(3, GENERATION, 7)


def test_a_run_that_ends_with_a_removal_is_a_removal() -> None:
    change = plan(record(7, IN1, IN2), record(8, IN2, None))
    assert change == Change(Action.REMOVE, key("k"), ordered_version(0, GENERATION, 8), IN1, None, RULE.source, 0.0)


def test_reserved_attributes_of_the_source_do_not_travel() -> None:
    dirty = Image(stamped(IN1, "1" * 56)[:-1] + b',"aws:rep:deleting":{"BOOL":true}}')
    change = plan(record(7, dirty, Image(stamped(IN2, "1" * 56))))
    assert change is not None
    assert change.new == IN2


# -- one record under a filter -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "action"),
    [
        (None, IN1, Action.PUT),
        (IN1, IN2, Action.PUT),
        (OUT1, IN1, Action.PUT),
        (IN1, OUT1, Action.REMOVE),
        (IN1, None, Action.REMOVE),
        (None, OUT1, None),
        (OUT1, OUT2, None),
        (OUT1, None, Action.REMOVE_IF_PRESENT),
    ],
)
def test_a_filter_decides_by_both_images_of_a_record(
    old: Image | None, new: Image | None, action: Action | None
) -> None:
    change = plan(record(7, old, new), rule=filtered())
    assert (change and change.action) == action
    if change is not None:
        assert change.version == ordered_version(0, GENERATION, 7)
        assert change.new == (new if action is Action.PUT else None)


@pytest.mark.parametrize(
    ("old", "new", "needed"),
    [(None, IN1, Event.INSERT), (IN1, IN2, Event.MODIFY), (IN1, None, Event.REMOVE), (OUT1, None, Event.REMOVE)],
)
def test_events_are_applied_last(old: Image | None, new: Image | None, needed: Event) -> None:
    assert plan(record(7, old, new), rule=filtered(events=frozenset({needed}))) is not None
    assert plan(record(7, old, new), rule=filtered(events=frozenset(Event) - {needed})) is None


def test_an_item_that_leaves_the_filter_is_removed_only_if_removals_pass() -> None:
    leaving = record(7, IN1, OUT1)
    assert plan(leaving, rule=filtered(events=frozenset({Event.INSERT, Event.MODIFY}))) is None
    change = plan(leaving, rule=filtered(events=frozenset({Event.REMOVE})))
    assert change is not None
    assert change.action is Action.REMOVE


# -- runs under a filter -------------------------------------------------------------------------------------------


def test_a_run_that_entered_and_left_the_filter_is_a_removal_with_tombstone() -> None:
    change = plan(record(7, None, IN1), record(8, IN1, OUT1), record(9, OUT1, None), rule=filtered())
    assert change == Change(Action.REMOVE, key("k"), ordered_version(0, GENERATION, 9), None, None, RULE.source, 0.0)


def test_a_run_that_no_image_of_matches_is_removed_only_if_present() -> None:
    change = plan(record(7, OUT1, OUT2), record(8, OUT2, None), rule=filtered())
    assert change == Change(
        Action.REMOVE_IF_PRESENT, key("k"), ordered_version(0, GENERATION, 8), OUT1, None, RULE.source, 0.0
    )


def test_records_that_pass_nothing_leave_the_decision_to_those_before_them() -> None:
    change = plan(record(7, IN1, OUT1), record(8, OUT1, OUT2), rule=filtered())
    assert change == Change(Action.REMOVE, key("k"), ordered_version(0, GENERATION, 7), IN1, None, RULE.source, 0.0)


# -- deletes by TTL ------------------------------------------------------------------------------------------------


def test_deletes_by_ttl_are_replicated_or_skipped_as_the_rule_says() -> None:
    expired = record(7, IN1, None, by_ttl=True)
    change = plan(expired)
    assert change is not None
    assert change.action is Action.REMOVE
    assert plan(expired, rule=replace(RULE, ttl_deletes=TtlDeletes.SKIP)) is None


def test_deletes_by_users_pass_where_those_by_ttl_are_skipped() -> None:
    assert plan(record(7, IN1, None), rule=replace(RULE, ttl_deletes=TtlDeletes.SKIP)) is not None


def test_a_skipped_delete_does_not_hide_the_write_before_it() -> None:
    rule = replace(RULE, ttl_deletes=TtlDeletes.SKIP)
    change = plan(record(7, None, IN1), record(8, IN1, None, by_ttl=True), rule=rule)
    assert change == Change(Action.PUT, key("k"), ordered_version(0, GENERATION, 7), None, IN1, RULE.source, 0.0)


def test_what_a_skipped_delete_left_behind_goes_when_its_successor_does_not_match_the_filter() -> None:
    rule = replace(filtered(), ttl_deletes=TtlDeletes.SKIP)
    change = plan(record(8, None, OUT1), rule=rule)
    assert change is not None
    assert change.action is Action.REMOVE_IF_PRESENT
    assert plan(record(8, None, OUT1), rule=filtered()) is None


def test_a_target_is_named_after_rule_and_region() -> None:
    assert Target(RuleName("orders"), RegionId("eu"), TableName("orders")).target_id.text == "orders/replica/eu:orders"


# -- batches -------------------------------------------------------------------------------------------------------


def apply(region: MemoryRegion, rule: Rule, batch: list[ChangeRecord]) -> list[Outcome]:
    outcomes = []
    for run in coalesce(batch):
        change = plan_run(rule, run, GENERATION)
        if change is not None:
            outcomes.append(drive(region, change, rule.policy))
    return outcomes


def drive(region: MemoryRegion, change: Change, policy: OrderedPolicy) -> Outcome:
    steps = replicate_ordered(change, policy)
    try:
        request = next(steps)
        while True:
            assert not isinstance(request, LogConflict), "nothing else writes to this replica"
            request = steps.send(region.carry_out(request))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


@st.composite
def histories(draw: st.DrawFn) -> list[ChangeRecord]:
    """Chained records of a few keys: puts that match or not, deletes by users and by TTL."""
    items: dict[str, Image | None] = {}
    records = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        name = draw(st.sampled_from("ab"))
        what = draw(st.sampled_from(["in", "out", "delete", "expire"]))
        old = items.get(name)
        new = content(name, number, seen=what == "in") if what in {"in", "out"} else None
        if (old, new) != (None, None):
            records.append(record(number, old, new, name=name, by_ttl=what == "expire"))
        items[name] = new
    return records


rules = st.builds(
    lambda events, seen, ttl, guard: replace(
        RULE,
        filter=Filter(events=events, exists=("seen",) if seen else ()),
        ttl_deletes=ttl,
        policy=OrderedPolicy(insert_guard=guard),
    ),
    st.frozensets(st.sampled_from(Event), min_size=1),
    st.booleans(),
    st.sampled_from(TtlDeletes),
    st.sampled_from(InsertGuard),
)


@given(histories(), rules, st.data())
def test_the_replica_does_not_depend_on_how_records_fell_into_batches(
    records: list[ChangeRecord], rule: Rule, data: st.DataObject
) -> None:
    one_by_one, in_batches = MemoryRegion(), MemoryRegion()
    for each in records:
        apply(one_by_one, rule, [each])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        apply(in_batches, rule, records[start:end])
    assert dict(in_batches.items()) == dict(one_by_one.items())


@given(histories(), st.booleans(), st.data())
def test_a_replica_ends_as_the_filtered_source_whatever_is_replayed(
    records: list[ChangeRecord], seen: bool, data: st.DataObject
) -> None:
    rule = replace(RULE, filter=SEEN if seen else Filter())
    region = MemoryRegion()
    apply(region, rule, records)
    for start in data.draw(st.lists(st.integers(0, len(records)), max_size=3)):
        apply(region, rule, records[start:])
    last = {each.key: each.new for each in records}
    wanted = {name: canonical(new) for name, new in last.items() if new is not None and rule.filter.matches(new)}
    assert {name: canonical(item) for name, item in region.items()} == wanted


@given(histories())
def test_a_replay_of_everything_finds_everything_stale_or_gone(records: list[ChangeRecord]) -> None:
    region = MemoryRegion()
    apply(region, RULE, records)
    before = dict(region.slots)
    again = apply(region, RULE, records)
    assert region.slots == before
    assert {outcome.effect for outcome in again} <= {Effect.STALE, Effect.DELETED}
