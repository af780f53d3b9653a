"""Which shards a worker should claim and which it should hand over, as a pure plan.

Every worker plans for itself from what it sees; there is no leader. From the same view all come to the same
division, so they do not want the same shard; the coordination store decides what a stale view makes them race for, by
the epoch. Invariant: a plan never takes a shard from an owner that is alive, and hands over only what leaves the loads
closer together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

from msgspec import Struct, field

from replicator.domain.identifiers import ShardId, WorkerId

_HEAD_START_SECONDS = 2.0

_SUSPICION_SECONDS = (5.0, 60.0)
"""A suspect is doubted when it is passed over again after the first of these and before the second."""

_DOUBT_SECONDS = (60.0, 3600.0)
"""The shortest and the longest doubt."""

_DOUBLINGS = 20
"""After so many, every worker there can be tries."""


class Load(Struct, frozen=True):
    """What there is to read over all streams of the group, and how much of it each worker holds.

    `total` counts shards that are held or free now, and those just finished whose children are awaited: so a roll
    changes no share. `held` is what the rows show, of ourselves too, because the others see the same; `mine` is
    what we hold by now: with claims under way, without what we are handing over (None: what the rows show).
    """

    total: int
    held: Mapping[WorkerId, int]
    mine: int | None = None


class Free(Struct, frozen=True):
    """A shard that may be claimed: it has no owner, or its owner is dead.

    `ours`: we read its parent to the end, or its row has our name though we do not read it (the answer to a claim was
    lost): no other worker will take it. `theirs`: it never had an owner, and another worker read its parent, which will
    claim it at once. `waiting_seconds`: for how long we have seen it free.
    """

    shard_id: ShardId
    ours: bool = False
    theirs: bool = False
    waiting_seconds: float = 0.0


class Plan(Struct, frozen=True):
    """What a worker does next: shards to claim, in this order, and shards to hand over.

    `more`: a bound cut the plan short, so the next cycle should follow at once. `passed_over`: workers that have room
    and let a shard wait too long, with what they hold (`Doubts`).
    """

    claims: tuple[ShardId, ...]
    releases: tuple[ShardId, ...]
    more: bool = False
    passed_over: Mapping[WorkerId, int] = field(default_factory=dict)


class Bounds(Struct, frozen=True):
    """Bounds of one cycle."""

    claims: int = 64
    moves: int = 8
    patience_seconds: float = 5.0
    """A shard that stayed free for so long is claimed beyond one's share: the worker that should have it may be unable.

    Above zero, and longer than two cycles.
    """


def plan(  # noqa: PLR0913 - what a worker sees, and its bounds
    free: Iterable[Free],
    owned: Collection[ShardId],
    load: Load,
    *,
    me: WorkerId,
    live: Collection[WorkerId],
    bounds: Bounds,
    doubted: Collection[WorkerId] = (),
) -> Plan:
    """What to claim and what to hand over in one cycle of one stream.

    `owned`: shards of this stream that we read now and are not handing over. `live`: workers that beat, ourselves
    included. What is `ours` is claimed whatever our share. Everything else goes where there is room below
    the fair share, counted over all streams: each shard to one worker, by a drawing with one result for all that see
    the same. What waited for `patience_seconds` is claimed by others too, whatever their share, and by more of them
    the longer it waits. We hand over only what is above our share while another is below its share, and no more while
    `moves` shards lie free that others should take: so what is not taken does not pile up, and children that are about
    to be claimed delay nothing. Workers that are `doubted` keep what they hold, and the others share the rest.
    """
    workers = {*live, me}.difference(doubted) | {me}
    held = {worker: load.held.get(worker, 0) for worker in workers}
    kept = sum(load.held.get(worker, 0) for worker in {*live} - workers)
    mine = max(held[me] if load.mine is None else load.mine, len(owned))
    offered = list(free)
    total = max(load.total - kept, sum(held.values()) + len(offered))
    targets = _targets(held, total)
    rest = [shard for shard in offered if not (shard.ours or _is_awaited_by_its_reader(shard))]
    drawn = _drawn(rest, {worker: targets[worker] - count for worker, count in held.items()})
    overdue = [shard for shard in rest if shard.waiting_seconds >= bounds.patience_seconds]

    ours = [shard.shard_id for shard in offered if shard.ours]
    room = max(0, max(targets.values()) - mine - len(ours))
    fallen = [shard.shard_id for shard in rest if drawn.get(shard.shard_id) == me][:room]
    helped = [shard.shard_id for shard in overdue if _helps(me, workers, shard, bounds.patience_seconds)]
    claims = tuple(dict.fromkeys((*ours, *fallen, *helped)))
    surplus = mine - _targets(held | {me: mine}, total)[me]
    lying = {shard.shard_id for shard in rest}.difference(claims)
    moves = max(0, min(surplus, bounds.moves - len(lying)))
    passed_over = {drawn[shard.shard_id] for shard in overdue if shard.shard_id in drawn} - {me}
    return Plan(
        claims=claims[: bounds.claims],
        releases=tuple(sorted(owned, key=lambda shard_id: -_score(me, shard_id))[:moves]),
        more=len(claims) > bounds.claims,
        passed_over={worker: held[worker] for worker in passed_over},
    )


class Doubts:
    """Workers that beat, and do not take what falls to them: stuck, or without a rule for this stream.

    Without this, what is handed over to such a worker would come back to us, and again, for ever. One that was passed
    over twice and took nothing in between is doubted for a minute, then tried again; when it is passed over once more,
    the next doubt is twice as long, up to an hour.
    """

    def __init__(self) -> None:
        self._suspects: dict[WorkerId, tuple[float, int]] = {}
        """When a worker was first passed over, by the observer's own clock, and what it held then."""
        self._doubts: dict[WorkerId, tuple[float, float]] = {}
        """When a doubt ends, and how long it was."""

    def note(self, passed_over: Mapping[WorkerId, int], now: float) -> None:
        """Take in what a plan showed; `now` is in seconds of a clock that never jumps."""
        self._suspects = {
            worker: (since, held)
            for worker, (since, held) in self._suspects.items()
            if now - since < _SUSPICION_SECONDS[1] and passed_over.get(worker, held) <= held
        }
        for worker, held in passed_over.items():
            since, _ = self._suspects.setdefault(worker, (now, held))
            until, seconds = self._doubts.get(worker, (now, _DOUBT_SECONDS[0] / 2))
            proven = worker in self._doubts or now - since >= _SUSPICION_SECONDS[0]
            if proven and until <= now:
                longer = min(2 * seconds, _DOUBT_SECONDS[1])
                self._doubts[worker] = (now + longer, longer)
        self._doubts = {
            worker: (until, seconds) for worker, (until, seconds) in self._doubts.items() if now <= until + seconds
        }

    def at(self, now: float) -> frozenset[WorkerId]:
        """Workers that are doubted now."""
        return frozenset(worker for worker, (until, _) in self._doubts.items() if now < until)


