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
    return together(_course(answer) for answer in (await _answers(group)).values())


async def _answers(group: Group) -> dict[str, dict[str, Any]]:
    pulses = await group.membership.members()
    return by_worker(await ask_all(group.settings, (pulse.admin for pulse in pulses.values()), "/history"))


async def changes_per_second(group: Group) -> dict[str, float]:
    """How much was changed in each source table lately, as workers that answer count it together."""
    found: dict[str, float] = {}
    for answer in (await _answers(group)).values():
        for name, rate in answer.get("changes_per_second", {}).items():
            found[name] = found.get(name, 0.0) + rate
    return found


async def lag_history(group: Group) -> History:
    """As it is shown."""
    course = await course_of(group)
    return History(group.settings.group, STEP_SECONDS, moment(course.until) if course.until else None, course.lags)


def _course(answer: Mapping[str, Any]) -> Course:
    """What a worker says; of one of another version, with other steps, nothing."""
    if answer.get("step_seconds") != STEP_SECONDS:
        return Course(0, {})
    return Course(answer["until"], {name: own[-STEPS:] for name, own in answer["lags"].items()})
