"""What one target on one shard sets aside: its refusals as rows, and the end of rows that were taken after all."""

from __future__ import annotations

from msgspec import Struct

from replicator.domain.coalescing import Run
from replicator.domain.errors import MalformedRecord, ReplicatorError
from replicator.domain.image import Image, unreserved
from replicator.domain.item_size import STAMP_BYTES, item_size
from replicator.domain.modes.ordered import Change
from replicator.domain.owed_keys import LONGEST_REASON, OwedKey, Settlement
from replicator.domain.records import ChangeRecord, ItemKey, UnreadRecord
from replicator.domain.versions import ordered_version, sequence_of
from replicator.engine.applying.parking import Parking
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.targets import Fence


class SetAside(Struct, frozen=True):
    """A target's parking as one shard uses it. `epoch`: of the rule; `by`: this worker."""

    parking: Parking
    place: Place
    epoch: int
    by: str
    clock: Clock
    observer: Observer
    fence: Fence

    def owes(self, key: ItemKey) -> str | None:
        """The version that is owed of a key, None when none is."""
        return self.parking.owes(key)

    async def change(self, unit: Run, change: Change | None, error: ReplicatorError) -> None:
        """Keep a refused change; without one, what is wrong with the last record kept it from becoming a change.

        An image that could not be transformed is not kept: a retry reads the source.
        """
        if change is None:
            record = unit.records[-1]
            as_it_is = self.place.target.transform is None
            image = None if record.new is None or not as_it_is else unreserved(record.new)
        else:
            number = sequence_of(change.version)
            record = next(each for each in unit.records if int(each.rank) == number)
            image = change.new
        row = self._row(record, error, image)
        await self._put(row, None if image is None else image.wire, error)

    async def record(self, record: UnreadRecord) -> None:
        """Keep a record that cannot be understood, as it came."""
        error = MalformedRecord(record.why)
        await self._put(self._row(record, error, None), record.raw, error)

    async def event(self, unit: Run, body: bytes | None, error: ReplicatorError) -> None:
        """Keep a refused event; it is a row of its own, which no later event of its key settles."""
        (record,) = unit.records
        await self._put(self._row(record, error, record.new), body, error)

    async def event_taken(self, unit: Run) -> None:
        """An event was taken, so its row is settled, if there is one: it was read again after a crash."""
        row = self._row(unit.records[0], None, None)
        if await self.parking.settle(row, Settlement.APPLIED, self.fence):
            self.observer.unparked(self.place, row, Settlement.APPLIED)

    async def taken(self, unit: Run, version: str) -> None:
        """A change of a key was taken, so a row that is no newer is settled."""
        if self.parking.owes(unit.key) is None:
            return
        number = sequence_of(version)
        record = next(each for each in unit.records if int(each.rank) == number)
        row = self._row(record, None, None)
        if await self.parking.settle(row, Settlement.APPLIED, self.fence):
            self.observer.unparked(self.place, row, Settlement.APPLIED)

    async def _put(self, row: OwedKey, body: bytes | None, error: ReplicatorError) -> None:
        self.observer.parked(self.place, await self.parking.put(row, body, error, self.fence))

    def _row(self, record: ChangeRecord | UnreadRecord, error: ReplicatorError | None, image: Image | None) -> OwedKey:
        now = self.clock.now()
        change = record if isinstance(record, ChangeRecord) else None
        return OwedKey(
            to=self.parking.to,
            key=None if change is None else change.key,
            version=ordered_version(self.epoch, self.place.stream.generation, int(record.rank)),
            shard=self.place.shard_id,
            sequence=record.sequence,
            event=None if change is None else change.event,
            why="" if error is None else error.message[:LONGEST_REASON],
            changed_at=record.created_at,
            first=now,
            last=now,
            by=self.by,
            size=None if image is None else _size(image),
        )


def _size(image: Image) -> int | None:
    """Bytes of an item with its version; None when it cannot be decoded."""
    try:
        return item_size(image) + STAMP_BYTES
    except MalformedRecord:
        return None
