"""The hot path: request bodies that we write ourselves, answers that we parse ourselves.

Item images pass as untouched bytes. Through the stock client, three of its public events replace serialisation and
parsing, and the fence is checked in the last event before a request is sent; without it, `transport` does the same.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from botocore import xform_name
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, is_object, translate
from replicator.adapters.aws.transport.choice import Choice
from replicator.adapters.aws.transport.connection import Answer
from replicator.adapters.aws.transport.lean import CHECKSUMS_OF_NOTHING, NOTHING, Following, ServiceError
from replicator.domain.errors import ReplicatorError, Unreachable

if TYPE_CHECKING:
    from replicator.adapters.aws.transport.lean import LeanTransport
    from replicator.ports.targets import Fence

_HTTP_ERRORS = 300


class _Exchange(msgspec.Struct):
    """A call through the stock client: what its events need, and what came."""

    body: bytes
    fence: Fence | None
    answer: Answer = msgspec.field(default_factory=lambda: Answer(0, b""))


_exchange: ContextVar[_Exchange | None] = ContextVar("replicator_exchange", default=None)


class Refusal(Exception):
    """A conditional write was refused; `body` is the service's answer."""

    def __init__(self, code: str, body: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.body = body


CONDITION_FAILED = "ConditionalCheckFailedException"
TRANSACTION_CANCELLED = "TransactionCanceledException"
_REFUSALS = frozenset({CONDITION_FAILED, TRANSACTION_CANCELLED})

Opener = Callable[[Any], Awaitable[Choice]]
"""What makes the transport that takes the place of a client."""


class Wire:
    """Calls of one client with bodies of ours; its other calls stay as they are.

    With an opener they go without the client where that is the same (`adapters/aws/transport`); what that depends on
    is judged at the first call, and again when the credentials are of another account.
    """

    def __init__(self, client: Any, opener: Opener | None = None, credentials: Any = None) -> None:
        self._client = client
        self._opener = opener
        self._credentials = credentials
        self._choice: Choice | None = None
        self._account: str | None = None
        self._turn = asyncio.Lock()
        service = client.meta.service_model.service_id.hyphenize()
        events = client.meta.events
        events.register(f"before-call.{service}", _write_body, unique_id="replicator-body")
        events.register(f"before-send.{service}", _check_fence, unique_id="replicator-fence")
        events.register(f"before-parse.{service}", _take_answer, unique_id="replicator-answer")

    async def call(
        self,
        operation: str,
        body: bytes,
        fence: Fence | None,
        what: str | Callable[[], str],
        *,
        following: Following | None = None,
        **hints: object,
    ) -> Answer:
        """Send `body` as an operation, for example `PutItem`.

        `hints` are parameters that the client needs to find its endpoint. Raises `Refusal` for a failed condition and a
        translated error for everything else; `LeaseLost` before the send when the fence is down. What is not a JSON
        object, or not the one that was sent, is no answer: a proxy before the service may answer 200.

        `following` may be asked, where a call was answered by `{}`, for the one that goes out right behind it, on the
        same connection. It need not be asked, and then its calls are still the caller's to send; answer and errors are
        those of the last one that it gave, which `what` names, when there is something to be said of it.
        """
        exchange: _Exchange | None = None
        try:
            choice, credentials = self._choice, None if self._opener is None else self._credentials.at_hand()
            if choice is not None and credentials is not None and credentials.account_id == self._account:
                transport = choice.transport
            else:
                transport, credentials = await self.transport()
            if transport is not None:
                answer = await transport.send(operation, body, fence, credentials, following=following)
            else:
                exchange = _Exchange(body, fence)
                await self._send_by_client(operation, exchange, hints)
                answer = exchange.answer
        except ReplicatorError:
            raise
        except ClientError as error:
            code = error_code(error)
            if code not in _REFUSALS:
                raise translate(error, _named(what)) from error
            answer = _answer_of(error, exchange)
            verified(answer, _named(what))
            raise Refusal(code, answer.body) from error
        except CLIENT_ERRORS as error:
            raise translate(error, _named(what)) from error
        if not is_nothing(answer):
            verified(answer, _named(what))
        return answer

    async def transport(self) -> tuple[LeanTransport | None, Any]:
        """What calls go by without the client, with the credentials to sign them; None when they are the client's."""
        if self._opener is None:
            return None, None
        credentials = self._credentials.at_hand() or await self._credentials.get_frozen_credentials()
        if self._choice is None or credentials.account_id != self._account:
            await self._choose(self._opener, credentials.account_id)
        return None if self._choice is None else self._choice.transport, credentials

    async def _send_by_client(self, operation: str, exchange: _Exchange, hints: Mapping[str, object]) -> None:
        token = _exchange.set(exchange)
        try:
            await getattr(self._client, xform_name(operation))(**hints)
        finally:
            _exchange.reset(token)

    async def _choose(self, opener: Opener, account: str | None) -> None:
        async with self._turn:
            if self._choice is None or account != self._account:
                former, self._choice, self._account = self._choice, await opener(self._client), account
                if former is not None and former.transport is not None:
                    former.transport.close()

    def close(self) -> None:
        """Close what is open beside the client."""
        if self._choice is not None and self._choice.transport is not None:
            self._choice.transport.close()


def _write_body(params: dict[str, Any], **_: object) -> None:
    exchange = _exchange.get()
    if exchange is not None:
        params["body"] = exchange.body


def _check_fence(**_: object) -> None:
    exchange = _exchange.get()
    if exchange is not None and exchange.fence is not None:
        exchange.fence.check()


def _take_answer(response_dict: dict[str, Any], **_: object) -> None:
    exchange = _exchange.get()
    if exchange is not None:
        status, headers = response_dict["status_code"], response_dict["headers"]
        exchange.answer = Answer(status, response_dict["body"], headers.get("x-amz-crc32"), headers.get("date"))
        if status < _HTTP_ERRORS:
            response_dict["body"] = b"{}"


def _answer_of(error: ClientError, exchange: _Exchange | None) -> Answer:
    if isinstance(error, ServiceError):
        return error.answer
    assert exchange is not None, "it came through the client"
    return exchange.answer


def _named(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()


def is_nothing(answer: Answer) -> bool:
    """Whether an answer is what most writes are answered by, as it was sent."""
    return answer.body == NOTHING and answer.checksum in CHECKSUMS_OF_NOTHING


def verified(answer: Answer, what: str) -> None:
    """Raise `Unreachable` for what is no answer of a service, or not the one that was sent."""
    body = answer.body
    if is_nothing(answer):
        return
    if not is_object(body):
        raise Unreachable(f"{what} was answered by something that is not DynamoDB.")
    if answer.checksum is not None and answer.checksum != str(zlib.crc32(body)):
        raise Unreachable(f"{what} got an answer that was damaged on its way: its checksum differs.")


_Answer = TypeVar("_Answer")


def decoded(decoder: msgspec.json.Decoder[_Answer], body: bytes, what: str) -> _Answer:
    """An answer as what it should be; `Unreachable` when it is something else."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreachable(f"{what} got an answer that is not DynamoDB's ({error}).") from error
