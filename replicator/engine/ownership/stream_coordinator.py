"""One stream of a source, for one session: the cycle of looking and acting, until each of its rules is through.

A cycle follows the heartbeat, and news: shards freed or found, members that come, go or die. Invariant: a rule leaves a
stream only when it was read to its end for that rule, listed several times and for a while without more, and has a
successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from msgspec import Struct

from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.identifiers import RuleName
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.loads import Loads
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.discovery.discovery import Discovery
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.engine.ownership.lease_cleanup import LeaseCleanup
from replicator.engine.ownership.owned_shards import OwnedShards
from replicator.engine.ownership.stream_succession import StreamSuccession
from replicator.engine.service import Service
from replicator.engine.shard.worker import ShardPorts
from replicator.engine.waiting import Flag, pause_for_any, retry_in
from replicator.ports.services import ServiceKind, stream_service

_DRAINED_LISTINGS = 3
"""So many listings in a row must show nothing left to read, because a child may be listed late."""

_FREE_SECONDS = 1.0
"""Time between two cycles while something is free."""

_MOVES_SECONDS = 0.5
"""Time between two cycles while others are to take what we hand over: then more may follow."""

_BREATH_SECONDS = 0.2
"""Time between the beginnings of two cycles at least, however much happens."""


class SessionPorts(Struct, frozen=True):
    """What the streams of one session share."""

    session: Session
    members: Members
    budget: DescribeBudget
    loads: Loads
    limits: Limits
    stop: asyncio.Event


class _ReadOut(Struct, frozen=True):
    """When everything known was first seen to be read to its end, and how many listings were complete by then."""

    at: float
    listings: int


class StreamCoordinator:
    """What one session does about one stream."""

    def __init__(
        self,
        ref: StreamRef,
        ports: ShardPorts,
        shared: SessionPorts,
        succession: StreamSuccession,
        *,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when a rule is through."""
        self._ref = ref
        self._ports = ports
        self._shared = shared
        self._limits = shared.limits
        self._succession = succession
        self._changed = changed
        self._name = stream_service(ServiceKind.SHARDS, ref)
        self._wake = Flag()
        self._began_at = float("-inf")
        self._rules: tuple[Rule, ...] = ()
        self._read_out: dict[RuleName, _ReadOut] = {}
        self._looked_at = float("-inf")
        self._alone = False
        self._kept: float | None = None
        self.over = Flag()
        """Set when nothing is to be read here any more."""
        self._service = Service(
            self._name,
            ports.observer,
            (self.over, shared.stop),
            self._limits.backoff_seconds,
            self._limits.stall_seconds,
        )
        self._discovery = Discovery(
            ref, ports, shared.members, shared.budget, limits=shared.limits, wake=self._wake.set
        )
        self._lease_cleanup = LeaseCleanup(ref, ports, succession.targets)
        self._shards = OwnedShards(
            ref,
            rules=(),
            ports=ports,
            session=shared.session,
            members=shared.members,
            discovery=self._discovery,
            loads=shared.loads,
            limits=shared.limits,
            wake=self._wake.set,
        )

    @property
    def seated(self) -> bool:
        """Whether this worker has the stream's seat."""
        return self._discovery.seated

    def read_for(self, rules: tuple[Rule, ...], *, others_come: bool) -> None:
        """From now on read for these rules; for none: end."""
        if not rules:
            self.over.set()
        self._rules = rules
        self._shards.read_for(rules, others_come=others_come)
        self._wake.set()

    async def run(self) -> None:
        """Read until every rule is through, or the program stops."""
        members = self._shared.members
        members.listen(self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._discovery.run(), name=f"discovery for {self._name.shown}")
                await self._service.run(lambda: self._cycle(group), self._wake)
                await self._end()
        finally:
            members.unlisten(self._wake.set)
            self._shards.leave()
            if not self._shared.stop.is_set():
                self._ports.observer.stream_left(self._ref)

    async def _cycle(self, group: asyncio.TaskGroup) -> float:
        """Look at the rows and act; returns in how many seconds to look again."""
        rest = self._began_at + _BREATH_SECONDS - self._ports.clock.monotonic()
        await pause_for_any(rest, self.over, self._shared.stop)
        self._began_at = self._ports.clock.monotonic()
        try:
            more = await self._shards.cycle(group)
            await self._judge()
            await self._note_kept()
            if self._discovery.seated:
                await self._lease_cleanup.clear()
        finally:
            self._shards.report()
        return 0.0 if more else min(self._limits.heartbeat_seconds, self._longest_wait)

    async def _note_kept(self) -> None:
        """Tell and store how long the stream keeps records, when that became another time."""
        kept = self._ports.stream.kept_seconds(self._ref)
        if kept is not None and kept != self._kept:
            self._ports.observer.kept(self._ref, kept)
            await self._ports.registry.remember_stream(self._ref, kept_seconds=kept)
            self._kept = kept

    @property
    def _longest_wait(self) -> float:
        if self._shards.moves:
            return _MOVES_SECONDS
        return _FREE_SECONDS if self._shards.expects else self._limits.heartbeat_seconds

    async def _end(self) -> None:
        """Stop every shard at once, tell the others to take over, and let another worker discover.

        A seat that stays with a worker that lives and does not list the stream would keep every other from listing it.
        """
        self._shards.stop()
        failures = 0
        while not self._shared.session.over.is_set():
            try:
                await self._discovery.leave()
            except ReplicatorError as error:
                self._ports.observer.service_failed(self._name, error)
                wait = retry_in(error, failures + 3, self._limits.backoff_seconds)
            else:
                return
            if self._shared.stop.is_set():
                return
            failures += 1
            await pause_for_any(wait, self._shared.stop, self._shared.session.over)

    # -- when a stream is left -------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        """Let rules that are through go on with the successor, and note those that others found to be."""
        now, listings = self._ports.clock.monotonic(), self._discovery.completed
        rules = [] if self._discovery.waits else [rule for rule in self._rules if self._shards.read_out(rule)]
        self._read_out = {rule.name: self._read_out.get(rule.name, _ReadOut(now, listings)) for rule in rules}
        await self._look_alone(now)
        self._discovery.settle(settling=bool(rules), alone=self._alone)
        if not rules:
            return
        through = await self._succession.through(self._ref)
        ripe = [rule for rule in rules if rule.name not in through and self._is_ripe(rule, now)]
        if ripe and await self._pass_on(ripe):
            through.update(rule.name for rule in ripe)
            self._shared.members.announce()
        self._leave(through.intersection(self._read_out))

    async def _look_alone(self, now: float) -> None:
        """Find out ourselves whether more comes, when the one that has the seat runs without our rule, or is stuck."""
        late = 2 * self._limits.drained_seconds
        if self._discovery.seated or not any(now - each.at >= late for each in self._read_out.values()):
            self._alone = False
        elif not self._alone and now - self._looked_at >= self._limits.drained_seconds:
            self._looked_at = now
            self._alone = await self._succession.successor(self._ref) is not None

    def _is_ripe(self, rule: Rule, now: float) -> bool:
        """Whether nothing more was found for long enough. Of a stream that is gone nothing more will come."""
        if not (self._discovery.seated or self._alone):
            return False
        since = self._read_out[rule.name]
        listings = self._discovery.completed - since.listings
        waited = listings >= _DRAINED_LISTINGS and now - since.at >= self._limits.drained_seconds
        return waited or (listings > 0 and self._discovery.gone)

    async def _pass_on(self, rules: Collection[Rule]) -> bool:
        successor = await self._succession.successor(self._ref)
        if successor is not None:
            await self._succession.pass_on(self._ref, successor, rules)
            return True
        if self._discovery.gone:
            raise WorldMismatch(
                f"The stream {self._ref.arn} of {self._ref.table} in {self._ref.region} no longer exists.",
                advice="If the table's stream was disabled more than a day ago, enable it again.",
            )
        return False

    def _leave(self, through: Collection[RuleName]) -> None:
        if through:
            self.read_for(tuple(rule for rule in self._rules if rule.name not in through), others_come=False)
            self._changed()
