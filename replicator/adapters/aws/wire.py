"""The hot path: request bodies that we write ourselves, answers that we parse ourselves.

The stock client keeps endpoints, signing, connections and errors; three of its public events replace serialisation and
parsing, so item images pass as untouched bytes. The fence is checked in the last event before a request is sent.
"""

from __future__ import annotations

import zlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, is_object, translate
from replicator.domain.errors import ReplicatorError, Unreachable

if TYPE_CHECKING:
    from replicator.ports.targets import Fence

_HTTP_ERRORS = 300


@dataclass(slots=True)
class _Exchange:
    body: bytes
    fence: Fence | None
    answer: bytes = b""
    checksum: str | None = None


_exchange: ContextVar[_Exchange | None] = ContextVar("replicator_exchange", default=None)


class Refusal(Exception):
    """A conditional write was refused; `body` is the service's answer."""

    def __init__(self, code: str, body: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.body = body


CONDITION_FAILED = "ConditionalCheckFailedException"
TRANSACTION_CANCELLED = "TransactionCanceledException"


def prepare(client: Any) -> None:
    """Let a client's calls carry bodies of ours (`call`); other calls through it stay as they are."""
    service = client.meta.service_model.service_id.hyphenize()
    events = client.meta.events
    events.register(f"before-call.{service}", _write_body, unique_id="replicator-body")
    events.register(f"before-send.{service}", _check_fence, unique_id="replicator-fence")
    events.register(f"before-parse.{service}", _take_answer, unique_id="replicator-answer")


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
        exchange.answer = response_dict["body"]
        exchange.checksum = response_dict["headers"].get("x-amz-crc32")
        if response_dict["status_code"] < _HTTP_ERRORS:
            response_dict["body"] = b"{}"


async def call(operation: Any, body: bytes, fence: Fence | None, what: str, **hints: str) -> bytes:
    """Send `body` through a client's method, for example `client.put_item`; returns the answer's body.

    `hints` are parameters that the client needs to find its endpoint. Raises `Refusal` for a failed condition and a
    translated error for everything else; `LeaseLost` before the send when the fence is down. What is not a JSON object,
    or not the one that was sent, is no answer: a proxy before the service may answer 200.
    """
    exchange = _Exchange(body, fence)
    token = _exchange.set(exchange)
    try:
        await operation(**hints)
    except ReplicatorError:
        raise
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in {CONDITION_FAILED, TRANSACTION_CANCELLED}:
            _verify(exchange, what)
            raise Refusal(code, exchange.answer) from error
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    finally:
        _exchange.reset(token)
    _verify(exchange, what)
    return exchange.answer


def _verify(exchange: _Exchange, what: str) -> None:
    if not is_object(exchange.answer):
        raise Unreachable(f"{what} was answered by something that is not DynamoDB.")
    if exchange.checksum is not None and exchange.checksum != str(zlib.crc32(exchange.answer)):
        raise Unreachable(f"{what} got an answer that was damaged on its way: its checksum differs.")


_Answer = TypeVar("_Answer")


def decoded(decoder: msgspec.json.Decoder[_Answer], body: bytes, what: str) -> _Answer:
    """An answer as what it should be; `Unreachable` when it is something else."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise Unreachable(f"{what} got an answer that is not DynamoDB's ({error}).") from error


# -- GetRecords ----------------------------------------------------------------------------------------------------


# -- DescribeStream ------------------------------------------------------------------------------------------------
