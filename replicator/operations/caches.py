"""How caches stand, and what they are owed: as they say themselves, as the owed tables say, and as workers do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.adapters.clients import open_caches
from replicator.adapters.dynamodb.cache_debt import DynamoCacheDebt
from replicator.adapters.redis.opening import safe_url
from replicator.domain.cache_nodes import CacheNode
from replicator.domain.copying.sureness import nines
from replicator.domain.errors import ReplicatorError
from replicator.domain.jobs import JobKind
from replicator.operations.jobs import list_jobs
from replicator.operations.worker_status import ask_all, by_worker

if TYPE_CHECKING:
    from replicator.adapters.redis.cluster import CacheClient
    from replicator.operations.group import Group
    from replicator.operations.jobs import ListedJob
    from replicator.settings import Settings

_MOST_PAGES = 20
"""Pages of rows that are counted: of some 100 000 entries."""

_SECONDS = 3.0
_COUNTED = ("checked", "inconsistent", "absent", "opaque", "overtaken", "unread")


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """One cache. `server`, `nodes`: what it and its servers say to this command; `trouble`: why it says nothing.

    `keys`: entries that it is owed (at least so many when `more`), None when the owed table does not say (`unknown`).
    `away`: how many of the `workers` that answer have no answer of it, `why` being one's reason; `refuses`: why it
    refuses some entries of one of them. `horizons`: what workers found since they began. `nines`: of the
    entries that the last comparisons of its rules read.
    """

    cache: str
    region: str
    address: str
    rules: Sequence[str]
    server: str | None = None
    nodes: Sequence[CacheNode] = ()
    trouble: str | None = None
    keys: int | None = None
    more: bool = False
    oldest_seconds: float | None = None
    owes_flush: bool = False
    unknown: str | None = None
    workers: int = 0
    away: int = 0
    away_seconds: float | None = None
    why: str = ""
    refuses: str = ""
    last_flush: datetime | None = None
    flushes: int = 0
    restores: int = 0
    ignored: int = 0
    nines: float | None = None
    entries: int = 0
    stale: int = 0
    horizons: Sequence[VerifiedHorizon] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it answers here and every worker, and is owed nothing."""
        return self.trouble is None and not (self.away or self.refuses or self.keys or self.owes_flush)


@dataclass(frozen=True, slots=True)
class VerifiedHorizon:
    """What was found so many seconds behind actions: entries that were judged, those older than their table, nines."""

    seconds: float
    nines: float | None
    checked: int
    inconsistent: int
    absent: int
    opaque: int
    overtaken: int
    unread: int


@dataclass(frozen=True, slots=True)
class _Owed:
    keys: int | None = None
    more: bool = False
    oldest_seconds: float | None = None
    owes_flush: bool = False
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """What workers say of one cache."""

    said: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def sum(self, name: str) -> int:
        return sum(int(each[name]) for each in self.said)

    def horizons(self) -> list[VerifiedHorizon]:
        """Of all workers together."""
        found: dict[float, Counter[str]] = {}
        for each in (horizon for cache in self.said for horizon in cache.get("horizons", ())):
            counts = found.setdefault(float(each["seconds"]), Counter())
            counts.update({name: int(each[name]) for name in _COUNTED})
        return [
            VerifiedHorizon(
                seconds, nines(counts["checked"], counts["inconsistent"]), **{name: counts[name] for name in _COUNTED}
            )
            for seconds, counts in sorted(found.items())
        ]


def used_caches(settings: Settings) -> dict[str, list[str]]:
    """Names of the caches that rules act on, with these rules."""
    found: dict[str, list[str]] = {}
    for rule in settings.rules:
        for name in dict.fromkeys(action.cache for action in rule.cache):
            found.setdefault(name, []).append(rule.name)
    return found


def regions_of(settings: Settings) -> set[str]:
    """Regions whose owed tables are asked."""
    return {settings.caches[name].region for name in used_caches(settings)}


