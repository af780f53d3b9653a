"""What is owed to places that do not take it, as problems."""

from __future__ import annotations

import shlex

from replicator.domain.verdict.figures import Away, AwayCache, Refused
from replicator.domain.verdict.kinds import Kind, Problem, counted, span


def region_away(away: Away) -> Problem:
    """A region that is owed changes until it answers, or for ever."""
    owed = f"Its backlog has {counted(away.keys, 'key')}. " if away.keys else ""
    if away.rebuild:
        return Problem(
            Kind.REBUILD,
            f"{away.rule}/{away.region} must be rebuilt",
            away.why,
            f"{owed}Tombstones may have expired by now, so nothing more is applied to it until its table is"
            " re-created.",
            f"replicator resume {shlex.quote(away.rule)} --region {away.region} --rebuilt",
            away.rule,
            away.region,
            seconds=away.seconds,
        )
    return Problem(
        Kind.AWAY,
        f"{away.rule}/{away.region} is away for {span(away.seconds)}",
        away.why,
        f"{owed}The other regions continue; its backlog is applied when it answers.",
        "replicator check --failed",
        away.rule,
        away.region,
        seconds=away.seconds,
    )


def cache_away(cache: AwayCache) -> Problem:
    """A cache that is owed drops."""
    owed = "a flush" if cache.owes_flush else counted(cache.keys, "drop")
    standing = "refuses some entries" if cache.partly else "is away"
    return Problem(
        Kind.CACHE,
        f"cache {cache.cache} in {cache.region} {standing} for {span(cache.seconds)}",
        cache.why,
        f"Its backlog: {owed}; its readers may see stale entries until it is back. No target waits for it.",
        "replicator caches",
        place=cache.cache,
        seconds=cache.seconds,
    )


def parked_keys(refused: Refused) -> Problem:
    """A target that is owed what it refuses."""
    kinds = ((refused.keys, "key"), (refused.records, "record"))
    what = " and ".join(counted(count, name) for count, name in kinds if count)
    verb = "is" if refused.keys + refused.records == 1 else "are"
    since = "" if refused.seconds is None else f" for {span(refused.seconds)}"
    return Problem(
        Kind.PARKED,
        f"{what} of {refused.rule}/{refused.place} {verb} parked{since}",
        "The target refuses these changes; they are stored, and all other changes continue.",
        "Correct the items or the target, then `replicator parked retry`.",
        f"replicator parked list --rule {shlex.quote(refused.rule)}",
        refused.rule,
        refused.place,
        seconds=refused.seconds,
    )
