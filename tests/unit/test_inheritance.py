"""Where a target begins that has no progress: what others did counts only for the parts that it was done for."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, RuleName, ShardId, TableName
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.shards.inheritance import Inherited, covers_of, inherited
from replicator.domain.shards.leases import LeaseRow, Rewind, StreamRef, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId

RULE, ORDERS = RuleName("orders"), TableName("orders")
REGIONS = [RegionId(name) for name in ("us", "eu", "ap", "ca")]
US, EU, AP, CA = REGIONS
S1 = ShardId("s1")
PLACES = [HORIZON, BEGINNING, END, *(Position(str(number)) for number in range(1, 6))]


def mesh(*regions: RegionId) -> Target:
    home, *others = regions
    rule = Rule(RULE, home, ORDERS, (Target(RULE, home, ORDERS),), mesh=ActivePlan(tuple(others)))
    return rule.targets[0]


def started(*targets: Target) -> dict[TargetId, TargetStart]:
    return {each.target_id: TargetStart(each.target_id, 5.0, each.parts) for each in targets}


def put(
    target: Target, places: Mapping[TargetId, Position], *others: Target, joined: bool = False, **rewinds: Rewind
) -> Inherited | None:
    """What a target gets on a shard where others stand."""
    row = LeaseRow(Shard(S1), checkpoints=places, rewinds={each: rewinds["rewind"] for each in places if rewinds})
    covers = covers_of(target, started(*others), places, joined=joined)
    return dict(inherited(target, {S1: row}, covers)).get(S1)


PAIR, TRIO, OTHER = mesh(US, EU), mesh(US, EU, AP), mesh(US, EU, CA)
TWO, FIVE, NINE = Position("2"), Position("5"), Position("9")


def test_a_member_that_joins_is_owed_what_is_not_done_yet() -> None:
    assert put(TRIO, {PAIR.target_id: FIVE}, PAIR) == Inherited(FIVE, None)


def test_a_member_that_joined_is_not_passed_over_by_a_worker_that_does_not_know_it() -> None:
    places = {TRIO.target_id: TWO, PAIR.target_id: NINE}
    assert put(TRIO, places, PAIR, TRIO, joined=True) is None
    assert put(TRIO, {PAIR.target_id: NINE}, PAIR, joined=True) is None, "its first record on this shard is owed, too"


def test_a_member_that_leaves_takes_nothing_away() -> None:
    assert put(PAIR, {TRIO.target_id: FIVE}, TRIO) == Inherited(FIVE, None)
    assert put(PAIR, {TRIO.target_id: FIVE, PAIR.target_id: TWO}, TRIO, PAIR, joined=True) == Inherited(FIVE, None)


def test_each_member_counts_by_itself() -> None:
    places = {TRIO.target_id: TWO, OTHER.target_id: NINE}
    four = mesh(US, EU, AP, CA)
    assert put(four, places, TRIO, OTHER) == Inherited(TWO, None), "what was done for ca was not done for ap"
    assert put(PAIR, places, TRIO, OTHER) == Inherited(NINE, None)


def test_another_table_of_a_member_is_another_member() -> None:
    rule = Rule(RULE, US, ORDERS, (Target(RULE, US, ORDERS),), mesh=ActivePlan((EU,), tables=((EU, TableName("v2")),)))
    moved = rule.targets[0]
    assert put(moved, {PAIR.target_id: FIVE}, PAIR) == Inherited(FIVE, None)
    assert put(moved, {PAIR.target_id: NINE, moved.target_id: TWO}, PAIR, moved, joined=True) is None


def test_what_an_earlier_version_stored_counts_when_nothing_else_does() -> None:
    rewind = Rewind(1.0, NINE)
    for target in (PAIR, Target(RULE, EU, ORDERS), Target(RULE, US, None)):
        earlier = target.target_id.earlier
        assert put(target, {earlier: FIVE}, rewind=rewind) == Inherited(FIVE, rewind)
        assert put(target, {earlier: NINE, target.target_id: FIVE}, target, joined=True) is None
    assert put(TRIO, {PAIR.target_id.earlier: TWO, PAIR.target_id: FIVE}, PAIR) == Inherited(FIVE, None)


def test_a_target_that_was_rewound_goes_on_at_the_horizon_with_what_it_skips() -> None:
    rewind = Rewind(1.0, NINE)
    assert put(TRIO, {PAIR.target_id: HORIZON}, PAIR, rewind=rewind) == Inherited(HORIZON, rewind)
    assert put(PAIR, {TRIO.target_id: HORIZON, PAIR.target_id: BEGINNING}, TRIO, PAIR, joined=True) is None


MESHES = st.lists(st.sampled_from(REGIONS[1:]), max_size=3, unique=True).map(lambda others: mesh(US, *others))


@given(
    MESHES,
    st.dictionaries(MESHES, st.sampled_from(PLACES), max_size=4),
    st.sampled_from([None, *PLACES]),
)
def test_no_target_is_put_behind_what_is_not_done_for_a_member_that_has_begun(
    target: Target, others: dict[Target, Position], own: Position | None
) -> None:
    others.pop(target, None)
    places = {each.target_id: place for each, place in others.items()}
    if own is not None:
        places[target.target_id] = own
    begun = [*others, *([] if own is None else [target])]
    found = put(target, places, *begun, joined=own is not None)
    if found is None:
        return
    known = frozenset[str]().union(*(each.parts for each in begun))
    for part in target.parts & known:
        assert any(part in each.parts and places[each.target_id].order >= found.position.order for each in begun), (
            f"{found.position} passes what {part} did not get"
        )


def test_a_start_is_of_its_targets_rule_and_a_stream_of_its_table() -> None:
    assert TargetStart(mesh(US, EU).target_id, 1.0).rule == RULE
    assert StreamRef(US, ORDERS, "arn", 1).where == "us:orders"
