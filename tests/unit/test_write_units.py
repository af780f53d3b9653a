from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.modes.requests import (
    Absent,
    Delete,
    Done,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Refused,
    Remove,
    Replace,
    Request,
    StampBelow,
    StampedPut,
    StampIs,
    TombstoneBelow,
    Unstamp,
    UnstampedOrStampBelow,
    VersionIs,
)
from replicator.domain.records import item_key
from replicator.domain.shards.holdings import Holdings
from replicator.domain.shards.leases import StreamRef
from replicator.domain.stamps import Stamp, StampKind, Version
from replicator.domain.write_units import BURST_SECONDS, UnitBucket, units_of, units_taken

KEY = item_key(b'{"pk":{"S":"a"}}')
STAMP = Stamp(Version(1, 0, "us", 1), StampKind.VALUE, "content", "parent")


def item(size: int) -> Image:
    """An item of about so many bytes."""
    return Image(b'{"pk":{"S":"a"},"v":{"S":"%b"}}' % (b"x" * size))


def put(size: int) -> Put:
    return Put(KEY, item(size), "1", UnstampedOrStampBelow("1"))


REQUESTS: list[tuple[Request, int]] = [
    (put(10), 1),
    (put(800), 1),
    (put(1000), 2),
    (put(10_000), 10),
    (Replace(KEY, item(1000), Absent()), 1),
    (Replace(KEY, item(3000), Absent()), 3),
    (GuardedPut(put(10), TombstoneBelow("1")), 4),
    (GuardedPut(put(3000), TombstoneBelow("1")), 8),
    (StampedPut(KEY, item(700), STAMP, Absent()), 1),
    (StampedPut(KEY, item(1000), STAMP, Absent()), 2),
    (Replace(KEY, Image(b'{"pk":"%b"}' % (b"x" * 2000)), Absent()), 2),
    (Delete(KEY, StampBelow("1")), 1),
    (Remove(KEY, VersionIs("v", None)), 1),
    (RaiseTombstone(KEY, "1"), 1),
    (Unstamp(KEY, StampIs(None)), 1),
    (GetItem(KEY), 0),
    (GetTombstone(KEY), 0),
]


@pytest.mark.parametrize(("request_", "units"), REQUESTS)
def test_a_request_takes_a_unit_a_kibibyte_and_twice_that_in_a_transaction(request_: Request, units: int) -> None:
    assert units_of(request_) == units


def test_long_names_of_types_are_not_counted() -> None:
    numbers = b",".join(b'"a%d":{"N":"1"}' % number for number in range(100))
    image = Image(b'{"pk":{"S":"a"},%b}' % numbers)
    assert len(image.wire) > 1024
    assert units_of(Put(KEY, image, "1", UnstampedOrStampBelow("1"))) == 1


def test_what_the_service_says_it_took_counts() -> None:
    assert units_taken(put(10), 1, Done(units=3.0)) == 3.0
    assert units_taken(put(10), 1, Done()) == 1
    assert units_taken(GetItem(KEY), 0, Done(units=0.0)) == 0.0


def test_a_refused_write_takes_what_the_item_in_its_way_has() -> None:
    assert units_taken(put(10), 1, Refused(item(5000))) == 5
    assert units_taken(put(10), 1, Refused()) == 1
    assert units_taken(GuardedPut(put(10), TombstoneBelow("1")), 4, Refused(item(5000))) == 10


def test_the_units_that_an_answer_tells_decide_nothing() -> None:
    assert Done(units=3.0) == Done()


# -- the bucket ------------------------------------------------------------------------------------------------------


STEPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=200)


@given(per_second=st.integers(1, 1000), share=st.floats(0.01, 1), steps=STEPS)
def test_no_time_sees_more_than_its_rate_a_burst_and_one_request(
    per_second: int, share: float, steps: list[tuple[float, int]]
) -> None:
    """What comes waits until it may go, or comes later by itself; then any window is looked at."""
    bucket, now, rate = UnitBucket(per_second, 0.0), 0.0, per_second * share
    granted: list[tuple[float, int]] = []
    for pause, units in steps:
        now += pause
        now += bucket.wait(now, share)
        assert bucket.wait(now, share) == pytest.approx(0, abs=1e-6)
        bucket.take(units, now)
        granted.append((now, units))
    largest = max(units for _, units in granted)
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            seconds = granted[last][0] - granted[first][0]
            taken = sum(units for _, units in granted[first : last + 1])
            assert taken <= rate * (seconds + BURST_SECONDS) + largest + 1e-6
        if first > 20:
            break


