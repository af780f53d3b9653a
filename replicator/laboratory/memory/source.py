"""A source table in memory: writes become records of a memory stream.

Invariant: images chain (a record's old image is the new one of the record before it), sequence numbers rise, and a
write that changes nothing leaves no record.
"""

from __future__ import annotations

from collections.abc import Callable

from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.requests import Found, GetItem, Request, Response
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.shards.leases import StreamRef
from replicator.laboratory.memory.stream import MemoryStream
from replicator.ports.targets import Fence


class MemorySource:
    """One table that users write to, with its stream."""

    def __init__(
        self,
        streams: MemoryStream,
        stream: StreamRef,
        *,
        shard_of: Callable[[ItemKey], ShardId],
        now: Callable[[], float],
        first_sequence: int = 1,
    ) -> None:
        """`shard_of` names the open shard that a key's records go to; it may change its mind when shards roll."""
        self._streams = streams
        self._stream = stream
        self._shard_of = shard_of
        self._now = now
        self._next = first_sequence
        self.items: dict[ItemKey, Image] = {}

    def put(self, key: ItemKey, item: Image) -> None:
        """Write an item."""
        self._write(key, item, by_ttl=False)

    def delete(self, key: ItemKey, *, by_ttl: bool = False) -> None:
        """Delete an item, as a user or as the table's TTL."""
        self._write(key, None, by_ttl=by_ttl)

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Read an item, as comparisons do."""
        assert isinstance(request, GetItem), "a source is only read"
        fence.check()
        return Found(item=self.items.get(request.key))

    def _write(self, key: ItemKey, new: Image | None, *, by_ttl: bool) -> None:
        old = self.items.get(key)
        if old == new:
            return
        if new is None:
            del self.items[key]
        else:
            self.items[key] = new
        record = ChangeRecord(
            event=_event(old, new),
            key=key,
            old=old,
            new=new,
            sequence=SequenceNumber(str(self._next)),
            created_at=float(int(self._now())),
            by_ttl=by_ttl,
        )
        self._next += 1
        self._streams.append(self._stream, self._shard_of(key), [record])


def _event(old: Image | None, new: Image | None) -> Event:
    if new is None:
        return Event.REMOVE
    return Event.INSERT if old is None else Event.MODIFY
