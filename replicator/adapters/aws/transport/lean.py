"""The hot calls without the stock client: our own bodies, signed and sent as they are, answers as they came.

What it shares with the stock client: its credentials, its endpoint, its trust in certificates and its error classes.
Invariant: whatever an answer means, it means the same as through the stock client; `tests/contract` holds both beside
each other.
"""

from __future__ import annotations

import json
import ssl
import time
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError, SSLError
from botocore.exceptions import ConnectionClosedError as ClosedError
from botocore.parsers import ResponseParserError

from replicator import __version__
from replicator.adapters.aws.transport.connection import Answer, BrokenExchange, ReadTimeout
from replicator.adapters.aws.transport.connections import ConnectionPool, ConnectTimeout, Endpoint
from replicator.adapters.aws.transport.signing import Signer
from replicator.domain.addresses import host_and_port

if TYPE_CHECKING:
    from replicator.adapters.aws.credentials import RenewableCredentials
    from replicator.ports.targets import Fence

_HTTP_ERRORS = 300
_SERVER_ERRORS = 500
_HTML = b"<html>"
_SKEWED = frozenset({"InvalidSignatureException", "RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired"})
_REPEATABLE = frozenset(
    {
        "BatchGetItem",
        "DeleteItem",
        "DescribeStream",
        "GetItem",
        "GetRecords",
        "ListShards",
        "PutItem",
        "Query",
        "Scan",
        "TransactWriteItems",
        "UpdateItem",
    }
)
"""What goes out again when a kept connection was closed: these read, or are conditional in all that we send."""

_NO_ANSWER = (ConnectTimeout, ReadTimeout, BrokenExchange, OSError)
"""Why a call got no answer; what is wrong with a certificate is one of the system's errors, too."""

NOTHING = b"{}"
"""What most writes are answered by."""
CHECKSUMS_OF_NOTHING = (str(zlib.crc32(NOTHING)), None)

Following = Callable[[], tuple[str, bytes] | None]
"""Operation and body of the call that follows one that was answered by nothing; each may be sent twice."""

_LEAST_SKEW_SECONDS = 60.0
"""A clock that is off by less is no reason for a refusal: the service accepts about five minutes."""


class Service(msgspec.Struct, frozen=True):
    """What distinguishes two services on the wire: `target` is the prefix of X-Amz-Target."""

    signing_name: str
    target: str
    content_type: str

    @classmethod
    def of(cls, client: Any) -> Service:
        """The service of a stock client."""
        model = client.meta.service_model
        return cls(
            model.signing_name,
            model.metadata["targetPrefix"],
            f"application/x-amz-json-{model.metadata['jsonVersion']}",
        )


