from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.assignment import LeaseRow, claimable
from replicator.domain.records import ShardId, WorkerId

ALIVE, DEAD = WorkerId("alive"), WorkerId("dead")
SHARDS = [ShardId(f"s{number}") for number in range(5)]


def row(shard_id: ShardId, owner: WorkerId | None) -> LeaseRow:
    return LeaseRow(shard_id, owner, epoch=1, checkpoints={})


def test_shards_that_nobody_owns_or_whose_owner_is_gone_are_claimed() -> None:
    new, free, lost, taken, _ = SHARDS
    rows = {free: row(free, None), lost: row(lost, DEAD), taken: row(taken, ALIVE)}
    assert claimable([new, free, lost, taken], rows, {DEAD}, at_most=9) == [new, free, lost]


@given(
    st.permutations(SHARDS),
    st.dictionaries(st.sampled_from(SHARDS), st.sampled_from([None, ALIVE, DEAD])),
    st.integers(0, 6),
)
def test_a_plan_is_bounded_keeps_the_order_and_never_robs_an_owner_that_lives(
    wanted: list[ShardId], owners: dict[ShardId, WorkerId | None], at_most: int
) -> None:
    rows = {shard_id: row(shard_id, owner) for shard_id, owner in owners.items()}
    plan = claimable(wanted, rows, {DEAD}, at_most=at_most)
    free = [shard_id for shard_id in wanted if owners.get(shard_id) is not ALIVE]
    assert plan == free[:at_most]
