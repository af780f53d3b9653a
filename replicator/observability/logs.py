"""Logging: structlog to standard error, console on a terminal and JSON otherwise, the standard library bridged."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog import make_filtering_bound_logger

_QUIET = ("aiohttp.access", "botocore", "aiobotocore", "urllib3")
"""Libraries whose warnings repeat, with tracebacks, what our own sentences say."""


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
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=_Logger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
