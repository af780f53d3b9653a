"""A queue, topic, bus or stream of AWS as a sink.

Invariant: an event counts as taken only when the service named it as taken. A call that is refused as a whole because
of one of its entries is made again entry by entry, so a refusal meets its own event alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, translate
from replicator.adapters.sinks.aws_looks import LOOKS, Look
from replicator.adapters.sinks.aws_services import Failure, Service
from replicator.adapters.sinks.encoding import Batch, Encoded
from replicator.adapters.sinks.oversize import BucketOfData
from replicator.domain.errors import (
    AccessRefused,
    PoisonRecord,
    ReplicatorError,
    SinkMissing,
    TableMissing,
    Throttled,
    Unreachable,
)
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.ports.targets import Fence

_ADVICE: Mapping[type[ReplicatorError], str] = {
    AccessRefused: "Grant the action named to the identity of the sink's region, and the key if it is encrypted.",
    Throttled: "Raise the sink's quota or its shards, or lower the load.",
    PoisonRecord: "Correct the item at the source or the sink, then retry the event (`replicator parked retry`).",
}
_BY_CODE: Mapping[str, type[ReplicatorError]] = {
    **dict.fromkeys(
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            "QueueDoesNotExist",
            "NonExistentQueue",
            "NotFound",
            "NotFoundException",
            "ResourceNotFound",
        ),
        SinkMissing,
    ),
    **dict.fromkeys(
        (
            "RequestThrottled",
            "OverLimit",
            "KMSThrottlingException",
            "KMSThrottling",
            "KmsThrottled",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "ThrottledException",
        ),
        Throttled,
    ),
    **dict.fromkeys(("AuthorizationError", "KMSAccessDeniedException", "KMSAccessDenied"), AccessRefused),
    **dict.fromkeys(
        (
            "BatchRequestTooLong",
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "InvalidMessageContents",
            "InvalidParameter",
            "InvalidParameterException",
            "InvalidParameterValue",
            "InvalidArgumentException",
            "InvalidArgument",
            "MalformedDetail",
            "MessageTooLong",
        ),
        PoisonRecord,
    ),
}
"""Codes that other services do not have; the rest is in the table of the adapter for AWS."""


class AwsSink:
    """One place of one service. `name`: as the configuration has it."""

    def __init__(  # noqa: PLR0913, PLR0917 - a composition root fills it once
        self,
        service: Service,
        client: Any,
        name: str,
        shape: EventShape,
        where: str,
        objects: BucketOfData | None = None,
    ) -> None:
        self.shape = shape
        self.objects = objects
        self.most = service.most
        self.at_once = service.at_once
        self._service = service
        self._client = client
        self._name = name
        self._what = f"{service.action} to {where}"
        self._where = where
        self._address: str | None = None

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Send events of different keys; what became of each."""
        service = self._service
        batch = await Batch.of(
            events, fences, service.event_bytes, self._where, ending=service.ending, objects=self.objects
        )
        for part in batch.calls(self._service.call_bytes):
            await self._send(part, batch)
        return batch.answers

    async def _send(self, part: Sequence[Encoded], batch: Batch) -> None:
        part = batch.standing(part)
        if not part:
            return
        try:
            answer = await self._call(part)
        except ReplicatorError as error:
            if isinstance(error, PoisonRecord) and len(part) > 1:
                for each in part:
                    await self._send([each], batch)
            else:
                batch.failed(part, error)
            return
        try:
            failures = self._service.failures(answer, len(part))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            batch.failed(part, Unreachable(f"{self._what} got an answer that is not one of this service."))
            return
        for each, failure in zip(part, failures, strict=True):
            batch.answers[each.place] = None if failure is None else self._error(failure)

    async def _call(self, part: Sequence[Encoded]) -> Mapping[str, Any]:
        try:
            request = self._service.request(await self.address(), part)
            answer: Mapping[str, Any] = await getattr(self._client, self._service.operation)(**request)
        except CLIENT_ERRORS as error:
            raise self._translated(error, self._what) from error
        return answer

    async def address(self) -> str:
        """What requests name it by: a queue's URL is asked for once."""
        if self._address is None:
            if self._service.client == "sqs" and "/" not in self._name:
                try:
                    answer = await self._client.get_queue_url(QueueName=self._name)
                except CLIENT_ERRORS as error:
                    raise self._translated(error, f"GetQueueUrl of {self._where}") from error
                self._address = str(answer["QueueUrl"])
            else:
                self._address = self._name
        return self._address

    async def look(self) -> Look:
        """What the service says about the place; raises why it says nothing, or denies sending."""
        action, ask = LOOKS[self._service.client]
        try:
            found = await ask(self._client, await self.address())
        except CLIENT_ERRORS as error:
            raise self._translated(error, f"{action} of {self._where}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(f"{action} of {self._where} got an answer that is not one of this service.") from error
        try:
            await self._call(())
        except (AccessRefused, SinkMissing):
            raise
        except ReplicatorError:
            return found  # it found the call empty
        return found

    def _translated(self, error: Exception, what: str) -> ReplicatorError:
        made = translate(error, what)
        code = str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
        if isinstance(made, TableMissing):
            made = SinkMissing(made.message)
        elif code in _BY_CODE:
            made = _BY_CODE[code](made.message)
        if isinstance(made, SinkMissing):
            self._address = None
        advice = _ADVICE.get(type(made))
        is_plain = advice is not None and made.advice == type(made).advice
        return type(made)(made.message, advice=advice) if is_plain else made

    def _error(self, failure: Failure) -> ReplicatorError:
        made = self._translated(
            ClientError({"Error": {"Code": failure.code, "Message": failure.reason}}, self._service.action), self._what
        )
        if failure.of_sender and type(made) is Unreachable:
            return PoisonRecord(made.message, advice=_ADVICE[PoisonRecord])
        return made
