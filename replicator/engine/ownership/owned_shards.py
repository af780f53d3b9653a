"""The shards of one stream that this session reads: look at the rows, plan, claim, start, hand over.

Every worker plans for itself from the rows and the members it sees; no leader stands in the way of a take-over.
Invariant: what we read is what the rows say is ours. A shard is handed over by ending its worker, which stores its
progress before it gives the lease back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.identifiers import ShardId
from replicator.domain.rules import Rule
from replicator.domain.shards.assignment import Bounds, Doubts, Free, plan
from replicator.domain.shards.leases import Lease, LeaseRow, StreamRef, StreamState
from replicator.domain.shards.loads import Loads
from replicator.domain.shards.snapshot import NOTHING, Snapshot
from replicator.domain.shards.standstill import Observed
from replicator.engine.discovery.discovery import Discovery
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.ownership.late_targets import Latecomers
from replicator.engine.ownership.watchdog import Watchdog
from replicator.engine.shard.worker import ShardPorts, ShardWorker
from replicator.ports.services import ServiceKind, stream_service

_FORGET_SECONDS = 600.0
"""A finished shard's row outlives its listing by this much: no worker then still has a listing that names the shard."""

_CLAIMS_AT_ONCE = 16

_AWAITED_SECONDS = 60.0
"""A shard's children come soon behind its end, or never: a disabled stream's last shards count for nobody's share."""


@dataclass(slots=True)
class _Running:
    """A shard that we read. `stop` ends it gracefully."""

    worker: ShardWorker
    fence: ShardFence
    stop: asyncio.Event


