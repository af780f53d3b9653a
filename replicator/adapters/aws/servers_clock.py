"""Servers' time, as their answers tell it: no row depends on the clock of the machine that wrote it."""

from __future__ import annotations

import math
import time
from functools import partial

_NEVER_JUMPS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ServersClock:
    """Servers' time, between the bounds that the Dates of answers leave: for what several machines compare.

    This machine's own time is taken where no answer contradicts it: Dates are whole seconds. Before any answer it is
    all that is known.
    """

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf
        """Seconds between the clock that never jumps and servers' time."""

    @property
    def is_known(self) -> bool:
        """Whether any answer said what time it was."""
        return self._least > -math.inf

    def answered(self, date: float, asked_at: float) -> None:
        """An answer bore this Date, in seconds since 1970; when it was asked for, by `monotonic`."""
        least, most = date - self.monotonic(), date + 1 - asked_at
        if least > self._most or most < self._least:  # the server's clock was set
            self._least, self._most = least, most
        self._least, self._most = max(self._least, least), min(self._most, most)

    def now(self) -> float:
        """Seconds since 1970."""
        since = self.monotonic()
        return min(max(time.time(), self._least + since), self._most + since)

    def earliest(self) -> float:
        """No later than servers' time: for what counts only from then on."""
        return self._least + self.monotonic() if self.is_known else time.time()

    def latest(self) -> float:
        """No earlier than servers' time: for what counts until then."""
        return self._most + self.monotonic() if self.is_known else time.time()

    monotonic = staticmethod(partial(time.clock_gettime, _NEVER_JUMPS))
    """Seconds since boot; asked several times a record, so it is no method of Python."""
