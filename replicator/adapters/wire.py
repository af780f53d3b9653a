"""The hot path: request bodies that we write ourselves, answers that we parse ourselves.

The stock client keeps endpoints, signing, connections and errors; three of its public events replace serialisation and
parsing, so item images pass as untouched bytes. The fence is checked in the last event before a request is sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from replicator.adapters.aws import CLIENT_ERRORS, translate
from replicator.domain.errors import MalformedRecord, ReplicatorError
from replicator.domain.records import ChangeRecord, change_record
from replicator.ports import RecordPage

if TYPE_CHECKING:
    from replicator.ports import Fence

_HTTP_ERRORS = 300
_TTL_PRINCIPAL = "dynamodb.amazonaws.com"


@dataclass(slots=True)
class _Exchange:
    body: bytes
    fence: Fence | None
    answer: bytes = b""


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
        if response_dict["status_code"] < _HTTP_ERRORS:
            response_dict["body"] = b"{}"


async def call(operation: Any, body: bytes, fence: Fence | None, what: str, **hints: str) -> bytes:
    """Send `body` through a client's method, for example `client.put_item`; returns the answer's body.

    `hints` are parameters that the client needs to find its endpoint. Raises `Refusal` for a failed condition and a
    translated error for everything else; `LeaseLost` before the send when the fence is down.
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
            raise Refusal(code, exchange.answer) from error
        raise translate(error, what) from error
    except CLIENT_ERRORS as error:
        raise translate(error, what) from error
    finally:
        _exchange.reset(token)
    return exchange.answer


# -- GetRecords ----------------------------------------------------------------------------------------------------


class _Identity(msgspec.Struct):
    """Who made a change. The service's model and its documentation spell the names differently; both are read."""

    PrincipalId: str = ""
    principalId: str = ""  # noqa: N815 - the wire's name


class _Change(msgspec.Struct):
    Keys: msgspec.Raw
    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    NewImage: msgspec.Raw = msgspec.Raw()
    OldImage: msgspec.Raw = msgspec.Raw()


class _Record(msgspec.Struct):
    eventName: str  # noqa: N815 - the wire's name
    dynamodb: _Change
    userIdentity: _Identity | None = None  # noqa: N815 - the wire's name


class _Records(msgspec.Struct):
    Records: list[_Record] = []
    NextShardIterator: str | None = None


_RECORDS = msgspec.json.Decoder(_Records)


def parse_records(body: bytes) -> RecordPage:
    """A GetRecords answer as records with opaque images; `MalformedRecord` when it is not one."""
    try:
        answer = _RECORDS.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"A GetRecords answer is not what DynamoDB Streams sends ({error}).") from error
    return RecordPage(tuple(_record(record) for record in answer.Records), answer.NextShardIterator or None)


def _record(record: _Record) -> ChangeRecord:
    change, identity = record.dynamodb, record.userIdentity
    return change_record(
        event=record.eventName,
        key=bytes(change.Keys),
        old=bytes(change.OldImage) or None,
        new=bytes(change.NewImage) or None,
        sequence=change.SequenceNumber,
        created_at=change.ApproximateCreationDateTime,
        by_ttl=identity is not None and _TTL_PRINCIPAL in (identity.PrincipalId, identity.principalId),
    )
