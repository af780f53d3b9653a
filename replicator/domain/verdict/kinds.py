"""Kinds of problems, and a problem as a value. Each kind has a reason label and a heading of the runbook."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct

from replicator.domain.values import replace


class Kind(enum.StrEnum):
    """Kinds of problems, the most urgent first."""

    COORDINATION = "coordination"
    UNANSWERED = "unanswered"
    GAP = "gap"
    NO_WORKER = "no_worker"
    RETENTION = "retention"
    HELD = "held"
    BLOCKED = "blocked"
    STALLED = "stalled"
    UNREAD = "unread"
    NOT_RUN = "not_run"
    REBUILD = "rebuild"
    AWAY = "away"
    CACHE = "cache"
    PAUSED = "paused"
    PARKED = "parked"
    SERVICE = "service"
    UNREADABLE = "unreadable"
    THROTTLED = "throttled"
    CANARY = "canary"
    LAG = "lag"
    DIFFERENCES = "differences"
    CONFIGURATION = "configuration"
    CLOCK = "clock"


RUNBOOK: Mapping[Kind, str] = {
    Kind.COORDINATION: "the-coordination-table-does-not-answer",
    Kind.UNANSWERED: "a-region-is-unreachable",
    Kind.GAP: "a-gap-was-found",
    Kind.NO_WORKER: "no-worker-runs",
    Kind.RETENTION: "the-retention-runs-out",
    Kind.HELD: "a-rule-is-held",
    Kind.BLOCKED: "a-replica-is-away",
    Kind.STALLED: "a-shard-does-not-progress",
    Kind.UNREAD: "a-rule-waits-and-no-worker-is-at-work",
    Kind.NOT_RUN: "a-rule-is-not-run",
    Kind.REBUILD: "a-region-of-a-mesh-is-away",
    Kind.AWAY: "a-region-of-a-mesh-is-away",
    Kind.CACHE: "redis-is-unreachable",
    Kind.PAUSED: "a-rule-is-paused-for-long",
    Kind.PARKED: "a-record-was-parked",
    Kind.SERVICE: "readyz-fails",
    Kind.UNREADABLE: "a-row-cannot-be-read",
    Kind.THROTTLED: "a-replica-is-throttled",
    Kind.CANARY: "a-canary-does-not-arrive",
    Kind.LAG: "the-lag-grows",
    Kind.DIFFERENCES: "a-sweep-found-differences",
    Kind.CONFIGURATION: "a-changed-configuration-is-refused",
    Kind.CLOCK: "the-clock-is-off",
}
"""The heading of docs/operations.md that each kind is explained under."""


class State(enum.StrEnum):
    """What can be said of a group."""

    HEALTHY = "healthy"
    PROBLEMS = "problems"
    UNKNOWN = "unknown"
    """What decides it does not answer."""


class Problem(Struct, frozen=True):
    """One thing that is wrong. `text`: what, in a clause; `command`: what helps or tells more, without options.

    `seconds`: for how long. `seconds_left`: until the stream drops what waits here; None when nothing is known to wait.
    """

    kind: Kind
    text: str
    reason: str = ""
    advice: str = ""
    command: str = ""
    rule: str | None = None
    place: str | None = None
    shards: int = 0
    seconds: float | None = None
    seconds_left: float | None = None
    sentence: str = ""
    """The text and what it costs: "orders/eu is blocked by item id=7, loses data in 21 h"."""
    runbook: str = ""

    def told(self) -> Problem:
        """The same with its sentence and its heading of the runbook."""
        cost = self.seconds_left is not None and self.kind not in {Kind.RETENTION, Kind.GAP}
        sentence = f"{self.text}, {loss(self.seconds_left or 0.0)}" if cost else self.text
        return replace(self, sentence=sentence, runbook=f"docs/operations.md#{RUNBOOK[self.kind]}")


class Verdict(Struct, frozen=True):
    """What can be said in one line; `problems` explain it."""

    state: State
    sentence: str


def loss(left: float) -> str:
    """What becomes of data in so many seconds."""
    return "is losing data" if left <= 0 else f"loses data in {span(left)}"


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}".replace(",", " ")


def were(number: int) -> str:
    """The verb behind a number of things."""
    return "was" if number == 1 else "were"


def span(seconds: float) -> str:
    """A length of time in one unit, never more than it is: "42 s", "90 min", "2.4 h", "21 h", "3 d"."""
    for unit, length in (("d", 86_400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"{_floored(seconds / length)} {unit}"
    return f"{int(seconds // 60)} min" if seconds >= 2 * 60 else f"{_floored(seconds, whole=False)} s"


def _floored(number: float, *, whole: bool = True) -> str:
    """A number with a tenth below 10, and without above; `whole`: no tenth that is 0."""
    if number >= 10:  # noqa: PLR2004 - so many digits are read at once
        return str(int(number))
    text = f"{int(number * 10) / 10:.1f}"
    return text.removesuffix(".0") if whole else text
