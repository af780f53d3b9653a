"""A background service: one attempt after the other, with backoff behind failures, and every trouble reported.

Invariant: a service that fails is tried again, one that waits for an answer for too long is reported while it waits,
and one that works again takes its report back. What is no `ReplicatorError` ends it, and so do rows of
a newer layout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from replicator.domain.errors import NewerLayout, ReplicatorError
from replicator.engine.waiting import Flag, pause_for_any, retry_in
from replicator.ports.events import Observer
from replicator.ports.services import ServiceId

_FIRST_BACKOFF = 3
"""A service that fails waits as if it had failed this often already: a fraction of a second, not milliseconds."""


class Service(Struct, frozen=True):
    """How a service is repeated. `over`: events that end it. `longest`: its longest backoff, in seconds.

    `hang_seconds`: an attempt that takes longer is reported as waiting for an answer. `hurries`: whether what wakes the
    service ends its backoff, too.
    """

    name: ServiceId
    observer: Observer
    over: tuple[asyncio.Event, ...]
    longest: float
    hang_seconds: float
    hurries: bool = True

    async def run(self, attempt: Callable[[], Awaitable[float]], wake: asyncio.Event | None = None) -> None:
        """Call `attempt` until the service is over; it returns in how many seconds it is to be called again.

        `wake`, when it is set, has it called at once.
        """
        wake = wake or Flag()
        failures = 0
        while not any(event.is_set() for event in self.over):
            wake.clear()
            try:
                with watched(self.name, self.observer, self.hang_seconds):
                    wait = await attempt()
                self.observer.service_recovered(self.name)
                failures = 0
                await pause_for_any(wait, wake, *self.over)
            except NewerLayout:
                raise
            except ReplicatorError as error:
                self.observer.service_failed(self.name, error)
                wait = retry_in(error, _FIRST_BACKOFF + failures, self.longest)
                failures += 1
                await pause_for_any(wait, *((wake,) if self.hurries else ()), *self.over)


@contextmanager
def watched(name: ServiceId, observer: Observer, hang_seconds: float) -> Iterator[None]:
    """Report while something waits for an answer for too long; what recovers the service takes it back."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    timers: list[asyncio.TimerHandle] = []

    def report() -> None:
        observer.service_hangs(name, loop.time() - began)
        timers[:] = [loop.call_later(hang_seconds, report)]

    timers.append(loop.call_later(hang_seconds, report))
    try:
        yield
    finally:
        timers[0].cancel()
