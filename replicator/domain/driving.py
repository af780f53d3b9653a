"""What drives a rule: pods, or functions that an event source mapping calls. Never both.

Both sides look at the rule's row once per heartbeat, and a function sends nothing that has not seen for most of a lease
that functions drive. So the other side may begin when a lease has passed since the row was changed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from replicator.domain.identifiers import RuleName

_TIMES_ARE_EXACT_TO_SECONDS = 2.0
"""The row's time and the time of a look are each rounded to a second."""


class Drivers(enum.StrEnum):
    """What may drive a rule."""

    LAMBDA = "lambda"
    PODS = "pods"


@dataclass(frozen=True, slots=True)
class Driving:
    """What drives a rule. `since`: in seconds since 1970; `age`: how long it was so when the row was read.

    Both are by the server's clock.
    """

    by: Drivers
    since: float
    age: float

    def lets(self, drivers: Drivers, lease_seconds: float) -> bool:
        """Whether these may begin, because the others have ended."""
        return self.by is drivers and self.age >= lease_seconds + _TIMES_ARE_EXACT_TO_SECONDS


def kept_from_pods(driven: Mapping[RuleName, Driving], lease_seconds: float) -> dict[RuleName, float]:
    """Rules that pods let rest, and since when; a rule that was never handed over is theirs."""
    return {rule: driving.since for rule, driving in driven.items() if not driving.lets(Drivers.PODS, lease_seconds)}
