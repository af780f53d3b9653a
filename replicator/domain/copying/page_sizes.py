"""How many items a page of a job may have, so that few units per second neither burst nor keep a page for minutes."""

from __future__ import annotations

import math
from collections.abc import Iterable

PAGE_SECONDS = 4.0
"""A page is done in about this time: so long a job that is to rest goes on, and so much is repeated after a kill."""

_ENOUGH = 50_000
"""No page of a table holds more."""


def page_items(budgets: Iterable[tuple[float, float]], items: float) -> int | None:
    """How many items the next page of a segment may have; None: as many as an answer holds.

    `budgets`: of each, the units per second that this segment may take, and the units that were taken for `items`.
    Before anything is known an item is taken to cost a unit, and the page to last a second.
    """
    if items:
        fit = [rate * PAGE_SECONDS * items / taken for rate, taken in budgets if taken > 0]
    else:
        fit = [rate for rate, _ in budgets]
    least = min(fit, default=math.inf)
    return None if least >= _ENOUGH else max(1, int(least))
