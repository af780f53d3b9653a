"""Clients of a cache by its URL: of one server, or of the primary that Sentinels know now."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit

import redis.asyncio as redis_asyncio
from msgspec import Struct
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from replicator.domain.addresses import host_and_port
from replicator.domain.cache_urls import ClusterUrl, SentinelUrl, cluster_url, sentinel_url


class Login(Struct, frozen=True):
    """A user of servers, None without one."""

    username: str | None = None
    password: str | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What of it is set, as a client takes it."""
        pairs = (("username", self.username), ("password", self.password))
        return {name: value for name, value in pairs if value}


def safe_url(url: str) -> str:
    """A cache's URL without user and password."""
    named = sentinel_url(url) or cluster_url(url)
    if named is not None:
        return named.address
    parts = urlsplit(url)
    return f"{parts.scheme}://{host_and_port(parts.hostname, parts.port) if parts.hostname else parts.path}"


def open_client(url: str, login: Login, sentinels: Login, *, connect_seconds: float, read_seconds: float) -> list[Any]:
    """A client that repeats nothing by itself, and behind it those of Sentinels, to be closed, too. Nothing is sent."""
    times: dict[str, Any] = {"socket_connect_timeout": connect_seconds, "socket_timeout": read_seconds}
    once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "driver_info": None, **times}
    named = sentinel_url(url)
    if named is None:
        return [redis_asyncio.Redis.from_url(url, **once, **login.given)]
    options = _options(named)
    secure = {name: value for name, value in options.items() if name.startswith("ssl")}
    asked = {**once, **secure, **sentinels.given}
    known = Sentinel(named.sentinels, sentinel_kwargs=asked, **once)  # type: ignore[no-untyped-call]
    primary = known.master_for(named.service, db=named.database, **options, **login.given)
    return [primary, *known.sentinels]


def node_url(cluster: ClusterUrl, host: str, port: int) -> str:
    """The URL of one node of a cluster, with the options of the cluster's."""
    query = f"?{urlencode(cluster.options)}" if cluster.options else ""
    return f"{'rediss' if cluster.tls else 'redis'}://{host_and_port(host, port)}/0{query}"


def _options(named: SentinelUrl) -> dict[str, Any]:
    """The options of its query, as a client of one server takes them from its URL."""
    query = f"?{urlencode(named.options)}" if named.options else ""
    options = dict(parse_url(f"{'rediss' if named.tls else 'redis'}://sentinel{query}"))
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    return {**options, "ssl": True} if named.tls else options
