"""Up to when a target has everything: never later than the oldest change that it does not have, and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.progress import BEGINNING, END, HORIZON, Position, Window, after, reached
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.shards.applied_through import (
    Held,
    applied_through,
    frontier,
    lag_seconds,
    retention_left_seconds,
    stated,
    subject,
)
from replicator.domain.shards.leases import LeaseRow, StreamRef, StreamState, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.statements import Statements
from replicator.domain.values import replace

ME, OTHER = WorkerId("me"), WorkerId("other")
STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn:1", 1)
EU = Target(RuleName("orders"), RegionId("eu"), TableName("orders"))
RULE = Rule(name=RuleName("orders"), source=RegionId("us"), table=TableName("orders"), targets=(EU,))
DAY = 24 * 3600.0


def at(number: int, through: float | None = None) -> Position:
    return after(SequenceNumber(str(number)), through)


def row(shard: str, *parents: str, place: Position | None = None, **more: Any) -> LeaseRow:
    checkpoints = {} if place is None else {EU.target_id: place}
    closed = more.pop("closed", place == END)
    return LeaseRow(Shard(ShardId(shard), tuple(map(ShardId, parents)), closed=closed), checkpoints=checkpoints, **more)


def of(
    *rows: LeaseRow,
    statements: Mapping[WorkerId, Statements] | None = None,
    rule: Rule = RULE,
    starts: Mapping[Any, TargetStart] | None = None,
) -> dict[str, float | None]:
    state = StreamState({each.shard_id: each for each in rows}, None, starts or {}, at=0.0)
    return dict(frontier(Snapshot(state, [rule]), rule, EU, STREAM, statements or {}).items())


def ended(through: float | None) -> Position:
    return reached(END, through)


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_it_is_the_least_of_all_shards() -> None:
    assert of(row("s0", place=at(5, 100.0)), row("s1", place=at(6, 40.0))) == {"s0": 100.0, "s1": 40.0}
    assert applied_through({ShardId("s0"): 100.0, ShardId("s1"): 40.0}) == 39.0


@pytest.mark.parametrize("place", [None, HORIZON, BEGINNING, at(5)])
def test_a_place_without_a_time_freezes_the_whole(place: Position | None) -> None:
    found = of(row("s0", place=at(5, 100.0)), row("s1", place=place))
    assert found == {"s0": 100.0, "s1": None}
    assert applied_through(found) is None  # type: ignore[arg-type]


def test_nothing_to_read_is_not_known_to_be_level() -> None:
    assert applied_through({}) is None


def test_a_finished_shard_counts_as_its_end_until_a_child_has_a_place() -> None:
    end = row("s0", place=ended(50.0))
    assert of(end) == {"s0": 50.0}
    assert of(end, row("s1", "s0")) == {"s1": 50.0}
    assert of(end, row("s1", "s0", place=at(9, 70.0)), row("s2", "s0")) == {"s1": 70.0, "s2": 50.0}
    assert of(end, row("s1", "s0", place=HORIZON)) == {"s1": 50.0}


def test_a_finished_shard_that_the_stream_lists_no_more_owes_nothing() -> None:
    assert of(row("s0", place=ended(50.0), vanished=True), row("s1", place=at(3, 80.0))) == {"s1": 80.0}


def test_a_shard_behind_parents_that_are_not_finished_is_covered_by_them() -> None:
    assert of(row("s0", place=at(4, 30.0), closed=True), row("s1", "s0")) == {"s0": 30.0}


def test_a_child_of_two_parents_counts_as_the_earlier_end() -> None:
    assert of(row("s0", place=ended(50.0)), row("s1", place=ended(60.0)), row("s2", "s0", "s1")) == {"s2": 50.0}
    assert of(row("s0", place=ended(50.0)), row("s1", place=ended(None)), row("s2", "s0", "s1")) == {"s2": None}
    assert of(row("s0", place=ended(50.0)), row("s2", "s0", "gone")) == {"s2": None}


def test_a_start_at_the_latest_owes_nothing_from_before_it() -> None:
    starts = {EU.target_id: TargetStart(EU.target_id, 500)}
    latest = replace(RULE, start=Start.LATEST)
    assert of(row("s0"), starts=starts, rule=latest) == {"s0": 500.0}
    assert of(row("s0"), starts=starts) == {"s0": None}


# -- what workers say --------------------------------------------------------------------------------------------------


def held(shard: str, epoch: int, place: Position) -> Held:
    return Held(ShardId(shard), epoch, {EU.target_id: place})


def test_a_worker_says_the_least_of_what_it_reads_and_nothing_of_what_has_no_time() -> None:
    statements = stated(STREAM, [held("s0", 1, at(5, 70.0)), held("s1", 2, at(5, 60.0)), held("s2", 3, ended(1.0))])
    (statement,) = statements.values()
    assert statement.through == 60.0
    assert stated(STREAM, [held("s0", 1, at(5, 70.0)), held("s1", 2, at(5))]) == {}


def test_what_an_owner_says_counts_beside_what_is_stored() -> None:
    rows = [row("s0", place=at(5, 10.0), owner=ME, epoch=3), row("s1", place=at(5, 20.0), owner=OTHER, epoch=1)]
    statements = {ME: stated(STREAM, [held("s0", 3, at(5, 70.0))])}
    assert of(*rows, statements=statements) == {"s0": 70.0, "s1": 20.0}


@pytest.mark.parametrize(
    "said",
    [
        [held("s0", 2, at(5, 70.0))],  # under an earlier lease
        [held("s0", 3, at(5, 70.0)), held("s9", 1, at(5, 70.0))],  # with a shard that it has no more
        [held("s9", 3, at(5, 70.0))],
    ],
)
def test_what_an_owner_said_of_other_leases_counts_for_nothing(said: list[Held]) -> None:
    rows = [row("s0", place=at(5, 10.0), owner=ME, epoch=3)]
    assert of(*rows, statements={ME: stated(STREAM, said)}) == {"s0": 10.0}


def test_a_shard_that_was_taken_since_is_not_covered() -> None:
    rows = [row(name, place=at(5, 10.0), owner=ME, epoch=3) for name in ("s0", "s1")]
    assert of(*rows, statements={ME: stated(STREAM, [held("s0", 3, at(5, 70.0))])}) == {"s0": 10.0, "s1": 10.0}


def test_what_another_stream_or_target_reached_counts_for_nothing() -> None:
    statements = {ME: stated(replace(STREAM, generation=2), [held("s0", 3, at(5, 70.0))])}
    assert of(row("s0", place=at(5, 10.0), owner=ME, epoch=3), statements=statements) == {"s0": 10.0}
    assert subject(STREAM, EU.target_id) != subject(replace(STREAM, table=TableName("bills")), EU.target_id)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_lag_and_retention_are_unknown_or_count_from_the_time_that_is_known() -> None:
    assert (lag_seconds(None, 100.0), retention_left_seconds(None)) == (None, None)
    assert lag_seconds(40.0, 100.0) == 60.0
    assert lag_seconds(140.0, 100.0) == 0.0
    assert retention_left_seconds(60.0) == DAY - 60.0
    assert retention_left_seconds(2 * DAY) == 0.0


# -- the frontier of a window ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_the_time_of_a_frontier_never_goes_back_and_is_that_of_its_newest_record(
    times: list[int], data: st.DataObject
) -> None:
    window = Window(at(0, 20.0))
    for number, made in enumerate(times, start=1):
        window.open([(SequenceNumber(str(number)), float(made))])
    before = 20.0
    for number in data.draw(st.permutations(range(1, len(times) + 1))):
        window.done(SequenceNumber(str(number)))
        through = window.frontier.through
        assert through is not None
        assert through == max([20.0, *map(float, times[: int(window.frontier.text)])])
        assert through >= before
        before = through
        waiting = times[int(window.frontier.text) :]
        assert window.oldest == (waiting[0] if waiting else 0.0)


def test_a_record_without_a_time_leaves_the_time_of_the_frontier_alone() -> None:
    window = Window(at(0, 20.0))
    window.open([(SequenceNumber("1"), 0.0)])
    window.done(SequenceNumber("1"))
    assert (window.frontier, window.frontier.through) == (at(1), 20.0)


def test_the_time_is_no_part_of_what_a_place_is() -> None:
    assert at(5, 1.0) == at(5)
    assert hash(at(5, 1.0)) == hash(at(5))
    assert reached(at(5, 7.0), 3.0).through == 7.0
    assert reached(at(5), None).through is None


# -- any history -------------------------------------------------------------------------------------------------------


@dataclass
class History:
    """Shards with their records' times, and how far a target is; what is unlisted is there, and not known."""

    rows: list[LeaseRow] = field(default_factory=list)
    unapplied: list[float] = field(default_factory=list)
    """When changes were made that the target does not have, in shards that are listed or not."""
    statements: dict[WorkerId, Statements] = field(default_factory=dict)


