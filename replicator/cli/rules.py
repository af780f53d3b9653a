"""`replicator rules`, `rename` and `forget`, shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import who
from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.drivers import Drivers
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.identifiers import RuleName
from replicator.domain.verdict.kinds import counted
from replicator.operations import driving, rules
from replicator.operations.accepted_tables import AcceptedTable, accept
from replicator.operations.errors import RequestRefused
from replicator.operations.group import SHOW_SECONDS, rule_named
from replicator.operations.parked_rows import regions_of
from replicator.operations.rules import ConfiguredRule, OrphanedProgress

if TYPE_CHECKING:
    from replicator.operations.group import Group

_COLUMNS = ("rule", "mode", "sources", "replicas", "caches", "events", "driven by", "progress on")


def list_rules(config: Path | None, *, as_json: bool) -> int:
    """Print the rules; progress is left out, and said to be, when the coordination table does not answer."""
    settings = loaded(config)
    found = on_group(settings, rules.list_rules, longest=SHOW_SECONDS)
    if found.trouble is not None:
        note(f"progress is unknown: {found.trouble.sentence}")
    if as_json:
        print_json({"group": settings.group, "rules": found.rules})
    else:
        rows = [_cells(rule) for rule in found.rules]
        used = [not sys.stdout.isatty() or any(row[index] for row in rows) for index in range(len(_COLUMNS))]
        print_rows(list(compress(_COLUMNS, used)), [list(compress(row, used)) for row in rows])
    return EXIT_STOPPED


def _cells(rule: ConfiguredRule | OrphanedProgress) -> list[str]:
    progress = "unknown" if rule.progress is None else ", ".join(rule.progress) or "none"
    if isinstance(rule, OrphanedProgress):
        return [rule.name, "not configured", "", "", "", "", "", progress]
    replicas = "one another" if rule.sources == rule.replicas else ", ".join(rule.replicas)
    driven_by = rule.driven_by or "unknown"
    kept = (", ".join(rule.caches), ", ".join(rule.events))
    return [rule.name, rule.mode, ", ".join(rule.sources), replicas, *kept, driven_by, progress]


def rename_rule(config: Path | None, old: str, new: str, *, as_json: bool) -> int:
    """Hand the progress of a rule that was renamed over to its new name."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: rules.rename(group, RuleName(old), RuleName(new)), regions_of(settings))
    return _print(old, f"now belongs to {new}", changed, as_json=as_json)


def forget_rule(config: Path | None, old: str, *, as_json: bool) -> int:
    """Delete the progress of a rule that is no longer configured."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: rules.forget(group, RuleName(old)), regions_of(settings))
    return _print(old, "is forgotten", changed, as_json=as_json)


def accept_tables(config: Path | None, rule: str, region: str, table: str | None, *, as_json: bool) -> int:
    """Let tables that were created anew stand in the place of those that a rule wrote before."""
    settings = loaded(config)
    regions = {region, *rule_named(settings, rule).regions_used}
    if region not in settings.regions:
        raise RequestRefused(f"There is no region {region}.", advice=f"Regions are: {', '.join(settings.regions)}.")

    async def work(group: Group) -> Sequence[AcceptedTable]:
        return await accept(group, rule, region, table, by=who())

    accepted = on_group(settings, work, regions)
    if as_json:
        print_json({"accepted": accepted})
    for each in accepted if not as_json else ():
        sys.stdout.write(
            f"Table {each.table} in {each.region} is accepted as it is; rule {each.rule} goes on there at its next"
            f" look, within {settings.coordination.held.total_seconds():.0f} s.\n"
        )
    return EXIT_STOPPED


def drive_rule(config: Path | None, name: str, by: Drivers, *, as_json: bool) -> int:
    """Let functions, or pods, drive a rule, and say so."""
    settings = loaded(config)
    changed = on_group(settings, lambda group: driving.drive(group, name, by), regions_of(settings))
    who = "functions" if by is Drivers.LAMBDA else "pods"
    if as_json:
        print_json({"rule": name, "by": by, "changed": changed})
    elif changed:
        wait = settings.coordination.lease.total_seconds()
        sys.stdout.write(f"Rule {name} is driven by {who} from now on; they begin in about {wait:g} s.\n")
    else:
        sys.stdout.write(f"Rule {name} was driven by {who} already.\n")
    return EXIT_STOPPED


def _print(old: str, what: str, changed: int, *, as_json: bool) -> int:
    if as_json:
        print_json({"rule": old, "rows": changed})
    else:
        sys.stdout.write(f"The progress of rule {old} {what} ({counted(changed, 'row')}).\n")
    return EXIT_STOPPED
