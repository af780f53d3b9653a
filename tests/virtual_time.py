"""Virtual time: a loop that has nothing to do is at once where its next timer is due.

Waiting costs nothing, and nothing depends on the machine's speed. What runs in it talks to nothing outside: neither
sockets nor threads are waited for while timers are due.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

_DIGITS: Final = 6
"""Of a second: timers are due in whole microseconds, so that sums of tenths stay tenths."""

_TICK: Final = 1e-6


class VirtualTime:
    """The time of one loop, from zero on."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._wait = loop._selector.select
        self.now = 0.0

    @classmethod
    def start(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop that runs live in virtual time from now on."""
        patched: Any = loop
        time = cls(loop)
        patched.time = lambda: time.now
        patched._clock_resolution = _TICK
        patched._selector.select = time.select
        patched.run_in_executor = _refuse

    def select(self, timeout: float | None) -> Any:
        """What the loop calls when it has run all that was ready."""
        if timeout is None:
            return self._wait(None)
        if timeout > 0:
            due: float = round(self._loop._scheduled[0].when(), _DIGITS)
            self.now = due if due > self.now else round(self.now + _TICK, _DIGITS)
        return ()


def _refuse(*_: object) -> None:
    raise RuntimeError("A thread takes real time; a test in virtual time waits for none.")
