from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.coalescing import Run, plan_run
from replicator.domain.errors import (
    AccessRefused,
    MalformedRecord,
    PoisonRecord,
    ReplicatorError,
    TableMissing,
    Throttled,
    Unreachable,
    UnstampedItem,
    WorldMismatch,
)
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.modes.ordered import Action
from replicator.domain.owed_keys import (
    LONGEST_BODY,
    BodyState,
    OwedKey,
    OwedTo,
    RetryBy,
    as_record,
    is_refusal,
    merged,
    packed,
    retry_by,
    settles,
    too_much,
    under_its_version,
    unpacked,
)
from replicator.domain.records import Event, ItemKey
from replicator.domain.rules import Rule
from replicator.domain.targets import replica_id
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from tests.unit.strategies import image

GENERATION = 1_700_000_000_000
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())
EU = replica_id(RuleName("orders"), RegionId("eu"), TableName("orders"))
TO = OwedTo(TableName("orders"), EU)
DAY = 86_400.0
NOW = 1_790_000_000.0


def owed(number: int = 5, **other: Any) -> OwedKey:
    row = OwedKey(
        to=TO,
        key=ItemKey((("pk", "S", "k"),)),
        version=ordered_version(2, GENERATION, number),
        shard=ShardId("s0"),
        sequence=SequenceNumber(str(number)),
        event=Event.MODIFY,
        why="too large",
        changed_at=NOW - 10,
        first=NOW,
        last=NOW,
        by="me",
        body=BodyState.STORED,
    )
    return replace(row, **other)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_key_has_one_row_per_target_whatever_its_version() -> None:
    assert owed(5).row_id == owed(9, why="else").row_id
    others = [
        owed(to=OwedTo(TO.table, replica_id(RuleName("orders"), RegionId("ap"), TableName("orders")))),
        owed(to=OwedTo(TableName("others"), TO.target_id)),
        owed(key=ItemKey((("pk", "S", "other"),))),
        owed(key=None),
        owed(key=None, sequence=SequenceNumber("6")),
        owed(key=None, shard=ShardId("s1")),
    ]
    assert len({owed().row_id, *(each.row_id for each in others)}) == 7


def test_a_row_is_shown_by_its_key_or_by_its_place_in_the_stream() -> None:
    assert owed().shown == "pk=k"
    assert owed(key=None).shown == "record 5 of shard s0"


def test_the_greatest_version_stands_and_keeps_when_it_began() -> None:
    assert merged(None, owed(5)) == owed(5)
    assert merged(owed(5), owed(7, first=NOW + 9, last=NOW + 9)) == owed(7, last=NOW + 9, tries=2)
    assert merged(owed(7), owed(5, why="older")) == owed(7)
    assert merged(owed(5), owed(5, last=NOW + 9)) == owed(5, last=NOW + 9, tries=2)


@given(st.permutations([1, 2, 3, 4]))
def test_the_order_in_which_rows_are_written_does_not_decide(numbers: list[int]) -> None:
    row: OwedKey | None = None
    for number in numbers:
        row = merged(row, owed(number))
    assert row is not None
    assert row.version == owed(4).version


def test_a_row_is_settled_by_its_version_and_by_newer_ones_only() -> None:
    verdicts = [settles(owed(number).version, owed(5).version) for number in (4, 5, 6)]
    assert verdicts == [False, True, True]


def test_bodies_are_kept_up_to_a_bound() -> None:
    body = b'{"pk":{"S":"k"}}' * 20_000
    kept = packed(body)
    assert kept is not None
    assert len(kept) < LONGEST_BODY < len(body)
    assert unpacked(kept) == body
    assert packed(os.urandom(LONGEST_BODY)) is None


def test_a_damaged_body_is_named() -> None:
    with pytest.raises(MalformedRecord, match="damaged"):
        unpacked(b"no")


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PoisonRecord, MalformedRecord])
def test_what_is_wrong_with_a_record_is_a_refusal(error: type[ReplicatorError]) -> None:
    assert is_refusal(error("it is too large"))


