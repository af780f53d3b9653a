"""The gate behind lost records: a loss is stored, and passed only when an operator accepted it.

Invariant: no target goes on behind a loss before the loss is durable in the ledger, and under the policy `stop` not
before an operator has acknowledged it, or the records are there again; nor does a mesh that lost more than tombstones
live for. Under `resync` it goes on at once, and a repair of the table follows (`domain/copying/resyncs.py`). The same
loss found again, by any worker, is the same gap; when it has grown, it must be acknowledged again, because all of it
was not shown before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replicator.domain.copying.resyncs import resyncs
from replicator.domain.errors import Disposition, RecordsTrimmed, ReplicatorError
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import Position
from replicator.domain.rules import OnGap, Rule, Target
from replicator.engine.shard.context import ShardContext
from replicator.engine.waiting import backoff, pause_or_raise

_SLOW_TRY = 6
"""A gap is looked at again as if that had failed this often already: seconds apart, not milliseconds."""

_DAY_SECONDS = 86_400.0
_LOOKS_BEFORE_LOSS = 3
"""One answer that something is gone may be wrong."""


async def _never() -> bool:
    return False


class GapGate:
    """Where one target waits on one shard because of what it lost."""

    def __init__(self, rule: Rule, target: Target, context: ShardContext) -> None:
        self._on_gap = rule.on_gap
        self._resyncs = resyncs(rule, target)
        self._in_mesh = bool(target.members)
        self._context = context
        self._place = context.place(target)
        self._passing = False
        """Whether the target is between the acknowledgement and the next record that is read."""
        self.stop = asyncio.Event()
        """Ends every wait."""
        self.closed: RecordsTrimmed | None = None
        """The loss that the target waits behind now."""

    def gap(self, behind: Position, until: Position | None, why: str, shard_id: ShardId | None = None) -> Gap:
        """A loss of the target on this shard, or on one of its parents."""
        lease = self._context.lease
        return Gap(
            stream=lease.stream,
            shard_id=shard_id or lease.shard_id,
            target_id=self._place.target.target_id,
            after=behind,
            until=until,
            found_at=self._context.ports.servers.latest(),
            why=why,
        )

    async def never_again(self, is_there: Callable[[], Awaitable[bool]]) -> bool:
        """Whether something is gone for good, as several answers in a row show."""
        for _ in range(_LOOKS_BEFORE_LOSS):
            if await is_there():
                return False
            await pause_or_raise(self.stop, self._context.limits.idle_seconds)
        return True

    def passed(self) -> None:
        """Records were read behind what was acknowledged: what is lost from now on is another loss."""
        self._passing = False

    async def wait(
        self,
        look: Callable[[], Awaitable[list[Gap]]],
        error: RecordsTrimmed,
        is_back: Callable[[], Awaitable[bool]] = _never,
    ) -> bool:
        """Make losses durable and wait until they may be passed; True when the records are there again after all.

        Every try looks anew at what is lost by then; only a loss that this wait has shown may be acknowledged. What
        grows between the acknowledgement and the next read is recorded and passed with it: records that age away one
        after the other must not outrun every acknowledgement.
        """
        longest = self._context.limits.backoff_seconds
        shown, attempt = await look(), _SLOW_TRY
        await self._record(shown)
        if self._on_gap is OnGap.SKIP:
            await pause_or_raise(self.stop, backoff(attempt, longest))
            self._pass(shown, "the rule skips what is lost")
            return False
        if self._resyncs and shown:
            too_long = self._too_long(shown)
            if too_long is None:
                await pause_or_raise(self.stop, backoff(attempt, longest))
                self._pass(shown, "a repair of the table follows")
                return False
            error = too_long
        if self._passing or not shown:
            self._pass(shown, "it grew while an acknowledged loss was passed")
            return False
        while True:
            if await self._acknowledged(shown):
                grown = await self._looked(look, shown)
                if grown is not None:
                    self._passing = bool(grown)
                    self._pass(grown, "an operator acknowledged the loss")
                    return False
            self.closed = error
            self._context.ports.observer.blocked(self._place, error, None)
            await pause_or_raise(self.stop, backoff(attempt, longest))
            attempt += 1
            if await self._surely(is_back):
                self._pass((), "")
                return True
            if not await self._acknowledged(shown):
                shown = await self._looked(look, shown) or shown

    def _too_long(self, gaps: Sequence[Gap]) -> RecordsTrimmed | None:
        """What keeps a mesh behind a loss: deletes in it may be forgotten, so that a repair would bring items back."""
        longest = self._context.limits.overdue_seconds
        sinces = [gap.after.through for gap in gaps if gap.after.through is not None]
        lost = self._context.ports.servers.latest() - min(sinces) if sinces and self._in_mesh else 0.0
        if lost <= longest:
            return None
        return RecordsTrimmed(
            f"The mesh lost {lost / _DAY_SECONDS:.1f} days of changes of region {self._context.lease.stream.region}:"
            " tombstones of that time may be gone, so it cannot be repaired.",
            advice="Rebuild the region from another one: docs/operations.md, A region of a mesh is away.",
        )

    async def _looked(self, look: Callable[[], Awaitable[list[Gap]]], before: list[Gap]) -> list[Gap] | None:
        """What is lost by now, on record; None when that is not known."""
        try:
            gaps = await look()
            await self._record(gaps, before)
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return None
        return gaps

    async def _record(self, gaps: Sequence[Gap], before: Sequence[Gap] = ()) -> None:
        known = {(gap.gap_id, gap.until) for gap in before}
        for gap in gaps:
            self._context.fence.check()
            await self._context.ports.registry.record_gap(gap)
            if (gap.gap_id, gap.until) not in known:
                self._context.ports.observer.gap_found(gap)

    async def _acknowledged(self, gaps: Sequence[Gap]) -> bool:
        async def all_of_them() -> bool:
            return all([await self._context.ports.registry.acknowledged(gap) for gap in gaps])

        return await self._surely(all_of_them)

    async def _surely(self, question: Callable[[], Awaitable[bool]]) -> bool:
        """The answer; no when there is none."""
        self._context.fence.check()
        try:
            return await question()
        except ReplicatorError as error:
            if error.disposition is Disposition.RELINQUISH:
                raise
            return False

    def _pass(self, gaps: Sequence[Gap], why: str) -> None:
        if self.closed is not None:
            self.closed = None
            self._context.ports.observer.unblocked(self._place)
        for gap in gaps:
            self._context.ports.observer.gap_passed(gap, why)
