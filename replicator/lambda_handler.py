"""The entry point of a function on AWS Lambda: `replicator.lambda_handler.handler`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from replicator.app.invocations import Process

_BEGIN_SECONDS = 9.0
"""The runtime gives imports 10 s before it begins anew."""


class Context(Protocol):
    """What the runtime tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until it is ended."""


_PROCESS = Process()
if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    _PROCESS.begin(_BEGIN_SECONDS)


def handler(event: Mapping[str, Any], context: Context) -> dict[str, list[dict[str, str]]]:
    """Called by the runtime, one event after the other."""
    return _PROCESS.handle(event, context.get_remaining_time_in_millis())
