"""The last hour of lags: bounded, with holes where nothing is known, and of several workers as one."""

from __future__ import annotations

from replicator.cli.watching import Lags
from replicator.domain.lag_history import (
    MOST_TARGETS,
    STEP_SECONDS,
    STEPS,
    Counted,
    Course,
    LagHistory,
    greatest,
    together,
)


def test_what_is_not_known_is_a_hole_and_a_step_is_written_once() -> None:
    history = LagHistory()
    history.note(1000.0, {"a": 1.0, "never": None})
    history.note(1009.9, {"a": 9.0})  # the same step
    history.note(1010.0, {"a": None, "b": 2.0})
    history.note(990.0, {"a": 9.0})  # the clock went back
    history.note(1040.0, {"a": 3.0})  # two steps were missed
    assert history.course == Course(1040, {"a": [1.0, None, None, None, 3.0], "b": [2.0, None, None, None]})


def test_it_is_bounded_in_time_and_in_targets() -> None:
    history = LagHistory()
    for step in range(STEPS + 5):
        history.note(1000.0 + step * STEP_SECONDS, {"a": float(step)})
    (samples,) = history.course.lags.values()
    assert (len(samples), samples[0], samples[-1]) == (STEPS, 5.0, STEPS + 4.0)
    history.note(1e9, dict.fromkeys(map(str, range(MOST_TARGETS + 5)), 1.0))
    assert len(history.course.lags) == MOST_TARGETS, "what was silent for an hour made room"
    assert "a" not in history.course.lags


def test_several_workers_are_one_by_the_greatest_that_is_known() -> None:
    early = Course(1020, {"a": [1.0, 5.0], "b": [7.0]})
    late = Course(1040, {"a": [None, 2.0, None, 4.0]})
    assert together([early, late]) == Course(1040, {"a": [1.0, 5.0, None, 4.0], "b": [7.0, None, None]})
    assert together([]) == Course(0, {})


def test_an_hour_is_shown_in_a_few_bars() -> None:
    course = Course(3600, {"a": [3.0, *[0.0] * (STEPS - 1)], "b": [2.0]})
    assert greatest(course, 4) == [3.0, 0.0, 0.0, 2.0]
    assert greatest(Course(0, {}), 2) == [None, None]
    lags = Lags([None, 4.0])
    assert lags.text == "", "nothing was looked at yet"
    lags.now.append(2.0)
    assert lags.text.startswith("  1 h  "), "the part that is not known is a hole"
    assert "lag 2.0 s" in lags.text
    assert len(lags.text) < 60
    assert "1 h" not in Lags([None]).text


def test_rates_are_of_the_last_hour_at_most() -> None:
    counted = Counted()
    assert counted.rates(0.0, {"us:orders": 5}) == {}, "nothing was kept yet"
    counted.note(0.0, {})
    assert counted.rates(5.0, {"us:orders": 5}) == {}, "too short a time says nothing"
    assert counted.rates(20.0, {"us:orders": 5}) == {"us:orders": 0.25}
    for minute in range(1, 100):
        counted.note(minute * 60.0, {"us:orders": 60 * minute})
        counted.note(minute * 60.0 + 10, {"us:orders": 0})
    assert counted.rates(100 * 60.0, {"us:orders": 6000}) == {"us:orders": 1.0}
