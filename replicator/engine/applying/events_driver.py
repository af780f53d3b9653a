"""Driving a sink of events: each change is an event of its own, and a key's next one waits for the one before."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.domain.coalescing import Run
from replicator.domain.errors import ReplicatorError, SinkGone
from replicator.domain.item_events import event_of, is_let_out, is_of_a_user, kept
from replicator.domain.owed_keys import is_refusal
from replicator.engine.applying.context import Tally, TargetContext


class EventsDriver:
    """One sink of a rule."""

    def __init__(self, context: TargetContext) -> None:
        assert context.ports.events is not None, "a sink takes events"
        self._context = context
        self._events = context.ports.events

    def units(self, run: Run) -> Sequence[Run]:
        """Record by record: none stands for another one."""
        return [Run(run.key, (record,)) for record in run.records]

    def superseded(self, unit: Run) -> Run:
        """The same again: a later change is another event."""
        return unit

    async def apply(self, unit: Run, tally: Tally) -> bool:
        """Send the event of a record; set aside what the sink refuses as it is."""
        context, event = self._context, None
        (record,) = unit.records
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
