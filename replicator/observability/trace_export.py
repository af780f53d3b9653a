"""Where traces go: a collector that speaks OTLP over HTTP, from a thread and a bounded queue of their own.

Invariant: replication never waits for a collector. What finds no room in the queue is dropped, and the end of the
process waits for what is left for a moment, and not at all for a collector that takes nothing. That a collector does
not take spans is logged once, and once more when it takes them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from replicator import __version__
from replicator.domain.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from replicator.observability.traces import Traces
    from replicator.settings.sections import Telemetry

_EXPORT_SECONDS = 5.0
_LAST_SECONDS = 1.0
"""So long the end of the process waits for the last spans, where the collector takes spans."""

_DEAD_SECONDS = 1.0
"""A collector that has not answered for so long is one that takes none."""

_QUEUED = 2048
_SPANS_A_CALL = 512


@contextmanager
def open_traces(settings: Telemetry | None, group: str) -> Iterator[Traces | None]:
    """What makes spans; None when no collector is configured, and then nothing of this is imported."""
    if settings is None:
        yield None
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigurationInvalid(
            "`telemetry` is configured, and OpenTelemetry is not installed.",
            advice="Install it with pip install 'replicator[telemetry]', or take `telemetry` out.",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
    with traces_to(exporter, group, settings.sample) as traces:
        yield traces


@contextmanager
def traces_to(exporter: SpanExporter, group: str, sample: float) -> Iterator[Traces]:
    """What makes spans for an exporter; at the end the last ones are given a moment."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from replicator.observability.traces import Traces

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it says at every try is logged once
    process = {"service.name": "replicator", "service.version": __version__, "replicator.group": group}
    resource = Resource.create(process)
    sampler = ParentBased(TraceIdRatioBased(sample))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    noticed, is_dead = _noticed(exporter)
    provider.add_span_processor(
        BatchSpanProcessor(noticed, max_queue_size=_QUEUED, max_export_batch_size=_SPANS_A_CALL)
    )
    try:
        yield Traces(provider.get_tracer("replicator", __version__))
    finally:
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(0.0 if is_dead() else _LAST_SECONDS)


def _noticed(exporter: SpanExporter) -> tuple[SpanExporter, Callable[[], bool]]:
    """The same, watched; and whether the collector takes nothing now."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Noticed(SpanExporter):
        """An exporter that logs when a collector stops taking spans, and when it takes them again."""

        def __init__(self) -> None:
            self._fails = False
            self._asked_at: float | None = None

        @property
        def is_dead(self) -> bool:
            """Whether it took nothing last, or lets us wait."""
            asked_at = self._asked_at
            return self._fails or (asked_at is not None and time.monotonic() - asked_at > _DEAD_SECONDS)

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self._asked_at = time.monotonic()
            try:
                result = exporter.export(spans)
            except Exception:  # noqa: BLE001 - whatever keeps spans away is no reason to end anything
                result = SpanExportResult.FAILURE
            self._asked_at = None
            fails = result is not SpanExportResult.SUCCESS
            log = structlog.get_logger("replicator")
            if fails and not self._fails:
                reason = "The collector accepts no spans; spans beyond the buffer are dropped. Replication continues."
                log.warning("traces_not_taken", reason=reason)
            elif self._fails and not fails:
                log.info("traces_taken_again")
            self._fails = fails
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    noticed = Noticed()
    return noticed, lambda: noticed.is_dead
