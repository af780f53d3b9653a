"""Which shards this worker reads: discover, claim, start, and begin anew after a missed deadline.

Every worker claims for itself; no leader stands in the way of a take-over. A shard is read for a rule once all its
parents are stored as finished for that rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from replicator.domain.assignment import LeaseRow, claimable
from replicator.domain.errors import ReplicatorError, ShardGone, WorldMismatch
from replicator.domain.lineage import Shard, merged, ready
from replicator.domain.progress import END, HORIZON
from replicator.domain.records import RegionId, ShardId, TableName, WorkerId
from replicator.domain.rules import Rule, Target
from replicator.engine.leases import Heartbeats, Session, ShardFence
from replicator.engine.pacing import Limits, backoff, pause, pause_for_any
from replicator.engine.shard import ShardPorts, ShardWorker
from replicator.ports import Gap, Lease, Membership, StreamRef

_LEAF_SECONDS = 1.0
"""Time between listings while a finished shard has no listed child."""

_DRAINED_LISTINGS = 3
"""So many listings in a row must show nothing left to read, because a child may be listed late."""

_FORGET_SECONDS = 600.0
"""A finished shard's row outlives its listing by this much: no worker then still has a listing that names the shard."""


_PATIENCE_SECONDS = 30.0
"""A new owner has stored where it begins long before."""

_EVERY_SHARD = ShardId("every shard")
"""Where a gap lies that is behind a whole stream."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source table, and the rules that read its stream."""

    region: RegionId
    table: TableName
    rules: tuple[Rule, ...]
    ports: ShardPorts


@dataclass(slots=True)
class _View:
    """What this worker knows of a stream."""

    rows: Mapping[ShardId, LeaseRow] = field(default_factory=dict)
    listed: Mapping[ShardId, Shard] = field(default_factory=dict)
    listed_at: float = float("-inf")
    vanished: Mapping[ShardId, float] = field(default_factory=dict)
    """Shards whose row is older than a listing without them, by the time of the first; reading shows what is lost."""
    drained: int = 0
    """How many listings in a row showed nothing left to read."""

    def take_listing(self, listed: Mapping[ShardId, Shard], asked_at: float) -> None:
        """Take a listing that was asked for after `rows` were read; rows that come later may be of newer shards."""
        self.listed, self.listed_at = listed, asked_at
        self.vanished = {
            shard_id: self.vanished.get(shard_id, asked_at) for shard_id in self.rows if shard_id not in listed
        }

    @property
    def shards(self) -> Mapping[ShardId, Shard]:
        """Listed shards, and those that have a row but are listed no more."""
        vanished = {shard_id: Shard(shard_id, closed=True) for shard_id in self.vanished if shard_id in self.rows}
        return {**self.listed, **vanished}


