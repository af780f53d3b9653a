"""What a child process does before it becomes a server: it ties its life to its parent's.

Run as `python -m replicator.laboratory.child PARENT exec COMMAND...` or `... PARENT ministack DESCRIPTOR`.
Invariant: on Linux a child never outlives its parent, however that one ends; elsewhere the parent's
own clean-up must do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>; it survives execve


def main(arguments: list[str]) -> None:
    """Bind this process to its parent, then become what was asked for."""
    parent, verb, *rest = arguments
    die_with(int(parent))
    if verb == "ministack":
        serve_ministack(int(rest[0]))
    else:
        os.execv(rest[0], rest)  # noqa: S606 - the parent composed the command; there is no shell


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request was made
            raise SystemExit(1)


def serve_ministack(descriptor: int) -> None:
    """Serve MiniStack on a socket that is bound already, so that no other process can have the port."""
    import uvloop

    app = import_module("ministack.app").app
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serving(app, descriptor))


def _serving(app: Any, descriptor: int) -> Coroutine[Any, Any, None]:
    """By our own server where its parser can be had, else by the one that MiniStack brings."""
    try:
        from replicator.laboratory.serving import serve_until_signalled
    except ImportError:
        import hypercorn.asyncio
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{descriptor}"]
        config.keep_alive_timeout = 75
        config.loglevel = "WARNING"
        return hypercorn.asyncio.serve(app, config)
    return serve_until_signalled(app, socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(sys.argv[1:])
