"""One stream: its shards over the space of key hashes, and what becomes of them.

Invariant: the open shards cover every hash exactly once; a child's numbers lie above those of its parents, so the
numbers of one item only rise, whatever happens to its shard. Numbers of unrelated shards cannot be compared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from replicator.laboratory.streamlab.changes import HASH_SPACE, Change, record_text
from replicator.laboratory.streamlab.refusals import Refused
from replicator.laboratory.streamlab.shard import LabShard

_FIRST_ID = 1_414_562_045_508
_STEP_BITS = 10


@dataclass(frozen=True, slots=True)
class Delays:
    """How far a listing lags behind the truth, in seconds."""

    child_listed_after: float = 0.0
    parent_open_for: float = 0.0


NO_DELAYS = Delays()


@dataclass(slots=True, eq=False)
class LabStream:
    """A stream as its readers see it."""

    arn: str
    label: str
    table: str
    region: str
    account: str
    view: str
    key_schema: list[dict[str, str]]
    created_at: float
    random: Random
    digits: int = 21
    identity: str = "model"
    closed_at: float | None = None
    shards: dict[str, LabShard] = field(default_factory=dict)
    """Every shard that is not gone, in the order of their ids."""
    gone: list[LabShard] = field(default_factory=list)
    """Shards that vanished; their records are gone, their counts are not."""
    children: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    made: int = 0
    """Shards that it ever had."""
    records: int = 0
    """Records that it ever had."""
    _open: list[LabShard] = field(default_factory=list)
    _lows: list[int] = field(default_factory=list)

    def begin(self, shards: int, now: float) -> None:
        """Its first shards."""
        bounds = [HASH_SPACE * n // shards for n in range(shards + 1)]
        base = 10 ** (self.digits - 1)
        for low, high in pairwise(bounds):
            first = base + self.random.randrange(base * 4)
            self._insert(LabShard(self._next_id(), (), low, high, first, now, now))

    @property
    def open_shards(self) -> Sequence[LabShard]:
        """Open shards in the order of their hashes."""
        return self._open

    def shard(self, shard_id: str) -> LabShard:
        """A shard that is not gone."""
        try:
            return self.shards[shard_id]
        except KeyError:
            raise Refused(f"Stream {self.arn} has no shard {shard_id}.") from None

    def append(self, change: Change, now: float) -> LabShard:
        """Add a change to the shard of its key."""
        return self.put(
            change.hashed, lambda number: record_text(change, number, self.view, self.region, self.identity), now
        )

    def put(self, hashed: int, text: Callable[[int], bytes], now: float) -> LabShard:
        """Add a record to the shard of a hash; `text` is what it is by its number."""
        shard = self._open[bisect_right(self._lows, hashed) - 1]
        number = shard.number + 1 + self.random.getrandbits(_STEP_BITS)
        shard.append(number, text(number), now)
        self.records += 1
        return shard

    # -- lineage ---------------------------------------------------------------------------------------------------

    def split(self, shard: LabShard, now: float, delays: Delays = NO_DELAYS) -> list[LabShard]:
        """Close a shard; two children share its keys."""
        if shard.high - shard.low < 2:  # noqa: PLR2004 - one for each child
            raise Refused(f"Shard {shard.shard_id} has a single hash and cannot be split.")
        middle = (shard.low + shard.high) // 2
        return self._replace((shard,), ((shard.low, middle), (middle, shard.high)), now, delays)

    def merge(self, left: LabShard, right: LabShard, now: float, delays: Delays = NO_DELAYS) -> list[LabShard]:
        """Close two neighbours; one child has the keys of both."""
        if left.high != right.low:
            left, right = right, left
        if left.high != right.low:
            raise Refused(f"Shards {left.shard_id} and {right.shard_id} are no neighbours.")
        return self._replace((left, right), ((left.low, right.high),), now, delays)

    def roll(self, shard: LabShard, now: float, delays: Delays = NO_DELAYS) -> list[LabShard]:
        """Close a shard; one child goes on with its keys."""
        return self._replace((shard,), ((shard.low, shard.high),), now, delays)

    def close(self, now: float) -> None:
        """The stream is disabled: what it has stays readable."""
        for shard in list(self._open):
            self._shut(shard, now)
        self.closed_at = now

    def _replace(
        self, parents: Sequence[LabShard], ranges: Iterable[tuple[int, int]], now: float, delays: Delays
    ) -> list[LabShard]:
        for parent in parents:
            if not parent.is_open:
                raise Refused(f"Shard {parent.shard_id} is closed already.")
        for parent in parents:
            self._shut(parent, now)
            parent.open_until = now + delays.parent_open_for
        above = max(parent.number for parent in parents) + 1
        names = tuple(parent.shard_id for parent in parents)
        children = [
            LabShard(self._next_id(), names, low, high, above + self._jump(), now, now + delays.child_listed_after)
            for low, high in ranges
        ]
        for child in children:
            self._insert(child)
        return children

    def _shut(self, shard: LabShard, now: float) -> None:
        shard.close(shard.number + self._jump(), now)
        at = self._open.index(shard)
        del self._open[at], self._lows[at]

    def _insert(self, shard: LabShard) -> None:
        self.shards[shard.shard_id] = shard
        for parent in shard.parents:
            self.children[parent].append(shard.shard_id)
        at = bisect_right(self._lows, shard.low)
        self._open.insert(at, shard)
        self._lows.insert(at, shard.low)

    def _next_id(self) -> str:
        self.made += 1
        return f"shardId-{_FIRST_ID + self.made:020d}-{self.random.getrandbits(32):08x}"

    def _jump(self) -> int:
        return 1 + self.random.getrandbits(32)

    # -- retention -------------------------------------------------------------------------------------------------

    def forget(self, shard: LabShard, *, parents_too: bool = False) -> None:
        """Let a closed shard vanish with its records; with `parents_too`, its children no longer name it."""
        if shard.is_open:
            raise Refused(f"Shard {shard.shard_id} is open; only closed shards vanish.")
        del self.shards[shard.shard_id]
        shard.trim(shard.total)
        self.gone.append(shard)
        children = self.children.pop(shard.shard_id, [])
        if parents_too:
            for child in (self.shards[name] for name in children if name in self.shards):
                child.parents = tuple(parent for parent in child.parents if parent != shard.shard_id)

    def sweep(self, horizon: float) -> None:
        """Forget what is older than the horizon: records, and shards that were closed before it."""
        for shard in list(self.shards.values()):
            if not shard.is_open and shard.closed_at < horizon:
                self.forget(shard)
            elif shard.times and shard.times[0] < horizon:
                shard.trim(shard.older_than(horizon))
