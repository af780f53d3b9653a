"""A page of records at a target: what is left of it, what it came to, and what the observer hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct, field

from replicator.domain.progress import Position
from replicator.domain.records import StreamRecord
from replicator.engine.applying.context import Tally, TargetContext, Written
from replicator.engine.applying.jobs import Job, Jobs
from replicator.ports.events import BatchReport


class Page(Struct):
    """What the workers of a page share. `more`: once it is set, what failed by itself may be left for later."""

    jobs: Jobs
    tally: Tally
    more: asyncio.Event | None
    written: list[tuple[Job, Written, float]] = field(default_factory=list)
    """What waits for its cache actions, with when its try began."""
    completes: bool = False
    """Whether a worker carries such actions out."""
    is_called: bool = False
    """Whether one was called to do so, and did not wake up yet."""


def page_report(
    context: TargetContext, fresh: Sequence[StreamRecord], frontier: Position, tally: Tally, began: float
) -> BatchReport:
    """One page at one target; `began`: monotonic seconds."""
    newest = max([record.created_at for record in fresh])
    return BatchReport(
        place=context.place,
        records=len(fresh),
        changes=tally.changes,
        skipped=tally.skipped,
        effects=dict(tally.effects),
        adopted=tally.adopted,
        conflicts=dict(tally.conflicts),
        cache_actions=tally.cache_actions,
        keyless=tally.keyless,
        unstored=tally.unstored,
        too_large=tally.too_large,
        kept_removals=tally.kept_removals,
        parked=tally.parked,
        foreign=tally.foreign,
        ties=tally.ties,
        late=tally.late,
        retries=tally.retries,
        position=frontier,
        lag_seconds=context.clock.now() - newest if newest else None,
        took_seconds=context.clock.monotonic() - began,
    )
