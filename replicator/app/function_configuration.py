"""A function's configuration: a file of its package, an object of S3, or parameters of Systems Manager.

Invariant: exactly one place is read, nothing of it is written to a disk, and what keeps it from being read is one
sentence that names the place.
"""

from __future__ import annotations

import os
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from replicator.adapters.aws.errors import CLIENT_ERRORS, error_code, translate
from replicator.domain.errors import AccessRefused, ConfigurationInvalid, ReplicatorError
from replicator.settings import Settings
from replicator.settings.function_places import ObjectPlace, object_place, parameter_names
from replicator.settings.loading import PATH_VARIABLE, PLACE_VARIABLES, configuration_path, load, load_text

LARGEST: Final = 4_000_000
"""Bytes of a configuration; a greater object is another one."""

_OBJECT, _PARAMETERS = PLACE_VARIABLES
_MISSING = {
    "NoSuchKey": "There is no such object.",
    "NoSuchBucket": "There is no such bucket.",
    "NoSuchVersion": "The object has no such version.",
    "404": "There is no such object.",
    "MethodNotAllowed": "The object was deleted in that version.",
    "ParameterNotFound": "There is no such parameter in this region.",
    "ParameterVersionNotFound": "The parameter has no such version or label.",
    "InvalidKeyId": "The key that encrypts the parameter cannot be used.",
}
_GRANTS = {
    _OBJECT: "Grant s3:GetObject on it. Without s3:ListBucket S3 answers the same where there is no object.",
    _PARAMETERS: "Grant ssm:GetParameter on it, and kms:Decrypt on the key of a SecureString.",
}
_SHORT = AioConfig(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
"""A place that does not answer is named before an invocation ends."""


async def configuration() -> Settings:
    """The settings, from the one place that the environment names."""
    named = {name: os.environ[name] for name in (PATH_VARIABLE, *PLACE_VARIABLES) if os.environ.get(name)}
    if len(named) > 1:
        raise ConfigurationInvalid(
            f"The environment names more than one configuration: {' and '.join(named)}.", advice="Keep one of them."
        )
    if _OBJECT in named:
        place = named[_OBJECT]
        return load_text(await _object(object_place(place), place), place)
    if _PARAMETERS in named:
        names = parameter_names(named[_PARAMETERS])
        return load_text(await _joined(names), f"parameter {names[0]}" if len(names) == 1 else "the joined parameters")
    return load(configuration_path(None))


async def _object(place: ObjectPlace, written: str) -> bytes:
    version = {} if place.version is None else {"VersionId": place.version}
    try:
        async with _client("s3") as client:
            answer = await client.get_object(Bucket=place.bucket, Key=place.key, **version)
            if answer["ContentLength"] > LARGEST:
                raise ConfigurationInvalid(
                    f"The object {written} is {answer['ContentLength']} bytes large, so it is no configuration.",
                    advice=f"{_OBJECT} must name a replicator.yaml.",
                )
            async with answer["Body"] as body:
                text: bytes = await body.read()
                return text
    except CLIENT_ERRORS as error:
        raise _translated(error, f"the configuration at {written}", _OBJECT) from error


async def _joined(names: list[str]) -> bytes:
    """The parts one after the other; a part ends with a line, also where its last line end was lost."""
    parts = []
    try:
        async with _client("ssm") as client:
            for name in names:
                answer = await client.get_parameter(Name=name, WithDecryption=True)
                parts.append(f"{answer['Parameter']['Value'].removesuffix(chr(10))}\n")
    except CLIENT_ERRORS as error:
        raise _translated(error, f"the configuration in parameter {name}", _PARAMETERS) from error
    return "".join(parts).encode()


def _client(service: str) -> Any:
    return AioSession().create_client(service, config=_SHORT)  # type: ignore[call-overload]


def _translated(error: Exception, what: str, variable: str) -> ReplicatorError:
    code = error_code(error) if isinstance(error, ClientError) else ""
    if code in _MISSING:
        return ConfigurationInvalid(f"Reading {what} failed: {_MISSING[code]}", advice=f"Correct {variable}.")
    translated = translate(error, f"Reading {what}")
    if isinstance(translated, AccessRefused):
        return AccessRefused(translated.message, advice=_GRANTS[variable])
    return translated
