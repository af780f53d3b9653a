"""What drives a rule: pods, or functions that an event source mapping calls. Never both.

Both sides look at the rule's row once per heartbeat, and a function sends nothing that has not seen for most of a lease
that functions drive. So the other side may begin when a lease has passed since the row was changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from replicator.domain.drivers import Drivers
from replicator.domain.identifiers import RuleName
from replicator.domain.shards.lineage import RETENTION_SECONDS

_TIMES_ARE_EXACT_TO_SECONDS = 2.0
"""The row's time and the time of a look are each rounded to a second."""

_CERTAIN_SECONDS = RETENTION_SECONDS - 3600
"""What is younger than this has not left its stream, whatever clocks say."""


DRIVEN = "Functions run it; `replicator rules drive {0} --by pods` moves it back to pods."
"""Why a rule rests on pods."""


class Driving(Struct, frozen=True):
    """What drives a rule. `since`: in seconds since 1970; `age`: how long it was so when the row was read.

    Both are by the server's clock.
    """

    by: Drivers
    since: float
    age: float

    def lets(self, drivers: Drivers, lease_seconds: float) -> bool:
        """Whether these may begin, because the others have ended."""
        return self.by is drivers and self.age >= lease_seconds + _TIMES_ARE_EXACT_TO_SECONDS


class FunctionNote(Struct, frozen=True):
    """What functions noted of a stream, for one rule, since they were handed it.

    `seen_at`: when a whole batch last was durable. `oldest_hours`: whole hours of the greatest age of a record, when it
    was first or again brought.
    """

    seen_at: float
    oldest_hours: int


def leaves_no_loss(note: FunctionNote | None, now: float) -> bool:
    """Whether functions brought everything that has left the stream by now.

    A mapping that is stopped, or stuck on a shard, loses nothing for as long as a stream keeps records. What comes
    behind a loss is as old as that.
    """
    return note is not None and note.oldest_hours < _CERTAIN_SECONDS / 3600 and now - note.seen_at < _CERTAIN_SECONDS


def kept_from_pods(driven: Mapping[RuleName, Driving], lease_seconds: float) -> dict[RuleName, float]:
    """Rules that pods let rest, and since when; a rule that was never handed over is theirs."""
    return {rule: driving.since for rule, driving in driven.items() if not driving.lets(Drivers.PODS, lease_seconds)}
