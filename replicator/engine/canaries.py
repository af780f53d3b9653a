"""Canaries of the rules: written by one worker of the group, which sees them arrive.

The first of the workers that live, by id, writes them: every worker comes to the same answer, and when it dies the next
one goes on. Two at once cost a write and nothing else, for each knows its own. Whether it arrived is looked at where it
must arrive: the item in the target's table, read consistently; and for a cache, whether the entry that was stored ahead
of the write is dropped. So lags are of this process's clock alone, and nothing that replicates is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from replicator.domain.cache_keys import Refresh
from replicator.domain.canary import CanaryPlace, Schema, Track, canary_item, canary_key, number_of
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.modes.requests import Found, GetItem
from replicator.domain.rules import Rule, VersionedPlan
from replicator.domain.versions import UNSTAMPED
from replicator.engine.waiting import Flag, pause_for_any
from replicator.ports.canaries import CanaryTable
from replicator.ports.clock import Clock
from replicator.ports.events import Observer
from replicator.ports.targets import OPEN, Cache, CacheFill, Region

Answer = TypeVar("Answer")

_SECONDS = 3.0
"""The longest wait for one answer."""

_TURN_SECONDS = 1.0
"""Time between two looks at whose turn it is, and at which rules have one."""

_ENTRY_MS = 86_400_000
_ENTRY = b"V:%b|{}" % UNSTAMPED.encode()


class CanarySource(Struct, frozen=True, eq=False):
    """One rule's canary in one of the tables that it reads: where it is written, and where it must arrive."""

    rule: Rule
    written: CanaryTable
    tables: Mapping[RegionId, Region]
    caches: Mapping[tuple[RegionId, str], tuple[Cache, KeyTemplate]]
    """By region and name, with the template of the canary's entry."""


