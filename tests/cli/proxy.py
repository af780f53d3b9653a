"""An endpoint that refuses some operations as IAM does, and passes everything else on; also useful by hand:

python tests/cli/proxy.py --upstream http://127.0.0.1:4566 --port 4567 --deny PutItem --deny DeleteItem
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time

WRITES = ("PutItem", "DeleteItem", "UpdateItem", "TransactWriteItems")
PATH = ":path"
"""Where what is called after a request finds its path, among its headers."""

_KEPT = {"Authorization", "Content-Type", "X-Amz-Target", "X-Amz-Date"}


class _Handler(BaseHTTPRequestHandler):
    server: DenyingServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._pass(body, self.headers.get("X-Amz-Target", "").rpartition(".")[2] or "GetCallerIdentity")

    def do_GET(self) -> None:
        """As S3 is asked for an object, or for a list of them."""
        self._pass(None, "ListBucket" if "list-type=" in self.path else "GetObject")

    def do_HEAD(self) -> None:
        """As S3 is asked whether there is a bucket, which is granted like a list of it."""
        self._pass(None, "ListBucket")

    def do_PUT(self) -> None:
        """As S3 is given an object."""
        self._pass(self.rfile.read(int(self.headers.get("Content-Length", 0))), "PutObject")

    def _pass(self, body: bytes | None, operation: str) -> None:
        if self.server.before is not None:
            self.server.before(operation)
        if operation in self.server.denied:
            self._answer(*((self.server.status, self.server.page) if self.server.page else _refusal(operation)))
            return
        headers = {name: value for name, value in self.headers.items() if name.title() in _KEPT}
        request = urllib.request.Request(
            self.server.upstream + self.path, data=body, headers=headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, answered = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, answered = error.code, error.read()
        if self.server.after is not None:
            self.server.after({**headers, PATH: self.path}, body or b"", answered)
        self._answer(status, answered)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.server.ahead_seconds, usegmt=True))
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the server uses
        """Say nothing."""


def _refusal(operation: str) -> tuple[int, bytes]:
    """Status and body of a refusal, as DynamoDB and STS write it."""
    message = f"User: arn:aws:iam::000000000000:user/test is not authorized to perform: {operation}"
    if operation in {"GetCallerIdentity", "GetObject", "PutObject", "ListBucket"}:
        error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message></Error>"
        return 403, f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>".encode()
    text = {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": message}
    return 400, json.dumps(text).encode()


class DenyingServer(ThreadingHTTPServer):
    """The endpoint. `ahead_seconds`: its clock is wrong; `page`, `status`: what it says instead of refusing."""

    daemon_threads = True

    def __init__(self, upstream: str, port: int, denied: Collection[str]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = upstream
        self.denied = frozenset(denied)
        self.ahead_seconds = 0.0
        self.page = b""
        self.before: Callable[[str], None] | None = None
        self.after: Callable[[Mapping[str, str], bytes, bytes], None] | None = None  # headers, body, answer
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def watched(upstream: str, before: Callable[[str], None]) -> Iterator[str]:
    """Serve in a thread; `before` is called with the name of each operation, before it is passed on."""
    with denying(upstream, before=before) as url:
        yield url


@contextmanager
def denying(
    upstream: str,
    *denied: str,
    ahead_seconds: float = 0.0,
    page: bytes = b"",
    status: int = 200,
    before: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Serve in a thread; yields the endpoint."""
    with serving(upstream, *denied) as server:
        server.ahead_seconds, server.page, server.status, server.before = ahead_seconds, page, status, before
        yield server.url


@contextmanager
def serving(upstream: str, *denied: str) -> Iterator[DenyingServer]:
    """Serve in a thread; yields the server, whose behaviour may be changed at any time."""
    with DenyingServer(upstream, 0, denied) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--deny", action="append", default=[])
    options = parser.parse_args()
    with DenyingServer(options.upstream, options.port, options.deny or WRITES) as server:
        print(server.url, flush=True)  # noqa: T201 - where it is started by hand
        server.serve_forever()
