from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.pacing import AdaptiveLimit, Pace

CEILING = 256


def send(limit: AdaptiveLimit) -> list[int]:
    """Begin as many requests as may begin."""
    begun = []
    while limit.has_room:
        begun.append(limit.begin())
    return begun


def round_of(limit: AdaptiveLimit, *, throttled: bool) -> int:
    """A round of requests, all answered alike; returns how many there were."""
    begun = send(limit)
    for number in begun:
        if throttled:
            limit.throttled(number)
        else:
            limit.taken()
    return len(begun)


def fallen(ceiling: int = CEILING) -> AdaptiveLimit:
    """A limit of a table that throttled everything for long."""
    limit = AdaptiveLimit(ceiling)
    for _ in range(200):
        round_of(limit, throttled=True)
    return limit


@given(
    ceiling=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["taken", "throttled", "unanswered"])), max_size=400),
)
def test_a_limit_is_never_below_one_nor_above_its_ceiling(ceiling: int, steps: list[tuple[int, str]]) -> None:
    limit = AdaptiveLimit(ceiling)
    flying: deque[int] = deque()
    for more, answer in steps:
        for _ in range(more):
            if limit.has_room:
                flying.append(limit.begin())
        if flying:
            number = flying.popleft()
            if answer == "throttled":
                limit.throttled(number)
            else:
                getattr(limit, answer)()
        assert 1 <= limit.allowed <= ceiling
        assert limit.in_flight == len(flying) <= ceiling


@pytest.mark.parametrize("ceiling", [1, 2, 7, 64, 256, 1000])
def test_a_limit_grows_to_its_ceiling_while_everything_is_taken(ceiling: int) -> None:
    limit = fallen(ceiling)
    assert limit.allowed == 1
    rounds = 0
    while limit.allowed < ceiling:
        round_of(limit, throttled=False)
        rounds += 1
    assert rounds <= 45


def test_it_grows_by_the_same_step_in_every_round() -> None:
    limit = AdaptiveLimit(CEILING)
    grown = []
    for _ in range(8):
        before = limit.allowed
        round_of(limit, throttled=False)
        grown.append(limit.allowed - before)
    assert all(7 <= step <= 8 for step in grown)


def test_a_hundred_in_flight_are_reached_within_ten_rounds() -> None:
    limit = AdaptiveLimit(CEILING)
    for _ in range(10):
        round_of(limit, throttled=False)
    assert limit.allowed >= 100


def test_what_is_not_used_up_does_not_grow() -> None:
    limit = AdaptiveLimit(CEILING)
    before = limit.allowed
    for _ in range(1000):
        limit.begin()
        limit.taken()
    assert limit.allowed == before


def test_it_is_halved_when_more_than_half_of_the_last_hundred_were_throttled() -> None:
    limit = AdaptiveLimit(CEILING)
    begun = [limit.begin() for _ in range(100)]
    for _ in begun[:49]:
        limit.taken()
    before = limit.allowed
    for number in begun[49:99]:
        limit.throttled(number)
    assert limit.allowed == before, "50 of 99 are not more than half of a hundred"
    limit.throttled(begun[99])
    assert limit.allowed == before // 2


def test_one_burst_halves_it_once() -> None:
    limit = AdaptiveLimit(CEILING)
    for _ in range(40):
        round_of(limit, throttled=False)
    assert limit.allowed == CEILING
    assert round_of(limit, throttled=True) == CEILING
    assert limit.allowed == CEILING // 2


def test_every_round_that_is_throttled_halves_it_again() -> None:
    limit = AdaptiveLimit(CEILING)
    for _ in range(40):
        round_of(limit, throttled=False)
    seen = []
    for _ in range(10):
        round_of(limit, throttled=True)
        seen.append(limit.allowed)
    assert seen == [128, 64, 32, 16, 8, 4, 2, 1, 1, 1]


@given(st.lists(st.booleans(), min_size=100, max_size=1000))
def test_a_hot_key_among_others_never_lowers_the_limit(others: list[bool]) -> None:
    """Every other answer at most is a throttle: the hot key's. However they come, the limit never falls."""
    limit = AdaptiveLimit(CEILING)
    hot = False
    for throttled in others:
        before = limit.allowed
        hot = throttled and not hot
        number = limit.begin()
        if hot:
            limit.throttled(number)
        else:
            limit.taken()
        assert limit.allowed >= before


