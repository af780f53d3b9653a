"""One process of a function: events in, answers out, and what is kept between two of them.

Invariant: nothing is raised for a record. What was not done is answered by the lowest sequence number of it, from
which on the event source mapping sends everything again; where none can be named, the whole batch comes again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import structlog
from aiobotocore.session import AioSession

from replicator.adapters.aws.errors import CLIENT_ERRORS, translate
from replicator.app.event_records import delivered, stream_record
from replicator.app.function import Function
from replicator.domain.errors import ConfigurationInvalid, ReplicatorError
from replicator.observability.logs import configure
from replicator.settings import Settings
from replicator.settings.loading import PLACE_VARIABLES, configuration_path, load

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
            _log().warning("not_begun", reason=f"What is needed did not answer within {seconds:g} s.")
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


async def configuration() -> Settings:
    """The settings, from S3 or the parameter store if the environment names a place there, else from a file."""
    bucket, parameter = (os.environ.get(name) for name in PLACE_VARIABLES)
    if not bucket and not parameter:
        return load(configuration_path(None))
    text = await (_object(bucket) if bucket else _parameter(str(parameter)))
    path = Path(gettempdir()) / f"replicator-{os.getpid()}.yaml"
    path.write_bytes(text)
    return load(path)


async def _object(url: str) -> bytes:
    bucket, _, name = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not name:
        raise ConfigurationInvalid(f"{PLACE_VARIABLES[0]} is no place.", advice="Write it as s3://bucket/key.")
    try:
        async with AioSession().create_client("s3") as client:
            answer = await client.get_object(Bucket=bucket, Key=name)
            async with answer["Body"] as body:
                text: bytes = await body.read()
                return text
    except CLIENT_ERRORS as error:
        raise translate(error, f"GetObject of {name} in bucket {bucket}") from error


async def _parameter(name: str) -> bytes:
    try:
        async with AioSession().create_client("ssm") as client:
            answer = await client.get_parameter(Name=name, WithDecryption=True)
            return str(answer["Parameter"]["Value"]).encode()
    except CLIENT_ERRORS as error:
        raise translate(error, f"GetParameter of {name}") from error
