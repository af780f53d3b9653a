"""Where a function's configuration is, beside a file: how it is written."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.domain.errors import ConfigurationInvalid

_VERSION = "?versionId="


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """An object of S3, in one version if it names one."""

    bucket: str
    key: str
    version: str | None = None


def object_place(url: str) -> ObjectPlace:
    """`s3://bucket/key`, and `?versionId=...` behind it for one version."""
    bucket, _, rest = url.removeprefix("s3://").partition("/")
    name, marked, version = rest.rpartition(_VERSION)
    name = name if marked else rest
    if not url.startswith("s3://") or not bucket or not name or (marked and not version):
        raise ConfigurationInvalid(
            f"{url!r} is no object of S3.", advice=f"Write it as s3://bucket/key, or s3://bucket/key{_VERSION}VERSION."
        )
    return ObjectPlace(bucket, name, version if marked else None)


def parameter_names(listed: str) -> list[str]:
    """Names of parameters, or their ARNs, separated by commas; each may have a version or label behind a colon."""
    names = [name.strip() for name in listed.split(",")]
    if not all(names) or any(" " in name for name in names):
        raise ConfigurationInvalid(
            f"{listed!r} names no parameters.", advice="Write NAME, or NAME,NAME for a configuration in parts."
        )
    return names
