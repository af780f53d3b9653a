"""URLs of caches that Sentinels know: `redis+sentinel://host:port,host:port/service/database`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT = 26_379
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Sentinels as (host, port), the name of the service whose primary they know, and the database there."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int
    tls: bool
    options: tuple[tuple[str, str], ...]

    @property
    def address(self) -> str:
        """For people: without options."""
        scheme = SENTINEL_SCHEMES[self.tls]
        return f"{scheme}://{','.join(f'{host}:{port}' for host, port in self.sentinels)}/{self.service}"


def sentinel_url(url: str) -> SentinelUrl | None:
    """What such a URL says; None of another one. Raises ValueError with what is wrong, and never with a part of it."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in SENTINEL_SCHEMES:
        return None
    parts = urlsplit(f"//{rest}")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password when it names Sentinels; use the keys for them")
    sentinels = tuple(map(_place, parts.netloc.split(",")))
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise ValueError(
            "must name a service and the number of a database behind its Sentinels, for example"
            " redis+sentinel://host:26379,host:26379/mymaster/0"
        )
    options = tuple(parse_qsl(parts.query))
    return SentinelUrl(sentinels, unquote(service), int(database or 0), scheme == SENTINEL_SCHEMES[1], options)


def _place(text: str) -> tuple[str, int]:
    host, mark, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not mark:
        host, port = text, str(_SENTINEL_PORT)
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= _MOST_PORT:
        raise ValueError("must name every Sentinel as host or host:port, separated by commas")
    return host.strip("[]"), int(port)
