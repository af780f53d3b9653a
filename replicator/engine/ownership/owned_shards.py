"""The shards of one stream that this session reads: look at the rows, plan, claim, hand over.

Every worker plans for itself from the rows and the members it sees; no leader stands in the way of a take-over.
Invariant: what we read is what the rows say is ours. A shard is handed over by ending its worker, which stores its
progress before it gives the lease back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import ShardId
from replicator.domain.kept_entries import with_those_of_parents
from replicator.domain.rules import Rule
from replicator.domain.shards import ownership
from replicator.domain.shards.assignment import Bounds, Doubts, plan
from replicator.domain.shards.leases import LeaseRow, StreamRef
from replicator.domain.shards.loads import Loads
from replicator.domain.shards.ownership import since
from replicator.domain.shards.snapshot import NOTHING, Snapshot
from replicator.domain.shards.standstill import Observed
from replicator.domain.values import replace
from replicator.engine.discovery.discovery import Discovery
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.engine.ownership.late_targets import LateTargets
from replicator.engine.ownership.running_shards import RunningShards
from replicator.engine.ownership.watchdog import Watchdog
from replicator.engine.shard.worker import ShardPorts
from replicator.ports.services import ServiceKind, stream_service

_FORGET_SECONDS = 600.0
"""A finished shard's row outlives its listing by this much: no worker then still has a listing that names the shard."""

_AWAITED_SECONDS = 60.0
"""A shard's children come soon behind its end, or never: a disabled stream's last shards count for nothing."""


