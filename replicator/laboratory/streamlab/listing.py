"""What DescribeStream shows of a stream: late, stale, paged, with holes and with lies when asked.

Invariant: the truth is never touched; a lie ends by itself, after its time or its number of showings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any
from zlib import crc32

from replicator.laboratory.streamlab.options import Options
from replicator.laboratory.streamlab.refusals import ServiceError
from replicator.laboratory.streamlab.shard import LabShard
from replicator.laboratory.streamlab.stream import LabStream

MOST_SHARDS = 100


@dataclass(slots=True)
class Lie:
    """A shard is left out, or shown with other parents (None: as it is), until a moment or a number of showings."""

    shard_id: str
    hidden: bool
    parents: tuple[str, ...] | None
    until: float | None
    times: int | None

    def over(self, now: float) -> bool:
        """Whether the listing no longer states it."""
        return (self.until is not None and now >= self.until) or (self.times is not None and self.times <= 0)


@dataclass(slots=True)
class Listing:
    """The face of the laboratory's streams."""

    options: Options
    random: Random
    lies: dict[tuple[str, str], Lie] = field(default_factory=dict)
    """By stream ARN and shard id."""
    pages_to_lose: int = 0
    """So many next pages come without their shards."""

    def page(
        self, stream: LabStream, after: str | None, limit: int, parent: str | None, now: float
    ) -> tuple[list[dict[str, Any]], str | None]:
        """One page as DescribeStream's `Shards` and `LastEvaluatedShardId`; `parent`: only its children."""
        most = max(1, min(limit, self.options.page_size, MOST_SHARDS))
        found = list(islice(self._visible(stream, after, parent, now), most + 1))
        page, more = found[:most], len(found) > most
        shown = [self._shown(stream, shard, now) for shard in page]
        if page and self._lost():
            shown = []
        return shown, page[-1].shard_id if more else None

    def _visible(self, stream: LabStream, after: str | None, parent: str | None, now: float) -> Any:
        for shard in self._ordered(stream, after, parent):
            lie = self._lie(stream, shard, now)
            if lie is not None and lie.hidden:
                _told(lie)
            elif shard.listed_at <= now:
                yield shard

    def _ordered(self, stream: LabStream, after: str | None, parent: str | None) -> Any:
        names = stream.shards if parent is None else stream.children.get(parent, ())
        shards = [stream.shards[name] for name in names if name in stream.shards]
        match self.options.order:
            case "creation":
                return (shard for shard in shards if after is None or shard.shard_id > after)
            case "reversed":
                return (shard for shard in reversed(shards) if after is None or shard.shard_id < after)
        shards.sort(key=lambda shard: crc32(shard.shard_id.encode()))
        start = None if after is None else crc32(after.encode())
        return (shard for shard in shards if start is None or crc32(shard.shard_id.encode()) > start)

    def _shown(self, stream: LabStream, shard: LabShard, now: float) -> dict[str, Any]:
        parents = shard.parents
        lie = self._lie(stream, shard, now)
        if lie is not None and lie.parents is not None:
            parents = lie.parents
            _told(lie)
        numbers = {"StartingSequenceNumber": str(shard.first)}
        if shard.ending is not None and now >= shard.open_until:
            numbers["EndingSequenceNumber"] = str(shard.ending)
        names = ("ParentShardId", "AdjacentParentShardId")
        return {"ShardId": shard.shard_id, "SequenceNumberRange": numbers, **dict(zip(names, parents, strict=False))}

    def _lie(self, stream: LabStream, shard: LabShard, now: float) -> Lie | None:
        lie = self.lies.get((stream.arn, shard.shard_id)) if self.lies else None
        if lie is not None and lie.over(now):
            del self.lies[stream.arn, shard.shard_id]
            return None
        return lie

    def _lost(self) -> bool:
        if self.pages_to_lose > 0:
            self.pages_to_lose -= 1
            return True
        return self.options.missing_page_rate > 0 and self.random.random() < self.options.missing_page_rate

    def filtered(self, wanted: dict[str, str] | None) -> str | None:
        """The shard whose children are asked for, as far as this endpoint knows ShardFilter."""
        if not wanted or self.options.shard_filter == "ignored":
            return None
        if self.options.shard_filter == "refused":
            raise ServiceError("ValidationException", "Unknown parameter: ShardFilter")
        if wanted.get("Type") != "CHILD_SHARDS" or not wanted.get("ShardId"):
            raise ServiceError("ValidationException", "ShardFilter needs Type CHILD_SHARDS and a ShardId")
        return wanted["ShardId"]


def _told(lie: Lie) -> None:
    if lie.times is not None:
        lie.times -= 1
