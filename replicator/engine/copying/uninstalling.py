"""Uninstall: take stamps off items, and delete side rows, each as it was seen.

Invariant: what changed between the look and the write is left as it is, and counted. No worker does this job beside
replication: the process that was asked does it, when no worker runs the rule any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import Struct

from replicator.domain.copying.uninstalls import Kept, is_side_row, stamp_of
from replicator.domain.errors import ReplicatorError
from replicator.domain.jobs import ITEMS, Counts, Job, JobKind, Segment
from replicator.domain.modes.requests import ContentIs, Delete, Done, Refused, Unstamp
from replicator.domain.owed_keys import is_refusal
from replicator.domain.rules import ActivePlan
from replicator.domain.versions import STAMP
from replicator.engine.bounded import each, raise_first
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.handlers import Handler, JobContext, Look
from replicator.ports.copying import ScannedItem
from replicator.ports.targets import Fence

SIDE_TABLE = "side_table"
"""The option that names the side table."""

_WRITES_AT_ONCE = 16


class _Page(Struct, frozen=True):
    todo: Sequence[Unstamp | Delete]


class Uninstalling:
    """One job in one process."""

    def __init__(self, context: JobContext) -> None:
        mesh = context.rules[0].mesh
        self._context = context
        self._attribute = mesh.policy.attribute if isinstance(mesh, ActivePlan) else STAMP
        self._side_table = context.job.options[SIDE_TABLE]
        self._written = {
            (target.region, target.table): target.keys
            for rule in context.rules
            for target in rule.targets
            if target.table is not None
        }

    @property
    def follows(self) -> Sequence[Followed]:
        """None: no stream is read."""
        return ()

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Read the page behind a position."""
        region = self._context.regions[segment.part]
        page = await region.scan(segment.index, segment.of, position)
        counts: Counter[str] = Counter({ITEMS: len(page.items)})
        if region.table == self._side_table:
            tables = {str(table): keys for (place, table), keys in self._written.items() if place == region.name}
            todo: list[Unstamp | Delete] = [
                Delete(row.key, ContentIs(row.image)) for row in page.items if is_side_row(_name(row), tables)
            ]
        else:
            todo = []
            for item in page.items:
                found = stamp_of(item.image, self._attribute)
                if isinstance(found, Kept):
                    counts[found] += 1
                elif found is not None:
                    todo.append(Unstamp(item.key, found))
        return Look(page.after, None, _Page(todo), counts)

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        """Take away what is still as it was seen."""
        counts: Counter[str] = Counter()
        region = self._context.regions[segment.part]
        page: _Page = look.work

        async def one(request: Unstamp | Delete) -> None:
            try:
                answer = await region.execute(request, fence)
            except ReplicatorError as error:
                if not is_refusal(error):
                    raise
                counts["refused"] += 1
                return
            if isinstance(answer, Done):
                counts["unstamped" if isinstance(request, Unstamp) else "side_rows"] += 1
            elif self._is_left(request, answer):
                counts[Kept.CHANGED] += 1

        raise_first(await each(page.todo, one, at_once=_WRITES_AT_ONCE, name="take a stamp away"))
        return counts

    def _is_left(self, request: Unstamp | Delete, answer: object) -> bool:
        """Whether what refused still is there; an answer that was lost and given again refuses, too."""
        item = answer.item if isinstance(answer, Refused) else None
        return item is not None and (isinstance(request, Delete) or item.attribute(self._attribute) is not None)

    async def finish(self, job: Job, counts: Counts) -> Job | None:
        """Nothing follows."""
        del job, counts
        return None


def _name(row: ScannedItem) -> str:
    return row.key.parts[0][2]


KINDS: dict[JobKind, Callable[[JobContext], Handler]] = {JobKind.UNINSTALL: Uninstalling}
