"""What belongs to the group and to no worker of its own: one worker looks after it for all.

Targets on shards that no worker reads, paused rules, held rules, and workers that fell silent have figures, too; each
worker that reads a shard reports it itself. The one that looks after the rest is the first of those that live, by id:
every worker comes to the same answer from the same pulses, so there is nothing to claim and nothing to renew, and when
it dies the next one takes over as soon as it counts as dead. Invariant: two tell the same for a moment at most, while
one comes or goes; a worker whose pulse was not seen to move neither keeps others from it nor takes it from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import RegionId, ShardId, TableName, WorkerId
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import KnownStream, StreamRef, StreamState
from replicator.domain.shards.snapshot import Snapshot
from replicator.domain.shards.standstill import Observed, Why
from replicator.domain.shards.unread import HELD, NO_STREAM, Unread, unread
from replicator.domain.targets import TargetId
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.engine.service import Service
from replicator.ports.clock import Clock
from replicator.ports.coordination import Coordination, Registry
from replicator.ports.events import Observer, Overview, UnreadShard
from replicator.ports.services import ServiceId, ServiceKind

_SERVICE = ServiceId(ServiceKind.OVERVIEW)

_LOOK_SECONDS = 5.0
_MOST_SECONDS = 60.0
_RESTS_PER_LOOK = 20
"""Behind a look that took long, so many times that long passes until the next one, within the bounds above."""

_Spot = tuple[StreamRef, ShardId | None, TargetId]


class GroupPorts(Struct, frozen=True):
    """Where the group's rows are, and which rules it has: those that run, and those that are held."""

    coordination: Coordination
    registry: Registry
    running: Callable[[], Sequence[Rule]]
    resting: Callable[[], Sequence[Rule]]


class Overlooker:
    """Looks after what no worker reads, for one session."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        session: Session,
        members: Members,
        ports: GroupPorts,
        *,
        limits: Limits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._session = session
        self._members = members
        self._ports = ports
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._beats: dict[WorkerId, int] = {}
        """The pulse of each worker as it was seen first."""
        self._due_at = float("-inf")
        self._since: dict[_Spot, tuple[float | None, float]] = {}

    async def watch(self) -> None:
        """Look again and again until the session is over."""
        limits = self._limits
        service = Service(
            _SERVICE, self._observer, (self._session.over,), limits.heartbeat_seconds, limits.stall_seconds
        )
        await service.run(self._look)

    async def _look(self) -> float:
        now = self._clock.monotonic()
        first = self._first()
        if first == self._members.me and now >= self._due_at:
            running, resting = tuple(self._ports.running()), tuple(self._ports.resting())
            self._observer.overview(await self._overview(running, resting))
            took = self._clock.monotonic() - now
            self._due_at = now + took + min(_MOST_SECONDS, max(_LOOK_SECONDS, _RESTS_PER_LOOK * took))
        elif first not in {None, self._members.me}:
            self._due_at = float("-inf")
            self._observer.overview(None)
        return self._limits.watch_seconds

    def _first(self) -> WorkerId | None:
        """The worker whose turn it is; None while that is not known, because one was not seen to move yet."""
        members, live = self._members, self._members.live
        pulses = members.pulses
        self._beats = {worker: self._beats.get(worker, pulse.beat) for worker, pulse in pulses.items()}
        moving = {worker for worker in live if worker in pulses and pulses[worker].beat != self._beats[worker]}
        sure = moving | (live & {members.me})
        first = min(sure, default=None)
        unsure = live - sure
        return None if first is None or any(worker < first for worker in unsure) else first

    # -- one look ------------------------------------------------------------------------------------------------------

    async def _overview(self, running: Sequence[Rule], resting: Sequence[Rule]) -> Overview:
        found: list[Unread] = []
        held = set(map(id, resting))
        for (region, table), rules in _by_source((*running, *resting)).items():
            states: dict[StreamRef, StreamState] = {}
            known = await self._ports.registry.streams(region, table)
            for rule in rules:
                found += await self._unread(rule, known, states, is_held=id(rule) in held)
        names = {rule.name for rule in (*running, *resting)}
        return Overview(
            tuple(self._standing(found)),
            {name: since for name, since in self._members.paused.items() if name in names},
            live=len(self._members.live),
            silent=sum(map(self._members.is_expired, self._members.pulses)),
        )

    async def _unread(
        self, rule: Rule, known: Sequence[KnownStream], states: dict[StreamRef, StreamState], *, is_held: bool
    ) -> list[Unread]:
        """What a rule does not get read on the stream that it reads: the oldest that it began and is not through with.

        `states`: the rows of streams, each read once.
        """
        targets = {target.target_id for target in rule.targets}
        read = [each for each in known if each.ref.kinesis == rule.kinesis]  # it may have read another kind before
        due = [each.ref for each in read if not all(map(each.is_drained, targets))]
        try:
            for each in due:
                if each not in states:
                    states[each] = await self._ports.coordination.state(each)
        except WorldMismatch:  # a row that cannot be understood hides this rule's figures, and no other's
            state = HELD if is_held else Why.UNREADABLE_ROW.value
            return [Unread(due[-1], None, target, state, None) for target in rule.targets]
        ref = next((each for each in due if not targets.isdisjoint(states[each].starts)), due[-1] if due else None)
        if ref is None:
            nowhere = StreamRef(rule.source, rule.table, "", 0)
            state = HELD if is_held else NO_STREAM
            return [Unread(nowhere, None, target, state, None) for target in rule.targets]
        members = self._members
        observed = Observed(paused=members.paused, resting=members.resting, live=members.live)
        snapshot, found = Snapshot(states[ref], [rule]), list[Unread]()
        for target in rule.targets:
            found += unread(snapshot, rule.among([target]), ref, observed, members.statements, is_held=is_held)
            await asyncio.sleep(0)  # many shards take their time, and others have work
        return found

    def _standing(self, found: Sequence[Unread]) -> Sequence[UnreadShard]:
        """The same, with since when each has not moved, as far as this worker has seen."""
        now = self._clock.monotonic()
        since: dict[_Spot, tuple[float | None, float]] = {}
        for each in found:
            spot = (each.stream, each.shard_id, each.target.target_id)
            before = self._since.get(spot)
            since[spot] = before if before is not None and before[0] == each.through else (each.through, now)
        self._since = since
        return [
            UnreadShard(
                each.stream,
                each.shard_id,
                each.target,
                each.state,
                each.through,
                since[each.stream, each.shard_id, each.target.target_id][1],
            )
            for each in found
        ]


def _by_source(rules: Sequence[Rule]) -> Mapping[tuple[RegionId, TableName], list[Rule]]:
    found: dict[tuple[RegionId, TableName], list[Rule]] = {}
    for rule in rules:
        found.setdefault((rule.source, rule.table), []).append(rule)
    return found