class LeanTransport:
    """Calls of one service in one region, by name and body."""

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        service: Service,
        *,
        url: str,
        region: str,
        credentials: RenewableCredentials,
        connections: int,
        connect_seconds: float,
        read_seconds: float,
        tls: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, "an endpoint has a host"
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        self.url = url
        self._host = parts.netloc.rpartition("@")[2] if parts.port else host_and_port(parts.hostname)
        self._service = service
        self._credentials = credentials
        self._wall = wall
        self._skew = 0.0
        self._signer = Signer(
            service=service.signing_name, region=region, host=self._host, content_type=service.content_type
        )
        self._pool = ConnectionPool(
            Endpoint(parts.hostname, port, tls if secure else None),
            connections=connections,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
        )
        self._head = (
            f"POST / HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {service.content_type}\r\n"
            f"User-Agent: replicator/{__version__}\r\nAccept-Encoding: identity\r\n"
        ).encode("latin-1")

    def request(self, operation: str, body: bytes, credentials: Any, now: float) -> bytes:
        """A request as it is sent at a time of the service's clock, in seconds since 1970."""
        signed = self._signer.headers(credentials, f"{self._service.target}.{operation}", body, now)
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, signed, len(body), body)

    async def send(  # noqa: PLR0913 - a call, how it may be sent, and every way in which it fails
        self,
        operation: str,
        body: bytes,
        fence: Fence | None,
        credentials: Any,
        *,
        repeatable: bool = True,
        following: Following | None = None,
    ) -> Answer:
        """Send a call; an answer that is no error. Errors are those of the stock client.

        The fence is asked right before the bytes go out, again when they go out a second time, which only what is
        `repeatable` may. Behind the usual answer goes what `following` gives, with the same credentials, for a second
        at most; then answer and errors are those of the last call that it gave.
        """
        if following is not None:
            return await self._send_each(operation, body, fence, credentials, following)
        repeatable = repeatable and operation in _REPEATABLE
        pool = self._pool
        connection = pool.begin()
        try:
            if connection is not None:
                try:
                    answer = await pool.asked(connection, self._prepared(operation, body, fence, credentials))
                except BaseException as error:
                    pool.failed(connection)
                    if not (repeatable and isinstance(error, BrokenExchange) and error.unanswered):
                        raise
                    connection = None
                else:
                    pool.ended(connection)
            if connection is None:
                prepare = partial(self._prepared, operation, body, fence, credentials)
                answer = await pool.exchange(prepare, repeatable=repeatable)
        except _NO_ANSWER as error:
            raise self._as_of_the_stock_client(error) from error
        if answer.status < _HTTP_ERRORS:
            self._credentials.accepted()
            return answer
        raise self._error(operation, answer)

    async def _send_each(
        self, operation: str, body: bytes, fence: Fence | None, credentials: Any, following: Following
    ) -> Answer:
        def prepare() -> bytes:
            return self._prepared(operation, body, fence, credentials)

        def proceed(answer: Answer) -> bytes | None:
            nonlocal operation, body
            call = following() if answer.checksum in CHECKSUMS_OF_NOTHING else None
            if call is None:
                return None
            operation, body = call
            return self._prepared(operation, body, fence, credentials)

        try:
            answer = await self._pool.exchange(prepare, repeatable=operation in _REPEATABLE, following=proceed)
        except _NO_ANSWER as error:
            raise self._as_of_the_stock_client(error) from error
        if answer.status < _HTTP_ERRORS:
            self._credentials.accepted()
            return answer
        raise self._error(operation, answer)

    def _prepared(self, operation: str, body: bytes, fence: Fence | None, credentials: Any) -> bytes:
        if fence is not None:
            fence.check()
        return self.request(operation, body, credentials, self._wall() + self._skew)

    def _as_of_the_stock_client(self, error: Exception) -> Exception:
        """What kept a call from its answer, as the stock client raises it."""
        match error:
            case ConnectTimeout():
                return ConnectTimeoutError(endpoint_url=self.url, error=error)
            case ReadTimeout():
                return ReadTimeoutError(endpoint_url=self.url, error=error)
            case BrokenExchange():
                return ClosedError(endpoint_url=self.url, error=error)
            case ssl.SSLError():
                return SSLError(endpoint_url=self.url, error=error)
            case _:
                return EndpointConnectionError(endpoint_url=self.url, error=error)

    def _error(self, operation: str, answer: Answer) -> ServiceError:
        code, message = error_of(answer)
        self._credentials.answered({"Error": {"Code": code}})
        if code in _SKEWED and answer.date is not None:
            self._correct(answer.date)
        return ServiceError(code, message, operation, answer)

    def _correct(self, date: str) -> None:
        """Take the service's clock for the right one, when it refused a signature because of the time."""
        try:
            skew = parsedate_to_datetime(date).timestamp() - self._wall()
        except (TypeError, ValueError):
            return
        if abs(skew - self._skew) >= _LEAST_SKEW_SECONDS:
            self._skew = skew

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class ServiceError(ClientError):
    """An answer that is an error, as the stock client raises it, with the answer itself."""

    def __init__(self, code: str, message: str, operation: str, answer: Answer) -> None:
        super().__init__(
            {
                "Error": {"Code": code, "Message": message},
                "ResponseMetadata": {
                    "HTTPStatusCode": answer.status,
                    "HTTPHeaders": {},
                    "RequestId": "",
                    "HostId": "",
                    "RetryAttempts": 0,
                },
            },
            operation,
        )
        self.answer = answer


def error_of(answer: Answer) -> tuple[str, str]:
    """Code and message of an answer that is an error; the status stands for the code when the body names none.

    Raises `ResponseParserError` when the answer cannot be a service's.
    """
    body = answer.body.strip()
    if answer.status >= _SERVER_ERRORS and (not body or body.startswith(_HTML)):
        return str(answer.status), responses.get(answer.status, "")
    document = _document(answer.body)
    code = document.get("__type", str(answer.status)) if isinstance(document, dict) else 0
    if code is None:
        code = ""
    if not isinstance(code, str):
        raise ResponseParserError(f"an answer with status {answer.status} is not one of this service")
    message = document.get("message", document.get("Message", ""))
    return code.partition(":")[0].rpartition("#")[2], str(message)


def _document(body: bytes) -> Any:
    """A body as the stock client understands it: as JSON, else as the message; None when it is not even text."""
    try:
        return msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, ValueError):
        pass  # what is not strictly JSON may be what the other parser takes for it
    try:
        text = body.decode()
    except ValueError:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return {"message": text}
