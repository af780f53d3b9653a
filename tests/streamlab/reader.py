"""A reader that does it right: parents before children, every shard to its end, over the project's adapter."""

from __future__ import annotations

from itertools import pairwise

from replicator.adapters.dynamodb.streams import DynamoStreams, whole_listing
from replicator.domain.identifiers import ShardId
from replicator.domain.progress import HORIZON
from replicator.domain.records import ChangeRecord, changes
from replicator.domain.shards.leases import StreamRef

IDLE_PAGES = 3


async def shard_records(streams: DynamoStreams, stream: StreamRef, shard_id: ShardId) -> list[ChangeRecord]:
    """What a shard holds now; to its end if it is closed."""
    records: list[ChangeRecord] = []
    iterator: str | None = await streams.iterator(stream, shard_id, HORIZON)
    empty = 0
    while iterator is not None and empty < IDLE_PAGES:
        page = await streams.read(iterator, 1000)
        records += changes(page.records)
        empty = 0 if page.records else empty + 1
        iterator = page.next_iterator
    return records


async def everything(streams: DynamoStreams, stream: StreamRef) -> list[ChangeRecord]:
    """All records of a stream; a listing in the order of creation has parents first."""
    records: list[ChangeRecord] = []
    for shard in await whole_listing(streams, stream):
        records += await shard_records(streams, stream, shard.shard_id)
    return records


def histories(records: list[ChangeRecord]) -> dict[str, list[ChangeRecord]]:
    """Records by key, in the order in which they were read."""
    by_key: dict[str, list[ChangeRecord]] = {}
    for record in records:
        by_key.setdefault(record.key.wire.decode(), []).append(record)
    return by_key


def chained(records: list[ChangeRecord]) -> bool:
    """Whether every old image is the new image before it, and numbers only rise, for every key."""
    return all(
        before.new == after.old and int(before.sequence) < int(after.sequence)
        for history in histories(records).values()
        for before, after in pairwise(history)
    )
