"""`python -m replicator` and the console script `replicator`.

Invariant: SIGTERM has a handler before anything slow is imported. In a container the program is process 1, and for that
one the kernel drops a signal without a handler: the container would run on until it is killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_STOPPED = 0
_TERMINATED = 128 + signal.SIGTERM
_OPTIONS_WITH_A_VALUE = frozenset({"--config", "-c"})
"""Those of them that may precede the command."""


def main() -> None:
    """Run the command line and exit with its code."""
    is_daemon = _command(sys.argv[1:]) == "run"
    # Until the daemon takes signals over nothing has begun, so one is a stop in order.
    _end_at_a_signal(_STOPPED if is_daemon else _TERMINATED, [signal.SIGTERM, *([signal.SIGINT] if is_daemon else [])])
    from replicator.cli.main import run

    code = run()
    _end_at_a_signal(code, [signal.SIGTERM, signal.SIGINT])  # what is left does not change how it ended
    sys.exit(code)


def _end_at_a_signal(code: int, numbers: Sequence[signal.Signals]) -> None:
    """End the process at once. An exception instead may be swallowed inside an import or a destructor."""
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(code))


def _command(arguments: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor the value of one."""
    words = iter(arguments)
    for word in words:
        if word in _OPTIONS_WITH_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


if __name__ == "__main__":
    main()