async def cache_status(group: Group) -> list[CacheStatus]:
    """Every cache that rules act on."""
    settings, used = group.settings, used_caches(group.settings)
    async with open_caches(settings, used) as caches:
        servers, owed, daemons, jobs = await asyncio.gather(
            asyncio.gather(*(_server(caches[name]) for name in used)),
            asyncio.gather(*(_owed(group, name) for name in used)),
            _daemons(group),
            _comparisons(group),
        )
    return [
        _joined(settings, name, rules, server, kept, daemons, jobs)
        for (name, rules), server, kept in zip(used.items(), servers, owed, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a cache says to this command."""

    server: str | None = None
    nodes: Sequence[CacheNode] = ()
    trouble: str | None = None


async def _server(cache: CacheClient) -> _Said:
    try:
        async with asyncio.timeout(_SECONDS):
            return _Said(await cache.describe(), await cache.nodes())
    except TimeoutError:
        return _Said(trouble=f"It did not answer within {_SECONDS:.0f} s.")
    except ReplicatorError as error:
        return _Said(trouble=error.sentence)


async def _owed(group: Group, name: str) -> _Owed:
    settings, region = group.settings, group.settings.caches[name].region
    rows = DynamoCacheDebt(
        group.places[region].dynamodb,
        table=settings.owed_table_name,
        group=settings.group,
        region_id=region,
        cache=name,
    )
    keys, since, after = 0, [], None
    try:
        flush = await rows.flush()
        for _ in range(_MOST_PAGES):
            page = await rows.page(after)
            keys += len(page.entries)
            since += [entry.since for entry in page.entries]
            after = page.after
            if after is None:
                break
    except ReplicatorError as error:
        return _Owed(unknown=error.sentence)
    since += [] if flush is None else [flush.since]
    age = round(max(0.0, group.table.clock.now() - min(since)), 1) if since else None
    return _Owed(keys, after is not None, age, flush is not None)


async def _daemons(group: Group) -> Mapping[str, Mapping[str, Any]]:
    try:
        pulses = await group.membership.members()
    except ReplicatorError:
        pulses = {}
    return by_worker(await ask_all(group.settings, (pulse.admin for pulse in pulses.values())))


async def _comparisons(group: Group) -> list[ListedJob]:
    """The last comparison of each rule's table."""
    try:
        jobs = await list_jobs(group, everything=True)
    except ReplicatorError:
        return []
    last = {(job.rule, job.table): job for job in jobs if job.kind is JobKind.VERIFY and job.ended_at is not None}
    return list(last.values())


def _joined(  # noqa: PLR0913, PLR0917 - what is known, given once
    settings: Settings,
    name: str,
    rules: Sequence[str],
    server: _Said,
    owed: _Owed,
    daemons: Mapping[str, Mapping[str, Any]],
    jobs: Sequence[ListedJob],
) -> CacheStatus:
    told = _Told([cache for each in daemons.values() for cache in each.get("caches", ()) if cache["cache"] == name])
    away = [each for each in told.said if each["standing"] != "here"]
    longest = max(away, key=lambda each: float(each["seconds"]), default=None)
    flushed = max((each["flushed_at"] for each in told.said if each["flushed_at"]), default=None)
    compared = [job for job in jobs if job.rule in rules]
    entries, stale = (round(sum(job.counts.get(count, 0) for job in compared)) for count in ("entries", "stale"))
    return CacheStatus(
        cache=name,
        region=settings.caches[name].region,
        address=safe_url(settings.caches[name].url),
        rules=rules,
        server=server.server,
        nodes=server.nodes,
        trouble=server.trouble,
        keys=owed.keys,
        more=owed.more,
        oldest_seconds=owed.oldest_seconds,
        owes_flush=owed.owes_flush,
        unknown=owed.unknown,
        workers=len(told.said),
        away=len(away),
        away_seconds=None if longest is None else longest["seconds"],
        why="" if longest is None else longest["why"],
        refuses=next((each["refuses"] for each in told.said if each.get("refuses")), ""),
        last_flush=None if flushed is None else datetime.fromtimestamp(flushed, UTC),
        flushes=told.sum("flushes"),
        restores=told.sum("restores"),
        ignored=told.sum("ignored"),
        nines=nines(entries, stale),
        entries=entries,
        stale=stale,
        horizons=told.horizons(),
    )
