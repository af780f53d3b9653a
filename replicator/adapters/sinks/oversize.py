"""A bucket of S3 for the data of events that are longer than their sinks take.

Invariant: an object's name follows from the event's, so an event that is sent again is stored again under the same name
and nothing else ever is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.domain.errors import AccessRefused, ReplicatorError, SinkMissing, Throttled
from replicator.domain.item_events import ItemEvent

_AT_ONCE = 4
_BY_CODE: Mapping[str, type[ReplicatorError]] = {
    **dict.fromkeys(("NoSuchBucket", "404", "PermanentRedirect", "301", "InvalidBucketName"), SinkMissing),
    **dict.fromkeys(("403", "AllAccessDisabled", "KMS.DisabledException"), AccessRefused),
    **dict.fromkeys(("SlowDown", "503", "ServiceUnavailable"), Throttled),
}


class BucketOfData:
    """One bucket, and what the names of objects in it begin with."""

    def __init__(self, client: Any, bucket: str, folder: str, above: int | None) -> None:
        self.above = above
        self.shown = f"s3://{bucket}/{folder}"
        self._client = client
        self._bucket = bucket
        self._folder = folder
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def store(self, event: ItemEvent) -> ItemEvent:
        """Store an event's data; the event with a reference to it."""
        name = f"{self._folder}{event.digest}.json"
        async with self._turns:
            try:
                await self._client.put_object(
                    Bucket=self._bucket, Key=name, Body=bytes(event.data), ContentType="application/json"
                )
            except CLIENT_ERRORS as error:
                raise self._translated(error, f"PutObject to {self.shown}") from error
        return event.stored_at(f"s3://{self._bucket}/{name}")

    async def look(self) -> None:
        """Raise why there is no such bucket; nothing is written."""
        try:
            await self._client.head_bucket(Bucket=self._bucket)
        except CLIENT_ERRORS as error:
            raise self._translated(error, f"HeadBucket of {self.shown}") from error

    @staticmethod
    def _translated(error: Exception, what: str) -> ReplicatorError:
        made = translate(error, what)
        kind = _BY_CODE.get(error_code(error)) if isinstance(error, ClientError) else None
        return made if kind is None else kind(made.message)
