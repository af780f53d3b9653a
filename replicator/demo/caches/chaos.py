"""The failures: servers that come back empty or old, a daemon that is killed, a failover to a replica that lags.

Invariant: a failure counts only when it did what it is there for, as the servers themselves say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from replicator.demo.cache_servers import Alone, Replaceable
from replicator.demo.caches.readers import Crowd, payload_of, plain_key
from replicator.demo.items import COUNTER, Keyspace, KeyState
from replicator.demo.view import View
from replicator.demo.world import World
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image

_AWAY_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_ENOUGH_OLD = 5
"""Entries that are older than their items, before a server with them comes up."""

_CUT = ("ACL", "SETUSER", "default", "-psync", "-sync")
"""With this the primary gives its replica nothing any more, and a replica that comes anew is not served."""


@dataclass(slots=True)
class Chaos:
    """All failures of one run, on a schedule of shares of its duration."""

    world: World
    view: View
    keys: Keyspace[KeyState]
    alone_crowd: Crowd
    replaceable_crowd: Crowd
    happened: list[dict[str, Any]] = field(default_factory=list)
    over: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def alone(self) -> Alone:
        """The server that comes back where it was."""
        assert self.world.cache_servers is not None, "the world is opened with them"
        return self.world.cache_servers.alone

    @property
    def replaceable(self) -> Replaceable:
        """The servers one of which takes over."""
        assert self.world.cache_servers is not None, "the world is opened with them"
        return self.world.cache_servers.replaceable

    async def run(self, duration: float) -> None:
        """Let everything happen within four fifths of `duration` seconds, or as soon after as there is an effect."""
        schedule: tuple[tuple[float, Callable[[], Awaitable[None]]], ...] = (
            (0.10, self._restart_empty),
            (0.25, self._save),
            (0.40, self._restart_old),
            (0.55, self._kill_daemon),
            (0.72, self._cut_replica),
            (0.80, self._fail_over),
        )
        for share, failure in schedule:
            await asyncio.sleep(max(0.0, self.began + share * duration - time.monotonic()))
            await failure()
        self.over = True

    @property
    def complete(self) -> bool:
        """Whether everything happened, and had the effect that it is there for."""
        return len(self.happened) == 4 and all(each["as_meant"] for each in self.happened)  # noqa: PLR2004 - see `run`

    def _note(self, what: str, *, as_meant: bool) -> None:
        self.happened.append({"at": round(time.monotonic() - self.began, 1), "what": what, "as_meant": as_meant})
        self.view.say(what if as_meant else f"{what} (that was not meant)")

    async def _restart_empty(self) -> None:
        self.alone.kill()
        await asyncio.sleep(_AWAY_SECONDS)
        self.alone.start()
        self._note("eu_cache was killed and came back empty", as_meant=True)

    async def _save(self) -> None:
        """Save a snapshot with many entries, and wait until some of these are old."""
        crowd = self.alone_crowd
        await self._until(crowd, self.alone, entries=len(self.keys.keys) // 4)
        client = self.alone.client()
        try:
            saved = await self._entries(crowd, client)
            await client.save()
        finally:
            await client.aclose()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._judged(crowd, saved)[0] < _ENOUGH_OLD:  # noqa: ASYNC110 - writers' work
                    await asyncio.sleep(_POLL_SECONDS)

    async def _restart_old(self) -> None:
        self.alone.kill()
        await asyncio.sleep(_AWAY_SECONDS)
        self.alone.start()
        old, entries = await self._look(self.alone_crowd, self.alone)
        what = f"eu_cache was killed and came back from a snapshot: {old} of its {entries} entries were stale"
        self._note(what, as_meant=old > 0)

    async def _kill_daemon(self) -> None:
        self.world.daemon.kill()
        began = time.monotonic()
        await self.world.daemon.start(self.world.session)
        self._note(f"the daemon was killed and ready again after {time.monotonic() - began:.1f} s", as_meant=True)

    async def _cut_replica(self) -> None:
        """From now on the replica lags."""
        replica = Alone(self.world.directory, self.replaceable.replica)
        await self._until(self.replaceable_crowd, replica, entries=len(self.keys.keys) // 4)
        client = self.replaceable.client()
        try:
            await client.execute_command(*_CUT)
            await client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")
        finally:
            await client.aclose()
        await self._until(self.replaceable_crowd, replica, old=_ENOUGH_OLD)

    async def _fail_over(self) -> None:
        crowd = self.replaceable_crowd
        replica = Alone(self.world.directory, self.replaceable.replica)
        old, entries = await self._look(crowd, replica)
        self.replaceable.kill()
        if not await _promoted(replica):
            self._note("no Sentinel promoted the replica of ap_cache", as_meant=False)
            return
        self.world.caches[crowd.cache.name] = self.replaceable.replica
        what = f"ap_cache failed over to a replica that lagged: {old} of its {entries} entries were stale"
        self._note(what, as_meant=old > 0)

    # -- what servers hold ---------------------------------------------------------------------------------------------

    async def _until(self, crowd: Crowd, server: Alone, *, entries: int = 0, old: int = 0) -> None:
        """Wait until a server has so many entries, so many of them old; for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    stale, there = await self._look(crowd, server)
                    if there >= entries and stale >= old:
                        return
                    await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, crowd: Crowd, server: Alone) -> tuple[int, int]:
        client = server.client()
        try:
            return self._judged(crowd, await self._entries(crowd, client))
        except RedisError:
            return 0, 0
        finally:
            await client.aclose()

    async def _entries(self, crowd: Crowd, client: Any) -> list[bytes | None]:
        names = [crowd.cache.key.format(**plain_key(state)) for state in self.keys.keys]
        found: list[bytes | None] = await client.mget(names)
        return found

    def _judged(self, crowd: Crowd, found: list[bytes | None]) -> tuple[int, int]:
        """How many entries are older than their items, and how many there are."""
        old = entries = 0
        for state, entry in zip(self.keys.keys, found, strict=True):
            if entry is None or entry.startswith(b"L:"):
                continue
            entries += 1
            payload = payload_of(entry)
            number = None if payload is None else _number(payload)
            old += crowd.shown.stale_for(state, number, time.monotonic()) > 0
        return old, entries


async def _promoted(replica: Alone) -> bool:
    """Wait until it is the primary; its connections are closed when it becomes that."""
    client = replica.client()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                with suppress(RedisError):
                    if (await client.info("replication"))["role"] == "master":
                        return True
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    finally:
        await client.aclose()


def _number(payload: bytes) -> int | None:
    try:
        return int(Image(payload).attributes[COUNTER]["N"])
    except (MalformedRecord, KeyError):
        return None
