"""`replicator import-kcl`: what would be taken of a KCL consumer is shown, and stored once it is confirmed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.verdict.kinds import counted
from replicator.operations import kcl_import
from replicator.operations.kcl_import import ImportRequest, Plan

if TYPE_CHECKING:
    from replicator.operations.group import Group

_COLUMNS = ("shard", "position", "why")


def import_leases(config: Path | None, request: ImportRequest, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Show what will be taken, ask, and store it."""
    if not dry_run:
        need_yes(yes=yes, as_json=as_json)
    settings = loaded(config)
    rule = kcl_import.rule_of_import(settings, request)

    async def work(group: Group) -> Plan:
        planned = await kcl_import.plan(group, rule, request.table)
        if not as_json:
            _show(planned)
        if not dry_run:
            ask(f"Let rule {rule.name} go on from here?", yes=yes)
            await kcl_import.store(group, planned)
        return planned

    planned = on_group(settings, work, {rule.source})
    if as_json:
        print_json(
            {
                "rule": rule.name,
                "targets": [target.target_id for target in rule.targets],
                "region": planned.stream.region,
                "table": planned.stream.table,
                "stream": planned.stream.arn,
                "lease_table": request.table,
                "dry_run": dry_run,
                "warnings": planned.warnings,
                "shards": [
                    {
                        "shard": each.shard.shard_id,
                        "position": each.position,
                        "why": each.why,
                        "exact": each.is_exact,
                    }
                    for each in planned.taken
                ],
            }
        )
    else:
        done = "would be taken" if dry_run else "were taken"
        sys.stdout.write(f"Positions of {counted(len(planned.taken), 'shard')} {done} for rule {rule.name}.\n")
    return EXIT_STOPPED


def _show(planned: Plan) -> None:
    print_rows(_COLUMNS, [(each.shard.shard_id, each.position.text, each.why) for each in planned.taken])
    sys.stdout.flush()
    for warning in planned.warnings:
        note(warning)
