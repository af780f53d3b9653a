"""Rows of a KCL lease table, and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.adapters.dynamodb.coordination import CorruptRow
from replicator.domain.identifiers import ShardId
from replicator.domain.shards.lineage import Shard
from replicator.operations.kcl_leases import KclLease, lease_of, moved, of_stream, takings

LABEL = "2026-01-31T12:00:00.000"


def row(key: str, checkpoint: str, **more: Any) -> dict[str, Any]:
    return {"leaseKey": {"S": key}, "checkpoint": {"S": checkpoint}, "leaseCounter": {"N": "7"}, **more}


def shard(name: str, *parents: str) -> Shard:
    return Shard(ShardId(name), tuple(ShardId(parent) for parent in parents))


def test_a_lease_names_its_shard_and_in_the_multi_stream_form_its_stream() -> None:
    old = lease_of(row("shardId-1", "42", leaseOwner={"S": "worker"}, checkpointSubSequenceNumber={"N": "0"}))
    assert old == KclLease("shardId-1", "42", "worker", 7)
    new = lease_of(row(f"123456789012:orders:{LABEL}:shardId-1", "SHARD_END"))
    assert new == KclLease("shardId-1", "SHARD_END", None, 7, "orders", LABEL)


def test_rows_about_other_things_are_no_leases() -> None:
    assert lease_of({"leaseKey": {"S": "shardId-1"}}) is None
    assert lease_of(row("leader", "42")) is None
    assert lease_of({"k": {"S": "x"}}) is None


def test_a_checkpoint_that_is_no_place_is_refused_and_not_guessed() -> None:
    with pytest.raises(CorruptRow, match="shardId-1"):
        lease_of(row("shardId-1", "somewhere"))


def test_leases_of_other_streams_are_told_apart() -> None:
    leases = [
        KclLease("s1", "1", None, 0),
        KclLease("s2", "1", None, 0, "orders", LABEL),
        KclLease("s3", "1", None, 0, "orders", "2025-01-31T12:00:00.000"),
        KclLease("s4", "1", None, 0, "users", LABEL),
    ]
    assert [lease.shard for lease in of_stream(leases, "orders", LABEL)] == ["s1", "s2"]


def test_a_counter_that_rises_is_a_consumer_that_runs() -> None:
    before = [KclLease("s1", "1", "a", 5), KclLease("s2", "1", "b", 5)]
    now = [KclLease("s1", "1", "a", 6), KclLease("s2", "1", "b", 5), KclLease("s3", "1", "c", 9)]
    assert moved(before, now) == ["a"]


@pytest.mark.parametrize(
    ("checkpoint", "position", "exact"),
    [
        ("42", "42", True),
        ("SHARD_END", "SHARD_END", True),
        ("TRIM_HORIZON", "TRIM_HORIZON", True),
        ("LATEST", "TRIM_HORIZON", False),
        ("AT_TIMESTAMP", "TRIM_HORIZON", False),
    ],
)
def test_a_checkpoint_is_the_last_record_that_was_processed(checkpoint: str, position: str, exact: bool) -> None:
    (taken,) = takings([KclLease("s1", checkpoint, None, 0)], [shard("s1")])
    assert (taken.position.text, taken.is_exact) == (position, exact)


def test_ancestors_without_a_lease_are_over_and_children_without_one_are_not_begun() -> None:
    listed = [shard("a"), shard("b", "a"), shard("c", "b"), shard("d", "c"), shard("x")]
    taken = takings([KclLease("c", "42", None, 0)], listed)
    assert {each.shard.shard_id: each.position.text for each in taken} == {
        "a": "SHARD_END",
        "b": "SHARD_END",
        "c": "42",
        "d": "TRIM_HORIZON",
        "x": "TRIM_HORIZON",
    }
