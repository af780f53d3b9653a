"""What was lost before it was read, and its acknowledgement by an operator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import StoredGap
from replicator.domain.gaps import EVERY_SHARD
from replicator.operations.errors import NotThere, RequestRefused
from replicator.operations.group import Group
from replicator.operations.times import moment

if TYPE_CHECKING:
    from replicator.domain.identifiers import RuleName, ShardId
    from replicator.domain.progress import Position
    from replicator.domain.shards.leases import StreamRef
    from replicator.domain.targets import TargetId

_LEAST_OF_ID = 4


@dataclass(frozen=True, slots=True)
class ListedGap:
    """A loss interval of one target, and by which user it was accepted when; None and empty while it is open."""

    gap: str
    rule: RuleName
    target: TargetId
    stream: StreamRef
    shard: ShardId
    after: Position
    until: Position | None
    found_at: datetime | None
    grown_at: datetime | None
    why: str
    acknowledged_at: datetime | None
    acknowledged_by: str
    note: str
    job: str | None = None
    """The job that repairs what was lost, or has."""

    @property
    def is_open(self) -> bool:
        """Whether the loss is not accepted."""
        return self.acknowledged_at is None

    @property
    def meaning(self) -> str:
        """What is lost, and what follows from it."""
        until = "" if self.until is None else f" up to {self.until.text}"
        where = self.shard if self.shard.startswith(EVERY_SHARD) else f"shard {self.shard}"
        return (
            f"Records of {where} of {self.stream.where} behind {self.after.text}{until}"
            f" never reached {self.target}, or may not have: {self.why}\n"
            "Items whose last change is among them differ until they are written again; items deleted by them"
            " still exist."
        )


def listed(stored: StoredGap) -> ListedGap:
    """A stored gap as it is shown."""
    gap = stored.gap
    return ListedGap(
        gap=gap.gap_id,
        rule=gap.target_id.rule,
        target=gap.target_id,
        stream=gap.stream,
        shard=gap.shard_id,
        after=gap.after,
        until=gap.until,
        found_at=moment(gap.found_at),
        grown_at=moment(stored.grown_at),
        why=gap.why,
        acknowledged_at=moment(stored.acknowledged_at),
        acknowledged_by=stored.acknowledged_by,
        note=stored.note,
        job=stored.job,
    )


async def list_gaps(group: Group, rule: str | None = None) -> list[ListedGap]:
    """Every loss, of a rule if one is named, oldest first."""
    return [listed(stored) for stored in await group.operations.gaps() if rule in {None, stored.gap.target_id.rule}]


async def gap_named(group: Group, gap_id: str) -> StoredGap:
    """The gap whose id begins so."""
    gaps = await group.operations.gaps()
    found = [stored for stored in gaps if len(gap_id) >= _LEAST_OF_ID and stored.gap.gap_id.startswith(gap_id)]
    if len(found) > 1:
        raise RequestRefused(f"{len(found)} gaps begin with {gap_id}.", advice="Write more of the id.")
    if not found:
        raise NotThere(
            f"There is no gap {gap_id}.",
            advice=f"`replicator gaps list --all` lists them; write at least {_LEAST_OF_ID} characters of the id.",
        )
    return found[0]


async def acknowledge(group: Group, seen: StoredGap, *, by: str, note: str = "") -> tuple[ListedGap, bool]:
    """Accept a loss as it was seen, so that a target that waits at it goes on behind it.

    Returns the gap as it is now, and whether it was accepted by this call: it may have been before.
    """
    changed = seen.acknowledged_at is None
    if changed:
        changed = await group.operations.acknowledge(seen.gap, now=(await group.time()).now(), by=by, note=note)
    gap = listed(await gap_named(group, seen.gap.gap_id))
    if not changed and gap.is_open:
        raise RequestRefused(
            f"Gap {gap.gap} has grown meanwhile, and was not acknowledged: {gap.meaning}",
            advice="Acknowledge it as it is now, with the same command.",
        )
    return gap, changed
