"""How the lag of every target of a group went in the last hour, as living workers kept it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from replicator.domain.lag_history import STEP_SECONDS, STEPS, Course, together
from replicator.operations.times import moment
from replicator.operations.worker_status import ask_all, by_worker

if TYPE_CHECKING:
    from replicator.operations.group import Group


@dataclass(frozen=True, slots=True)
class History:
    """Lags by target, oldest first, None where they are not known; the last one is of `until`."""

    group: str
    step_seconds: int
    until: datetime | None
    lags: Mapping[str, Sequence[float | None]]


async def course_of(group: Group) -> Course:
    """Of all workers that answer, as one."""
    pulses = await group.membership.members()
    answers = await ask_all(group.settings, (pulse.admin for pulse in pulses.values()), "/history")
    return together(_course(answer) for answer in by_worker(answers).values())


async def lag_history(group: Group) -> History:
    """As it is shown."""
    course = await course_of(group)
    return History(group.settings.group, STEP_SECONDS, moment(course.until) if course.until else None, course.lags)


def _course(answer: Mapping[str, Any]) -> Course:
    """What a worker says; of one of another version, with other steps, nothing."""
    if answer.get("step_seconds") != STEP_SECONDS:
        return Course(0, {})
    return Course(answer["until"], {name: own[-STEPS:] for name, own in answer["lags"].items()})
