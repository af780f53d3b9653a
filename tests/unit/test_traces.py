"""Traces: a collector that hangs or refuses delays nothing and is logged once, and a missing extra is named."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from structlog.testing import capture_logs

from replicator.domain.errors import ConfigurationInvalid, Unreachable
from replicator.observability import trace_export
from replicator.observability.trace_export import open_traces, traces_to
from replicator.settings.sections import Telemetry
from tests.patience import PATIENT_SECONDS


class Hanging(SpanExporter):
    """A collector that takes a call and does not answer until it is let."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.answers.wait(PATIENT_SECONDS)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is kept."""


class Refusing(SpanExporter):
    """A collector that refuses so many calls, and takes the others."""

    def __init__(self, refused: int) -> None:
        self.refused = refused
        self.asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        if self.asked == 1:
            raise OSError("no route")
        return SpanExportResult.FAILURE if self.asked <= self.refused else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is kept."""


def test_the_end_does_not_wait_for_a_collector_that_hangs() -> None:
    exporter = Hanging()
    with traces_to(exporter, "test", 1.0) as traces, traces.span("cache", SpanKind.CLIENT):
        pass
    assert not exporter.answers.is_set()  # it hangs still, and here we are
    exporter.answers.set()


def test_a_collector_that_refuses_is_logged_once_and_so_is_its_return() -> None:
    exporter, is_dead = trace_export._noticed(Refusing(3))
    with capture_logs() as logs:
        dead = [is_dead()]
        for _ in range(5):
            exporter.export([])
            dead.append(is_dead())
    assert dead == [False, True, True, True, False, False], "the end of the process waits for one that takes spans"
    assert [line["event"] for line in logs] == ["traces_not_taken", "traces_taken_again"]


def test_a_collector_that_lets_us_wait_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, now = Hanging(), [0.0]
    exporter, is_dead = trace_export._noticed(hanging)
    monkeypatch.setattr(trace_export, "time", SimpleNamespace(monotonic=lambda: now[0]))
    export = threading.Thread(target=exporter.export, args=([],))
    export.start()
    assert hanging.asked.wait(PATIENT_SECONDS)
    assert not is_dead()
    now[0] = 2.0
    assert is_dead()
    hanging.answers.set()
    export.join()
    assert not is_dead()


def test_an_error_is_told_by_its_kind_alone() -> None:
    exporter = InMemorySpanExporter()
    with (
        traces_to(exporter, "test", 1.0) as traces,
        pytest.raises(Unreachable),
        traces.span("cache", SpanKind.CLIENT, cache="main"),
    ):
        raise Unreachable("The entry of customer-7 got no answer.")
    (span,) = exporter.get_finished_spans()
    assert span.status.description == "Unreachable"
    assert "customer-7" not in span.to_json()


def test_without_a_collector_nothing_is_made_and_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_traces(None, "test") as none:
        assert none is None
    monkeypatch.setattr(
        trace_export, "find_spec", lambda name: None if "sdk" in name else importlib.util.find_spec(name)
    )
    with (
        pytest.raises(ConfigurationInvalid, match="OpenTelemetry is not installed") as found,
        open_traces(Telemetry(endpoint="http://127.0.0.1:4318"), "test"),
    ):
        pass
    assert "pip install 'replicator[telemetry]'" in found.value.sentence
    assert found.value.exit_code == 78