@st.composite
def histories(draw: st.DrawFn) -> History:  # noqa: C901 - one story
    """A line of shards, each with up to two children that began when it was closed."""
    history = History()
    often = st.sampled_from([True, True, True, False])
    claims: list[Held] = []
    now = 100.0

    def shard(name: str, parent: str | None, born: float, *, may_read: bool, depth: int) -> None:
        made = sorted(born + offset for offset in draw(st.lists(st.floats(0.0, 10.0), max_size=4)))
        closes = depth < 2 and draw(often)
        done = len(made) if may_read and draw(st.booleans()) else draw(st.integers(0, len(made))) if may_read else 0
        begun = may_read and (done > 0 or draw(often))
        place: Position | None = HORIZON if begun else None
        for number, time in enumerate(made[:done], start=1):
            place = after(SequenceNumber(str(number)), float(int(time)))
        asked = draw(st.floats(born, now))
        level = not any(time <= asked for time in made[done:])
        if place is not None and level and (not closes or asked <= (made[-1] if made else born)):
            place = reached(place, asked)
        finished = closes and begun and done == len(made) and draw(often)
        if finished and place is not None:
            place = reached(END, place.through)
        history.unapplied.extend(made[done:])
        owned = begun and not finished and draw(often)
        epoch = draw(st.integers(0, 2))
        history.rows.append(
            row(
                name,
                *([] if parent is None else [parent]),
                place=None if place is None else at_whole(place, draw(often)),
                closed=closes,
                owner=ME if owned else None,
                epoch=epoch,
            )
        )
        if owned and place is not None and draw(st.booleans()):
            claims.append(held(name, epoch, place))
        if closes:
            end = max([born, *made]) + 1.0
            listed = draw(often)  # all children or none: how many a shard has is not known
            for number in range(draw(st.integers(0, 2))):
                if listed:
                    shard(f"{name}{number}", name, end, may_read=finished, depth=depth + 1)
                else:  # not listed yet
                    history.unapplied.extend(end + offset for offset in draw(st.lists(st.floats(0.0, 9.0), max_size=2)))

    def at_whole(place: Position, is_stored: bool) -> Position:
        return place if is_stored or place.sequence is None else replace(place, through=None)

    for number in range(draw(st.integers(1, 3))):
        shard(f"s{number}-", None, float(draw(st.integers(0, 20))), may_read=True, depth=0)
    history.statements = {ME: stated(STREAM, claims)}
    return history


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_whatever_is_known_no_change_from_before_it_is_missing(history: History) -> None:
    known = applied_through(of(*history.rows, statements=history.statements))  # type: ignore[arg-type]
    if known is not None:
        assert min(history.unapplied, default=known) >= known
