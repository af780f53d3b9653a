"""Guards of events, taken out: `events`' scenarios must not survive without them."""

from __future__ import annotations

import asyncio
from typing import Any

from replicator.domain.coalescing import Run
from replicator.domain.owed_keys import OwedKey
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.applying.events_driver import EventsDriver
from replicator.engine.applying.set_aside import SetAside
from tests.production.guarantee import Mutant
from tests.production.parking_mutants import _later


def _answered_means_taken(original: Any) -> Any:
    """A call that succeeds is taken for all of its entries."""

    async def send_next(self: Any) -> None:
        sink = self._sink

        class Blind:
            most, at_once, shape = sink.most, sink.at_once, sink.shape

            async def send(self, events: Any, fences: Any = ()) -> Any:
                await sink.send(events, fences)
                return [None] * len(events)

        self._sink = Blind()
        try:
            await original(self)
        finally:
            self._sink = sink

    return send_next


def _not_waited_for(original: Any) -> Any:
    """The next event of a key is sent while the one before is under way."""

    async def apply(self: Any, unit: Run, tally: Any) -> bool:
        done = self.__dict__.setdefault("done", set())

        async def one(run: Run) -> None:
            if run.records[0].sequence not in done:
                await original(self, run, tally)
                done.add(run.records[0].sequence)

        runs = [Run(unit.key, (record,)) for record in unit.records]
        for answer in await asyncio.gather(*map(one, runs), return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        return True

    return apply


def _whole(_: Any) -> Any:
    return lambda self, run: [run]


def _newest_only(_: Any) -> Any:
    return lambda self, run: [Run(run.key, run.records[-1:])]


def _by_key(_: Any) -> Any:
    def subject(self: OwedKey) -> Any:
        return (self.shard, self.sequence) if self.key is None else self.key

    return property(subject)


def _at_once(original: Any) -> Any:
    """The driver does not wait for the sink."""

    async def send(self: Any, event: Any, fence: Any) -> None:
        task = asyncio.get_running_loop().create_task(original(self, event, fence))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    return send


PARTIAL = {
    "each_entry_is_answered": Mutant(
        "an entry counts as taken only when the service names it", ((EventFunnel, "_send_next", _answered_means_taken),)
    ),
    "one_of_a_key_at_a_time": Mutant(
        "a key's next event waits for the one before",
        ((EventsDriver, "units", _whole), (EventsDriver, "apply", _not_waited_for)),
    ),
    "every_change_is_an_event": Mutant("changes are not merged", ((EventsDriver, "units", _newest_only),)),
}
REFUSED = {
    "row_before_position": Mutant("a row is durable before its record counts as done", ((SetAside, "event", _later),)),
    "a_row_per_event": Mutant(
        "a later refused event does not replace an earlier one", ((OwedKey, "subject", _by_key),)
    ),
}
AWAY = {
    "acknowledged_before_position": Mutant(
        "a record is done when its event was acknowledged", ((EventFunnel, "send", _at_once),)
    ),
}
