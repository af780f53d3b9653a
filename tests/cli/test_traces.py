"""Traces of a real daemon at a collector: what was applied links to where it was read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.cli.daemons import running, wait_until
from tests.cli.worlds import World

pytestmark = pytest.mark.servers


class Collector(ThreadingHTTPServer):
    """Takes spans over HTTP."""

    daemon_threads = True
    bodies: list[bytes]

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def links(self) -> set[bytes]:
        return {link.span_id for span in self.spans() if span.name == "apply" for link in span.links}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the server uses
        """Say nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector(("127.0.0.1", 0), _Handler) as server:
        server.bodies = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_what_was_applied_links_to_where_it_was_read_and_no_key_or_value_is_told(world: World) -> None:
    world.sound()
    with collecting() as collector:
        world.config["telemetry"] = {"endpoint": f"http://127.0.0.1:{collector.server_port}", "sample": 1.0}
        with running(world) as daemon:
            daemon.await_ready()
            world.put("us", "orders", pk={"S": "planted-key"}, sk={"N": "1"}, secret={"S": "planted-value"})
            wait_until(lambda: len(world.items("eu", "orders")) == 1, "the item does not arrive")
            assert daemon.stop() == 0  # the last spans are sent
        wait_until(lambda: bool(collector.links()), "no batch is linked")
    spans = collector.spans()
    assert collector.links() <= {span.span_id for span in spans if span.name == "read"}
    assert {span.name for span in spans} >= {"read", "apply", "cache"}
    (applied,) = [span for span in spans if span.name == "apply" and span.links]
    told = {each.key: each.value.string_value or each.value.int_value for each in applied.attributes}
    assert (told["replicator.rule"], told["replicator.records"]) == ("orders", 1)
    assert b"planted" not in b"".join(collector.bodies)


@pytest.mark.long
def test_a_collector_that_is_not_there_delays_nothing_and_is_logged(world: World) -> None:
    world.sound()
    world.config["telemetry"] = {"endpoint": "http://127.0.0.1:9", "sample": 1.0}
    with running(world) as daemon:
        daemon.await_ready()
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
        wait_until(lambda: len(world.items("eu", "orders")) == 1, "the item does not arrive")
        wait_until(lambda: "traces_not_taken" in daemon.said(), "it is not logged")
        assert daemon.stop() == 0
    assert daemon.said().count("traces_not_taken") == 1
