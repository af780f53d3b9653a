"""An export in a bucket of S3, read by the identity of the region whose table was exported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.domain.copying.exports import ExportUnusable

_CHUNK_BYTES = 256 * 1024
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "404"})


class BucketExport:
    """The objects of one bucket; names are their keys."""

    def __init__(self, client: Callable[[], Any], bucket: str) -> None:
        """`client` opens a client of S3, as an async context manager."""
        self._client = client
        self._bucket = bucket

    async def names(self, under: str) -> list[str]:
        """Keys that begin so, sorted."""
        found: list[str] = []
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": under}
        try:
            async with self._client() as client:
                while True:
                    answer = await client.list_objects_v2(**request)
                    found += [each["Key"] for each in answer.get("Contents", [])]
                    if not answer.get("IsTruncated"):
                        return sorted(found)
                    request["ContinuationToken"] = answer["NextContinuationToken"]
        except CLIENT_ERRORS as error:
            raise self._translated("ListObjectsV2", under, error) from error

    async def read(self, name: str) -> bytes:
        """A small object."""
        return b"".join([chunk async for chunk in self.chunks(name)])

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        """A large object, piece by piece."""
        try:
            async with self._client() as client:
                answer = await client.get_object(Bucket=self._bucket, Key=name)
                async with answer["Body"] as body:
                    while chunk := await body.read(_CHUNK_BYTES):
                        yield chunk
        except CLIENT_ERRORS as error:
            raise self._translated("GetObject", name, error) from error

    def _translated(self, operation: str, name: str, error: Exception) -> Exception:
        if isinstance(error, ClientError) and error_code(error) in _MISSING:
            return ExportUnusable(f"There is no object {name} in bucket {self._bucket}.")
        return translate(error, f"{operation} of {name} in bucket {self._bucket}")
