"""Cache-aside readers that leave nothing stale: `CacheAside` for asyncio, `SyncCacheAside` for threads.

Both carry out what `reading` asks for. Invariant: an error of Redis becomes a read of the table unless the caller asked
for it, and no error of the table is hidden.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from redis.exceptions import NoScriptError

from replicator.cache.breaker import Breaker
from replicator.cache.policy import OUTAGES, Policy, missed, seen
from replicator.cache.reading import Fill, Load, Look, Pause, Reading, Source, Steps, reading
from replicator.cache.scripts import FILL, FILL_HASH, LOOK, LOOK_HASH, LOOK_TAGGED, SCRIPTS


class _Reader:
    """What both kinds of readers have: options, breaker and counters."""

    def __init__(
        self,
        client: Any,
        *,
        load: Callable[..., Any],
        break_after: int = 3,
        break_seconds: float = 1.0,
        **options: Any,
    ) -> None:
        if break_after < 1 or break_seconds < 0:
            raise ValueError("break_after must be at least 1 and break_seconds at least 0")
        self.client = client
        self.policy = Policy.of(load=load, **options)
        self.counts: Counter[Source] = Counter()
        """Reads by where their values came from."""
        self.load = load
        self.breaker = Breaker(break_after, break_seconds)

    def begin(self, values: dict[str, Any]) -> Steps:
        """The steps of one read."""
        plan = self.policy.plan(values, token=secrets.token_hex(8), dice=random.random)
        return reading(plan)

    def end(self, result: Reading) -> Reading:
        """Count a read."""
        self.counts[result.source] += 1
        return result

    def failed(self, error: Exception) -> None:
        """Take note of an error of the cache; raises it for a caller who wants it."""
        if isinstance(error, OUTAGES):
            self.breaker.failed(time.monotonic())
        if self.policy.raises:
            raise error


class CacheAside:
    """Reads items through a Redis or Valkey client of `redis.asyncio`; options: see the documentation page.

    `load(**values)` reads the table beside the cache consistently, and may be a coroutine function.
    """

    def __init__(self, client: Any, *, key: str, load: Callable[..., Any], **options: Any) -> None:
        self._reader = _Reader(client, key=key, load=load, **options)

    @property
    def counts(self) -> Counter[Source]:
        """Reads by where their values came from."""
        return self._reader.counts

    async def get(self, **values: Any) -> Any:
        """The item's value, or None; `values` are the attributes that the key template names."""
        return (await self.read(**values)).value

    async def read(self, **values: Any) -> Reading:
        """The item's value, and where it came from."""
        steps = self._reader.begin(values)
        answer: Any = None
        failure: Exception | None = None
        try:
            while True:
                request = steps.send(answer) if failure is None else steps.throw(failure)
                answer = failure = None
                match request:
                    case Load():
                        try:
                            answer = self._reader.load(**values)
                            answer = await answer if inspect.isawaitable(answer) else answer
                        except Exception as error:  # noqa: BLE001 - whatever a loader raises, the steps decide
                            failure = error
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case _:
                        answer = await self._asked(request)
        except StopIteration as end:
            return self._reader.end(end.value)

    async def invalidate(self, **values: Any) -> bool:
        """Drop an entry and end its lease, for a writer that wants its own change to be seen at once."""
        try:
            await self._reader.client.unlink(self._reader.policy.key(values))
        except Exception as error:  # noqa: BLE001 - whatever a client raises, its caller gets the item from the table
            self._reader.failed(error)
            return False
        return True

    async def _asked(self, request: Look | Fill) -> Any:
        if not self._reader.breaker.permits(time.monotonic()):
            return missed(request)
        script, keys, arguments = _call(request)
        try:
            try:
                reply = await self._reader.client.evalsha(SCRIPTS[script], len(keys), *keys, *arguments)
            except NoScriptError:
                reply = await self._reader.client.eval(script, len(keys), *keys, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, its caller gets the item from the table
            self._reader.failed(error)
            return missed(request)
        self._reader.breaker.succeeded()
        return seen(reply) if isinstance(request, Look) else bool(reply)


class SyncCacheAside:
    """The same for a client of `redis`, in threads; `load` is a plain function."""

    def __init__(self, client: Any, *, key: str, load: Callable[..., Any], **options: Any) -> None:
        self._reader = _Reader(client, key=key, load=load, **options)

    @property
    def counts(self) -> Counter[Source]:
        """Reads by where their values came from."""
        return self._reader.counts

    def get(self, **values: Any) -> Any:
        """The item's value, or None; `values` are the attributes that the key template names."""
        return self.read(**values).value

    def read(self, **values: Any) -> Reading:
        """The item's value, and where it came from."""
        steps = self._reader.begin(values)
        answer: Any = None
        failure: Exception | None = None
        try:
            while True:
                request = steps.send(answer) if failure is None else steps.throw(failure)
                answer = failure = None
                match request:
                    case Load():
                        try:
                            answer = self._reader.load(**values)
                        except Exception as error:  # noqa: BLE001 - whatever a loader raises, the steps decide
                            failure = error
                    case Pause(seconds):
                        time.sleep(seconds)
                    case _:
                        answer = self._asked(request)
        except StopIteration as end:
            return self._reader.end(end.value)

    def invalidate(self, **values: Any) -> bool:
        """Drop an entry and end its lease, for a writer that wants its own change to be seen at once."""
        try:
            self._reader.client.unlink(self._reader.policy.key(values))
        except Exception as error:  # noqa: BLE001 - whatever a client raises, its caller gets the item from the table
            self._reader.failed(error)
            return False
        return True

    def _asked(self, request: Look | Fill) -> Any:
        if not self._reader.breaker.permits(time.monotonic()):
            return missed(request)
        script, keys, arguments = _call(request)
        try:
            try:
                reply = self._reader.client.evalsha(SCRIPTS[script], len(keys), *keys, *arguments)
            except NoScriptError:
                reply = self._reader.client.eval(script, len(keys), *keys, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, its caller gets the item from the table
            self._reader.failed(error)
            return missed(request)
        self._reader.breaker.succeeded()
        return seen(reply) if isinstance(request, Look) else bool(reply)


def cached(client: Any, *, key: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function that loads by the attributes of the key: its calls go through the cache.

    A coroutine function becomes an asyncio reader, any other one a reader for threads; `.cache` is that reader.
    """

    def decorated(load: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(load)

        def values(arguments: Any, named: Any) -> dict[str, Any]:
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            return bound.arguments

        if inspect.iscoroutinefunction(load):
            waiting = CacheAside(client, key=key, load=load, **options)

            @functools.wraps(load)
            async def through(*arguments: Any, **named: Any) -> Any:
                return await waiting.get(**values(arguments, named))

            vars(through)["cache"] = waiting
            return through
        blocking = SyncCacheAside(client, key=key, load=load, **options)

        @functools.wraps(load)
        def through_blocking(*arguments: Any, **named: Any) -> Any:
            return blocking.get(**values(arguments, named))

        vars(through_blocking)["cache"] = blocking
        return through_blocking

    return decorated


def _call(request: Look | Fill) -> tuple[str, tuple[str, ...], tuple[Any, ...]]:
    """The script of a request, its keys and its arguments."""
    match request:
        case Look(key, token, lease_ms, early_ms, tags, hashed):
            script = LOOK_TAGGED if tags else LOOK_HASH if hashed else LOOK
            return script, (key, *tags), (token, lease_ms, early_ms)
        case Fill(key, lease, entry, life_ms, hashed):
            return FILL_HASH if hashed else FILL, (key,), (lease, entry, life_ms)
