"""Whether something answers: what counts as silence of the whole, when it is tried again, and what ends that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.errors import AccessRefused, KeyThrottled, PoisonRecord, ReplicatorError, Throttled, Unreachable
from replicator.domain.health import PROBE_SECONDS, Health, is_silence

GONE = Unreachable("No answer.")


def away() -> Health:
    health = Health()
    health.failed("a", GONE, 0.0, 1.0)
    health.failed("b", GONE, 0.0, 1.0)
    return health


def test_one_key_that_fails_alone_is_no_sign_of_the_whole() -> None:
    health = Health()
    assert not any(health.failed("a", GONE, at, at + 0.5) for at in range(100))
    assert not health.away


def test_two_that_fail_in_a_row_are() -> None:
    health = away()
    assert health.away
    assert health.error is GONE
    assert health.failed("a", GONE, 2.0, 3.0), "whatever fails from then on waits with all others"


def test_a_failure_beside_an_answer_is_its_own() -> None:
    health = Health()
    health.answered(5.0)
    assert not health.failed("a", GONE, 4.0, 6.0)
    assert not health.failed("b", GONE, 5.0, 7.0)
    assert not health.away
    health.failed("a", GONE, 6.0, 7.0)
    assert health.failed("b", GONE, 6.5, 7.5)


def test_the_first_answer_ends_it_and_says_that_others_may_wait() -> None:
    health = away()
    assert health.answered(9.0)
    assert not health.away
    assert health.error is None
    assert not health.answered(9.5), "none waits any more"
    assert not health.failed("b", GONE, 9.6, 9.7), "it begins anew"


def test_trouble_is_what_lasts_some_rounds_or_some_seconds() -> None:
    health = away()
    assert not health.is_troubled(1.5)
    assert health.is_troubled(3.0), "for two seconds"
    for began in (2.0, 2.2):
        health.failed("a", GONE, began, began + 0.1)
    assert health.is_troubled(2.4), "three rounds"
    health = away()
    for _ in range(50):
        health.failed("a", GONE, 0.5, 1.1)
    assert not health.is_troubled(1.2), "what was under way together is one round"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_tries_are_never_further_apart_than_the_bound_and_never_at_once(chances: list[float]) -> None:
    health = away()
    for number, chance in enumerate(chances):
        assert 0.0 < health.next_try_in(chance) <= PROBE_SECONDS
        health.failed("a", GONE, 10.0 * number + 2, 10.0 * number + 3)
    assert health.next_try_in(0.0) >= 0.1


@pytest.mark.parametrize(
    ("error", "silent"),
    [(Unreachable, True), (AccessRefused, True), (Throttled, False), (KeyThrottled, False), (PoisonRecord, False)],
)
def test_what_asks_for_less_or_will_not_change_is_no_silence(error: type[ReplicatorError], *, silent: bool) -> None:
    assert is_silence(error("It failed.")) is silent
