"""One process of a function: events in, answers out, and what is kept between two of them.

Invariant: nothing is raised for a record. What was not done is answered by the lowest sequence number of it, from
which on the event source mapping sends everything again; where none can be named, the whole batch comes again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import structlog

from replicator.app.event_records import delivered, stream_record
from replicator.app.function import Function
from replicator.app.function_configuration import configuration
from replicator.domain.errors import ConfigurationInvalid, ReplicatorError
from replicator.observability.logs import configure

_READ: Mapping[Any, Callable[[Mapping[str, Any]], Any]] = {"aws:dynamodb": stream_record, "aws:kinesis": delivered}
"""How a record of an event is read, by its source."""

_FAIL = "fail"
_UNKNOWN = "LAMBDA_UNKNOWN"
_WHOLE_BATCH = ""
"""An identifier that names no record lets all of them come again."""


class Process:
    """What one process keeps: a loop, and a function once it could be opened."""

    def __init__(self) -> None:
        configure("info", "json")  # until the configuration says otherwise
        self._stack = ExitStack()
        self._runner: asyncio.Runner | None = None
        self._function: Function | None = None

    def begin(self, seconds: float) -> None:
        """Open the function before the first event, when the runtime gives it more time; what fails is tried again."""
        try:
            self._running().run(self._begin(seconds))
        except ReplicatorError as error:
            _log().warning("not_begun", reason=error.sentence)
        except TimeoutError:
            _log().warning("not_begun", reason=f"A required service did not answer within {seconds:g} s.")
        except Exception:  # noqa: BLE001 - the boundary: an import that fails is retried without an end
            _log().exception("not_begun")

    async def _begin(self, seconds: float) -> None:
        await self._opened(asyncio.get_running_loop().time() + seconds)

    def _running(self) -> asyncio.Runner:
        if self._runner is None:
            self._runner = self._stack.enter_context(asyncio.Runner())
        return self._runner

    def handle(self, event: Mapping[str, Any], milliseconds: int) -> dict[str, list[dict[str, str]]]:
        """Bring an event's records to their targets; the answer of `ReportBatchItemFailures`."""
        failures = self._running().run(self._handle(event, milliseconds / 1000))
        return {"batchItemFailures": [{"itemIdentifier": failed} for failed in failures]}

    def close(self) -> None:
        """Close every client and the loop."""
        if self._runner is not None and self._function is not None:
            self._runner.run(self._function.close())
        self._stack.close()
        self._runner, self._function = None, None

    async def _handle(self, event: Mapping[str, Any], seconds: float) -> list[str]:
        ends_at = asyncio.get_running_loop().time() + seconds
        batches: dict[str, list[Mapping[str, Any]]] = {}
        try:
            for record in event["Records"]:
                batches.setdefault(record["eventSourceARN"], []).append(record)
        except (KeyError, TypeError, AttributeError) as error:
            _log().error("event_refused", reason=f"This is no event of an event source mapping ({error!r}).")
            return [_WHOLE_BATCH]
        return [
            failed
            for arn, records in batches.items()
            if (failed := await self._batch(arn, records, ends_at)) is not None
        ]

    async def _batch(self, arn: str, records: Sequence[Mapping[str, Any]], ends_at: float) -> str | None:
        """The first record of one source that is not done; None when all are."""
        source = records[0].get("eventSource")
        try:
            if source not in _READ:
                raise ConfigurationInvalid(  # noqa: TRY301 - logged as every other error
                    f"Events of {source!r} are not supported.", advice="Map streams of DynamoDB tables, or of Kinesis."
                )
            read = [_READ[source](record) for record in records]
            function = await self._opened(ends_at)
            before = function.unknown.total()
            done = await function.batch(arn, read, ends_at)
            if function.unknown.total() > before and os.environ.get(_UNKNOWN) == _FAIL:
                done = 0
            return None if done == len(read) else read[done].sequence
        except ReplicatorError as error:
            _log().error("batch_refused", source=arn, reason=error.sentence)
        except TimeoutError:
            _log().error("batch_refused", source=arn, reason="The invocation ended before the batch could be begun.")
        except Exception:  # noqa: BLE001 - the boundary: what is raised would say less than the answer
            _log().exception("batch_failed", source=arn)
        return _first(records)

    async def _opened(self, ends_at: float) -> Function:
        if self._function is None:
            async with asyncio.timeout_at(ends_at - 1):
                settings = await configuration()
                configure(settings.log.level, "json")
                self._function = await Function(settings).open()
        return self._function


def _first(records: Sequence[Mapping[str, Any]]) -> str:
    """The first record's sequence number, if it has one."""
    for part, name in (("dynamodb", "SequenceNumber"), ("kinesis", "sequenceNumber")):
        try:
            return str(records[0][part][name])
        except (KeyError, TypeError):
            continue
    return _WHOLE_BATCH


def _log() -> Any:
    return structlog.get_logger("replicator")
