"""`python -m replicator` and the console script `replicator`.

Invariant: SIGTERM has a handler before anything slow is imported. In a container the program is process 1, and for that
one the kernel drops a signal without a handler: the container would run on until it is killed.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

_COLLECT_AFTER = (200_000, 20, 20)
"""Thresholds of the garbage collector (`gc.set_threshold`) that what is imported does not reach, for it is no garbage.

A command ends before it; a daemon sets others when it begins (`app/collector.py`).
"""

_STOPPED = 0
_TERMINATED = 128 + signal.SIGTERM
_OPTIONS_WITH_A_VALUE = frozenset({"--config", "-c"})
"""Those of them that may precede the command."""


def main() -> None:
    """Run the command line and exit with its code."""
    command = _command(sys.argv[1:])
    is_daemon = command == "run"
    # Until the daemon takes signals over nothing has begun, so one is a stop in order.
    _end_at_a_signal(_STOPPED if is_daemon else _TERMINATED, [signal.SIGTERM, *([signal.SIGINT] if is_daemon else [])])
    if is_daemon and not sys.stderr.isatty():  # there it says that the terminal is gone
        _pass_over_hangups()
    _start_lightly(is_daemon=is_daemon)
    from replicator.cli.main import run

    code = run(command)
    _end_at_a_signal(code, [signal.SIGTERM, signal.SIGINT])  # what is left does not change how it ended
    gc.freeze()  # else the interpreter looks through all of it again, and then gives it to the system anyway
    sys.exit(code)


def _start_lightly(*, is_daemon: bool) -> None:
    """Keep from the start what costs it a fifth of its time and is of no use to it."""
    gc.set_threshold(*_COLLECT_AFTER)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # they are looked for in every installed package
    if not is_daemon:
        return
    if not sys.stderr.isatty():
        sys.modules["rich"] = None  # type: ignore[assignment]  # structlog colours tracebacks with it, on a terminal
    _import_http_without_certificates()


def _import_http_without_certificates() -> None:
    """Import aiohttp, which reads the system's certificates twice, for connections that are given no others.

    The daemon gives them to all that it opens. A connection without would trust no server.
    """
    import ssl

    read = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[method-assign, assignment]
    try:
        import aiohttp  # noqa: F401
    finally:
        ssl.SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]


def _end_at_a_signal(code: int, numbers: Sequence[signal.Signals]) -> None:
    """End the process at once. An exception instead may be swallowed inside an import or a destructor."""
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(code))


def _pass_over_hangups() -> None:
    """Let a request to read the configuration again end nothing before and behind the time that it is taken up in.

    A supervisor takes a process that ends by it for one that was stopped in order, and starts no other. What is read
    later is what there is to read, and a daemon looks at its file by itself.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)  # not SIG_IGN, which programs that are started would inherit


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
