"""What no worker reads: where a target stands, a living worker reads the shard, or it is here with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName, WorkerId
from replicator.domain.progress import END, HORIZON, Position, reached
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import LeaseRow, StreamRef, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import Observed
from replicator.domain.shards.unread import HELD, unread

LIVE, DEAD = WorkerId("live"), WorkerId("dead")
STREAM = StreamRef(RegionId("us"), TableName("orders"), "arn:1", 1)
EU = Target(RuleName("orders"), RegionId("eu"), TableName("orders"))
RULE = Rule(name=RuleName("orders"), source=RegionId("us"), table=TableName("orders"), targets=(EU,))
AT_5 = Position("5", 50.0)


def row(shard: str, *parents: str, owner: WorkerId | None = LIVE, place: Position = AT_5, **more: Any) -> LeaseRow:
    found = Shard(ShardId(shard), tuple(map(ShardId, parents)), closed=place == END)
    return LeaseRow(found, owner, 1, {EU.target_id: place}, serves=frozenset({EU.target_id}), **more)


def of(*rows: LeaseRow, is_held: bool = False, **seen: Any) -> dict[str | None, tuple[str, float | None]]:
    snapshot = Snapshot(StreamState({each.shard_id: each for each in rows}, None, {}, at=0.0), [RULE])
    observed = Observed(live={LIVE}, **seen)
    found = unread(snapshot, RULE, STREAM, observed, {}, is_held=is_held)
    return {each.shard_id: (each.state, each.through) for each in found}


def test_what_a_living_worker_reads_is_its_own_to_report() -> None:
    assert of(row("s0")) == {}


@pytest.mark.parametrize("owner", [None, DEAD])
def test_a_shard_without_a_living_owner_is_unclaimed(owner: WorkerId | None) -> None:
    assert of(row("s0", owner=owner), row("s1")) == {"s0": ("unclaimed", 50.0)}


def test_a_paused_rule_reads_nothing_though_its_owner_lives() -> None:
    assert of(row("s0"), paused={RuleName("orders")}) == {"s0": ("paused", 50.0)}


def test_a_held_rule_reads_nothing_and_says_so_whatever_else_is_true() -> None:
    assert of(row("s0"), is_held=True, paused={RuleName("orders")}) == {"s0": (HELD, 50.0)}


def test_a_finished_shard_waits_for_its_child_to_be_found() -> None:
    end = row("s0", owner=None, place=reached(END, 70.0))
    assert of(end) == {"s0": ("no child", 70.0)}
    assert of(end, row("s1", "s0", owner=None, place=HORIZON)) == {"s1": ("unclaimed", 70.0)}


def test_a_shard_that_waits_for_its_parents_is_counted_with_them() -> None:
    assert of(row("s0", owner=None), row("s1", "s0", owner=None, place=HORIZON)) == {"s0": ("unclaimed", 50.0)}


@pytest.mark.parametrize(("is_held", "state"), [(False, "no shard"), (True, HELD)])
def test_a_stream_without_shards_has_no_figures(is_held: bool, state: str) -> None:
    assert of(is_held=is_held) == {None: (state, None)}
