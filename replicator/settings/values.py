"""Values that configuration keys take: durations and names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from replicator.domain.cache_urls import cluster_url, sentinel_url

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"
_NO_DURATION = "is not a duration; write for example 250ms, 10s, 5m, 1h or 7d"
_LONGEST = timedelta(days=3650)
_TOO_LONG, _TOO_SHORT = "must be at most ten years (3650d)", "must be longer than zero"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _duration(value: object) -> object:
    """`250ms`, `10s`, `1h30m`, `7d`, or a number of seconds."""
    if isinstance(value, str):
        text = value.replace(" ", "")
        if not text.isascii():
            raise ValueError(_NO_DURATION)
        if text and not _DURATION.sub("", text):
            return _seconds(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))
        try:
            seconds = float(text)
        except ValueError:
            raise ValueError(_NO_DURATION) from None
        return _seconds(seconds)
    if isinstance(value, bool):
        raise ValueError(_NO_DURATION)  # noqa: TRY004 - pydantic takes this one for a problem of the value
    return _seconds(value) if isinstance(value, int | float) else value


def _seconds(value: float) -> timedelta:
    if value != value:  # noqa: PLR0124 - only NaN differs from itself
        raise ValueError(_NO_DURATION)
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise ValueError(_TOO_LONG if value > 0 else _TOO_SHORT) from None


def _bounded(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError(_TOO_SHORT)
    if value > _LONGEST:
        raise ValueError(_TOO_LONG)
    return value


def format_duration(value: timedelta) -> str:
    """A duration as the configuration writes it: `250ms`, `10s`, `1h`, `7d`."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_bounded),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": _DURATION_PATTERN}, {"type": "number", "exclusiveMinimum": 0}]}
    ),
]


def no_truth(value: object) -> object:
    """What is no number to a reader is none here: the validator itself would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic takes this one for a problem of the value
    return value


Integer = Annotated[int, BeforeValidator(no_truth)]
Number = Annotated[float, BeforeValidator(no_truth)]

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)(B|kB|KB|KiB|MB|MiB|GB|GiB)$", re.ASCII)
_NO_SIZE = "is not a size; write for example 64MiB, 256MiB or 1GiB, or a number of bytes"
_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def _size(value: object) -> object:
    """`256MiB`, `1GB`, or a number of bytes."""
    if isinstance(value, str):
        text = value.replace(" ", "")
        if text.isascii() and text.isdecimal():
            return int(text)
        match = _SIZE.match(text)
        if match is None:
            raise ValueError(_NO_SIZE)
        return int(float(match[1]) * _BYTES[match[2]])
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(_NO_SIZE)  # noqa: TRY004 - pydantic takes this one for a problem of the value
    return value


def format_size(value: int) -> str:
    """A size as the configuration writes it: `256MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return f"{value}B"


ByteSize = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SIZE.pattern}, {"type": "integer", "minimum": 1}]}),
]
_CACHE_OPTIONS = (
    "client_name",
    "db",
    "health_check_interval",
    "socket_keepalive",
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)


_AUTHORITY_ENDS = re.compile(r"[/?]")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE_IT = (
    "must not hold / ? # or @ behind the host, nor a % that escapes nothing: in user, password and options write them"
    " as %2F %3F %23 %40 %25, or use the keys username and password"
)


def _cache_url(url: str) -> str:
    """A cache's URL, as far as the client does not judge it; no error holds a part of it, which may be a password."""
    several = sentinel_url(url) or cluster_url(url)
    if several is not None:
        _check_options((name for name, _ in several.options), tls=several.tls)
        return url
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in {"redis", "rediss", "unix"}:
        return url
    authority = _AUTHORITY_ENDS.split(rest, maxsplit=1)[0]
    behind = rest.removeprefix(authority)
    if "#" in rest or _NO_ESCAPE.search(rest) or ("@" in behind and (scheme != "unix" or authority)):
        raise ValueError(_ESCAPE_IT)
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    options = parse_qs(parts.query)
    _check_options(options, tls=scheme == "rediss")
    numbers = options.get("db", [])
    if scheme != "unix":
        _check_host(parts)
        numbers = [*numbers, *([path] if (path := parts.path.strip("/")) else [])]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError("must end in the number of a database, for example rediss://host:6379/0")
    return url


def _check_options(options: Iterable[str], *, tls: bool) -> None:
    names = list(options)
    if any(name not in _CACHE_OPTIONS for name in names):
        raise ValueError(f"has an unknown option; options are {', '.join(_CACHE_OPTIONS)}")
    if not tls and any(name.startswith("ssl_") for name in names):
        raise ValueError("has a TLS option, which only rediss:// takes")


def _check_host(parts: SplitResult) -> None:
    if not parts.hostname:
        raise ValueError("must name a host, for example rediss://host:6379/0")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have the number of a port behind its host, for example rediss://host:6379/0")


def share(value: object) -> object:
    """`1%` as 0.01."""
    if not isinstance(value, str):
        return no_truth(value)
    if not re.match(_SHARE, value):
        raise ValueError("must be a share, for example 1% or 0.01")
    number = float(value.rstrip("% "))
    return number / 100 if value.endswith("%") else number


_SHARE = r"^[0-9]+(\.[0-9]+)? ?%?$"
Share = Annotated[
    float,
    BeforeValidator(share),
    Field(ge=0, le=1),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SHARE}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]
CacheUrl = Annotated[str, AfterValidator(_cache_url)]
RegionName = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
Group = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Table = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", min_length=3, max_length=255)]
AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Frozen(BaseModel):
    """A section of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
