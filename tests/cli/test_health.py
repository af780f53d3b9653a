"""`replicator health`: an exit code for what /healthz and /readyz say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from tests.cli.worlds import replicator

_EXAMPLE = Path(__file__).parents[2] / "config" / "replicator.yaml"


@contextmanager
def _worker(answers: dict[str, int]) -> Iterator[int]:
    """What answers probes like a worker; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[self.path])
            self.end_headers()
            self.wfile.write(b"as asked\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _configured(directory: Path, port: int) -> dict[str, str]:
    content = yaml.safe_load(_EXAMPLE.read_text())
    content["admin"] = {"host": "::", "port": port}
    path = directory / "replicator.yaml"
    path.write_text(yaml.safe_dump(content))
    return {"REPLICATOR_CONFIG": str(path)}


@pytest.mark.parametrize(
    ("arguments", "answers", "code"),
    [
        ([], {"/healthz": 200}, 0),
        ([], {"/healthz": 503}, 1),
        (["--ready"], {"/healthz": 200, "/readyz": 503}, 1),
    ],
)
def test_the_exit_code_is_what_the_worker_answers(
    tmp_path: Path, arguments: list[str], answers: dict[str, int], code: int
) -> None:
    with _worker(answers) as port:
        answer = replicator("health", *arguments, environment=_configured(tmp_path, port))
    assert (answer.code, answer.output, answer.errors) == (code, "as asked\n", "")


def test_where_nothing_answers_it_says_so(tmp_path: Path) -> None:
    with _worker({}) as port:
        pass
    answer = replicator("health", "--json", environment=_configured(tmp_path, port))
    assert answer.code == 69
    assert answer.json["status"] is None
    assert "does not answer" in answer.json["answer"]


def test_a_port_that_is_not_known_is_refused(tmp_path: Path) -> None:
    answer = replicator("health", environment=_configured(tmp_path, 0))
    assert answer.code == 78
    assert "admin.port is 0" in answer.errors