class StreamCoordinator:
    """One source's shards, for one session of this worker."""

    def __init__(
        self, source: Source, membership: Membership, session: Session, *, limits: Limits, stop: asyncio.Event
    ) -> None:
        self._source = source
        self._ports = source.ports
        self._membership = membership
        self._session = session
        self._limits = limits
        self._stop = stop
        self._wake = asyncio.Event()
        self._workers: dict[ShardId, asyncio.Task[None]] = {}
        self._running: dict[ShardId, ShardWorker] = {}
        self._heartbeats = Heartbeats(limits.lease_seconds)
        self._unread: dict[str, float] = {}

    async def run(self) -> None:
        """Read the table's streams, an old one to its end before its successor, until the program stops."""
        name = f"stream of {self._source.table} in {self._source.region}"
        failures = 0
        while not self._stop.is_set():
            try:
                ref = await self._next_stream()
                await self._ports.registry.remember_stream(ref, drained=False)
            except ReplicatorError as error:
                self._ports.observer.cycle(None, 0, 0)
                self._ports.observer.service_failed(name, error)
                failures += 1
                await pause(self._stop, backoff(failures + 2, self._limits.backoff_seconds))
                continue
            self._ports.observer.service_recovered(name)
            failures = 0
            await self._follow(ref)

    async def _next_stream(self) -> StreamRef:
        """The oldest stream of this table that was begun and not drained, else the present one."""
        current = await self._ports.stream.current(self._source.table)
        known = await self._ports.registry.streams(self._source.region, self._source.table)
        older = [ref for ref in known if ref.generation < current.generation]
        return older[0] if older else current

    # -- one stream ------------------------------------------------------------------------------------------------

    async def _follow(self, ref: StreamRef) -> None:
        """Claim and read shards until the stream is drained and replaced, or the program stops."""
        view = _View()
        failures = 0
        name = f"shards of {ref.table} in {ref.region}"
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                self._wake.clear()
                wait = self._limits.heartbeat_seconds
                try:
                    if await self._look(ref, view):
                        return
                    await self._claim_and_start(ref, view, group)
                    await self._forget_vanished(ref, view)
                    self._ports.observer.service_recovered(name)
                    failures = 0
                except ReplicatorError as error:
                    failures += 1
                    self._ports.observer.service_failed(name, error)
                    wait = backoff(failures + 2, self._limits.backoff_seconds)
                self._ports.observer.cycle(ref, len(view.shards), len(self._workers))
                await pause_for_any(min(wait, self._listing_seconds(view)), self._wake, self._stop)

    async def _look(self, ref: StreamRef, view: _View) -> bool:
        """Read the rows, and list the shards when it is time; returns whether another stream is to be read now."""
        view.rows = await self._ports.coordination.rows(ref)
        asked_at = self._ports.clock.monotonic()
        if asked_at < view.listed_at + self._listing_seconds(view):
            return False
        gone = False
        try:
            view.take_listing(merged(await self._ports.stream.shards(ref)), asked_at)
        except ShardGone:
            gone = True
            view.take_listing({}, asked_at)
        view.drained = view.drained + 1 if self._drained(view) else 0
        if view.drained < _DRAINED_LISTINGS and not (view.drained and gone):
            return False
        if await self._replaced(ref):
            return True
        if gone:
            view.listed_at = float("-inf")
            raise WorldMismatch(
                f"The stream {ref.arn} of {ref.table} in {ref.region} no longer exists.",
                advice="If the table's stream was disabled more than a day ago, enable it again.",
            )
        return False

    def _listing_seconds(self, view: _View) -> float:
        """Time between two listings: short while a finished shard's children are awaited."""
        parents = {shard.parent for shard in view.listed.values()}
        awaiting = any(shard_id not in parents and self._done(view, shard_id) for shard_id in view.listed)
        return min(_LEAF_SECONDS, self._limits.discovery_seconds) if awaiting else self._limits.discovery_seconds

    async def _claim_and_start(self, ref: StreamRef, view: _View, group: asyncio.TaskGroup) -> None:
        """Take what is free and ready, and start what may start."""
        wanted = self._wanted(view)
        for shard_id, rules in wanted.items():
            if shard_id in self._running:
                self._running[shard_id].offer(rules)
        missing = [shard_id for shard_id in wanted if shard_id not in self._workers]
        if not missing:
            return
        expired, dead = await self._expired(view.rows)
        for shard_id in claimable(missing, view.rows, expired, at_most=self._limits.claims_per_cycle):
            await self._claim(ref, shard_id, view.rows.get(shard_id), wanted[shard_id], group)
        left = {
            view.rows[shard_id].owner for shard_id in missing if shard_id in view.rows.keys() - self._workers.keys()
        }
        for worker in dead - left:
            await self._membership.leave(worker)
        self._tell_unread(view, {shard_id: wanted[shard_id] for shard_id in missing if shard_id not in self._workers})

    def _tell_unread(self, view: _View, wanted: Mapping[ShardId, list[Rule]]) -> None:
        """Tell of rules that wait for a shard whose owner does not read it for them: it runs another configuration."""
        now = self._ports.clock.monotonic()
        unread = {
            f"rule {rule.name} on shard {shard_id}": row.owner
            for shard_id, rules in wanted.items()
            if (row := view.rows.get(shard_id)) is not None
            for rule in rules
            if any(target.target_id not in row.checkpoints for target in rule.targets)
        }
        for what in self._unread.keys() - unread.keys():
            del self._unread[what]
            self._ports.observer.service_recovered(what)
        for what, owner in unread.items():
            if now - self._unread.setdefault(what, now) > _PATIENCE_SECONDS:
                error = WorldMismatch(
                    f"Worker {owner} owns the shard and does not read it for this rule.",
                    advice="Give every worker of the group the same configuration; restart those with an older one.",
                )
                self._ports.observer.service_failed(what, error)

    def _wanted(self, view: _View) -> dict[ShardId, list[Rule]]:
        """Shards that some rule may read now, with those rules; parents first."""
        wanted: dict[ShardId, list[Rule]] = {}
        for rule in self._source.rules:
            finished = {shard_id for shard_id in view.shards if self._finished(view, rule, shard_id)}
            for shard_id in ready(view.shards, finished):
                wanted.setdefault(shard_id, []).append(rule)
        return wanted

    def _finished(self, view: _View, rule: Rule, shard_id: ShardId) -> bool:
        """Whether a rule needs nothing more of a shard. One that is listed no more cannot be missed by a new target."""
        row = view.rows.get(shard_id)
        stored = {} if row is None else row.checkpoints
        unknown = HORIZON if shard_id in view.listed or not stored else END
        return all(stored.get(target.target_id, unknown) == END for target in rule.targets)

    def _done(self, view: _View, shard_id: ShardId) -> bool:
        return all(self._finished(view, rule, shard_id) for rule in self._source.rules)

    async def _expired(self, rows: Mapping[ShardId, LeaseRow]) -> tuple[set[WorkerId], set[WorkerId]]:
        """Workers whose shards may be taken, and those of them that are dead and still among the members.

        We are one of the first: a shard that is ours though we do not read it was claimed by a call without an answer.
        """
        asked_at = self._ports.clock.monotonic()
        counters = await self._membership.members()
        owners = {row.owner for row in rows.values() if row.owner is not None}
        expired = self._heartbeats.observe(
            counters, owners, asked_at=asked_at, answered_at=self._ports.clock.monotonic()
        )
        us = {self._session.worker}
        return expired | us, (expired & counters.keys()) - us

    async def _claim(
        self, ref: StreamRef, shard_id: ShardId, seen: LeaseRow | None, rules: list[Rule], group: asyncio.TaskGroup
    ) -> None:
        self._session.check()
        row = await self._ports.coordination.claim(ref, shard_id, seen, self._session.worker)
        if row is None:
            return
        lease = Lease(ref, shard_id, self._session.worker, row.epoch)
        worker = ShardWorker(
            lease,
            row.checkpoints,
            self._ports,
            ShardFence(self._session),
            limits=self._limits,
            stop=self._stop,
            wake=self._wake.set,
        )
        worker.offer(rules)
        self._ports.observer.lease_claimed(lease)
        self._running[shard_id] = worker
        self._workers[shard_id] = group.create_task(self._work(worker), name=f"shard {shard_id}")

    async def _work(self, worker: ShardWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.lease.shard_id], self._running[worker.lease.shard_id]
            self._wake.set()

    async def _record_break(self, ref: StreamRef, target: Target) -> None:
        """No stream tells what was written between two streams of a table, so the place is recorded as a gap."""
        gap = Gap(
            stream=ref,
            shard_id=_EVERY_SHARD,
            target_id=target.target_id,
            after=END,
            found_at=self._ports.clock.now(),
            why="The stream was replaced; what was written while the table had none, or another, was never recorded.",
        )
        await self._ports.registry.record_gap(gap)
        self._ports.observer.gap_found(gap)

    async def _forget_vanished(self, ref: StreamRef, view: _View) -> None:
        """Drop rows of shards that every target finished and that the stream listed no more for a while."""
        now = self._ports.clock.monotonic()
        for shard_id, since in view.vanished.items():
            if shard_id in view.rows and now - since >= _FORGET_SECONDS and self._done(view, shard_id):
                await self._ports.coordination.forget(ref, shard_id)

    def _drained(self, view: _View) -> bool:
        """Whether every shard is closed and finished for every rule."""
        return not self._workers and all(
            shard.closed and self._done(view, shard_id) for shard_id, shard in view.shards.items()
        )

    async def _replaced(self, ref: StreamRef) -> bool:
        """Whether the table has another stream by now; its targets then go on there as if they had started on it.

        The successor holds changes from before its first reading, so a start at the latest must not begin anew with it.
        """
        current = await self._ports.stream.current(self._source.table)
        if current.arn == ref.arn:
            return False
        starts = await self._ports.registry.starts(ref)
        for rule in self._source.rules:
            for target in rule.targets:
                if target.target_id in starts:
                    started_at = starts[target.target_id].started_at
                    await self._ports.registry.start(current, target, started_at=started_at)
                    await self._record_break(ref, target)
        await self._ports.registry.remember_stream(ref, drained=True)
        return True
