"""How the lag of targets went, and how much was changed: for the last hour, and of several workers as one.

Pure. Invariant: what a history holds is bounded, whatever comes and however long it runs; a step of which nothing is
known is a hole, and none is filled.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

STEP_SECONDS = 10
STEPS = 360
MOST_TARGETS = 500
"""Targets beyond them have no history: 4 bytes a step, 720 KB in all."""

Lags = Mapping[str, float | None]
_HOLE = math.nan


class Course(Struct, frozen=True):
    """Lags by target, oldest first; the last is of the step that ends at `until` (seconds since 1970)."""

    until: int
    lags: Mapping[str, Sequence[float | None]]


class LagHistory:
    """The last hour of some targets."""

    def __init__(self) -> None:
        self._step = 0
        self._samples: dict[str, array[float]] = {}

    def note(self, now: float, lags: Lags) -> None:
        """Keep what is known now; a step that is over is not written again, though the clock goes back."""
        step = int(now // STEP_SECONDS)
        if step <= self._step:
            return
        missed = min(step - self._step - 1, STEPS)
        self._step = step
        for name, samples in list(self._samples.items()):
            samples.extend([_HOLE] * missed)
            samples.append(_sample(lags.get(name)))
            del samples[:-STEPS]
            if all(map(math.isnan, samples)):
                del self._samples[name]
        for name, lag in lags.items():
            if name not in self._samples and lag is not None and len(self._samples) < MOST_TARGETS:
                self._samples[name] = array("f", [lag])

    @property
    def course(self) -> Course:
        """What is kept."""
        lags = {
            name: [None if math.isnan(each) else round(each, 1) for each in own] for name, own in self._samples.items()
        }
        return Course(self._step * STEP_SECONDS, lags)


_MARK_SECONDS, _MARKS = 60.0, 61
_LEAST_SECONDS = 10.0


class Counted:
    """What was counted, now and then in the last hour."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=_MARKS)

    def note(self, now: float, counts: Mapping[str, int]) -> None:
        """Keep it, once a minute."""
        if not self._marks or now - self._marks[-1][0] >= _MARK_SECONDS:
            self._marks.append((now, counts))

    def rates(self, now: float, counts: Mapping[str, int]) -> dict[str, float]:
        """A second, since the oldest mark; nothing before some time is over."""
        if not self._marks or now - self._marks[0][0] < _LEAST_SECONDS:
            return {}
        since, before = self._marks[0]
        return {name: (count - before.get(name, 0)) / (now - since) for name, count in counts.items()}


def _sample(lag: float | None) -> float:
    return _HOLE if lag is None else lag


def together(courses: Iterable[Course]) -> Course:
    """Several workers' as one: the greatest of what is known of a step, as a target is as far as its last shard."""
    found = list(courses)
    until = max((each.until for each in found), default=0)
    lags: dict[str, list[float | None]] = {}
    for each in found:
        late = (until - each.until) // STEP_SECONDS
        for name, own in each.lags.items():
            samples = [*own, *[None] * late][-STEPS:]
            known = lags.get(name, [])
            length = max(len(samples), len(known))
            pairs = zip(_led(samples, length), _led(known, length), strict=True)
            lags[name] = [max((lag for lag in pair if lag is not None), default=None) for pair in pairs]
    return Course(until, lags)


def _led(samples: Sequence[float | None], length: int) -> list[float | None]:
    """As many, behind holes."""
    return [*[None] * (length - len(samples)), *samples]


def greatest(course: Course, bars: int) -> list[float | None]:
    """The whole hour in so many parts: the greatest lag of any target in each."""
    whole = [_led(samples, STEPS) for samples in course.lags.values()]
    each = STEPS // bars
    parts = (
        [lag for own in whole for lag in own[at : at + each] if lag is not None] for at in range(0, bars * each, each)
    )
    return [max(part, default=None) for part in parts]