class OwnedShards:
    """What one session owns of one stream."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        ref: StreamRef,
        *,
        rules: Sequence[Rule],
        ports: ShardPorts,
        session: Session,
        members: Members,
        discovery: Discovery,
        loads: Loads,
        limits: Limits,
        wake: Callable[[], None],
    ) -> None:
        """`wake` asks for a cycle."""
        self._ref = ref
        self._rules = rules
        self._others_come = False
        self._rows_service = stream_service(ServiceKind.ROWS, ref)
        self._ports = ports
        self._members = members
        self._discovery = discovery
        self._loads = loads
        self._limits = limits
        self._snapshot = Snapshot(NOTHING, rules)
        self._running = RunningShards(
            ref, ports=ports, session=session, members=members, ends=discovery, limits=limits, wake=wake
        )
        self._given_back: set[ShardId] = set()
        """Shards that ended while the rows were read, which may still show them as ours."""
        self._late_targets = LateTargets(ref, ports.stream)
        self._doubts = Doubts()
        self._free_since: dict[ShardId, float] = {}
        self._ended_since: dict[ShardId, float] = {}
        self._vanished_since: dict[ShardId, float] = {}
        self._watchdog = Watchdog(ref, limits=limits, clock=ports.clock, observer=ports.observer)

    def read_for(self, rules: Sequence[Rule], *, others_come: bool) -> None:
        """From now on read for these rules. `others_come`: more will, when they are through with an older stream."""
        self._rules = rules
        self._others_come = others_come

    def read_out(self, rule: Rule) -> bool:
        """Whether everything that is known was read to its end for a rule, when the rows were looked at last."""
        return self._snapshot.read_out(rule)

    @property
    def expects(self) -> bool:
        """Whether something is free that may fall to us soon, if those it falls to do not take it."""
        return not self._free_since.keys() <= set(self._running.shards)

    def report(self) -> None:
        """Report that a cycle was attempted."""
        snapshot = self._snapshot
        self._ports.observer.cycle(self._ref, len(snapshot.rows), len(self._running.shards), snapshot.open_shards)

    @property
    def moves(self) -> bool:
        """Whether something that we hand over is not taken yet."""
        return bool(self._loads.moving(self._ref))

    def stop(self) -> None:
        """End every shard gracefully, all at once."""
        self._loads.leave(self._ref)
        self._members.note_owners(self._ref, ())
        self._running.stop()

    def leave(self) -> None:
        """Nothing is read of the stream any more."""
        self._ports.holdings.leave(self._ref, self._running.shards)

    async def cycle(self, group: asyncio.TaskGroup) -> bool:
        """Look at the rows and act; returns whether there is more to do at once."""
        before = set(self._running.shards)
        state = await self._ports.coordination.state(self._ref)
        self._given_back = before - set(self._running.shards)
        self._snapshot = snapshot = Snapshot(state, self._rules)
        self._running.ran &= snapshot.rows.keys()
        self._members.note_owners(self._ref, snapshot.owners)
        self._discovery.see(state, self._running.ran)
        self._report_unreadable(state.unreadable)
        self._running.compare(state)
        self._running.serves = frozenset(target.target_id for rule in self._rules for target in rule.targets)
        wanted = ownership.wanted(
            snapshot,
            self._rules,
            paused=self._members.paused,
            readable=self._late_targets.readable,
            resting=self._members.resting,
        )
        self._running.offer(wanted.rules)
        if self._watchdog.is_due:
            self._watchdog.look(snapshot, self._observed())
        more = await self._plan(snapshot, wanted.rules, group)
        await self._discovery.claim_seat()
        await self._forget(snapshot)
        return await self._late_targets.look(wanted.late) or more

    def _observed(self) -> Observed:
        """What this worker knows beside the rows."""
        return Observed(
            paused=self._members.paused,
            resting=self._members.resting,
            live=self._members.live,
            reads=set(self._running.reads),
            ending=self._running.given_back,
            readable=self._late_targets.readable,
            unstored=self._discovery.unstored,
        )

    def _report_unreadable(self, error: WorldMismatch | None) -> None:
        """A row that cannot be understood holds its shard back, and no other."""
        if error is None:
            self._ports.observer.service_recovered(self._rows_service)
        else:
            self._ports.observer.service_failed(self._rows_service, error)

    async def _plan(self, snapshot: Snapshot, wanted: Mapping[ShardId, list[Rule]], group: asyncio.TaskGroup) -> bool:
        """Claim what is free and falls to us, and hand over what is above our share."""
        now = self._ports.clock.monotonic()
        ending = self._running.ending
        keeping = (set(self._running.shards) - ending) & wanted.keys()
        free = self._free(snapshot, wanted)
        self._free_since = since(self._free_since, free, now)
        load = snapshot.load(wanted, awaited=self._awaited(snapshot), mine=len(keeping))
        moving = self._loads.moving(self._ref) & (ending | free.keys() | self._given_back)
        self._loads.note(self._ref, load, moving)
        workers = len(self._members.live | {self._members.me})
        self._ports.holdings.tell(self._ref, self._running.shards, load.total, workers)
        me, ran, known = self._members.me, self._running.ran, snapshot.rows.keys()
        decided = plan(
            [
                ownership.offered(row, now - self._free_since[shard_id], me=me, read=ran, known=known)
                for shard_id, row in free.items()
            ],
            keeping,
            self._loads.all,
            me=me,
            live=self._members.live,
            bounds=Bounds(claims=self._limits.claims_per_cycle, moves=self._moves_left(free)),
            doubted=self._doubts.at(now),
        )
        self._doubts.note(decided.passed_over, now)
        mine = len(keeping) + len(decided.claims) - len(decided.releases)
        self._loads.note(self._ref, replace(load, mine=mine), moving.union(decided.releases))
        self._running.stop(decided.releases)
        rows = snapshot.rows
        seen = [replace(free[each], keeps=with_those_of_parents(free[each], rows)) for each in decided.claims]
        claims = [(row, wanted[row.shard_id]) for row in seen]
        await self._running.claim(claims, group, at=snapshot.state.at)
        return decided.more

    def _awaited(self, snapshot: Snapshot) -> int:
        """How many shards have ended whose children should come soon."""
        now = self._ports.clock.monotonic()
        self._ended_since = since(self._ended_since, snapshot.ended, now)
        return sum(now - ended_at < _AWAITED_SECONDS for ended_at in self._ended_since.values())

    def _moves_left(self, free: Collection[ShardId]) -> int:
        """How many more shards may be on the way from us to others; what lies free here is in the plan's sight."""
        on_the_way = self._loads.moves - len(self._loads.moving(self._ref).intersection(free))
        return self._limits.moves_per_cycle - on_the_way

    def _free(self, snapshot: Snapshot, wanted: Collection[ShardId]) -> dict[ShardId, LeaseRow]:
        held = {*self._running.shards, *self._given_back}
        candidates = [shard_id for shard_id in wanted if shard_id not in held]
        return ownership.free(snapshot.rows, candidates, self._members.me, self._members.is_expired)

    async def _forget(self, snapshot: Snapshot) -> None:
        """Drop rows of shards that no rule needs and that the stream listed no more for a while."""
        if not self._discovery.seated or self._others_come:
            self._vanished_since = {}
            return
        now = self._ports.clock.monotonic()
        rows = snapshot.forgettable()
        self._vanished_since = since(self._vanished_since, [row.shard_id for row in rows], now)
        for row in rows:
            if now - self._vanished_since[row.shard_id] >= _FORGET_SECONDS:
                await self._ports.coordination.forget(self._ref, row)
