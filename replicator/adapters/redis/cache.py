"""Redis or Valkey beside a replica: versioned refresh and invalidation.

Invariant: a refresh never lowers an entry's version and never creates one; readers' leases (`L:`) are dropped, so a
reader that read before the write cannot fill behind it. Entry format: `V:version|payload`, `T:version`, `L:token`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from replicator.domain.cache_keys import CacheAction, Invalidate, Refresh
from replicator.domain.errors import AccessRefused, ReplicatorError, Throttled, Unreachable, WorldMismatch

_KEYS_PER_CALL = 256
_NO_DATABASE = "db index is out of range"
_OTHER_SERVER = (
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    ReadOnlyError,
    RedisConnectionError,
    OSError,
)
"""After these the address may lead to another server, for example to the new primary: connections begin anew."""

APPLY = """
local changed = 0
for i, key in ipairs(KEYS) do
  local version, payload, life = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local entry = redis.pcall('GET', key)
  if entry then
    local text = type(entry) == 'string' and entry or ''
    local kind, mark = text:sub(1, 2), text:sub(3 + #version, 3 + #version)
    local ours = #text >= 2 + #version and (kind == 'V:' and mark == '|' or kind == 'T:' and mark == '')
    if not ours then
      redis.call('UNLINK', key)
      changed = changed + 1
    elseif entry:sub(3, 2 + #version) < version then
      local fresh = 'T:' .. version
      if payload ~= '' then fresh = 'V:' .. version .. '|' .. payload end
      redis.call('SET', key, fresh, 'PX', life)
      changed = changed + 1
    end
  end
end
return changed
"""
"""For every key: absent -> nothing, lease or foreign entry -> dropped, older entry -> the value or the marker.

An entry whose version is not as long as ours is a foreign one: the two could not be compared.
"""

_APPLY_SHA = sha1(APPLY.encode(), usedforsecurity=False).hexdigest()


def safe_url(url: str) -> str:
    """A cache's URL without user and password."""
    parts = urlsplit(url)
    host = parts.hostname or parts.path
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


class RedisCache:
    """One standalone Redis or Valkey."""

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        name: str,
        url: str,
        *,
        username: str | None,
        password: str | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> None:
        self._what = f"cache {name} at {safe_url(url)}"
        credentials: dict[str, Any] = {
            key: value for key, value in (("username", username), ("password", password)) if value
        }
        self._client = redis_asyncio.Redis.from_url(
            url,
            socket_connect_timeout=connect_seconds,
            socket_timeout=read_seconds,
            retry=Retry(NoBackoff(), 0),
            **credentials,
        )

    async def apply(self, actions: Sequence[CacheAction]) -> int:
        """Carry the actions out in their order, a few hundred keys per round trip; returns how many entries changed."""
        changed = 0
        for start in range(0, len(actions), _KEYS_PER_CALL):
            changed += await self._apply(actions[start : start + _KEYS_PER_CALL])
        return changed

    async def _apply(self, actions: Sequence[CacheAction]) -> int:
        unlinks = [action.key for action in actions if isinstance(action, Invalidate)]
        refreshes = [action for action in actions if isinstance(action, Refresh)]
        changed = 0
        try:
            if refreshes:
                changed += await self._refresh(refreshes)
            if unlinks:
                changed += int(await self._client.unlink(*unlinks))
        except (RedisError, OSError, TimeoutError) as error:
            raise await self._failure(error) from error
        return changed

    async def _refresh(self, refreshes: Sequence[Refresh]) -> int:
        keys = [action.key for action in refreshes]
        arguments: list[Any] = []
        for action in refreshes:
            arguments += [action.version, action.payload or b"", action.ttl_ms]
        try:
            return int(await self._client.evalsha(_APPLY_SHA, len(keys), *keys, *arguments))
        except NoScriptError:
            return int(await self._client.eval(APPLY, len(keys), *keys, *arguments))

    async def probe(self) -> None:
        """Prove that the cache answers and is one that can be used."""
        try:
            information = await self._client.info()
        except (RedisError, OSError, TimeoutError) as error:
            if _NO_DATABASE in str(error).lower():
                raise WorldMismatch(
                    f"The {self._what} has no database of this number.",
                    advice="Correct the number at the end of its URL, or raise `databases` of the server.",
                ) from error
            raise await self._failure(error) from error
        if information.get("cluster_enabled") == 1 or information.get("redis_mode") == "cluster":
            raise WorldMismatch(
                f"The {self._what} is a Redis Cluster, which is not supported yet.",
                advice="Name a standalone Redis or Valkey (a primary with replicas is one).",
            )
        if information.get("role") in {"slave", "replica"}:
            raise WorldMismatch(f"The {self._what} is a read-only replica.", advice="Name its primary.")

    async def get(self, key: str) -> bytes | None:
        """An entry as it stands, for `inspect`."""
        try:
            value = await self._client.get(key)
        except (RedisError, OSError, TimeoutError) as error:
            raise await self._failure(error) from error
        return value.encode() if isinstance(value, str) else value

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _failure(self, error: Exception) -> ReplicatorError:
        """The error as ours. Idle connections that may lead to the wrong server are closed: a retry opens new ones."""
        if isinstance(error, _OTHER_SERVER):
            with suppress(RedisError, OSError, TimeoutError):
                await self._client.connection_pool.disconnect(inuse_connections=False)
        return self._translated(error)

    def _translated(self, error: Exception) -> AccessRefused | Throttled | Unreachable | WorldMismatch:
        reason = str(error)[:200].rstrip(". ") or type(error).__name__
        if isinstance(error, AuthenticationError | NoPermissionError):
            return AccessRefused(
                f"The {self._what} refused us: {reason}.", advice="Correct the cache's username and password."
            )
        if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and reason.startswith("OOM")):
            return Throttled(f"The {self._what} is out of memory.", advice="Raise maxmemory or set an eviction policy.")
        return Unreachable(f"The {self._what} got no answer: {reason}.")
