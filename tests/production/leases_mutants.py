"""Guards of leases and of what workers tell, taken out: `leases`'s scenarios must not survive without them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

from replicator.adapters.dynamodb.coordination.names import Names
from replicator.domain.errors import LeaseLost
from replicator.domain.modes import ordered
from replicator.domain.modes.requests import AbsentOrStampBelow, Delete, Done, GuardedPut
from replicator.domain.shards.standstill import Watch
from replicator.domain.values import replace
from replicator.engine import service
from replicator.engine.applying.usual_puts import UsualPut, UsualPuts
from replicator.engine.discovery.seat import SeatHolder
from replicator.engine.membership.session import Session
from replicator.engine.ownership import owned_shards
from replicator.engine.ownership.owned_shards import OwnedShards
from replicator.engine.ownership.running_shards import RunningShards
from replicator.engine.shard import pipeline
from replicator.engine.shard import worker as shard
from replicator.engine.shard.checkpoints import Progress
from replicator.engine.shard.pipeline import Pipeline
from replicator.engine.shard.worker import ShardWorker
from replicator.laboratory.memory import MemoryCoordination, region
from replicator.observability.observer import LiveObserver
from replicator.observability.readiness import unready
from replicator.observability.status_board import Board
from replicator.ports.services import ServiceId, ServiceKind
from tests.production.guarantee import Mutant


def _nothing(_: Any) -> Any:
    return lambda self, *_, **__: None


# -- 11, 20: what comes too late -------------------------------------------------------------------------------------


def _any_epoch(_: Any) -> Any:
    return lambda self, lease: self.row(lease.stream, lease.shard_id)


def _refused_and_ignored(_: Any) -> Any:
    async def flush(self: Any) -> None:
        saved, self._dirty = self._dirty, {}
        try:
            if saved:
                await self._ports.coordination.save(self._lease, saved)
        except LeaseLost:
            pass

    return flush


def _always_holds(_: Any) -> Any:
    return lambda when, item: True


def _without_tombstone(_: Any) -> Any:
    def remove(change: Any, policy: Any) -> Any:
        answer = yield Delete(change.key, AbsentOrStampBelow(change.version))
        return ordered.Outcome(ordered.Effect.DELETED if isinstance(answer, Done) else ordered.Effect.STALE)

    return remove


def _without_looking_at_tombstones(_: Any) -> Any:
    def insert(change: Any, policy: Any, when: Any) -> Any:
        return (yield ordered._plain_put(change, when))

    return insert


def _usual_without_looking_at_tombstones(original: Any) -> Any:
    def of(self: Any, run: Any) -> Any:
        usual = original(self, run)
        if usual is not None and isinstance(usual.request, GuardedPut):
            return UsualPut(usual.request.put, usual.version, usual.drops)
        return usual

    return of


ZOMBIES = {
    "deadline_of_the_lease": Mutant(
        "a worker fences itself by the monotonic clock", ((Session, "expire_if_due", _nothing),)
    ),
    "epoch_on_progress": Mutant("a checkpoint needs the lease's epoch", ((MemoryCoordination, "_ours", _any_epoch),)),
    "refusal_ends_the_work": Mutant(
        "a refused checkpoint, or a row that names another, ends the work",
        ((Progress, "flush", _refused_and_ignored), (RunningShards, "compare", _nothing)),
    ),
    "versioned_writes": Mutant("writes are conditional on the version", ((region, "holds", _always_holds),)),
}
DELETES = {
    "tombstones": Mutant("a delete leaves a tombstone", ((ordered, "_remove", _without_tombstone),)),
    "inserts_look_at_tombstones": Mutant(
        "an insert looks at the tombstone, on the general way and on the short one",
        (
            (ordered, "_insert", _without_looking_at_tombstones),
            (UsualPuts, "of", _usual_without_looking_at_tombstones),
        ),
    ),
}

# -- 12, 14: hand-offs -----------------------------------------------------------------------------------------------


def _never_released(_: Any) -> Any:
    async def last_flush(self: Any) -> None:
        await self.progress.flush()

    return last_flush


def _without_bound_of_moves(original: Any) -> Any:
    return lambda claims, moves: original(claims=claims, moves=10**6)


def _always_hands_over(original: Any) -> Any:
    def plan(free: Any, owned: Any, *args: Any, **kwargs: Any) -> Any:
        decided = original(free, owned, *args, **kwargs)
        return replace(decided, releases=decided.releases or (() if free else tuple(sorted(owned)[:1])))

    return plan


def _not_found(_: Any) -> Any:
    return lambda error, kind: False


def _no_standstill(_: Any) -> Any:
    return lambda self, *_: []


def _unwatched(_: Any) -> Any:
    return lambda *_: nullcontext()


def _serves_all(original: Any) -> Any:
    async def claim(self: Any, stream: Any, seen: Any, owner: Any, serves: Any = ()) -> Any:
        everything = {target for row in self.rows(stream).values() for target in row.checkpoints}
        return await original(self, stream, seen, owner, {*serves, *everything})

    return claim


def _only_of_the_dead(_: Any) -> Any:
    return lambda self, seat, now: seat is None or seat.owner is None or self._members.is_expired(seat.owner)


HAND_OFFS = {
    "given_back_in_the_row": Mutant(
        "who stops gives its leases back", ((ShardWorker, "_last_flush", _never_released),)
    ),
    "rows_are_compared": Mutant("what the rows say is not ours is ended", ((RunningShards, "compare", _nothing),)),
    "watchdog": Mutant("a standstill is reported", ((Pipeline, "stall", _nothing),)),
}
WAITS = {
    "rows_are_watched": Mutant("what no pipeline answers for is told", ((Watch, "look", _no_standstill),)),
    "owners_say_what_they_run": Mutant(
        "a row names the targets that its owner runs", ((MemoryCoordination, "claim", _serves_all),)
    ),
    "calls_are_watched": Mutant("a call without an answer is told", ((service, "watched", _unwatched),)),
    "seats_are_renewed": Mutant(
        "a seat is with a worker that lists", ((SeatHolder, "_may_be_taken", _only_of_the_dead),)
    ),
}
MOVES = {
    "bound_of_moves": Mutant("moves are bounded", ((owned_shards, "Bounds", _without_bound_of_moves),)),
    "only_a_surplus_moves": Mutant("only what is above the share moves", ((owned_shards, "plan", _always_hands_over),)),
    "losing_is_normal": Mutant(
        "a lost lease is told apart from a fault", ((shard, "found", _not_found), (pipeline, "found", _not_found))
    ),
}

# -- 13: looks alive -------------------------------------------------------------------------------------------------


def _heartbeats_count(original: Any) -> Any:
    def service_recovered(self: Any, service: ServiceId) -> None:
        if service.kind is ServiceKind.HEARTBEAT:
            self._board.attempted(None, 0)
        original(self, service)

    return service_recovered


def _unhealthy_when_not_ready(original: Any) -> Any:
    def health(self: Any) -> Any:
        with patch.object(Board, "health", original):  # which readiness asks
            return "; ".join(unready(self)) or original(self)

    return health


ALIVE = {
    "attempts_count_heartbeats_do_not": Mutant(
        "health is what the coordinator attempts", ((LiveObserver, "service_recovered", _heartbeats_count),)
    ),
    "watchdog": Mutant("a standstill is reported", ((ShardWorker, "_watch", _nothing),)),
    "health_is_not_readiness": Mutant(
        "an outage is no reason to restart", ((Board, "health", _unhealthy_when_not_ready),)
    ),
}

# -- 15: what leases cost --------------------------------------------------------------------------------------------


def _renewed_one_by_one(original: Any) -> Any:
    async def cycle(self: Any, group: Any) -> bool:
        for running in list(self._running._running.values()):
            await self._ports.coordination.save(running.worker.lease, {})
        return bool(await original(self, group))

    return cycle


def _saved_at_once(original: Any) -> Any:
    return lambda self, seconds: original(self, 0.0)


COST = {
    "one_heartbeat_per_worker": Mutant(
        "leases are kept by one heartbeat", ((OwnedShards, "cycle", _renewed_one_by_one),)
    ),
    "checkpoints_in_time": Mutant("checkpoints wait for each other", ((Progress, "_save_in", _saved_at_once),)),
}

# -- 33: groups ------------------------------------------------------------------------------------------------------


def _partition(text: str) -> Any:
    return lambda _: property(lambda self: text)


def _stream_alone(_: Any) -> Any:
    return lambda self, stream: f"{stream.region}|{stream.arn}"


GROUPS = {
    f"group_in_the_key_of_{name}": Mutant(f"the group is part of the key of {name}", ((Names, name, make),))
    for name, make in (
        ("stream", _stream_alone),
        *((name, _partition(name)) for name in ("workers", "rules", "streams", "gaps")),
    )
}
