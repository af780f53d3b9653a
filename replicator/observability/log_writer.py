"""Lines of the log, written to standard error by a thread of their own.

The reader of standard error may stop: then its pipe is full, and a write waits for as long as that lasts. Invariant: a
worker that logs never waits. Beyond a bound lines are dropped, and the log says how many as soon as it is read again.
There is one lock, which a thread may take again: a finalizer may log at any step of either thread.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

_MOST_BYTES = 4 * 1024 * 1024
"""So much waits to be written; then lines are dropped."""


class LogWriter(logging.Handler):
    """Writes lines to a descriptor, in their order."""

    def __init__(self, descriptor: int, tell_lost: Callable[[int], None], *, most_bytes: int = _MOST_BYTES) -> None:
        """`tell_lost` logs how many lines were dropped."""
        super().__init__()
        self._descriptor, self._tell_lost, self._most = descriptor, tell_lost, most_bytes
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition(self.lock)
        self._waiting = self._lost = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            line = f"{self.format(record)}\n".encode(errors="replace")
        except Exception:  # noqa: BLE001 - as the standard library's handlers do
            self.handleError(record)
            return
        with self._changed:
            if self._waiting + len(line) > self._most:
                self._lost += 1
                return
            self._lines.append(line)
            self._waiting += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_until_written(self, seconds: float) -> bool:
        """Wait until everything is written, but no longer than so; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                taken, self._lines = self._lines, deque()
            lines = b"".join(taken)
            _write(self._descriptor, lines)
            with self._changed:
                lost, self._lost = self._lost, 0
            if lost:
                self._tell_lost(lost)  # before what was written counts as written, so that a wait covers it
            with self._changed:
                self._waiting -= len(lines)
                self._changed.notify_all()


def _write(descriptor: int, lines: bytes) -> None:
    """Write what can be written: a log that is gone, or a full disk, ends nothing."""
    while lines:
        try:
            lines = lines[os.write(descriptor, lines) :]
        except BlockingIOError:  # the descriptor came to us as one that does not wait
            select.select([], [descriptor], [])
        except OSError:
            return
