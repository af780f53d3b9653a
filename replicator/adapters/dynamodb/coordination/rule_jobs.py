"""Jobs of a rule and what is noted of its targets: handed to another name, or forgotten.

Invariant: the row of a job is the last that bears the old name, so what was interrupted is found again; two jobs that
are not over never come to one target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination.changes import Change, text
from replicator.adapters.dynamodb.coordination.jobs import DynamoJobs, document_of
from replicator.adapters.dynamodb.coordination.names import FILLED, JOB, ON, key
from replicator.domain.errors import WorldMismatch
from replicator.domain.targets import parse_target
from replicator.domain.values import replace

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination.rows import Row
    from replicator.adapters.dynamodb.coordination.table import CoordinationTable
    from replicator.domain.identifiers import RuleName
    from replicator.domain.jobs import Job


class RuleJobs:
    """The rows of jobs by rule. Nothing may be at work on them."""

    def __init__(self, table: CoordinationTable) -> None:
        self._table = table
        self._jobs = DynamoJobs(table)

    async def refuse_two(self, old: RuleName, new: RuleName) -> None:
        """Refuse when both names have a job that is not over."""
        under_way = [job for job in await self._jobs.jobs() if job.state.is_open]
        mine = [job for job in under_way if job.rule == old]
        others = [job for job in under_way if job.rule == new]
        if mine and others:
            raise WorldMismatch(
                f"Rule {new} has job {others[0].job_id} of its own, and {old} has job {mine[0].job_id}.",
                advice="`replicator jobs cancel` one of the two, then run this command again.",
            )

    async def hand_over(self, old: RuleName, new: RuleName | None) -> int:
        """Move all to the rule's new name, or delete it when there is none; returns how many rows there were."""
        mine = [job for job in await self._jobs.jobs() if job.rule == old]
        noted = 0
        for row in await self._table.query(self._table.names.jobs):
            noted += await self._hand_over_note(row, old, new)
        for job in mine:
            await (self._jobs.forget(job.job_id) if new is None else self._rename(job, new))
        return len(mine) + noted

    async def _hand_over_note(self, row: Row, old: RuleName, new: RuleName | None) -> int:
        """Move which job is on a target, and when it was filled, unless that is noted under the new name."""
        sort = self._table.reader.text(row, "sk")
        kind, bar, name = sort.rpartition("|")
        target = parse_target(name) if sort.startswith((ON, FILLED)) else None
        if target is None or target.rule != old:
            return 0
        if new is not None:
            kept = {attribute: value for attribute, value in row.items() if attribute not in {"pk", "sk"}}
            place = key(self._table.names.jobs, f"{kind}{bar}{target.of_rule(new).text}")
            change = Change(sets=kept) if sort.startswith(ON) else Change(defaults=kept)
            await self._table.update(place, change)
        return int(await self._table.delete({"pk": row["pk"], "sk": row["sk"]}))

    async def _rename(self, job: Job, new: RuleName) -> None:
        renamed = replace(job, rule=new, targets=tuple(target.of_rule(new) for target in job.targets))
        change = Change(sets={"rule": text(new), "document": document_of(renamed)}, when={"rule": text(job.rule)})
        await self._table.update(key(self._table.names.jobs, f"{JOB}{job.job_id}"), change)