class Canaries:
    """Those of one process. `sources`: as the rules are now; one that is the same object goes on."""

    def __init__(self, sources: Callable[[], Sequence[CanarySource]], clock: Clock, observer: Observer) -> None:
        self._sources = sources
        self._clock = clock
        self._observer = observer

    async def run(self, writer: str, is_first: Callable[[], bool], over: asyncio.Event) -> None:
        """Keep those of every source while it is our turn, until `over`."""
        running: dict[CanarySource, tuple[_Canary, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            try:
                while not over.is_set():
                    wanted = self._sources() if is_first() else ()
                    for source in [each for each in running if each not in wanted]:
                        _end(*running.pop(source))
                    for source in wanted:
                        if source not in running:
                            canary = _Canary(source, writer, self._clock, self._observer)
                            running[source] = canary, group.create_task(canary.keep(), name="canary")
                    await pause_for_any(_TURN_SECONDS, over)
            finally:
                for ending in running.values():
                    _end(*ending)


def _end(canary: _Canary, task: asyncio.Task[None]) -> None:
    canary.end()
    task.cancel()


class _Canary:
    """One source's, while this worker writes it.

    An event ends it beside its cancellation: a library may lose a cancellation that comes together with an answer, as
    `asyncio.wait_for` does before Python 3.12, and what goes on then keeps its whole session from ending.
    """

    def __init__(self, source: CanarySource, writer: str, clock: Clock, observer: Observer) -> None:
        rule = source.rule
        assert rule.canary is not None, "a rule without a canary has no source of one"
        self._source = source
        self._rule = rule
        self._every = rule.canary
        self._version = rule.mesh.version if isinstance(rule.mesh, VersionedPlan) else None
        self._writer = writer
        self._clock = clock
        self._observer = observer
        self._written_at = now = clock.monotonic()
        self._tables = {region: self._track(region, "", now) for region in source.tables}
        self._caches = {place: self._track(*place, now) for place in source.caches}
        self._wakes = {track.place: Flag() for track in self._all}
        self._is_over = False

    def _track(self, region: RegionId, cache: str, now: float) -> Track:
        place = CanaryPlace(self._rule.name, self._rule.source, self._rule.table, region, cache)
        return Track(place, self._every, now)

    @property
    def _all(self) -> list[Track]:
        return [*self._tables.values(), *self._caches.values()]

    def end(self) -> None:
        """Begin nothing more."""
        self._is_over = True
        for wake in self._wakes.values():
            wake.set()

    async def keep(self) -> None:
        """Write it every period, and look for it, until cancelled, or until the end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                for region, track in self._tables.items():
                    group.create_task(self._watch(track, self._in_table(region)))
                for (region, name), track in self._caches.items():
                    group.create_task(self._watch(track, self._in_cache(region, name, track)))
        finally:
            for track in self._all:
                self._observer.canary(track.place, None)

    def _tell(self, track: Track) -> None:
        self._observer.canary(track.place, track.told(self._written_at))

    # -- writing -------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
            began = self._clock.monotonic()
            for track in self._all:
                self._tell(track)
            marked: list[Track] = []
            why = await _tried(self._one(number, marked))
            for track in self._all:
                if why:
                    track.why = why
                elif not track.place.cache or track in marked:
                    track.wrote(number, self._written_at)
                    self._wakes[track.place].set()
                self._tell(track)
            await asyncio.sleep(max(0.0, began + self._every - self._clock.monotonic()))

    async def _one(self, number: int, marked: list[Track]) -> None:
        """Write one. Entries of caches come first, so that whatever follows the write finds them; `marked`: where."""
        schema = await _answer(self._source.written.schema())
        item = canary_item(
            schema,
            self._rule.name,
            self._rule.source,
            writer=self._writer,
            number=number,
            now=self._clock.now(),
            version=self._version,
        )

        async def mark(place: tuple[RegionId, str], track: Track) -> None:
            cache, template = self._source.caches[place]
            track.why = await _tried(_answer(_mark(cache, template, item)))
            if not track.why:
                marked.append(track)

        # Where an entry of an earlier one waits to be dropped no other one is stored.
        await asyncio.gather(*(mark(place, track) for place, track in self._caches.items() if not track.wanted))
        at = self._clock.monotonic()
        await _answer(self._source.written.put(item))
        self._written_at = at

    # -- arriving ------------------------------------------------------------------------------------------------------

    async def _watch(self, track: Track, look: Callable[[], Awaitable[int | None]]) -> None:
        wake = self._wakes[track.place]
        while not self._is_over:
            wait = track.look_in(self._clock.monotonic())
            if wait is None:
                wake.clear()
                await wake.wait()
                continue
            await asyncio.sleep(wait)
            seen: list[int | None] = []

            async def once(seen: list[int | None] = seen) -> None:
                seen.append(await _answer(look()))

            why = await _tried(once())
            if seen:
                track.saw(seen[0], self._clock.monotonic())
            else:
                track.why = why
            self._tell(track)

    def _in_table(self, region: RegionId) -> Callable[[], Awaitable[int | None]]:
        async def look() -> int | None:
            schema = await self._source.written.schema()
            key = canary_key(schema, self._rule.name, self._rule.source)
            found = await self._source.tables[region].execute(GetItem(key), OPEN)
            return number_of(found.item if isinstance(found, Found) else None, self._writer)

        return look

    def _in_cache(self, region: RegionId, name: str, track: Track) -> Callable[[], Awaitable[int | None]]:
        cache, template = self._source.caches[region, name]

        async def look() -> int | None:
            schema = await self._source.written.schema()
            (head,) = await cache.heads([_entry(template, schema, self._rule)])
            return None if head else min(track.wanted, default=None)

        return look


def _entry(template: KeyTemplate, schema: Schema, rule: Rule) -> str:
    return _entry_of(template, canary_item(schema, rule.name, rule.source, writer="", number=0, now=0.0))


def _entry_of(template: KeyTemplate, item: Image) -> str:
    key = template.key(item)
    assert key is not None, "every canary has what its template names"
    return key


async def _mark(cache: Cache, template: KeyTemplate, item: Image) -> None:
    """Store an entry that the canary's arrival drops."""
    key = _entry_of(template, item)
    answer = await cache.apply([Refresh(key, UNSTAMPED, b"{}", _ENTRY_MS, through=True)])
    for refused in answer.refused.values():
        raise refused
    await cache.fill([CacheFill(key, lease, _ENTRY, _ENTRY_MS) for key, lease in answer.leased.items()])
    (head,) = await cache.heads([key])
    if not head:
        raise _NotStored("The cache does not keep the canary's entry.", advice="Give it more memory.")


class _NotStored(ReplicatorError):
    """A cache took an entry and has none."""


async def _answer(doing: Awaitable[Answer]) -> Answer:
    try:
        async with asyncio.timeout(_SECONDS):
            return await doing
    except TimeoutError as error:
        raise Unreachable(f"There is no answer within {_SECONDS:g} seconds.") from error


async def _tried(doing: Awaitable[None]) -> str:
    """Why something did not come to its end; empty: it did."""
    try:
        await doing
    except ReplicatorError as error:
        return error.sentence
    return ""
