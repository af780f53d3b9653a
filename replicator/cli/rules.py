"""`replicator rules`: the configured rules, stored progress without a rule, and its renaming or forgetting."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.adapters.clients import open_places
from replicator.cli.output import print_json, print_rows
from replicator.cli.progress import Ledger
from replicator.domain.errors import EXIT_STOPPED, ReplicatorError, WorldMismatch
from replicator.settings import OrderedRule
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.settings import RuleSettings, Settings

Answer = TypeVar("Answer")


def list_rules(config: Path | None, *, as_json: bool) -> int:
    """Print the rules; progress is left out, and said to be, when the coordination table does not answer."""
    settings = load(configuration_path(config))
    stored: dict[str, list[str]] | None
    try:
        stored = asyncio.run(_with_ledger(settings, _stored))
    except ReplicatorError as error:
        stored = None
        sys.stderr.write(f"replicator: progress is unknown: {error.sentence}\n")
    rows = [
        {
            "name": rule.name,
            "configured": True,
            "mode": rule.mode,
            **_places(rule),
            "caches": [f"{action.cache} ({action.action})" for action in rule.cache],
            "progress": None if stored is None else stored.get(rule.name, []),
        }
        for rule in settings.rules
    ]
    configured = {rule.name for rule in settings.rules}
    rows += [
        {"name": name, "configured": False, "progress": streams}
        for name, streams in (stored or {}).items()
        if name not in configured
    ]
    if as_json:
        print_json({"group": settings.group, "rules": rows})
    else:
        print_rows(("rule", "mode", "sources", "replicas", "caches", "progress on"), [_cells(row) for row in rows])
    return EXIT_STOPPED


def _places(rule: RuleSettings) -> dict[str, list[str]]:
    """Where a rule reads and writes; one that chooses its tables, by what it chooses."""
    if rule.choice is None:
        return {
            "sources": [f"{region}:{table}" for region, table in rule.sources],
            "replicas": [f"{region}:{table}" for region, table in rule.replica_tables],
        }
    read = [rule.source] if isinstance(rule, OrderedRule) else rule.regions_used
    return {
        "sources": [f"{region}:{rule.choice}" for region in read],
        "replicas": [f"{region}:{rule.choice}" for region in rule.regions_written],
    }


def _cells(row: dict[str, Any]) -> list[str]:
    progress = "unknown" if row["progress"] is None else ", ".join(row["progress"]) or "none"
    if not row["configured"]:
        return [row["name"], "not configured", "", "", "", progress]
    mesh = row["sources"] == row["replicas"]
    places = [", ".join(row["sources"]), "one another" if mesh else ", ".join(row["replicas"])]
    return [row["name"], row["mode"], *places, ", ".join(row["caches"]), progress]


async def _stored(ledger: Ledger) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for progress in await ledger.streams():
        for name in sorted(progress.rules):
            found.setdefault(name, []).append(f"{progress.stream.region}:{progress.stream.table}")
    return found


def rename_rule(config: Path | None, old: str, new: str, *, as_json: bool) -> int:
    """Hand the progress of a rule that was renamed over to its new name."""
    settings = load(configuration_path(config))
    _refuse_configured(settings, old)
    if new not in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {new} is not in the configuration.", advice="Rename the rule there first, then run this again."
        )
    changed = asyncio.run(
        _with_ledger(settings, lambda ledger: _alone(ledger, settings, lambda: ledger.rename(old, new)))
    )
    return _tell(old, f"now belongs to {new}", changed, as_json=as_json)


def forget_rule(config: Path | None, old: str, *, as_json: bool) -> int:
    """Delete the progress of a rule that is no longer configured."""
    settings = load(configuration_path(config))
    _refuse_configured(settings, old)
    changed = asyncio.run(_with_ledger(settings, lambda ledger: _alone(ledger, settings, lambda: ledger.forget(old))))
    return _tell(old, "is forgotten", changed, as_json=as_json)


def _refuse_configured(settings: Settings, old: str) -> None:
    if old in {rule.name for rule in settings.rules}:
        raise WorldMismatch(
            f"Rule {old} is still in the configuration, so its progress is in use.",
            advice="Rename or remove the rule there first, then run this again.",
        )


async def _alone(ledger: Ledger, settings: Settings, work: Callable[[], Awaitable[int]]) -> int:
    """Do the work unless a worker lives; a worker would write its positions over it."""
    sys.stderr.write(f"replicator: looking for living workers of group {settings.group} ...\n")
    living = await ledger.living()
    if living:
        raise WorldMismatch(
            f"Worker {', '.join(living)} of group {settings.group} is running.",
            advice="Stop every daemon of the group, then run this again.",
        )
    return await work()


async def _with_ledger(settings: Settings, work: Callable[[Ledger], Awaitable[Answer]]) -> Answer:
    home = settings.coordination.region
    async with open_places(settings, {home}) as places:
        return await work(Ledger(settings, places[home]))


def _tell(old: str, what: str, changed: int, *, as_json: bool) -> int:
    if changed == 0:
        raise WorldMismatch(f"There is no progress of rule {old}.", advice="`replicator rules` lists what there is.")
    if as_json:
        print_json({"rule": old, "rows": changed})
    else:
        sys.stdout.write(f"The progress of rule {old} {what} ({changed} rows).\n")
    return EXIT_STOPPED
