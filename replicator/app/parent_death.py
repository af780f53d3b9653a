"""A worker of `replicator run --workers N`, as its parent sees it: it ends with the parent and logs under its number.

Invariant: when the parent is gone, however that came, the worker drains as after SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

from replicator.app.supervisor import LIFELINE, PROCESS


def bind_to_parent() -> None:
    """End with the parent, if there is one; nothing without."""
    descriptor = os.environ.pop(LIFELINE, "")
    process = os.environ.pop(PROCESS, "")
    if not descriptor.isdecimal():
        return
    import structlog

    structlog.contextvars.bind_contextvars(process=int(process))
    threading.Thread(target=_end_with_parent, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _end_with_parent(descriptor: int) -> None:
    with suppress(OSError):
        os.read(descriptor, 1)  # nothing is ever written: it returns when the parent's end is closed
    os.kill(os.getpid(), signal.SIGTERM)
