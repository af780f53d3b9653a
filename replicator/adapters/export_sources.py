"""Where an export lies: in a bucket of S3, or in a directory that it was copied to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from replicator.adapters.aws.objects import BucketExport
from replicator.adapters.files.exports import FolderExport

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.ports.exports import ExportFiles

_SCHEME = "s3://"


def export_files(where: str, place: Place) -> tuple[ExportFiles, str]:
    """The files of an export and the folder to look in, by where it lies: `s3://bucket/prefix`, or a directory."""
    if not where.startswith(_SCHEME):
        return FolderExport(Path(where)), ""
    bucket, _, prefix = where.removeprefix(_SCHEME).partition("/")
    return BucketExport(place.s3, bucket), f"{prefix.rstrip('/')}/" if prefix else ""
