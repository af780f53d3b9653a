"""The conflict log as jobs write it: entries witnessed by the job instead of a record."""

from __future__ import annotations

from msgspec import Struct

from replicator.domain.conflicts import ConflictEntry, LogConflict, Witness
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.modes.requests import Done
from replicator.domain.rules import Rule, Target
from replicator.domain.values import replace
from replicator.engine.copying.handlers import JobContext
from replicator.ports.targets import Fence


class Log(Struct, frozen=True):
    """The log of one job's rule."""

    context: JobContext
    rule: Rule

    async def write(self, conflict: LogConflict, target: Target, fence: Fence) -> Done:
        """Make an entry durable, before the write that it is about."""
        context = self.context
        if self.rule.mesh is None:
            conflict = replace(conflict, loser_region=target.region)
        witness = Witness(self.rule.source, ShardId(f"job:{context.job.job_id}"), SequenceNumber("0"))
        entry = ConflictEntry(conflict, self.rule.table, self.rule.name, self.rule.mode, witness, context.clock.now())
        fence.check()
        await context.targets[self.rule.source, target.target_id].conflicts.write(entry)
        return Done()
