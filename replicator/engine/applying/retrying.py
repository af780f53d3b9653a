"""Trying again what a target refused, by an operator's word and beside living workers.

It is what a slow worker does: a write under the version that is owed, which loses against everything newer. Invariant:
what may have been deleted since is never brought back from a kept image; and a row is settled only if it still is as it
was when it was shown. What is refused as it was kept may fit as the source holds it by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from replicator.domain.coalescing import Run
from replicator.domain.copying.contents import wanted
from replicator.domain.errors import ReplicatorError
from replicator.domain.filters import Filter
from replicator.domain.image import Image, unreserved
from replicator.domain.item_events import from_kept
from replicator.domain.modes.ordered import InsertGuard
from replicator.domain.modes.requests import Found, GetItem
from replicator.domain.owed_keys import (
    OwedKey,
    RetryBy,
    Settlement,
    as_record,
    is_refusal,
    retry_by,
    under_its_version,
)
from replicator.domain.records import ChangeRecord, Event, ForeignRecord, ItemKey, StreamRecord, UnreadRecord
from replicator.domain.rules import Rule, Target, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetKind
from replicator.domain.transforms import shaped
from replicator.domain.values import replace
from replicator.domain.versions import at_sequence
from replicator.engine.applying.context import Tally, TargetContext, TargetPorts, applied
from replicator.engine.applying.kinds import driver_of
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.limits import Limits
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.owed import OwedKeys
from replicator.ports.targets import Fence, Region


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of a retry: how the row was settled, or why it was not."""

    how: Settlement | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Retrial:
    """What a retry needs: a rule's target with its ports, the source, the rows, and how a kept record is read."""

    rule: Rule
    target: Target
    ports: TargetPorts
    source: Region
    rows: OwedKeys
    parse: Callable[[bytes], StreamRecord]
    tombstone_seconds: float
    clock: Clock
    observer: Observer
    fence: Fence
    by: str

    async def retry(self, row: OwedKey) -> Retried:
        """Try a row again; raises what the world is in the way with."""
        try:
            return await self._retry(row)
        except ReplicatorError as error:
            if not is_refusal(error):
                raise
            return Retried(None, error.sentence)

    async def _retry(self, row: OwedKey) -> Retried:
        body = await self.rows.body(row)
        if self.target.kind is TargetKind.EVENTS:
            return await self._emit(row, body)
        read = self._read(row, body)
        if isinstance(read, Retried):
            return read
        owed, kept = read
        assert owed.key is not None, "read above"
        if self._is_coarse:
            return await self._as_at_source(row, owed, owed.key)
        by = retry_by(owed, self.clock.now(), self.tombstone_seconds)
        if by is RetryBy.CHANGE and (kept is not None or not owed.is_put):
            try:
                await self._apply(owed, owed.key, kept)
            except ReplicatorError as error:
                if not (owed.is_put and is_refusal(error)):
                    raise
            else:
                return await self._settle(row, Settlement.RETRIED)
        held = await self._item(self.source, owed.key)
        if held is None:
            return await self._settle(row, Settlement.ABSENT)
        await self._apply(owed, owed.key, self._as_wanted(owed.key, held))
        return await self._settle(row, Settlement.RETRIED)

    def _read(self, row: OwedKey, body: bytes | None) -> tuple[OwedKey, Image | None] | Retried:
        """What a row owes, with its image; of one that was kept as it came, if that can be read by now."""
        if row.key is not None:
            return row, None if body is None else Image(body)
        record = UnreadRecord(row.sequence, b"", "Its record is not kept.") if body is None else self.parse(body)
        if isinstance(record, UnreadRecord):
            return Retried(None, record.why)
        if isinstance(record, ForeignRecord):
            return Retried(None, f"It is a record of table {record.table}.")
        version = at_sequence(row.version, int(record.rank))
        owed = replace(row, key=record.key, event=record.event, changed_at=record.created_at, version=version)
        return owed, None if record.new is None else shaped(self.target.transform, record.key, unreserved(record.new))

    @property
    def _is_coarse(self) -> bool:
        """Whether a row may stand for an earlier change than another one of its millisecond that was not taken."""
        return self.rule.stream is not None and not self.rule.stream.in_microseconds

    async def _as_at_source(self, row: OwedKey, owed: OwedKey, key: ItemKey) -> Retried:
        """Bring what the source holds: only it knows which of the changes of a millisecond was the last one.

        Where expiries are let be, a missing item may be one, so it takes nothing away.
        """
        held = await self._item(self.source, key)
        if held is None and owed.is_put and self.rule.ttl_deletes is TtlDeletes.SKIP:
            return await self._settle(row, Settlement.ABSENT)
        event = Event.REMOVE if held is None else owed.event if owed.is_put else Event.MODIFY
        new = None if held is None else self._as_wanted(key, held)
        await self._apply(replace(owed, event=event), key, new)
        return await self._settle(row, Settlement.RETRIED)

    async def _emit(self, row: OwedKey, body: bytes | None) -> Retried:
        """Send an event as it was kept, or that of a record that could not be read before."""
        if body is None:
            return Retried(
                None,
                "Its event is not stored, because it was too long or could not be built; its item is at the source.",
            )
        assert self.ports.events is not None, "a sink takes events"
        if row.key is not None:
            await self.ports.events.send(from_kept(body), self.fence)
            return await self._settle(row, Settlement.RETRIED)
        record = self.parse(body)
        if not isinstance(record, ChangeRecord):
            return Retried(None, record.why if isinstance(record, UnreadRecord) else "It is of another table.")
        rule, generation = under_its_version(self.rule, row)
        await self._drive(rule, generation, row, record)
        return await self._settle(row, Settlement.RETRIED)

    def _as_wanted(self, key: ItemKey, held: Image) -> Image | None:
        """The source's item as the target is to hold it; without a transform the driver judges it by itself."""
        transform = self.target.transform
        return held if transform is None else wanted(self.rule, held, key, transform)

    async def _item(self, region: Region, key: ItemKey) -> Image | None:
        answer = await region.execute(GetItem(key), self.fence)
        item = answer.item if isinstance(answer, Found) else None
        return None if item is None else unreserved(item)

    async def _apply(self, owed: OwedKey, key: ItemKey, new: Image | None) -> None:
        """Bring a change under the version that is owed; a missing item is always written together with its check.

        It is as the target is to hold it, so what would make it so is left out, but for its key there: by that readers
        name cache entries.
        """
        standing = None if self.ports.region is None else await self._item(self.ports.region, key)
        rule, generation = under_its_version(self.rule, owed)
        rule = replace(rule, policy=replace(rule.policy, insert_guard=InsertGuard.TRANSACT))
        target = self.target
        if target.transform is not None:
            target = replace(target, transform=target.transform.done)
            rule = replace(rule, filter=Filter(rule.filter.events))
        await self._drive(rule, generation, owed, as_record(owed, new, standing), target)

    async def _drive(
        self, rule: Rule, generation: int, owed: OwedKey, record: ChangeRecord, target: Target | None = None
    ) -> None:
        target = target or self.target
        stream = StreamRef(rule.source, rule.table, "", generation)
        place = Place(stream, owed.shard, target)
        context = TargetContext(
            rule, place, self.ports, ReadAhead(), Limits(), self.clock, self.observer, self.fence, asyncio.Event()
        )
        await applied(driver_of(context), context, Run(record.key, (record,)), Tally())

    async def _settle(self, row: OwedKey, how: Settlement) -> Retried:
        if await self.rows.settle(row, how, self.by, self.fence):
            return Retried(how)
        return Retried(None, "It was meanwhile refused again with a newer version.")