class Holdings:
    """What one session holds of one stream."""

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
        self._session = session
        self._members = members
        self._discovery = discovery
        self._loads = loads
        self._limits = limits
        self._wake = wake
        self._snapshot = Snapshot(NOTHING, rules)
        self._running: dict[ShardId, _Running] = {}
        self._ran: set[ShardId] = set()
        """Shards that we read in this session."""
        self._given_back: set[ShardId] = set()
        """Shards that ended while the rows were read, which may still show them as ours."""
        self._latecomers = Latecomers(ref, ports.stream)
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
        return not self._free_since.keys() <= self._running.keys()

    def tell(self) -> None:
        """Tell that a cycle was attempted."""
        snapshot = self._snapshot
        self._ports.observer.cycle(self._ref, len(snapshot.rows), len(self._running), snapshot.open_shards)

    @property
    def moves(self) -> bool:
        """Whether something that we hand over is not taken yet."""
        return bool(self._loads.moving(self._ref))

    def stop(self) -> None:
        """End every shard gracefully, all at once."""
        self._loads.leave(self._ref)
        self._members.note_owners(self._ref, ())
        for running in self._running.values():
            running.stop.set()

    def hush(self) -> None:
        """Take back what was told of rows and shards."""
        self._tell_unreadable(None)
        self._watchdog.end()

    async def cycle(self, group: asyncio.TaskGroup) -> bool:
        """Look at the rows and act; returns whether there is more to do at once."""
        before = set(self._running)
        state = await self._ports.coordination.state(self._ref)
        self._given_back = before - self._running.keys()
        self._snapshot = snapshot = Snapshot(state, self._rules)
        self._ran &= snapshot.rows.keys()
        self._members.note_owners(self._ref, snapshot.owners)
        self._discovery.see(state, self._ran)
        self._tell_unreadable(state.unreadable)
        self._compare(state)
        wanted, late = self._wanted(snapshot)
        self._offer(wanted)
        if self._watchdog.is_due:
            self._watchdog.look(snapshot, self._observed())
        more = await self._plan(snapshot, wanted, group)
        await self._discovery.claim_seat()
        await self._forget(snapshot)
        return await self._latecomers.look(late) or more

    def _observed(self) -> Observed:
        """What this worker knows beside the rows."""
        return Observed(
            paused=self._members.paused,
            live=self._members.live,
            reads={(shard_id, rule) for shard_id, running in self._running.items() for rule in running.worker.rules},
            readable=self._latecomers.readable,
            unstored=self._discovery.unstored,
        )

    def _wanted(self, snapshot: Snapshot) -> tuple[dict[ShardId, list[Rule]], set[ShardId]]:
        """Shards that may be read now, with the rules they are for; and those that latecomers are to ask for first."""
        wanted: dict[ShardId, list[Rule]] = {}
        late: set[ShardId] = set()
        for shard_id, rules in snapshot.wanted(
            rule for rule in self._rules if rule.name not in self._members.paused
        ).items():
            coming = [rule for rule in rules if snapshot.is_late(rule, shard_id)]
            late.update([shard_id] if coming else ())
            kept = rules if shard_id in self._latecomers.readable else [rule for rule in rules if rule not in coming]
            if kept:
                wanted[shard_id] = kept
        return wanted, late

    def _tell_unreadable(self, error: WorldMismatch | None) -> None:
        """A row that cannot be understood holds its shard back, and no other."""
        if error is None:
            self._ports.observer.service_recovered(self._rows_service)
        else:
            self._ports.observer.service_failed(self._rows_service, error)

    # -- what we read ----------------------------------------------------------------------------------------------

    def _compare(self, state: StreamState) -> None:
        """End what the rows say is no longer ours: quietly at first; what is stuck at the next look."""
        for shard_id, running in self._running.items():
            row, lease = state.rows.get(shard_id), running.worker.lease
            if row is None and state.unreadable is not None:
                continue
            if row is None or (row.owner, row.epoch) != (lease.owner, lease.epoch):
                if running.fence.revoked:
                    running.stop.set()
                running.fence.revoke()

    def _offer(self, wanted: Mapping[ShardId, list[Rule]]) -> None:
        """Start rules on shards that we read already, and end those that are paused."""
        for shard_id, running in self._running.items():
            for name in sorted(self._members.paused):
                running.worker.withdraw(name)
            if shard_id in wanted:
                running.worker.offer(wanted[shard_id])

    async def _plan(self, snapshot: Snapshot, wanted: Mapping[ShardId, list[Rule]], group: asyncio.TaskGroup) -> bool:
        """Claim what is free and falls to us, and hand over what is above our share."""
        ending = {shard_id for shard_id, running in self._running.items() if running.stop.is_set()}
        keeping = (self._running.keys() - ending) & wanted.keys()
        free = self._free(snapshot, wanted)
        load = snapshot.load(wanted, awaited=self._awaited(snapshot), mine=len(keeping))
        moving = self._loads.moving(self._ref) & (ending | free.keys() | self._given_back)
        self._loads.tell(self._ref, load, moving)
        now = self._ports.clock.monotonic()
        decided = plan(
            [self._offered(row, now - self._free_since[shard_id]) for shard_id, row in free.items()],
            keeping,
            self._loads.all,
            me=self._members.me,
            live=self._members.live,
            bounds=Bounds(claims=self._limits.claims_per_cycle, moves=self._moves_left(free)),
            doubted=self._doubts.at(now),
        )
        self._doubts.note(decided.passed_over, now)
        mine = len(keeping) + len(decided.claims) - len(decided.releases)
        self._loads.tell(self._ref, replace(load, mine=mine), moving.union(decided.releases))
        for shard_id in decided.releases:
            self._running[shard_id].stop.set()
        await self._claim_all([(free[shard_id], wanted[shard_id]) for shard_id in decided.claims], group)
        return decided.more

    def _awaited(self, snapshot: Snapshot) -> int:
        """How many shards have ended whose children should come soon."""
        now = self._ports.clock.monotonic()
        self._ended_since = {shard_id: self._ended_since.get(shard_id, now) for shard_id in snapshot.ended}
        return sum(now - since < _AWAITED_SECONDS for since in self._ended_since.values())

    def _moves_left(self, free: Collection[ShardId]) -> int:
        """How many more shards may be on the way from us to others; what lies free here is in the plan's sight."""
        on_the_way = self._loads.moves - len(self._loads.moving(self._ref).intersection(free))
        return self._limits.moves_per_cycle - on_the_way

    def _free(self, snapshot: Snapshot, wanted: Iterable[ShardId]) -> dict[ShardId, LeaseRow]:
        """Wanted shards that nobody alive owns. One is ours though we do not read it: a claim without an answer."""
        held = self._running.keys() | self._given_back
        rows = {shard_id: snapshot.rows[shard_id] for shard_id in wanted if shard_id not in held}
        free = {
            shard_id: row
            for shard_id, row in rows.items()
            if row.owner is None or row.owner == self._members.me or self._members.is_expired(row.owner)
        }
        now = self._ports.clock.monotonic()
        self._free_since = {shard_id: self._free_since.get(shard_id, now) for shard_id in free}
        return free

    def _offered(self, row: LeaseRow, waiting_seconds: float) -> Free:
        is_new = row.epoch == 0  # a child that somebody had is not its heir's any more: it was handed over
        ours = row.owner == self._members.me or (is_new and not self._ran.isdisjoint(row.shard.parents))
        theirs = is_new and not ours and not self._snapshot.rows.keys().isdisjoint(row.shard.parents)
        return Free(row.shard_id, ours=ours, theirs=theirs, waiting_seconds=waiting_seconds)

    # -- claims ----------------------------------------------------------------------------------------------------

    async def _claim_all(self, claims: Iterable[tuple[LeaseRow, list[Rule]]], group: asyncio.TaskGroup) -> None:
        """Claim some shards at once; one that fails hinders no other."""
        turns = asyncio.Semaphore(_CLAIMS_AT_ONCE)
        troubles: list[ReplicatorError] = []

        async def claim(row: LeaseRow, rules: list[Rule]) -> None:
            async with turns:
                try:
                    await self._claim(row, rules, group)
                except ReplicatorError as error:
                    troubles.append(error)

        async with asyncio.TaskGroup() as claiming:
            for row, rules in claims:
                claiming.create_task(claim(row, rules), name=f"claim {row.shard_id}")
        for trouble in troubles:
            raise trouble

    async def _claim(self, seen: LeaseRow, rules: list[Rule], group: asyncio.TaskGroup) -> None:
        self._session.check()
        serves = {target.target_id for rule in self._rules for target in rule.targets}
        row = await self._ports.coordination.claim(self._ref, seen, self._members.me, serves)
        if row is None:
            return
        lease = Lease(self._ref, row.shard_id, self._members.me, row.epoch)
        running = self._new(lease, row)
        running.worker.offer(rules)
        self._ports.observer.lease_claimed(lease)
        self._running[row.shard_id] = running
        self._ran.add(row.shard_id)
        group.create_task(self._work(running), name=f"shard {row.shard_id}")

    def _new(self, lease: Lease, row: LeaseRow) -> _Running:
        fence, stop = ShardFence(self._session), asyncio.Event()
        worker = ShardWorker(
            lease, row, self._ports, fence, limits=self._limits, stop=stop, wake=self._wake, ends=self._discovery
        )
        return _Running(worker, fence, stop)

    async def _work(self, running: _Running) -> None:
        try:
            await running.worker.run()
        finally:
            del self._running[running.worker.lease.shard_id]
            self._wake()
        if running.stop.is_set():
            self._members.announce()

    # -- what is forgotten ---------------------------------------------------------------------------------------------

    async def _forget(self, snapshot: Snapshot) -> None:
        """Drop rows of shards that nobody needs and that the stream listed no more for a while."""
        if not self._discovery.seated or self._others_come:
            self._vanished_since = {}
            return
        now = self._ports.clock.monotonic()
        rows = snapshot.forgettable()
        self._vanished_since = {row.shard_id: self._vanished_since.get(row.shard_id, now) for row in rows}
        for row in rows:
            if now - self._vanished_since[row.shard_id] >= _FORGET_SECONDS:
                await self._ports.coordination.forget(self._ref, row)
