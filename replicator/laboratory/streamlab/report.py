"""What is shown of the laboratory: `GET /_lab/stats` and `GET /_lab/streams`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from replicator.laboratory.streamlab.counters import Counters
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream
from replicator.laboratory.streamlab.tables import Tables


def stats(tables: Tables, counters: Counters) -> dict[str, Any]:
    """Everything that is counted.

    `skipped`: by consumer, the records that it was never given, of all streams of the tables that it reads.
    """
    streams = list(tables.streams())
    return counters.as_json() | {
        "records": sum(stream.records for stream in streams),
        "open_shards": sum(len(stream.open_shards) for stream in streams),
        "listed_shards": sum(len(stream.shards) for stream in streams),
        "skipped": _skipped(streams, counters),
        "most_reads_of_a_shard": max((readers.reads for readers in counters.readers.values()), default=0),
    }


def _skipped(streams: list[LabStream], counters: Counters) -> dict[str, int]:
    of_table: dict[tuple[str, str, str], list[LabShard]] = defaultdict(list)
    for stream in streams:
        of_table[stream.account, stream.region, stream.table] += [*stream.shards.values(), *stream.gone]
    skipped: dict[str, int] = {}
    for consumer in sorted({consumer for consumer, _ in counters.coverage}):
        read = [
            shards for shards in of_table.values() if any((consumer, shard) in counters.coverage for shard in shards)
        ]
        skipped[consumer] = sum(counters.skipped(consumer, shards) for shards in read)
    return skipped


def summary(stream: LabStream, counters: Counters) -> dict[str, Any]:
    """A stream with its shards."""
    return {
        "arn": stream.arn,
        "table": stream.table,
        "region": stream.region,
        "closed": stream.closed_at is not None,
        "records": stream.records,
        "shards": [_shard(shard, counters) for shard in stream.shards.values()],
        "gone": [shard.shard_id for shard in stream.gone],
    }


def _shard(shard: LabShard, counters: Counters) -> dict[str, Any]:
    readers = counters.readers.get(shard)
    return {
        "shard": shard.shard_id,
        "parents": shard.parents,
        "open": shard.is_open,
        "records": shard.total,
        "trimmed": shard.trimmed,
        "reads": 0 if readers is None else readers.reads,
        "most_readers_at_once": 0 if readers is None else readers.most,
    }
