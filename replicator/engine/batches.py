"""A batch of records that something else has read and keeps: brought to one target, as far as there is time.

There is no lease on a shard and no position: the fence is the rule's (what drives it), and versions keep what is
repeated from doing harm. Invariant: what is counted as durable is a beginning of the batch without a hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.domain.errors import LeaseLost
from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import StreamRecord, UnreadRecord
from replicator.domain.rules import Rule
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.kinds import parks_refusals
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.set_aside import SetAside
from replicator.engine.limits import Limits
from replicator.engine.waiting import Stopped, found
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.targets import Fence


@dataclass(frozen=True, slots=True)
class BatchPorts:
    """What batches are brought with. `by`: this process, as rows name it."""

    limits: Limits
    clock: Clock
    observer: Observer
    by: str


@dataclass(frozen=True, slots=True)
class BatchTarget:
    """A target on the stream of a batch. `started_at`: older records are none of its; None: all are."""

    rule: Rule
    place: Place
    ports: TargetPorts
    fence: Fence
    started_at: float | None


async def bring_batch(
    records: Sequence[StreamRecord], target: BatchTarget, ports: BatchPorts, stop: asyncio.Event, cut: float
) -> int:
    """Bring records to a target; returns how many from the first one on are durable there.

    With `stop` nothing new is begun; at `cut`, by the loop's time, and when the fence falls, what is under way is given
    up.
    """
    frontier = HORIZON

    def moved(position: Position) -> None:
        nonlocal frontier
        frontier = position

    parks = parks_refusals(target.rule, target.place.target.kind)
    if not parks:  # such a target waits for what cannot be read
        unread = (index for index, record in enumerate(records) if isinstance(record, UnreadRecord))
        records = records[: next(unread, len(records))]
    ahead = ReadAhead(len(records) + 1)
    ahead.add(records)
    try:
        async with asyncio.timeout_at(cut):
            if parks:
                # Another process may have parked or settled keys since.
                for parking in target.ports.parkings:
                    await parking.load()
            applier = TargetApplier(_context(target, ports, ahead, stop, parks=parks), started_at=target.started_at)
            try:
                await applier.apply(records, HORIZON, moved)
            finally:
                applier.give_up()
    except (TimeoutError, Stopped):
        pass
    except BaseExceptionGroup as error:
        if not found(error, LeaseLost):
            raise
    numbers = [record.sequence for record in records]
    return 0 if frontier.sequence is None else numbers.index(frontier.sequence) + 1


def _context(
    target: BatchTarget, ports: BatchPorts, ahead: ReadAhead, stop: asyncio.Event, *, parks: bool
) -> TargetContext:
    aside = None
    if parks and target.ports.parking is not None:
        aside = SetAside(
            target.ports.parking, target.place, target.rule.epoch, ports.by, ports.clock, ports.observer, target.fence
        )
    return TargetContext(
        target.rule,
        target.place,
        target.ports,
        ahead,
        ports.limits,
        ports.clock,
        ports.observer,
        target.fence,
        stop,
        {},
        aside,
        ports.by,
    )
