"""`replicator caches`, shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.output import note, print_json, print_rows, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED, EXIT_UNREACHABLE
from replicator.domain.verdict.kinds import span
from replicator.operations.caches import cache_status, regions_of
from replicator.operations.group import SHOW_SECONDS

if TYPE_CHECKING:
    from replicator.operations.caches import CacheStatus

_COLUMNS = (
    "cache", "region:3", "standing", "owed", "oldest:2", "nines 1 s, 5 s, 60 s:3", "nines:4", "last flush:5",
    "server:1", "address:6",
)  # fmt: skip


def show_caches(config: Path | None, *, as_json: bool) -> int:
    """Print how every cache stands and what it is owed; exit code 1 when one is not sound, 69 when that is unknown."""
    settings = loaded(config)
    found = on_group(settings, cache_status, regions_of(settings), longest=SHOW_SECONDS)
    code = EXIT_UNREACHABLE if any(each.unknown for each in found) else EXIT_STOPPED
    code = EXIT_STOPPED if not found else code if all(each.is_sound for each in found) else code or EXIT_FAULT
    if as_json:
        print_json({"group": settings.group, "caches": found})
        return code
    if not found:
        note("no rule acts on a cache.")
        return code
    print_rows(_COLUMNS, map(_cells, found), one_line=True)
    for sentence in (sentence for each in found for sentence in _sentences(each)):
        note(sentence)
    return code


def _cells(cache: CacheStatus) -> list[str]:
    keys = "not known" if cache.keys is None else f"{'at least ' if cache.more else ''}{cache.keys}"
    return [
        cache.cache,
        cache.region,
        _standing(cache),
        f"{keys}, and a flush" if cache.owes_flush else keys,
        "" if cache.oldest_seconds is None else span(cache.oldest_seconds),
        ", ".join("-" if each.nines is None else f"{each.nines:g}" for each in cache.horizons),
        "" if cache.nines is None else f"{cache.nines:g} of {cache.entries} entries",
        shown_time(cache.last_flush),
        cache.server or "",
        cache.address,
    ]


def _standing(cache: CacheStatus) -> str:
    if cache.away:
        return f"away for {span(cache.away_seconds or 0.0)}"
    if cache.trouble is not None:
        return "here for workers" if cache.workers else "no answer"
    if cache.refuses:
        return "here in part"
    return "here" if cache.workers else "here, no worker"


def _sentences(cache: CacheStatus) -> Iterator[str]:
    """What is wrong, in sentences."""
    if cache.away:
        yield f"{cache.away} of {cache.workers} workers have no answer of cache {cache.cache}: {cache.why}"
    if cache.refuses:
        yield f"cache {cache.cache} refuses some entries: {cache.refuses}"
    if len(cache.nodes) > 1:
        yield f"cache {cache.cache}: {'; '.join(node.shown for node in cache.nodes)}."
    for each in cache.horizons:
        if each.inconsistent:
            yield (
                f"cache {cache.cache}: of {each.checked} entries {each.inconsistent} were older than their table"
                f" {span(each.seconds)} behind a change; they were dropped."
            )
    if cache.trouble is not None:
        yield f"cache {cache.cache} does not answer this command: {cache.trouble}"
    if cache.unknown is not None:
        yield f"what cache {cache.cache} has as its backlog is not known: {cache.unknown}"
    if cache.ignored:
        yield f"{cache.ignored} actions on cache {cache.cache} were given up; the entries concerned stay stale."
