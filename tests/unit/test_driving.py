"""What drives a rule, when the other side may begin, and what pods need not take for a loss behind functions."""

from __future__ import annotations

import itertools

import pytest

from replicator.domain.drivers import Drivers
from replicator.domain.driving import Driving, FunctionNote, kept_from_pods, leaves_no_loss
from replicator.domain.errors import LeaseLost
from replicator.domain.identifiers import RuleName
from replicator.domain.shards.lineage import RETENTION_SECONDS
from replicator.engine.membership.session import DriveFence

RULE = RuleName("orders")
LEASE, BEAT = 10, 3
HOUR = 3600.0
NOW = 100 * RETENTION_SECONDS


@pytest.mark.parametrize(
    ("note", "holds"),
    [
        (None, False),
        (FunctionNote(NOW - 60, 0), True),
        (FunctionNote(NOW - 22 * HOUR, 22), True),
        (FunctionNote(NOW - 24 * HOUR, 0), False),
        (FunctionNote(NOW - 60, 23), False),
    ],
)
def test_a_mapping_that_stood_still_for_as_long_as_a_stream_keeps_records_may_have_lost_some(
    note: FunctionNote | None, *, holds: bool
) -> None:
    assert leaves_no_loss(note, NOW) is holds


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def may(fence: DriveFence) -> bool:
    try:
        fence.check()
    except LeaseLost:
        return False
    return True


def overlap(to: Drivers, phases: tuple[int, int], late: int, off: float, *, wait: float = LEASE) -> bool:
    """Whether pods and a function both send at some second, when the rule is handed over at second 50.

    `phases`: when each looks first, once per heartbeat then; `late`: seconds from a question to its answer, and the
    answer is of the second in which it was asked; `off`: what a rounded time is wrong by. The side that ends looks
    last before the hand-over: then its looks fail.
    """
    clock, handed_over = Clock(), 50
    fence = DriveFence(RULE, clock, LEASE)
    before = Drivers.PODS if to is Drivers.LAMBDA else Drivers.LAMBDA
    rests, session_ends = before is Drivers.LAMBDA, float("inf")

    def seen(second: int) -> Driving:
        by, since = (to, handed_over) if second >= handed_over else (before, -1000)
        return Driving(by, since, second - since + off)

    for second in range(100):
        clock.at = second
        asked = second - late
        if asked >= 0 and asked % BEAT == phases[0] and not (asked >= handed_over and before is Drivers.PODS):
            rests = RULE in kept_from_pods({RULE: seen(asked)}, wait)
            session_ends = asked + 0.8 * LEASE
        if asked >= 0 and asked % BEAT == phases[1] and not (asked >= handed_over and before is Drivers.LAMBDA):
            if seen(asked).lets(Drivers.LAMBDA, wait):
                fence.extend(asked)
            else:
                fence.revoke()
        if not rests and second < session_ends and may(fence):
            return True
    return False


SCHEDULES = list(itertools.product(Drivers, itertools.product(range(BEAT), range(BEAT)), range(3), (-1.0, 0.0, 1.0)))


def test_pods_and_functions_never_send_at_once_whenever_each_looks_and_however_late_answers_are() -> None:
    assert not [schedule for schedule in SCHEDULES if overlap(*schedule)]


def test_the_search_finds_a_side_that_does_not_wait_for_the_other_one() -> None:
    assert [schedule for schedule in SCHEDULES if overlap(*schedule, wait=0.0)]


def test_the_search_finds_a_fence_that_counts_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    extend = DriveFence.extend
    monkeypatch.setattr(DriveFence, "extend", lambda self, _: extend(self, self._clock.monotonic() + LEASE))
    assert [schedule for schedule in SCHEDULES if overlap(*schedule)]
