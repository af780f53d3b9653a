"""Driving a sink of events: each change is an event of its own, and a key's next one waits for the one before."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.coalescing import Run
from replicator.domain.errors import ReplicatorError, SinkGone
from replicator.domain.item_events import event_of, is_let_out, is_of_a_user, kept
from replicator.domain.owed_keys import is_refusal
from replicator.domain.records import ChangeRecord
from replicator.engine.applying.context import Tally, TargetContext
from replicator.engine.applying.sent_events import SentEvents


class EventsDriver:
    """One sink of a rule."""

    chain = None
    splits = True
    idle = None

    def __init__(self, context: TargetContext) -> None:
        assert context.ports.events is not None, "a sink takes events"
        self._context = context
        self._events = context.ports.events
        self._sent = SentEvents()

    def units(self, run: Run) -> Sequence[Run]:
        """Record by record, since none stands for another one; those of a source without order as they were made."""
        return [Run(run.key, (record,)) for record in self._context.ahead.in_order(run.key, run.records)]

    def superseded(self, unit: Run) -> Run:
        """The same again: a later change is another event."""
        return unit

    async def apply(self, unit: Run, tally: Tally) -> bool:
        """Send the event of a record; set aside what the sink refuses as it is."""
        (record,) = unit.records
        if record.micros and self._sent.knows(record):
            tally.skipped += 1
            return False
        late = record.micros > 0 and self._sent.is_late(record)
        took = await self._send(unit, record, tally)
        tally.late += late and took
        if record.micros:
            self._sent.note(record)
        return took

    async def _send(self, unit: Run, record: ChangeRecord, tally: Tally) -> bool:
        context, event = self._context, None
        try:
            rule, shape = context.rule, self._events.shape
            if not (is_let_out(rule, record, shape) and is_of_a_user(rule, record)):
                tally.skipped += 1
                return False
            event = event_of(record, context.place.stream, shape, rule.stamp)
            await self._events.send(event, context.fence)
        except SinkGone as error:
            context.ports.gate.close(error)
            raise
        except ReplicatorError as error:
            if context.aside is None or not is_refusal(error):
                raise
            await context.aside.event(unit, None if event is None else kept(event), error)
            tally.parked += 1
            return False
        if context.aside is not None:
            await context.aside.event_taken(unit)
        tally.changes += 1
        return True
