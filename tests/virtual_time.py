"""Virtual time: a loop that has nothing to do is at once where its next timer is due.

Waiting costs nothing, and nothing depends on the machine's speed. What runs in it talks to nothing outside: neither
sockets nor threads are waited for while timers are due. Hours pass in a test, so the loop's own steps are made anew as
well, without what only debugging and sockets need: they would be a third of what such a test costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, Final

_DIGITS: Final = 6
"""Of a second: timers are due in whole microseconds, so that sums of tenths stay tenths."""

_TICK: Final = 1e-6
_MANY_TIMERS: Final = 100
"""Among more of them, those that were cancelled are taken out once they are the most."""


class VirtualTime:
    """The time of one loop, from zero on."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.now = 0.0

    @classmethod
    def start(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop that runs live in virtual time from now on."""
        patched: Any = loop
        time = cls(loop)
        patched.time = lambda: time.now
        patched.call_soon = time.call_soon
        patched.call_at = time.call_at
        patched.call_later = time.call_later
        patched._run_once = time.run_once
        patched.run_in_executor = _refuse

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context | None = None) -> _Call:
        """What the loop does in its next step."""
        call = _Call(0.0, callback, args, self._loop, context)
        self._loop._ready.append(call)
        return call

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> _Call:
        """What the loop does at that time."""
        call = _Call(when, callback, args, self._loop, context)
        heappush(self._loop._scheduled, call)
        call._scheduled = True
        return call

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> _Call:
        """What the loop does in so many seconds."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def run_once(self) -> None:
        """One step of the loop: time passes when nothing is ready, then all that is due is called."""
        loop = self._loop
        timers, ready = self._timers(), loop._ready
        if not ready and not loop._stopping:
            if not timers:
                loop._process_events(loop._selector.select(None))
            elif timers[0]._when > self.now:
                due = round(timers[0]._when, _DIGITS)
                self.now = due if due > self.now else round(self.now + _TICK, _DIGITS)
        end = self.now + _TICK
        while timers and timers[0]._when < end:
            timer = heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            call = ready.popleft()
            if not call._cancelled:
                call._run()

    def _timers(self) -> list[Any]:
        """All timers; the first one is not cancelled."""
        loop = self._loop
        timers: list[Any] = loop._scheduled
        if len(timers) > _MANY_TIMERS and 2 * loop._timer_cancelled_count > len(timers):
            for timer in timers:
                timer._scheduled = not timer._cancelled
            timers[:] = [timer for timer in timers if timer._scheduled]
            heapify(timers)
            loop._timer_cancelled_count = 0
        while timers and timers[0]._cancelled:
            heappop(timers)._scheduled = False
            loop._timer_cancelled_count -= 1
        return timers


class _Call(asyncio.TimerHandle):
    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[object, ...], loop: Any, context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = self._source_traceback = None
        self._when = when
        self._scheduled = False

    def __lt__(self, other: Any) -> bool:
        return self._when < other._when  # type: ignore[no-any-return]

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]
            if self._scheduled:
                self._loop._timer_cancelled_count += 1


def _refuse(*_: object) -> None:
    raise RuntimeError("A thread takes real time; a test in virtual time waits for none.")
