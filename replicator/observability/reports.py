"""What every part of the observer has: the board, the metrics, the log, and how often a trouble is logged."""

from __future__ import annotations

from collections.abc import Hashable

import structlog

from replicator.domain.errors import ReplicatorError
from replicator.observability.log_throttle import Reminders
from replicator.observability.metrics import Metrics
from replicator.observability.status_board import Board
from replicator.observability.summaries import Summaries
from replicator.observability.target_states import spot_of
from replicator.ports.clock import Clock
from replicator.ports.events import Place


class Reports:
    """Where events go."""

    def __init__(self, board: Board, metrics: Metrics, clock: Clock) -> None:
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._log = structlog.get_logger("replicator")
        self._reminders = Reminders(clock)
        self._summaries = Summaries()
        self._began_at: float | None = clock.monotonic()
        """When this process began, until it was said to be ready."""

    def summarise(self, *, all_of_them: bool = False) -> None:
        """Log what rules applied, where a line is due; `all_of_them`: at the end."""
        for line in self._summaries.due(self._clock.monotonic(), all_of_them=all_of_them):
            self._log.info("rule_applied", **line)

    def _warn(self, topic: Hashable, event: str, error: ReplicatorError, **fields: object) -> None:
        """Log a trouble if a line is due."""
        due = self._reminders.due(topic, event)
        if due is not None:
            more = {"withheld": due.withheld} if due.withheld else {}
            self._log.warning(
                event, reason=error.message, advice=error.worker_advice, times=due.times, **fields, **more
            )


def topic_of(place: Place) -> Hashable:
    """What repeated log lines about a target on a shard are counted under."""
    return (*spot_of(place.stream, place.shard_id), place.target.target_id)
