"""Which warnings are worth a line: each at first, then once a minute, and of one event only so many a minute.

An outage troubles every shard of a region at once; a thousand equal lines would hide the one that differs.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from replicator.ports.clock import Clock

AGAIN_SECONDS = 60.0
MOST_LINES = 20
"""Lines of one event in `AGAIN_SECONDS`."""

_MOST_TOPICS = 20_000


class _Logged(Struct):
    at: float
    times: int = 0


class _Window(Struct):
    since: float
    lines: int = 0
    withheld: int = 0


class Due(Struct, frozen=True):
    """A line is due. `times`: how often it happened since its last line; `withheld`: lines of its event left out."""

    times: int
    withheld: int


class Reminders:
    """Remembers what was logged and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: dict[Hashable, _Logged] = {}
        self._windows: dict[str, _Window] = {}

    def due(self, topic: Hashable, event: str) -> Due | None:
        """Whether this trouble, which happened just now, is to be logged."""
        now = self._clock.monotonic()
        logged = self._logged.get(topic)
        if logged is None:
            if len(self._logged) >= _MOST_TOPICS:
                del self._logged[next(iter(self._logged))]
            logged = self._logged[topic] = _Logged(now - AGAIN_SECONDS)
        logged.times += 1
        if now - logged.at < AGAIN_SECONDS:
            return None
        window = self._windows.setdefault(event, _Window(now))
        withheld = 0
        if now - window.since >= AGAIN_SECONDS:
            withheld, self._windows[event] = window.withheld, (window := _Window(now))
        logged.at = now
        if window.lines >= MOST_LINES:
            window.withheld += 1
            return None
        window.lines += 1
        due, logged.times = Due(logged.times, withheld), 0
        return due

    def over(self, topic: Hashable) -> bool:
        """The trouble is over; returns whether it was known."""
        return self._logged.pop(topic, None) is not None