@given(per_second=st.integers(10, 1000), units=st.integers(1, 10))
def test_all_of_the_rate_can_be_used(per_second: int, units: int) -> None:
    bucket, now, taken = UnitBucket(per_second, 0.0), 0.0, 0
    while now < 10:
        now += bucket.wait(now, 1.0)
        bucket.take(units, now)
        taken += units
    assert taken >= per_second * 10 - units


def test_a_request_larger_than_the_bucket_goes_and_is_paid_for() -> None:
    bucket = UnitBucket(10, 0.0)
    assert bucket.wait(0.0, 1.0) == 0
    bucket.take(400, 0.0)
    assert bucket.wait(0.0, 1.0) == pytest.approx(40)


def test_units_that_are_given_back_are_free_again() -> None:
    bucket = UnitBucket(10, 0.0)
    bucket.take(20, 0.0)
    bucket.take(-20, 1.0)
    assert bucket.wait(1.0, 1.0) == 0
    assert bucket.taken == 0


def test_without_a_share_nothing_becomes_free_and_with_one_again() -> None:
    bucket = UnitBucket(10, 0.0)
    bucket.take(10, 0.0)
    assert bucket.wait(5.0, 0.0) == math.inf
    assert bucket.wait(5.0, 0.5) == pytest.approx(2)


def test_the_shown_rate_follows_what_is_taken_and_fades() -> None:
    bucket = UnitBucket(100, 0.0)
    for tenth in range(600):
        bucket.take(5, tenth / 10)
    assert bucket.rate(60.0) == pytest.approx(50, rel=0.05)
    assert bucket.rate(120.0) < 1


def test_a_bound_slows_while_requests_wait_and_a_little_longer() -> None:
    bucket = UnitBucket(100, 0.0)
    assert not bucket.is_slowing(0.0)
    bucket.waiting = 1
    assert bucket.is_slowing(0.0)
    bucket.waiting = 0
    bucket.slowed(5.0)
    assert bucket.is_slowing(14.0)
    assert not bucket.is_slowing(16.0)


# -- shares ----------------------------------------------------------------------------------------------------------


US, ORDERS = RegionId("us"), TableName("orders")


def stream(table: str = "orders", number: int = 1) -> StreamRef:
    return StreamRef(US, TableName(table), f"arn:{table}/{number}", number)


def shards(count: int) -> list[ShardId]:
    return [ShardId(f"s{number}") for number in range(count)]


@given(
    held=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    free=st.integers(0, 5),
)
def test_all_shares_together_are_the_whole_when_everything_is_read(held: list[int], free: int) -> None:
    """Every worker sees the same rows, and knows of itself alone what it reads."""
    shares = []
    for count in held:
        holdings = Holdings()
        holdings.tell(stream(), shards(count), sum(held) + free, len(held))
        shares.append(holdings.share({(US, ORDERS)}))
    assert sum(shares) <= 1 + 1e-9
    if sum(held) and not free:
        assert sum(shares) == pytest.approx(1)


def test_a_share_follows_what_is_read_at_the_moment() -> None:
    holdings, ours = Holdings(), shards(1)
    holdings.tell(stream(), ours, 4, 1)
    before = holdings.share({(US, ORDERS)})
    ours.append(ShardId("more"))
    assert holdings.share({(US, ORDERS)}) > before


def test_a_share_is_the_whole_at_most_also_when_more_is_read_than_the_rows_showed() -> None:
    holdings = Holdings()
    holdings.tell(stream(), shards(3), 1, 1)
    assert holdings.share({(US, ORDERS)}) == pytest.approx(1)


def test_only_streams_of_the_rules_tables_count() -> None:
    holdings = Holdings()
    holdings.tell(stream(), shards(1), 1, 2)
    holdings.tell(stream("others"), [], 50, 2)
    assert holdings.share({(US, ORDERS)}) == pytest.approx(0.95)
    assert holdings.share({(US, TableName("others"))}) == pytest.approx(0.05), "a worker without a shard may drain"


def test_a_stream_that_is_left_counts_no_more_but_its_successor_does() -> None:
    holdings, old, new = Holdings(), shards(1), shards(2)
    holdings.tell(stream(), old, 4, 1)
    holdings.tell(stream(), new, 2, 1)
    holdings.leave(stream(), old)
    assert holdings.share({(US, ORDERS)}) == pytest.approx(1)
    holdings.leave(stream(), new)
    assert holdings.share({(US, ORDERS)}) == pytest.approx(0.1)


def test_an_image_that_is_none_is_counted_by_its_length() -> None:
    image = Image(b'{"pk":{"S":"a"},"v":7,"w":"%b"}' % (b"x" * 3000))
    assert units_of(Replace(KEY, image, Absent())) == 3
