"""Clients of a configuration: regions and caches, opened together and closed together."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError

from replicator.adapters.aws.clients import ClientTimes, Fallback, Place, open_place
from replicator.domain.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from aiobotocore.session import AioSession
    from pydantic import SecretStr

    from replicator.adapters.redis.cluster import CacheClient
    from replicator.settings import Settings

_CONNECTIONS = 16


@asynccontextmanager
async def open_places(  # noqa: PLR0913 - what clients may differ in
    settings: Settings,
    regions: Collection[str] | None = None,
    connections: Mapping[str, int] | None = None,
    *,
    stream_connections: int | None = None,
    lean: Fallback | None = None,
    longest: float | None = None,
) -> AsyncIterator[dict[str, Place]]:
    """Clients of some regions, or of all; nothing is sent yet.

    `connections`: the most per region; `stream_connections`: the most for reading the streams of one region. `lean`:
    see `open_place`. `longest`: seconds that an answer is waited for, where that is less than what is configured.
    """
    connect, read = settings.apply.connect_timeout.total_seconds(), settings.apply.read_timeout.total_seconds()
    most = math.inf if longest is None else longest
    times = ClientTimes(connect_seconds=min(connect, most), read_seconds=min(read, most))
    async with AsyncExitStack() as stack:
        places = {}
        sessions: dict[str | None, AioSession] = {}
        for region_id, region in settings.regions.items():
            if regions is not None and region_id not in regions:
                continue
            at_once = (connections or {}).get(region_id, _CONNECTIONS)
            try:
                places[region_id] = await stack.enter_async_context(
                    open_place(
                        region_id,
                        region,
                        times,
                        connections=at_once,
                        stream_connections=stream_connections,
                        lean=lean,
                        sessions=sessions,
                    )
                )
            except (BotoCoreError, OSError, ValueError) as error:  # the program of a `credential_process` may be none
                raise ConfigurationInvalid(
                    f"regions.{region_id} cannot be used: {str(error).rstrip('.')}.",
                    advice=f"Correct regions.{region_id}, or the shared AWS configuration that it names.",
                ) from error
        yield places


@asynccontextmanager
async def open_caches(
    settings: Settings, names: Collection[str] | None = None
) -> AsyncIterator[dict[str, CacheClient]]:
    """Clients of some caches, or of all; nothing is sent yet."""
    wanted = {name: cache for name, cache in settings.caches.items() if names is None or name in names}
    if not wanted:
        yield {}  # and the client, 6 MB of memory, is not imported
        return
    from replicator.adapters.redis.cluster import open_cache
    from replicator.adapters.redis.opening import Login

    async with AsyncExitStack() as stack:
        caches = {}
        for name, cache in wanted.items():
            try:
                caches[name] = open_cache(
                    f"{name} in {cache.region}",
                    cache.url,
                    Login(cache.username, _revealed(cache.password)),
                    Login(cache.sentinel_username, _revealed(cache.sentinel_password)),
                    connect_seconds=settings.apply.connect_timeout.total_seconds(),
                    read_seconds=settings.apply.read_timeout.total_seconds(),
                )
            except ValueError as error:
                raise ConfigurationInvalid(
                    f"caches.{name}.url is not a URL that can be used.",
                    advice="Write it as rediss://host:port/db or redis://host:port/db.",
                ) from error
            stack.push_async_callback(caches[name].close)
        yield caches


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
