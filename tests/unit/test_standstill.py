"""Why rules do not move: of every shard that a rule needs, it is known who reads it or what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.progress import END, HORIZON, Position, after
from replicator.domain.rules import Rule, Target
from replicator.domain.shards import ownership
from replicator.domain.shards.leases import LeaseRow, StreamState, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import (
    Observed,
    Patience,
    Standstill,
    Wait,
    Watch,
    Why,
    explain,
    waits,
    waits_of,
)
from replicator.domain.targets import TargetId
from replicator.domain.values import replace

ORDERS, LIVE, OTHER, DEAD = RuleName("orders"), WorkerId("live"), WorkerId("other"), WorkerId("dead")
PATIENCE = Patience(stall=60.0, children=120.0)
SEEN = Observed(live={LIVE})


def rule(*regions: str, name: str = "orders") -> Rule:
    targets = tuple(Target(RuleName(name), RegionId(region), TableName("orders")) for region in regions)
    return Rule(name=RuleName(name), source=RegionId("us"), table=TableName("orders"), targets=targets)


EU, BOTH = rule("eu"), rule("eu", "ap")
(EU_ID,) = (target.target_id for target in EU.targets)
_, AP_ID = (target.target_id for target in BOTH.targets)
(OTHER_ID,) = (target.target_id for target in rule("eu", name="other").targets)


def at(number: int) -> Position:
    return after(SequenceNumber(str(number)))


def row(shard: str, *parents: str, closed: bool = False, **more: Any) -> LeaseRow:
    return LeaseRow(Shard(ShardId(shard), tuple(map(ShardId, parents)), closed=closed), **more)


def read(shard: str, *parents: str, owner: WorkerId | None = LIVE, place: Position = HORIZON, **more: Any) -> LeaseRow:
    """A row whose owner reads it for `orders/eu`."""
    return row(shard, *parents, owner=owner, checkpoints={EU_ID: place}, serves=frozenset({EU_ID}), **more)


def state(*rows: LeaseRow, starts: Mapping[TargetId, float] | None = None, unreadable: str = "") -> StreamState:
    return StreamState(
        {each.shard_id: each for each in rows},
        None,
        {name: TargetStart(name, seconds) for name, seconds in (starts or {}).items()},
        at=0.0,
        unreadable=WorldMismatch(unreadable) if unreadable else None,
    )


def of(*rows: LeaseRow, run: Rule = EU, observed: Observed = SEEN, **more: Any) -> dict[str, Wait]:
    return {str(shard): wait for shard, wait in waits(Snapshot(state(*rows, **more), [run]), run, observed).items()}


# -- what is waited for ------------------------------------------------------------------------------------------------


def test_a_shard_that_a_living_worker_reads_waits_for_nothing() -> None:
    assert of(read("s0")) == {}


def test_a_finished_shard_waits_for_nothing() -> None:
    assert of(row("s0", closed=True, checkpoints={EU_ID: END})) == {}


@pytest.mark.parametrize("owner", [None, DEAD])
def test_a_shard_without_a_living_owner_waits_for_one(owner: WorkerId | None) -> None:
    assert of(read("s0", owner=owner)) == {"s0": Wait(Why.UNCLAIMED)}


def test_a_shard_waits_for_its_unfinished_parents() -> None:
    assert of(read("s0", closed=True), row("s1", closed=True, checkpoints={EU_ID: END}), row("s2", "s0", "s1")) == {
        "s2": Wait(Why.PARENTS, ("s0",))
    }


def test_a_shard_whose_owner_runs_another_configuration_is_not_read_whatever_it_has_got() -> None:
    for checkpoints in ({}, {EU_ID: at(3)}):
        stands = row("s0", owner=LIVE, checkpoints=checkpoints, serves=frozenset({AP_ID}))
        assert of(stands) == {"s0": Wait(Why.OTHER_CONFIGURATION, (LIVE,))}


def test_an_owner_that_does_not_tell_what_it_runs_is_of_an_earlier_version() -> None:
    assert of(replace(read("s0"), serves=frozenset())) == {"s0": Wait(Why.OTHER_CONFIGURATION, (LIVE,))}


def test_what_this_worker_reads_itself_is_told_by_its_pipelines() -> None:
    stands = row("s0", owner=LIVE)
    assert of(stands, observed=Observed(live={LIVE}, reads={(ShardId("s0"), EU_ID)})) == {}


def test_a_late_target_waits_until_the_shard_is_seen_to_be_readable_or_vanished() -> None:
    stands, starts = row("s0", checkpoints={EU_ID: at(3)}), {EU_ID: 0.0}
    late = BOTH.among([BOTH.targets[1]])
    assert of(stands, run=late, starts=starts) == {"s0": Wait(Why.LATE_TARGET)}
    readable = Observed(live={LIVE}, readable={ShardId("s0")})
    assert of(stands, run=late, starts=starts, observed=readable) == {"s0": Wait(Why.UNCLAIMED)}
    vanished = replace(stands, vanished=True, vanished_at=5.0)
    assert of(vanished, run=late, starts=starts) == {}, "it missed nothing there"


def test_of_two_targets_the_wait_that_is_not_for_parents_is_told_whichever_comes_first() -> None:
    rows = row("s0", owner=LIVE, checkpoints={EU_ID: at(3), AP_ID: END}, serves=frozenset({EU_ID})), row("s1", "s0")
    for run in (BOTH, BOTH.among(BOTH.targets[::-1])):
        assert of(*rows, run=run) == {"s1": Wait(Why.UNCLAIMED)}


def test_a_late_target_keeps_no_other_of_its_rule_from_being_read() -> None:
    stands, starts = row("s0", owner=LIVE, checkpoints={EU_ID: at(3)}, serves=frozenset({EU_ID})), {EU_ID: 0.0}
    snapshot = Snapshot(state(stands, starts=starts), [BOTH])
    kept = ownership.wanted(snapshot, [BOTH], paused=(), readable=())
    (read_now,) = kept.rules[ShardId("s0")]
    assert [target.target_id for target in read_now.targets] == [EU_ID]
    assert kept.late == {"s0"}


def test_a_shard_whose_parent_may_stand_in_an_unreadable_row_waits_for_that() -> None:
    assert of(row("s1", "s0"), unreadable="It is corrupt.") == {"s1": Wait(Why.UNREADABLE_ROW)}


def test_a_paused_rule_waits_for_nothing_else() -> None:
    observed = Observed(paused={ORDERS}, live={LIVE})
    assert of(row("s0"), row("s1", "s0"), observed=observed) == {"s0": Wait(Why.PAUSED), "s1": Wait(Why.PAUSED)}


PLACES = st.sampled_from([None, HORIZON, at(3), END])
OWNERS = st.sampled_from([None, LIVE, OTHER, DEAD])


@st.composite
def states(draw: st.DrawFn) -> StreamState:
    """Any rows: parents of any ids, circles too, owners that live or not, places of all kinds."""
    names = [f"s{number}" for number in range(draw(st.integers(0, 5)))]
    rows = []
    for name in names:
        places = {EU_ID: draw(PLACES), AP_ID: draw(PLACES)}
        rows.append(
            row(
                name,
                *draw(st.lists(st.sampled_from([*names, "gone"]), max_size=2, unique=True)),
                closed=draw(st.booleans()),
                owner=draw(OWNERS),
                checkpoints={target: place for target, place in places.items() if place is not None},
                serves=frozenset(draw(st.lists(st.sampled_from([EU_ID, AP_ID]), unique=True))),
                vanished=draw(st.booleans()),
                vanished_at=draw(st.sampled_from([None, 10.0, 1e6])),
                found_at=draw(st.sampled_from([0.0, 1000.0])),
            )
        )
    starts = dict.fromkeys(draw(st.lists(st.sampled_from([EU_ID, AP_ID]), unique=True)), 500.0)
    return state(*rows, starts=starts, unreadable=draw(st.sampled_from(["", "It is corrupt."])))


@given(stored=states(), run=st.sampled_from([EU, BOTH]), paused=st.booleans(), readable=st.booleans())
def test_every_shard_that_a_rule_needs_is_read_or_waits_for_something_that_ends_the_chain(
    stored: StreamState, run: Rule, *, paused: bool, readable: bool
) -> None:
    snapshot = Snapshot(stored, [run])
    observed = Observed(
        paused={ORDERS} if paused else (), live={LIVE, OTHER}, readable=stored.rows.keys() if readable else ()
    )
    wanted = snapshot.wanted([run])
    told = waits(snapshot, run, observed)
    for target in run.targets:
        found, own = waits_of(snapshot, target, observed), run.among([target])
        for shard_id, each in stored.rows.items():
            if snapshot.finished(own, each):
                assert shard_id not in found
            elif shard_id not in found:
                assert each.owner in {LIVE, OTHER}
                assert target.target_id in each.serves
            if not paused and not snapshot.finished(own, each):
                waiting = shard_id in found and found[shard_id].why in {Why.PARENTS, Why.UNREADABLE_ROW}
                read = [each for rule in wanted.get(shard_id, ()) for each in rule.targets]
                assert waiting != (target in read), "what waits for no parent may be read"
        for shard_id in found:
            line = _waited_for(found, shard_id)
            assert shard_id not in line, "no shard waits for itself"
            ends = {each for each in line if each not in found or found[each].why is not Why.PARENTS}
            assert found[shard_id].why is not Why.PARENTS or ends, "a wait for parents ends somewhere"
            for_parents = told[shard_id].why is Why.PARENTS
            assert not for_parents or found[shard_id].why is Why.PARENTS, "another wait is the one to know of"


def _waited_for(found: Mapping[ShardId, Wait], shard_id: ShardId) -> set[ShardId]:
    """Every shard that one waits for, over any number of parents."""
    line: set[ShardId] = set()
    left = [shard_id]
    while left:
        wait = found.get(left.pop())
        parents = set(map(ShardId, wait.on)) if wait is not None and wait.why is Why.PARENTS else set()
        left += parents - line
        line |= parents
    return line


# -- how long ----------------------------------------------------------------------------------------------------------


def look(watch: Watch, now: float, *rows: LeaseRow, run: Rule = EU, **more: Any) -> list[tuple[str, tuple[str, ...]]]:
    observed = more.pop("observed", Observed(live={LIVE}))
    found: list[Standstill] = watch.look(Snapshot(state(*rows, **more), [run]), observed, now)
    return [(each.why.value, each.shards) for each in found]


def test_what_waits_for_less_than_the_bound_is_no_standstill() -> None:
    watch = Watch(PATIENCE)
    assert look(watch, 0, row("s0")) == []
    assert look(watch, 59, row("s0")) == []
    assert look(watch, 60, row("s0")) == [("unclaimed", ("s0",))]
    assert look(watch, 90, read("s0")) == []
    assert look(watch, 91, row("s0")) == [], "it is another wait"


def test_shards_that_wait_for_the_same_are_one_standstill() -> None:
    watch = Watch(PATIENCE)
    for now in (0, 60):
        found = look(watch, now, row("s1"), row("s0"), row("s2", owner=LIVE))
    assert found == [("unclaimed", ("s0", "s1")), ("other configuration", ("s2",))]


def test_a_closed_shard_whose_position_does_not_move_stands_still_whoever_owns_it() -> None:
    watch = Watch(PATIENCE)
    assert look(watch, 0, read("s0", closed=True, place=at(3))) == []
    assert look(watch, 50, read("s0", closed=True, place=at(4))) == []
    assert look(watch, 100, read("s0", closed=True, place=at(4))) == []
    assert look(watch, 110, read("s0", closed=True, place=at(4))) == [("motionless", ("s0",))]


def test_an_open_shard_with_a_child_is_over_and_one_that_others_have_read_further_has_more() -> None:
    for rows in (
        [read("s0", place=at(3)), row("s1", "s0")],
        [replace(read("s0", place=at(3)), checkpoints={EU_ID: at(3), AP_ID: at(4)})],
        [read("s0", place=at(3), vanished=True)],
    ):
        watch = Watch(PATIENCE)
        look(watch, 0, *rows)
        assert look(watch, 60, *rows) == [("motionless", ("s0",))]


def test_an_idle_open_shard_is_no_standstill() -> None:
    watch = Watch(PATIENCE)
    for now in (0, 1000):
        assert look(watch, now, read("s0", place=at(3))) == []


def test_a_shard_that_waits_for_its_parents_is_told_by_what_they_wait_for() -> None:
    watch, rows = Watch(PATIENCE), [row("s0", closed=True), row("s1", "s0")]
    look(watch, 0, *rows)
    assert look(watch, 60, *rows) == [("unclaimed", ("s0",))]


def test_an_end_without_a_child_is_told_when_the_stream_is_not_replaced_in_time() -> None:
    watch, ended = Watch(PATIENCE), row("s0", closed=True, checkpoints={EU_ID: END})
    look(watch, 0, ended, read("t0"))
    assert look(watch, 119, ended, read("t0")) == []
    assert look(watch, 120, ended, read("t0")) == [("no child", ("s0",))]


def test_an_end_without_a_child_is_named_for_a_day_after_the_stream_lists_it_no_more() -> None:
    watch = Watch(PATIENCE)
    vanished = row("s0", closed=True, checkpoints={EU_ID: END}, vanished=True, vanished_at=1000.0)
    for now, read_at, named in ((0, 1000.0, False), (120, 87399.0, True), (400, 87400.0, False)):
        snapshot = Snapshot(replace(state(vanished, read("t0")), at=read_at), [EU])
        assert [each.why for each in watch.look(snapshot, SEEN, now)] == [Why.NO_CHILD] * named
    old = replace(vanished, vanished_at=None)
    assert look(watch, 500, old, read("t0")) == look(watch, 900, old, read("t0")) == []


def test_the_row_of_an_end_without_a_child_stays_for_a_day_and_no_child_goes_before_its_parent() -> None:
    ended: dict[str, Any] = {"closed": True, "checkpoints": {EU_ID: END}, "vanished": True}
    alone, parent = row("s0", **ended, vanished_at=1000.0), row("p0", **ended, vanished_at=3000.0)
    child = row("c0", "p0", **ended, vanished_at=2000.0)
    grandchild = read("g0", "c0")

    def forgettable(*rows: LeaseRow, at: float) -> list[str]:
        return [each.shard_id for each in Snapshot(replace(state(*rows), at=at), [EU]).forgettable()]

    assert forgettable(alone, at=87399.0) == []
    assert forgettable(alone, at=87400.0) == ["s0"]
    assert forgettable(parent, child, grandchild, at=4000.0) == ["p0", "c0"]
    assert forgettable(child, grandchild, at=4000.0) == ["c0"]
    assert forgettable(replace(parent, vanished=False), child, grandchild, at=1e6) == []
    kept = replace(parent, checkpoints={EU_ID: END, OTHER_ID: HORIZON})
    assert forgettable(kept, child, grandchild, at=4000.0) == []
    assert forgettable(kept, child, grandchild, at=90000.0) == ["c0"]


def test_a_shard_that_is_given_back_is_named_with_the_rules_that_it_waits_for() -> None:
    watch, stands = Watch(PATIENCE), read("s0", place=at(3))
    for on, words in (
        ((RuleName("copies"),), "waits for calls of copies that"),
        ((), "the coordination table does not accept its last checkpoints"),
    ):
        observed = Observed(live={LIVE}, reads={(ShardId("s0"), EU_ID)}, ending={ShardId("s0"): on})
        assert of(stands, observed=observed) == {"s0": Wait(Why.ENDING, on)}
        assert look(watch, 0, stands, observed=observed) == []
        (found,) = watch.look(Snapshot(state(stands), [EU]), observed, 60)
        assert (found.why, found.shards) == (Why.ENDING, ("s0",))
        assert words in found.reason


def test_shards_that_cannot_be_stored_and_streams_without_a_shard_are_told() -> None:
    watch = Watch(PATIENCE)
    unstored = Observed(live={LIVE}, unstored={ShardId("s1"): (ShardId("s0"),)})
    look(watch, 0, observed=unstored)
    assert look(watch, 60, observed=unstored) == [("not stored", ("s1",))]
    watch = Watch(PATIENCE)
    look(watch, 0)
    assert look(watch, 60) == [("no shard", ())]


def test_a_paused_rule_stands_still_on_purpose() -> None:
    watch, observed = Watch(PATIENCE), Observed(paused={ORDERS}, live={LIVE})
    for now in (0, 1000):
        assert look(watch, now, row("s0"), observed=observed) == []


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", Why)
def test_every_wait_has_a_sentence_and_a_remedy(why: Why) -> None:
    reason, remedy = explain(Wait(why, ("p0", "p1", "p2", "p3")), [ShardId("s0")], "The row is corrupt. Mend it.")
    assert reason[0].isupper()
    assert reason.endswith(".")
    assert remedy.endswith(".")
    assert "{" not in reason + remedy


def test_many_shards_are_counted() -> None:
    reason, _ = explain(Wait(Why.UNCLAIMED), [ShardId(f"s{number}") for number in range(9)])
    assert reason == "No worker takes shard s0, shard s1, shard s2 and 6 more."


def test_a_target_whose_region_rests_stands_still_on_purpose() -> None:
    watch, observed = Watch(PATIENCE), Observed(live={LIVE}, resting={(ORDERS, RegionId("eu"))})
    for now in (0, 1000):
        assert look(watch, now, row("s0"), observed=observed) == []


def test_a_mesh_that_is_read_with_other_members_is_named() -> None:
    reason, _ = explain(Wait(Why.OTHER_CONFIGURATION, ("w1",), ("orders/mesh",)), [ShardId("s0")])
    assert "It reads it for orders/mesh" in reason
