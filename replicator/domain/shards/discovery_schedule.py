"""When a stream is asked for its shards, and what for: from what is known and awaited, without a call.

The children of a few shards are asked for one by one, those of many by listing the stream. All times are seconds on one
monotonic clock. Invariant: while an answer is awaited that must come some time, something falls due within the interval
of listings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from replicator.domain.identifiers import ShardId

LONG_AGO = -1e9
"""When something was last done that was never done."""

_SOON_SECONDS = 1.0
"""Time between two questions for the children of a shard that was read to its end."""
_NEWS_SHARE = 120.0
"""While nothing new is found, questions become rarer: after so long the time between two of them grows beyond that."""
_TICK_SECONDS = 0.01
_FEW_PARENTS = 5
"""For so many the children are asked for one by one; for more, the stream is listed."""
_NEVER = float("inf")


class Schedule(Struct, frozen=True):
    """What is awaited of one stream, and when it was last asked for."""

    interval: float
    """Time between the beginnings of two listings when nothing else is awaited."""
    news_at: float
    """When something new was last seen or awaited."""
    listed_at: float
    """When the last listing began."""
    parents: Mapping[ShardId, float]
    """Shards that were read to their ends and have no known child, with when their children were last asked for."""
    filters: bool
    """Whether the endpoint tells the children of one shard."""
    questions: Collection[ShardId]
    """Shards about which a reader waits to hear whether they are over, as far as their children may tell."""
    asks_listing: bool
    """Whether a reader waits for what only a listing tells."""
    under_way: bool
    """Whether a listing has begun and is not read to its end."""
    holds_back: bool
    """Whether shards were seen that cannot be stored yet."""
    seated: bool
    """Whether this worker lists the stream for all."""
    read_out: bool
    """Whether everything that is known was read to its end, and this worker is to find what comes next."""

    def subjects(self, now: float) -> set[ShardId]:
        """Shards whose children are to be asked for now."""
        return {*self.questions, *(each for each, at in self._asked.items() if now >= at + self._soon(at))}

    def one_by_one(self, subjects: Collection[ShardId]) -> bool:
        """Whether the children of so many are asked for one by one; the listing tells them otherwise."""
        return self.filters and len(subjects) <= _FEW_PARENTS

    @property
    def needs_listing(self) -> bool:
        """Whether a listing is of use at all."""
        return self._listing_seconds != _NEVER

    def listing_is_due(self, now: float) -> bool:
        """Whether the next page of a listing is to be asked for now."""
        return self.needs_listing and (self.under_way or now >= self.listed_at + self._listing_seconds)

    def due_in(self, now: float) -> float:
        """In how many seconds something is due again."""
        if self.under_way or self.questions:
            return 0.0
        waits = [self.listed_at + self._listing_seconds, *(at + self._soon(at) for at in self._asked.values())]
        left = min(waits) - now
        return 0.0 if left <= 0 else max(_TICK_SECONDS, left)

    @property
    def _asked(self) -> Mapping[ShardId, float]:
        """Parents whose children are asked for one by one."""
        return self.parents if self.one_by_one(self.parents) else {}

    @property
    def _listing_seconds(self) -> float:
        """Time between the beginnings of two listings."""
        if self.asks_listing:
            return 0.0
        # Something must show up in a listing: children that are not asked for one by one, a parent that holds seen
        # shards back, or what follows behind everything that was read.
        if (self.parents and not self._asked) or self.holds_back or self.read_out:
            return min(self._soon(self.listed_at), self.interval)
        return self.interval if self.seated else _NEVER

    def _soon(self, asked_at: float) -> float:
        """Time from one question to the next while an answer is awaited that must come some time."""
        soon = max(_SOON_SECONDS, (asked_at - self.news_at) / _NEWS_SHARE)
        return min(soon, max(_SOON_SECONDS, self.interval))
