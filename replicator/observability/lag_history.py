"""The last hour of the lag of every target that this worker reports, and of changes, sampled beside everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from replicator.domain.lag_history import STEP_SECONDS, Counted, LagHistory

if TYPE_CHECKING:
    from replicator.observability.status_board import Board


class SampledLags:
    """The history of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._history = LagHistory()
        self._counted = Counted()

    async def run(self) -> None:
        """Sample until cancelled, at the beginning of every step."""
        while True:
            self.sample()
            await asyncio.sleep(STEP_SECONDS - self._board.clock.now() % STEP_SECONDS)

    def sample(self) -> None:
        """Keep the greatest lag of each target's shards; one that is not known makes the target's unknown."""
        lags: dict[str, float | None] = {}
        for figure in self._board.figures():
            name = figure.target.target_id.text
            before = lags.get(name, 0.0)
            lags[name] = None if figure.lag is None or before is None else max(before, figure.lag)
        self._history.note(self._board.clock.now(), lags)
        self._counted.note(self._board.clock.monotonic(), self._changes())

    def _changes(self) -> dict[str, int]:
        """Changes by source table; of several targets what one of them got, because each gets them all."""
        found: dict[str, int] = {}
        for (region, table, _), counts in self._board.totals.items():
            name = f"{region}:{table}"
            found[name] = max(found.get(name, 0), counts["changes"])
        return found

    @property
    def document(self) -> dict[str, Any]:
        """As /history shows it."""
        course = self._history.course
        return {
            "group": self._board.group,
            "worker": self._board.worker,
            "step_seconds": STEP_SECONDS,
            "until": course.until,
            "lags": course.lags,
            "changes_per_second": self._counted.rates(self._board.clock.monotonic(), self._changes()),
        }