@given(taken=st.integers(0, 300), throttled=st.integers(0, 300))
def test_it_falls_only_by_a_majority_of_throttles(taken: int, throttled: int) -> None:
    limit = AdaptiveLimit(1000)
    before = limit.allowed
    for _ in range(taken):
        limit.begin()
        limit.taken()
    for _ in range(throttled):
        limit.throttled(limit.begin())
        assert (limit.allowed < before) == (limit.throttled_lately > 50)
    assert limit.throttles == throttled


def test_a_request_without_an_answer_tells_nothing() -> None:
    limit = AdaptiveLimit(CEILING)
    before = limit.allowed
    for _ in range(500):
        limit.begin()
        limit.unanswered()
    assert (limit.allowed, limit.throttled_lately, limit.in_flight) == (before, 0, 0)


# -- a table ---------------------------------------------------------------------------------------------------------


def test_both_kinds_of_requests_share_one_ceiling_and_fall_apart() -> None:
    pace = Pace(8, now=0.0)
    for _ in range(6):
        pace.singles.begin()
    for _ in range(2):
        pace.transactions.begin()
    assert not pace.may_begin(pace.singles)
    assert not pace.may_begin(pace.transactions)
    assert pace.transactions.has_room
    pace.taken(pace.singles, now=0.0)
    assert pace.may_begin(pace.transactions)
    assert pace.in_flight == 7

    pace = Pace(CEILING, now=0.0)
    for _ in range(300):
        pace.throttled(pace.transactions, pace.transactions.begin(), now=0.0)
    assert (pace.transactions.allowed, pace.singles.allowed) == (1, 64)
    assert pace.throttles == 300


def test_a_table_hangs_when_it_was_sent_nothing_and_answered_nothing_for_a_second() -> None:
    pace = Pace(CEILING, now=0.0)
    number = pace.begin(pace.singles, now=10.0)
    assert not pace.hangs(10.9)
    assert pace.hangs(11.0)
    pace.throttled(pace.singles, number, now=11.0)
    assert not pace.hangs(11.5), "a throttle is an answer"
    pace.begin(pace.transactions, now=20.0)
    pace.taken(pace.transactions, now=21.0)
    assert not pace.hangs(21.5)
    assert pace.hangs(22.0)


def test_a_limit_that_fell_doubles_per_round_at_most_and_then_grows_by_its_step() -> None:
    limit, seen = fallen(), []
    for _ in range(7):
        round_of(limit, throttled=False)
        seen.append(limit.allowed)
    assert all(now <= 2 * before for before, now in zip([1, *seen], seen, strict=False))
    assert all(now - before <= 8 for before, now in zip([1, *seen], seen, strict=False))
    assert seen[-1] >= 28


def test_a_throttle_is_its_keys_own_while_the_table_takes_others() -> None:
    pace = Pace(CEILING, now=0.0)
    pace.singles.begin()
    pace.taken(pace.singles, now=10.0)
    assert pace.throttled(pace.singles, pace.singles.begin(), now=11.9)
    assert not pace.throttled(pace.singles, pace.singles.begin(), now=12.0), "it took nothing for two seconds"
    pace.transactions.begin()
    pace.taken(pace.transactions, now=13.0)
    assert pace.throttled(pace.singles, pace.singles.begin(), now=13.1)


def test_what_follows_a_request_takes_its_place() -> None:
    pace = Pace(70, 0.0)
    number = pace.begin(pace.singles, 1.0)
    assert pace.may_follow(pace.singles)
    assert pace.follow(pace.singles, pace.singles, 2.0) == number + 1
    assert pace.follow(pace.singles, pace.transactions, 3.0) == 1, "another limit counts for itself"
    assert (pace.singles.in_flight, pace.transactions.in_flight) == (0, 1)
    assert not pace.hangs(3.5)


def test_nothing_follows_where_the_other_limit_is_full_or_the_own_one_fell() -> None:
    pace = Pace(65, 0.0)
    for _ in range(64):
        pace.begin(pace.singles, 0.0)
    assert pace.may_follow(pace.singles), "the one that ends leaves room"
    assert not pace.may_follow(pace.transactions), "a transaction might be followed by a single request"
    pace.begin(pace.transactions, 0.0)
    assert pace.may_follow(pace.singles)
    for _ in range(60):
        pace.throttled(pace.singles, pace.singles.in_flight, 0.0)
    for _ in range(60):
        pace.begin(pace.singles, 0.0)
    assert not pace.may_follow(pace.singles), "the limit fell below what is in flight"
