"""Which targets a rewind moves, from rows alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from replicator.adapters.dynamodb.coordination import StoredStream
from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.shards.leases import KnownStream, LeaseRow, Rewind, StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId, replica_id
from replicator.operations.errors import RequestRefused
from replicator.operations.rewind_plan import Goal, Scope, parse_goal

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
EU, AP = (replica_id(RuleName("orders"), RegionId(region), TableName("orders")) for region in ("eu", "ap"))
STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn", 1)


def read(**shards: tuple[str, dict[TargetId, Position]]) -> StoredStream:
    """Shards by id: their parents, in one word, and where targets stand."""
    rows = {
        ShardId(name): LeaseRow(
            Shard(ShardId(name), tuple(ShardId(parent) for parent in parents.split())),
            owner=WorkerId("w"),
            epoch=3,
            checkpoints=positions,
        )
        for name, (parents, positions) in shards.items()
    }
    return StoredStream(KnownStream(STREAM), rows)


FAMILY = read(
    child=("parent", {EU: Position("50"), AP: Position("60")}),
    parent=("", {EU: END, AP: END}),
    other=("", {EU: Position("7")}),
    grandchild=("child other", {}),
)
ALL = frozenset(FAMILY.rows)


def scope(
    goal: Goal,
    shard: str | None = None,
    targets: frozenset[TargetId] = frozenset({EU, AP}),
    listed: frozenset[ShardId] = ALL,
) -> Scope:
    return Scope(FAMILY, targets, listed, goal, None if shard is None else ShardId(shard))


def planned(scope: Scope) -> dict[str, dict[TargetId, str | None]]:
    """The steps: by shard, where targets go."""
    return {
        step.row.shard_id: {name: None if place is None else place.text for name, place in step.move.positions.items()}
        for step in scope.steps()
    }


def test_a_rewind_to_the_horizon_moves_every_target_that_read_something_parents_first() -> None:
    found = planned(scope(Goal()))
    assert found == {
        "other": {EU: "TRIM_HORIZON"},
        "parent": {EU: "TRIM_HORIZON", AP: "TRIM_HORIZON"},
        "child": {EU: "TRIM_HORIZON", AP: "TRIM_HORIZON"},
    }
    assert list(found).index("parent") < list(found).index("child")


def test_a_shard_takes_its_descendants_along_and_nothing_else() -> None:
    assert planned(scope(Goal(Position("40")), "child")) == {"child": {EU: "40", AP: "40"}}
    assert set(planned(scope(Goal(), "parent"))) == {"parent", "child"}


def test_a_sequence_number_moves_only_targets_that_passed_it() -> None:
    assert planned(scope(Goal(Position("55")), "child")) == {"child": {AP: "55"}}
    assert planned(scope(Goal(Position("60")), "child")) == {}


def test_only_the_targets_named_move() -> None:
    assert planned(scope(Goal(), "child", frozenset({AP}))) == {"child": {AP: "TRIM_HORIZON"}}


def test_what_was_applied_before_a_time_is_skipped_up_to_where_the_target_stood() -> None:
    (step,) = scope(Goal(before=9.0), "child", frozenset({EU})).steps()
    assert step.move.rewinds == {EU: Rewind(9.0, Position("50"))}


def test_what_the_stream_no_longer_lists_stays_as_it_is_and_is_told() -> None:
    left = scope(Goal(), targets=frozenset({EU}), listed=ALL - {ShardId("parent")})
    assert "parent" not in planned(left)
    assert left.gone() == ["parent"]


@pytest.mark.parametrize("place", [HORIZON, BEGINNING])
def test_a_target_that_read_nothing_stays_where_it_is(place: Position) -> None:
    assert not planned(Scope(read(s=("", {EU: place})), frozenset({EU}), frozenset({ShardId("s")}), Goal()))


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("trim_horizon", Goal()),
        ("TRIM-HORIZON", Goal()),
        ("4711", Goal(Position("4711"))),
        ("2h", Goal(before=NOW.timestamp() - 7200)),
        ("2026-07-01T11:00:00Z", Goal(before=NOW.timestamp() - 3600)),
        ("2026-07-01T11:00", Goal(before=NOW.timestamp() - 3600)),
    ],
)
def test_a_goal_is_a_place_a_time_or_the_horizon(text: str, goal: Goal) -> None:
    assert parse_goal(text, NOW) == goal


@pytest.mark.parametrize("text", ["", "latest", "yesterday", "9" * 65, "2026-07-01T12:00:00Z", "-5m"])
def test_what_is_no_place_in_the_past_is_refused(text: str) -> None:
    with pytest.raises(RequestRefused):
        parse_goal(text, NOW)