def _is_awaited_by_its_reader(shard: Free) -> bool:
    """Whether a shard is left to the worker that read its parent, for a moment."""
    return shard.theirs and shard.waiting_seconds < _HEAD_START_SECONDS


def _targets(held: Mapping[WorkerId, int], total: int) -> dict[WorkerId, int]:
    """What each worker should hold: shares that differ by one at most, the greater ones where most is held already.

    So no worker has a surplus once loads differ by one, and as few shards as possible move before that.
    """
    share, over = divmod(max(total, sum(held.values())), len(held))
    order = sorted(held, key=lambda worker: (-held[worker], worker))
    return {worker: share + (place < over) for place, worker in enumerate(order)}


def _drawn(free: Iterable[Free], rooms: Mapping[WorkerId, int]) -> dict[ShardId, WorkerId]:
    """The worker that should claim each free shard: one with room, with a chance by how much room it has.

    There is room for all of them, because the shares count them.
    """
    left = {worker: room for worker, room in rooms.items() if room > 0}
    drawn: dict[ShardId, WorkerId] = {}
    for shard in free:
        winner = min(left, key=lambda worker: (_score(worker, shard.shard_id) / left[worker], worker))
        drawn[shard.shard_id] = winner
        left[winner] -= 1
        if not left[winner]:
            del left[winner]
    return drawn


def _helps(me: WorkerId, workers: Collection[WorkerId], shard: Free, patience_seconds: float) -> bool:
    """Whether we try for a shard that waited too long: two workers do, then four, then eight, until all do."""
    mine = _score(me, shard.shard_id)
    before = sum(_score(worker, shard.shard_id) < mine for worker in workers)
    return before < 2 ** min(shard.waiting_seconds // patience_seconds, _DOUBLINGS)


def _score(worker: WorkerId, shard_id: ShardId) -> float:
    """A worker's draw for a shard, above zero and the same wherever it is computed; the smallest wins.

    Draws are spread so that the smallest of draws divided by weights falls to each in proportion to its weight.
    """
    digest = blake2b(f"{worker}|{shard_id}".encode(), digest_size=6).digest()
    return -math.log((int.from_bytes(digest) + 0.5) / 2**48)
