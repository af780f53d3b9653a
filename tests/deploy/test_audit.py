"""The audit finds what is planted: secrets in files, and a known weakness of something that is pinned."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("detect_secrets", reason="only `make audit` has what looks for secrets")
pytest.importorskip("pip_audit", reason="only `make audit` has what asks for advisories")

from tests.deploy import auditing as audit  # noqa: E402 - needs what may be missing

PLANTED = {
    "AWS Access Key": "key = " + "AKIA" + "Q3EGRJX7VN5LWZTB",
    "Private Key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "Basic Auth Credentials": "url: redis" + "://default:" + "hunter2hunter2@cache.example.com:6379/0",
    "GitHub Token": "ghp_" + "8sXq2Lr5Vb1Nw7Tz4Kc9Yd3Fh6Jm0PaEuRgO",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_is_found_where_it_stands_and_not_repeated(tmp_path: Path, kind: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "values.yaml").write_text(f"# nothing here\n{PLANTED[kind]}\n")
    subprocess.run(["git", "add", "values.yaml"], cwd=tmp_path, check=True)
    assert audit.secrets(tmp_path, audit.tracked(tmp_path)) == [("values.yaml:2", kind)]


@contextmanager
def _service(weak: str) -> Iterator[str]:
    """An advisory service that knows of one weakness."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = asked["package"]["name"]
            known: dict[str, Any] = {"vulns": [_advisory(weak)]} if package == weak else {}
            body = json.dumps(known).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def _advisory(package: str) -> dict[str, Any]:
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [fixed]}
    return {"id": "PYSEC-2099-1", "summary": "x", "details": "x", "aliases": [], "affected": [affected]}


def test_a_known_weakness_of_what_is_pinned_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pinned = audit.pins(ROOT / "requirements")
    with _service("jmespath") as url:
        (found,) = audit.advisories(pinned, [("osv", url)])
    assert found.startswith("jmespath ")
    assert "PYSEC-2099-1, mended in 999.0" in found
    assert f"{len(pinned)} packages: {url} was asked for advisories" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "code"), [([], 1), (["--tolerate-advisories"], 0)])
def test_an_advisory_fails_the_audit_unless_it_is_tolerated(
    monkeypatch: pytest.MonkeyPatch, option: list[str], code: int
) -> None:
    monkeypatch.setattr(audit, "tracked", lambda _: [])
    monkeypatch.setattr(audit, "pins", lambda _: ["jmespath==1.0.1", "packaging==25.0"])
    with _service("jmespath") as url:
        monkeypatch.setattr(sys, "argv", ["auditing", "--only-osv", "--osv-url", url, *option])
        assert audit.main() == code


def test_a_service_that_does_not_answer_fails_nothing_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "http://127.0.0.1:9/v1/query"
    assert audit.advisories(["jmespath==1.0"], [("osv", nowhere)]) == []
    assert f"not looked at, because none of {nowhere} answers" in capsys.readouterr().out
