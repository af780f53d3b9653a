"""Whether a region of a mesh is there: decided from its answers, and from what is asked and not answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.presence import Presence, Reason, Standing

HERE, LATE, AWAY = Standing.HERE, Standing.LATE, Standing.AWAY


def presence() -> Presence:
    return Presence(away_after=5.0)


def test_a_region_that_is_asked_nothing_is_here() -> None:
    region = presence()
    assert region.standing(1e9) is HERE
    assert region.since() is None
    assert region.changes_in(1e9) is None


def test_a_question_without_an_answer_makes_it_late_then_away() -> None:
    region = presence()
    region.asked(100.0)
    assert [region.standing(at) for at in (100.9, 101.0, 104.9, 105.0)] == [HERE, LATE, LATE, AWAY]
    assert [region.changes_in(at) for at in (100.0, 101.0, 104.0, 105.0)] == [1.0, 4.0, 1.0, None]
    assert region.since() == 100.0
    assert region.reason() is Reason.SILENT


def test_an_answer_to_another_question_shows_that_it_is_here() -> None:
    region = presence()
    slow = region.asked(100.0)
    region.answered(region.asked(100.5), 100.9)
    assert region.standing(101.8) is HERE
    assert region.standing(101.9) is LATE, "silence counts from the last answer on"
    region.failed(slow, "it broke")
    assert region.standing(101.8) is HERE
    assert region.since() == 100.9


def test_failures_add_up_to_silence_and_one_answer_ends_it() -> None:
    region = presence()
    for at in (100.0, 100.4, 103.0):
        region.failed(region.asked(at), f"no answer at {at}")
    assert (region.standing(104.0), region.why) == (LATE, "no answer at 103.0")
    assert region.standing(105.0) is AWAY
    region.answered(region.asked(105.5), 105.6)
    assert (region.standing(105.6), region.why, region.since()) == (HERE, "", None)


def test_what_it_says_of_all_questions_makes_it_late_at_once() -> None:
    region = presence()
    region.failed(region.asked(100.0), "access denied", said_no=True)
    assert (region.standing(100.0), region.standing(105.0)) == (LATE, AWAY)
    region.answered(region.asked(106.0), 106.0)
    assert region.standing(106.0) is HERE


@pytest.mark.parametrize("silent", [True, False])
def test_a_question_that_is_given_up_counts_only_when_it_was_sent(silent: bool) -> None:
    region = presence()
    region.given_up(region.asked(100.0), silent=silent)
    assert region.standing(101.0) is (LATE if silent else HERE)
    region.given_up(region.asked(102.0), silent=silent)
    assert region.since() == (100.0 if silent else None)


def test_a_question_is_given_up_once() -> None:
    region = presence()
    number = region.asked(100.0)
    region.answered(number, 100.1)
    region.given_up(number, silent=True)
    region.failed(number, "late news")
    assert region.since() == 100.1


def test_what_holds_it_away_is_ended_by_no_answer() -> None:
    region = presence()
    region.hold(Reason.DECLARED, 100.0, holds=True)
    region.hold(Reason.DECLARED, 200.0, holds=True)
    region.answered(region.asked(201.0), 201.0)
    assert (region.standing(201.0), region.since(), region.is_held()) == (AWAY, 100.0, True)
    assert region.changes_in(201.0) is None
    region.hold(Reason.OVERDUE, 202.0, holds=True)
    assert region.reason() is Reason.OVERDUE
    region.hold(Reason.OVERDUE, 203.0, holds=False)
    assert region.reason() is Reason.DECLARED
    region.hold(Reason.DECLARED, 204.0, holds=False)
    region.hold(Reason.DECLARED, 205.0, holds=False)
    assert (region.standing(205.0), region.is_held()) == (HERE, False)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["ask", "answer", "fail", "give up"]), st.floats(0, 3), st.integers(0, 5)), max_size=30
)


@given(EVENTS)
def test_it_is_away_exactly_when_nothing_was_answered_for_so_long_while_something_was_asked(
    events: list[tuple[str, float, int]],
) -> None:
    region, now, answered_at = presence(), 0.0, float("-inf")
    waiting: list[int] = []
    asked_since: float | None = None
    for what, wait, which in events:
        now += wait
        if what == "ask" or not waiting:
            waiting.append(region.asked(now))
            asked_since = now if asked_since is None else asked_since
            continue
        number = waiting.pop(which % len(waiting))
        if what == "answer":
            region.answered(number, now)
            answered_at, asked_since = now, (now if waiting else None)
        elif what == "fail":
            region.failed(number, "no answer")
        else:
            region.given_up(number, silent=True)
        silence = 0.0 if asked_since is None else now - max(asked_since, answered_at)
        expected = AWAY if silence >= 5.0 else LATE if silence >= 1.0 else HERE
        assert region.standing(now) is expected
