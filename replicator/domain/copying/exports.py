"""A point-in-time export of a table (DynamoDB JSON, gzip, full) as it lies in a bucket: its manifests and its lines.

Source: the layout that DynamoDB documents: `AWSDynamoDB/<id>/manifest-summary.json`, `manifest-files.json` (a JSON
object per line) and data files of lines `{"Item": {...}}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from replicator.domain.errors import MalformedRecord, ReplicatorError
from replicator.domain.image import Image

SUMMARY, FILES = "manifest-summary.json", "manifest-files.json"


class ExportUnusable(ReplicatorError):
    """An export is not there, or is not one that can be copied from."""

    advice = "Name a full export in DynamoDB JSON: s3://bucket/prefix/AWSDynamoDB/ID, or the prefix above it."


class _Summary(msgspec.Struct, rename="camel"):
    table_arn: str
    export_time: str
    output_format: str = "DYNAMODB_JSON"
    export_type: str = "FULL_EXPORT"
    item_count: int = 0


class _File(msgspec.Struct, rename="camel"):
    data_file_s3_key: str


class _Line(msgspec.Struct):
    Item: msgspec.Raw


_SUMMARY = msgspec.json.Decoder(_Summary)
_FILE = msgspec.json.Decoder(_File)
_LINE = msgspec.json.Decoder(_Line)


class Export(msgspec.Struct, frozen=True):
    """A full export: what the table held at a time, in seconds since 1970. `files`: names of its data files."""

    table: str
    at: float
    items: int
    files: tuple[str, ...]


def parse_export(summary: bytes, files: bytes, folder: str) -> Export:
    """An export from its manifests; `folder` is where they lie, and its data files are found below it."""
    try:
        found = _SUMMARY.decode(summary)
        at = datetime.fromisoformat(found.export_time).timestamp()
        listed = [_FILE.decode(line) for line in files.splitlines() if line.strip()]
    except (msgspec.DecodeError, ValueError) as error:
        raise ExportUnusable(f"The manifests in {folder or 'the export'} cannot be read ({error}).") from error
    if found.output_format != "DYNAMODB_JSON" or found.export_type != "FULL_EXPORT":
        raise ExportUnusable(f"The export in {folder} is {found.export_type} in {found.output_format}.")
    names = tuple(f"{folder}data/{each.data_file_s3_key.rpartition('/')[2]}" for each in listed)
    return Export(found.table_arn.rpartition("/")[2], at, found.item_count, names)


def parse_line(line: bytes) -> Image:
    """The item of one line."""
    try:
        image = bytes(_LINE.decode(line).Item)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"A line of an export holds no item ({error}).") from error
    if not image.startswith(b"{"):
        raise MalformedRecord("A line of an export holds no item.")
    return Image(image)


def folders(names: Iterable[str]) -> list[str]:
    """The folders in which an export lies, of some files' names."""
    return sorted(name.removesuffix(SUMMARY) for name in names if name.rpartition("/")[2] == SUMMARY)
