"""When a stream is asked for its shards, what for, and which shards its listings leave out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.discovery_schedule import LONG_AGO, Schedule
from replicator.domain.shards.lineage import Shard
from replicator.domain.shards.listing import Listing, counted_misses

A, B = ShardId("a"), ShardId("b")
MANY = {ShardId(f"s{number}"): LONG_AGO for number in range(6)}
INTERVAL = 10.0


def schedule(**wanted: Any) -> Schedule:
    """Nothing is awaited, and everything was asked for just now, at 1000 seconds."""
    idle: dict[str, Any] = {
        "interval": INTERVAL,
        "news_at": 1000.0,
        "listed_at": 1000.0,
        "parents": {},
        "filters": True,
        "questions": (),
        "asks_listing": False,
        "under_way": False,
        "holds_back": False,
        "seated": False,
        "read_out": False,
    }
    return Schedule(**{**idle, **wanted})


def test_a_worker_that_awaits_nothing_asks_for_nothing() -> None:
    idle = schedule()
    assert not idle.needs_listing
    assert not idle.listing_is_due(1e9)
    assert idle.subjects(1e9) == set()
    assert idle.due_in(1000.0) == float("inf")


def test_the_worker_with_the_seat_lists_at_intervals() -> None:
    seated = schedule(seated=True)
    assert not seated.listing_is_due(1009.9)
    assert seated.listing_is_due(1010.0)
    assert seated.due_in(1004.0) == 6.0
    assert seated.due_in(1011.0) == 0.0


def test_a_listing_that_is_under_way_goes_on_at_once_and_only_while_it_is_of_use() -> None:
    assert schedule(seated=True, under_way=True).listing_is_due(1000.0)
    assert schedule(under_way=True, seated=True).due_in(1000.0) == 0.0
    assert not schedule(under_way=True).listing_is_due(1000.0)


def test_what_only_a_listing_tells_is_asked_for_at_once() -> None:
    assert schedule(asks_listing=True).listing_is_due(1000.0)
    assert schedule(asks_listing=True).due_in(1000.0) == 0.0


def test_the_children_of_a_few_parents_are_asked_for_one_by_one() -> None:
    few = schedule(parents={A: LONG_AGO, B: 1000.0})
    assert few.subjects(1000.5) == {A}
    assert few.subjects(1001.0) == {A, B}
    assert few.one_by_one(few.subjects(1001.0))
    assert not few.needs_listing


@pytest.mark.parametrize("wanted", [{"parents": MANY}, {"parents": {A: LONG_AGO}, "filters": False}])
def test_those_of_many_or_at_an_endpoint_that_does_not_tell_them_are_listed(wanted: dict[str, Any]) -> None:
    many = schedule(**wanted)
    assert many.subjects(1e9) == set()
    assert many.listing_is_due(1001.0)
    assert not many.one_by_one(MANY)


@pytest.mark.parametrize("reason", ["holds_back", "read_out"])
def test_what_must_show_up_in_a_listing_has_it_listed_soon(reason: str) -> None:
    soon = schedule(**{reason: True})
    assert not soon.listing_is_due(1000.9)
    assert soon.listing_is_due(1001.0)


def test_questions_become_rarer_while_nothing_new_is_found_and_never_rarer_than_listings() -> None:
    assert schedule(parents={A: 1000.0}, news_at=1000.0 - 480).due_in(1000.0) == 4.0
    assert schedule(parents={A: 1000.0}, news_at=0.0).due_in(1000.0) == pytest.approx(1000 / 120)
    assert schedule(parents={A: 1000.0}, news_at=LONG_AGO).due_in(1000.0) == INTERVAL


def test_a_question_of_a_reader_is_due_at_once() -> None:
    asked = schedule(questions={A})
    assert asked.subjects(1000.0) == {A}
    assert asked.due_in(1000.0) == 0.0


def test_what_is_due_in_an_instant_is_waited_for_by_a_tick() -> None:
    assert schedule(seated=True).due_in(1009.999) == 0.01


@given(
    parents=st.dictionaries(st.sampled_from("abcdefgh").map(ShardId), st.floats(0, 1000)),
    filters=st.booleans(),
    holds_back=st.booleans(),
    read_out=st.booleans(),
    news_at=st.floats(-1e6, 1000),
    listed_at=st.floats(0, 1000),
)
def test_while_something_is_awaited_something_is_due_within_the_interval(**awaited: Any) -> None:
    plan = schedule(**awaited)
    if awaited["parents"] or awaited["holds_back"] or awaited["read_out"]:
        assert plan.due_in(1000.0) <= INTERVAL


def test_a_shard_has_vanished_when_three_listings_in_a_row_leave_it_out() -> None:
    without = Listing(frozenset({A, B}), seen={B: Shard(B)})
    misses: dict[ShardId, int] = {}
    for _ in range(2):
        misses, vanished = counted_misses(misses, without, {A, B})
        assert vanished == []
    assert counted_misses(misses, without, {A, B}) == ({A: 3}, [A])
    assert counted_misses(misses, without, {B}) == ({}, [])
    assert counted_misses(misses, Listing(frozenset({A, B}), seen={A: Shard(A), B: Shard(B)}), {A, B}) == ({}, [])
