"""Whether stored progress belongs to rules that are configured, can be read, and goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import CoordinationTable, Operations, StoredStream, stored_streams
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.domain.errors import AccessRefused, ReplicatorError, TableMissing, Unreachable
from replicator.domain.verdict.kinds import counted

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings


async def progress_facts(settings: Settings, places: Mapping[str, Place]) -> list[Fact]:
    """One fact per stream with progress that belongs to no rule, per row that cannot be read, and per rule at rest."""
    subject = f"progress of group {settings.group}"
    home = settings.coordination.region
    table = CoordinationTable(
        places[home].dynamodb, table=settings.coordination.table, group=settings.group, region_id=home
    )
    try:
        names = table.names
        for partition in (names.workers, names.tables, names.regions, names.jobs, names.functions):
            await table.query(partition)  # rows of a newer program are refused
        streams = await stored_streams(table)
    except (AccessRefused, TableMissing, Unreachable):
        return []  # the facts about the table itself and about its region say so
    except ReplicatorError as error:
        return [failed(subject, "known rules", error)]
    configured = {rule.name for rule in settings.rules}
    orphans = [_orphans(settings, stored) for stored in streams if stored.rules - configured]
    unreadable = [failed(subject, "rows readable", problem) for stored in streams for problem in stored.problems]
    return [
        *(orphans or [ok(subject, "known rules", f"{counted(len(streams), 'stream')} on record.")]),
        *(unreadable or [ok(subject, "rows readable")]),
        *await _at_rest(Operations(table), subject),
    ]


def _orphans(settings: Settings, stored: StoredStream) -> Fact:
    stream = stored.stream
    orphans = sorted(stored.rules - {rule.name for rule in settings.rules})
    subject = f"progress on table {stream.table} in {stream.region}"
    here = {rule.name for rule in settings.rules if (stream.region, stream.table) in rule.sources}
    new = sorted(here - stored.rules)
    found = f"There is progress of {', '.join(orphans)}, which is not configured"
    remedy = f"Run `replicator rules rename {orphans[0]} NEW` or `replicator rules forget {orphans[0]}`."
    if new:
        found += f", while {', '.join(new)} has none on the same stream, so a start is refused"
        return wrong(subject, "known rules", f"{found}.", remedy)
    return warning(subject, "known rules", f"{found}.", remedy)


async def _at_rest(operations: Operations, subject: str) -> list[Fact]:
    """What rests because an operator wants it so, or until an operator decides."""
    try:
        pauses, gaps = await operations.pauses(), await operations.gaps()
    except ReplicatorError as error:
        return [failed(subject, "rows readable", error)]
    paused = [
        warning(
            f"rule {pause.rule}",
            "not paused",
            f"It is paused. {pause.note}".strip(),
            f"Run `replicator resume {pause.rule}`.",
        )
        for pause in pauses
    ]
    lost = [stored for stored in gaps if stored.acknowledged_at is None]
    if not lost:
        return paused
    found = f"{len(lost)} losses are not acknowledged, the first at {lost[0].gap.target_id}."
    return [*paused, warning(subject, "no open gaps", found, "Run `replicator gaps list`.")]
