"""A backend for cashews that fills under a lease: `cache.setup("replicator+redis://host:6379/0", prefix="order:")`.

Importing this module registers the schemes `replicator+redis` and `replicator+rediss`. Invariant: `set` stores only
under the lease that a `get` of the same task took before the value was loaded; without one it stores nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from cashews import register_backend
from cashews.backends.redis import Redis
from cashews.picklers import PicklerType
from redis.exceptions import NoScriptError

from replicator.cache.policy import seen
from replicator.cache.reading import Sight
from replicator.cache.scripts import FILL, LOOK, SCRIPTS

_PREFIX: Final = "replicator+"
_PAUSE_SECONDS: Final = 0.02
_MOST_LEASES: Final = 64
_leases: ContextVar[dict[str, str]] = ContextVar("replicator_cache_leases")
"""Leases by key that this task was given and did not use yet; never changed in place, because tasks inherit it."""


class LeasedRedis(Redis):
    """The Redis backend of cashews with `get` and `set` under leases; `lease` and `wait` are seconds.

    Entries have no version, so of the daemon's actions `refresh` drops them as `invalidate` does.
    """

    def __init__(self, address: str, *, lease: float | str = 5.0, wait: float | str = 0.5, **options: Any) -> None:
        super().__init__(address.removeprefix(_PREFIX), **options)
        self._lease_ms = max(1, int(1000 * float(lease)))
        self._wait_seconds = float(wait)

    async def get(self, key: str, default: Any = None) -> Any:
        """The value; a miss leaves the lease with this task, and a lease of another one is waited for."""
        token = secrets.token_hex(8)
        waited = 0.0
        while True:
            reply = await self._run(LOOK, key, token, self._lease_ms, 0)
            found = None if reply is None else seen(reply)
            if found is None or found.sight is not Sight.WAIT or waited >= self._wait_seconds:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            waited += _PAUSE_SECONDS
        if found is not None and found.sight is Sight.HIT:
            return await self._transform_value(key, found.entry.partition(b"|")[2], default)
        _remember(key, found.lease if found is not None and found.sight is Sight.LEASE else None)
        return default

    async def set(self, key: str, value: Any, expire: float | None = None, exist: bool | None = None) -> bool:  # noqa: FBT001 - the signature of cashews
        """Store what was loaded behind a missed `get`; False when a newer write came between, or nothing was missed."""
        lease = _leases.get({}).get(key)
        _remember(key, None)
        if lease is None or exist is True or not expire:
            return False
        encoded: Any = await self._serializer.encode(self, key=key, value=value, expire=expire)
        payload = encoded if isinstance(encoded, bytes) else str(encoded).encode()
        return bool(await self._run(FILL, key, lease, b"V:|" + payload, max(1, int(1000 * expire))))

    async def set_many(self, pairs: Mapping[str, Any], expire: float | None = None) -> None:
        """Store those of the pairs that were missed."""
        for key, value in pairs.items():
            await self.set(key, value, expire)

    async def get_many(self, *keys: str, default: Any = None) -> tuple[Any, ...]:
        """The values that are there; what is missing is not leased."""
        entries: list[Any] = await asyncio.gather(*[self._client.get(key) for key in keys])
        payloads = [entry.partition(b"|")[2] if entry and entry.startswith(b"V:") else None for entry in entries]
        return tuple(
            [await self._transform_value(key, payload, default) for key, payload in zip(keys, payloads, strict=True)]
        )

    async def _run(self, script: str, key: str, *arguments: Any) -> Any:
        client: Any = self._client
        try:
            return await client.evalsha(SCRIPTS[script], 1, key, *arguments)
        except NoScriptError:
            return await client.eval(script, 1, key, *arguments)


def _remember(key: str, lease: str | None) -> None:
    """Note the lease of a key for the `set` to come, or that there is none."""
    others = [(other, held) for other, held in _leases.get({}).items() if other != key]
    _leases.set(dict(others[1 - _MOST_LEASES :]) | ({} if lease is None else {key: lease}))


for _scheme in ("redis", "rediss"):
    register_backend(_PREFIX + _scheme, LeasedRedis, pass_uri=True, pickler=PicklerType.DEFAULT)
