"""URLs of caches behind several addresses.

`redis+sentinel://host:port,host:port/service/database` names Sentinels, `redis+cluster://host:port,host:port` some
nodes of a cluster. With `rediss` everything behind them speaks TLS.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from replicator.domain.addresses import host_and_port

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
_SENTINEL_PORT, _NODE_PORT = 26_379, 6379
_MOST_PORT = 65_535
_AUTHORITY_ENDS = re.compile(r"[/?#]")
_PLACE = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


class SentinelUrl(Struct, frozen=True):
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
        return f"{scheme}://{','.join(host_and_port(*place) for place in self.sentinels)}/{self.service}"


class ClusterUrl(Struct, frozen=True):
    """Nodes of a cluster as (host, port): the others are learnt from any of them."""

    nodes: tuple[tuple[str, int], ...]
    tls: bool
    options: tuple[tuple[str, str], ...]

    @property
    def address(self) -> str:
        """For people: without options."""
        return f"{CLUSTER_SCHEMES[self.tls]}://{','.join(host_and_port(*place) for place in self.nodes)}"


class CachePlace(Struct, frozen=True):
    """What any URL of a cache says of its connections."""

    database: int
    options: tuple[str, ...]
    is_cluster: bool = False


def parse_cache_url(url: str) -> CachePlace:
    """The database that a URL names, and the names of its options; the URL is one that was judged before."""
    several = sentinel_url(url) or cluster_url(url)
    if isinstance(several, SentinelUrl):
        return CachePlace(several.database, tuple(name for name, _ in several.options))
    if several is not None:
        return CachePlace(0, tuple(name for name, _ in several.options), is_cluster=True)
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    return CachePlace(int(options.get("db") or path or 0), tuple(options))


def sentinel_url(url: str) -> SentinelUrl | None:
    """What such a URL says; None of another one. Raises ValueError with what is wrong, and never with a part of it."""
    parts = _split(url, SENTINEL_SCHEMES)
    if parts is None:
        return None
    sentinels = tuple(_place(text, _SENTINEL_PORT, "Sentinel") for text in parts.netloc.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise ValueError(
            "must name a service and the number of a database behind its Sentinels, for example"
            " redis+sentinel://host:26379,host:26379/mymaster/0"
        )
    tls = url.startswith(SENTINEL_SCHEMES[1])
    return SentinelUrl(sentinels, unquote(service), int(database or 0), tls, tuple(parse_qsl(parts.query)))


def cluster_url(url: str) -> ClusterUrl | None:
    """The same of a cluster's URL."""
    parts = _split(url, CLUSTER_SCHEMES)
    if parts is None:
        return None
    nodes = tuple(_place(text, _NODE_PORT, "node") for text in parts.netloc.split(","))
    options = tuple(parse_qsl(parts.query))
    if parts.path.strip("/") not in {"", "0"} or any(name == "db" for name, _ in options):
        raise ValueError("must not name a database: a cluster has one only, for example redis+cluster://host:6379")
    return ClusterUrl(nodes, url.startswith(CLUSTER_SCHEMES[1]), options)


def _split(url: str, schemes: tuple[str, str]) -> SplitResult | None:
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in schemes:
        return None
    hosts = _AUTHORITY_ENDS.split(rest, maxsplit=1)[0]
    if "@" in hosts:
        raise ValueError("must not hold a user or a password when it names several hosts; use the keys for them")
    return urlsplit(f"//{rest.removeprefix(hosts)}")._replace(netloc=hosts)  # brackets in a list are refused by some


def _place(text: str, otherwise: int, what: str) -> tuple[str, int]:
    found = _PLACE.fullmatch(text)
    port = int(found["port"] or otherwise) if found is not None else 0
    if found is None or not 0 < port <= _MOST_PORT:
        raise ValueError(
            f"must name every {what} as host or host:port, separated by commas, and an address of IPv6 in brackets"
        )
    return found["address"] or found["name"], port
