"""Logging: structlog to standard error, console on a terminal and JSON otherwise, the standard library bridged.

A daemon's lines are written by a thread, because their reader may stop.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog import make_filtering_bound_logger

from replicator.observability.log_writer import LogWriter

_QUIET = ("aiohttp.access", "botocore", "aiobotocore", "urllib3")
"""Libraries whose warnings repeat, with tracebacks, what our own sentences say."""


_LAST_SECONDS = 2.0
"""At the end so long is waited for lines to be written."""

_METHODS = ("debug", "info", "warning", "error", "critical", "exception", "log")


class _Logger(make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc]
    """The class of every logger: loggers are kept once they were used, so what it lets through changes in its place."""


def configure(level: str, style: str) -> None:
    """Set logging up for the process, also again while it runs. `style`: auto, console or json."""
    filtering = make_filtering_bound_logger(getattr(logging, level.upper()))
    for name in _METHODS:
        setattr(_Logger, name, getattr(filtering, name))
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")  # as what commands print
    renderer: Any = structlog.dev.ConsoleRenderer(colors=coloured) if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=_Logger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    aside = [each for each in root.handlers if isinstance(each, LogWriter)]
    handler = aside[0] if aside else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def written_aside() -> Iterator[None]:
    """Let nothing that logs wait for what reads standard error, until the end of the context; then wait a little."""
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        writer = LogWriter(sys.stderr.fileno(), _tell_lost)
    except io.UnsupportedOperation:  # it is no file
        yield
        return
    root.handlers[:] = [writer]
    try:
        yield
    finally:
        writer.wait_until_written(_LAST_SECONDS)
        root.handlers[:] = before


def _tell_lost(lines: int) -> None:
    reason = "Standard error was full for a while, and these lines were dropped."
    structlog.get_logger("replicator").warning("log_lines_lost", lines=lines, reason=reason)
