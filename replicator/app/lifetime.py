"""Lifetimes: signals, the drain and its deadline, exit codes.

The first SIGTERM or SIGINT sets `stop`: what was read is applied, stored and released. The deadline, or a second
signal, cancels what is left; nothing is lost by that, because whatever is not stored is read again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from replicator.domain.errors import EXIT_DRAIN_TIMED_OUT, EXIT_STOPPED
from replicator.engine.waiting import Flag

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_RESORT_SECONDS = 5.0
"""So long after the deadline the process ends even if some library swallowed the cancellation."""


async def live(
    work: Callable[[asyncio.Event], Awaitable[None]], *, drain_seconds: float, report: Callable[[str], None]
) -> int:
    """Run `work` until it ends by itself or is stopped by a signal; returns the exit code.

    `report` gets "stopping", "now" and "drain_timed_out".
    """
    stop = Flag()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as deadline:

            def signalled() -> None:
                again = stop.is_set()
                report("now" if again else "stopping")
                stop.set()
                seconds = 0 if again else drain_seconds
                deadline.reschedule(loop.time() + seconds)
                loop.call_later(seconds + _LAST_RESORT_SECONDS, os._exit, EXIT_DRAIN_TIMED_OUT)

            with signals_to(signalled):
                await work(stop)
    except TimeoutError:
        if not deadline.expired():
            raise
        report("drain_timed_out")
        return EXIT_DRAIN_TIMED_OUT
    return EXIT_STOPPED


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None as soon as `stop` is set, and then `work` is cancelled."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work, name="what a stop ends")
        stopping = group.create_task(stop.wait(), name="stop")
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        working.cancel()
    return None if working.cancelled() else working.result()


@contextmanager
def signals_to(handler: Callable[[], None], numbers: Sequence[signal.Signals] = _SIGNALS) -> Iterator[None]:
    """Call `handler` for every SIGTERM and SIGINT while the context lasts; afterwards what handled them before does.

    `numbers`: other signals in place of these.

    The loop alone would leave none: process 1 then is deaf, and any other ends as if it had been killed.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number] or signal.SIG_DFL)
