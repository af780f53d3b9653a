"""Which shards a worker may take, and which of its leases the rows still bear out."""

from __future__ import annotations

import pytest

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId, ShardId, TableName, WorkerId
from replicator.domain.shards.leases import Lease, LeaseRow, StreamRef, StreamState
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.ownership import free, lost, offered, since

ME, OTHER, DEAD = WorkerId("me"), WorkerId("other"), WorkerId("dead")
PARENT, CHILD = ShardId("parent"), ShardId("child")
REF = StreamRef(RegionId("us"), TableName("orders"), "arn", 1)


def row(owner: WorkerId | None = None, epoch: int = 0) -> LeaseRow:
    return LeaseRow(Shard(CHILD, (PARENT,)), owner, epoch, {})


@pytest.mark.parametrize(("owner", "is_free"), [(None, True), (ME, True), (DEAD, True), (OTHER, False)])
def test_a_shard_is_free_when_no_other_live_worker_owns_it(owner: WorkerId | None, is_free: bool) -> None:
    rows = {CHILD: row(owner, 3)}
    assert free(rows, [CHILD], ME, lambda worker: worker == DEAD) == (rows if is_free else {})


def test_a_new_shard_falls_first_to_the_worker_that_read_its_parent() -> None:
    ours = offered(row(), 1.0, me=ME, read={PARENT}, known={PARENT, CHILD})
    theirs = offered(row(), 1.0, me=ME, read=(), known={PARENT, CHILD})
    assert (ours.ours, ours.theirs) == (True, False)
    assert (theirs.ours, theirs.theirs) == (False, True)


def test_one_that_was_handed_over_or_whose_parent_is_gone_is_no_more_one_workers_than_anothers() -> None:
    for each in (
        offered(row(None, 2), 1.0, me=ME, read={PARENT}, known={PARENT, CHILD}),
        offered(row(), 1.0, me=ME, read=(), known={CHILD}),
    ):
        assert (each.ours, each.theirs) == (False, False)


def test_a_claim_without_an_answer_is_ours() -> None:
    assert offered(row(ME, 4), 1.0, me=ME, read=(), known={CHILD}).ours


@pytest.mark.parametrize(
    ("state", "is_lost"),
    [
        (StreamState({CHILD: row(ME, 3)}, None, {}, at=0.0), False),
        (StreamState({CHILD: row(ME, 4)}, None, {}, at=0.0), True),
        (StreamState({CHILD: row(OTHER, 3)}, None, {}, at=0.0), True),
        (StreamState({}, None, {}, at=0.0), True),
        (StreamState({}, None, {}, at=0.0, unreadable=WorldMismatch("A row is of a newer version.")), False),
    ],
)
def test_a_lease_is_lost_when_its_row_is_another_ones_or_gone_for_sure(state: StreamState, is_lost: bool) -> None:
    lease = Lease(REF, CHILD, ME, 3)
    assert lost(state, [lease]) == ([lease] if is_lost else [])


def test_the_time_since_when_something_holds_begins_anew_when_it_did_not() -> None:
    known = since({}, [PARENT], 1.0)
    assert since(known, [PARENT, CHILD], 2.0) == {PARENT: 1.0, CHILD: 2.0}
    assert since(since(known, [], 2.0), [PARENT], 3.0) == {PARENT: 3.0}
