"""`replicator gaps list` and `acknowledge`, shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.confirmation import ask, need_yes, who
from replicator.cli.output import note, print_json, print_rows, shown_position, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.domain.verdict.next_loss import next_loss
from replicator.operations import gaps
from replicator.operations.documents import document
from replicator.operations.group import SHOW_SECONDS, known_rule
from replicator.operations.parked_rows import regions_of
from replicator.operations.problems import target_figures
from replicator.operations.status import status

if TYPE_CHECKING:
    from replicator.operations.gaps import ListedGap
    from replicator.operations.group import Group
    from replicator.operations.group_status import RuleStatus

_COLUMNS = ("gap", "found", "target", "stream:1", "shard:2", "after:6", "until:7", "why:4", "job:3", "acknowledged:5")


def list_gaps(config: Path | None, rule: str | None, *, everything: bool, as_json: bool) -> int:
    """Print losses, oldest first: those that are open, or all; for people also when the next one comes."""
    settings = loaded(config)

    async def work(group: Group) -> tuple[list[ListedGap], list[RuleStatus]]:
        standing = [] if as_json else (await status(group)).rules
        return await gaps.list_gaps(group, rule), [each for each in standing if rule in {None, each.name}]

    found, rules = on_group(settings, work, regions_of(settings), longest=SHOW_SECONDS)
    known_rule(settings, rule, found)
    shown = [gap for gap in found if everything or gap.is_open]
    if as_json:
        print_json({"group": settings.group, "gaps": shown})
        return EXIT_STOPPED
    print_rows(_COLUMNS, map(_row, shown), one_line=True)
    if not shown:
        note("there is no gap that matches.")
    if len(found) > len(shown):
        note(f"{len(found) - len(shown)} acknowledged gaps are hidden; --all shows them.")
    note(next_loss(figure for each in rules for figure in target_figures(each)))
    return EXIT_STOPPED


def _row(gap: ListedGap) -> list[str]:
    accepted = "" if gap.is_open else f"{shown_time(gap.acknowledged_at)} by {gap.acknowledged_by} {gap.note}"
    return [
        gap.gap,
        shown_time(gap.found_at),
        gap.target.text,
        gap.stream.where,
        gap.shard,
        gap.after.text,
        shown_position(gap.until, "not known"),
        gap.why,
        gap.job or "",
        accepted.strip(),
    ]


def acknowledge_gap(config: Path | None, gap_id: str, why: str, *, yes: bool, as_json: bool) -> int:
    """Say what is lost, ask, and accept it."""

    async def work(group: Group) -> tuple[ListedGap, bool]:
        seen = await gaps.gap_named(group, gap_id)
        if seen.acknowledged_at is None:
            need_yes(yes=yes, as_json=as_json)
            if not as_json:
                sys.stdout.write(gaps.listed(seen).meaning + "\n")
            ask("Accept this loss?", yes=yes)
        return await gaps.acknowledge(group, seen, by=who(), note=why)

    gap, changed = on_group(loaded(config), work)
    if as_json:
        print_json({**document(gap), "changed": changed})
    elif changed:
        sys.stdout.write(f"Gap {gap.gap} is acknowledged: a target that stopped at it continues after it.\n")
    else:
        sys.stdout.write(f"Gap {gap.gap} was acknowledged already, by {gap.acknowledged_by}.\n")
    return EXIT_STOPPED