@pytest.mark.parametrize(
    "error", [AccessRefused, TableMissing, Throttled, Unreachable, WorldMismatch, UnstampedItem, ReplicatorError]
)
def test_what_is_wrong_with_the_world_is_none(error: type[ReplicatorError]) -> None:
    assert not is_refusal(error("it is not there"))


def test_the_bound_says_that_it_is_the_table_and_not_the_record() -> None:
    error = too_much(TO, 10_000, "keys", PoisonRecord("PutItem failed: the index refuses it."))
    assert error.message == (
        "Target orders/replica/eu:orders has 10000 parked keys, the most that is kept: when so much is refused, it is"
        " the table and not the record. The last refusal: PutItem failed: the index refuses it."
    )
    assert not is_refusal(error)


# -- a retry -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "by"),
    [
        (owed(), RetryBy.CHANGE),
        (owed(body=BodyState.OMITTED), RetryBy.SOURCE),
        (owed(changed_at=NOW - 7 * DAY), RetryBy.SOURCE),
        (owed(changed_at=NOW - 7 * DAY + 7200), RetryBy.CHANGE),
        (owed(changed_at=0.0, first=NOW - 8 * DAY), RetryBy.SOURCE),
        (owed(changed_at=0.0, first=NOW - DAY), RetryBy.CHANGE),
        (owed(changed_at=NOW + DAY, first=NOW - 8 * DAY), RetryBy.SOURCE),
        (owed(event=Event.REMOVE, body=BodyState.NONE, changed_at=NOW - 99 * DAY), RetryBy.CHANGE),
    ],
)
def test_an_image_is_trusted_as_long_as_tombstones_live(row: OwedKey, by: RetryBy) -> None:
    assert retry_by(row, NOW, 7 * DAY) is by


@pytest.mark.parametrize(
    ("event", "new", "action"),
    [(Event.MODIFY, True, Action.PUT), (Event.INSERT, True, Action.PUT), (Event.REMOVE, False, Action.REMOVE)],
)
def test_a_retried_change_has_the_version_of_its_row_whatever_the_epoch_is_now(
    event: Event, new: bool, action: Action
) -> None:
    row, standing = owed(event=event), image({"pk": {"S": "k"}, "n": {"N": "1"}})
    content: Image | None = image({"pk": {"S": "k"}, "n": {"N": "2"}}) if new else None
    rule, generation = under_its_version(replace(RULE, epoch=7), row)
    assert row.key is not None
    change = plan_run(rule, Run(row.key, (as_record(row, content, standing),)), generation)
    assert change is not None
    assert (change.action, change.version, change.old, change.new) == (action, row.version, standing, content)


def test_a_retried_change_that_the_filter_no_longer_lets_pass_removes_what_the_target_holds() -> None:
    rule = replace(RULE, filter=Filter(exists=("seen",)))
    standing = image({"pk": {"S": "k"}, "seen": {"BOOL": True}})
    row = owed()
    record = as_record(row, image({"pk": {"S": "k"}}), standing)
    change = plan_run(rule, Run(record.key, (record,)), GENERATION)
    assert change is not None
    assert change.action is Action.REMOVE


def test_a_retried_change_of_a_source_without_order_has_its_time_for_a_version_and_not_its_place() -> None:
    place = SequenceNumber("4" * 56)
    row = owed(version=ordered_version(2, GENERATION, 1_700_000_000_123_456), sequence=place)
    record = as_record(row, image({"pk": {"S": "k"}}), None)
    assert (record.sequence, record.micros) == (place, 1_700_000_000_123_456)
    rule, generation = under_its_version(RULE, row)
    change = plan_run(rule, Run(record.key, (record,)), generation)
    assert change is not None
    assert change.version == row.version
    assert as_record(owed(), None, None).micros == 0
