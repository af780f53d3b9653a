"""One source for one session: its streams one behind the other, and in each the cycle of looking and acting.

A cycle follows the heartbeat, and news: shards freed or found, members that come, go or die. Invariant: a stream is
left only when it was read to its end, listed several times in a row without more, and has a successor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from replicator.domain.errors import ReplicatorError, WorldMismatch
from replicator.domain.records import RegionId, TableName
from replicator.domain.rules import Rule
from replicator.engine.describing import DescribeBudget
from replicator.engine.discovery import Discovery
from replicator.engine.generations import Generations
from replicator.engine.holdings import Holdings
from replicator.engine.leases import Session
from replicator.engine.members import Members
from replicator.engine.pacing import Limits, backoff, pause, pause_for_any
from replicator.engine.shard import ShardPorts
from replicator.engine.view import Loads
from replicator.ports import StreamRef

_DRAINED_LISTINGS = 3
"""So many listings in a row must show nothing left to read, because a child may be listed late."""

_FREE_SECONDS = 1.0
"""Time between two cycles while something is free."""

_MOVES_SECONDS = 0.5
"""Time between two cycles while others are to take what we hand over: then more may follow."""

_BREATH_SECONDS = 0.2
"""Time between the beginnings of two cycles at least, however much happens."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source table, and the rules that read its stream."""

    region: RegionId
    table: TableName
    rules: tuple[Rule, ...]
    ports: ShardPorts


class StreamCoordinator:
    """One source's shards, for one session of this worker."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        source: Source,
        session: Session,
        members: Members,
        budget: DescribeBudget,
        loads: Loads,
        *,
        limits: Limits,
        stop: asyncio.Event,
    ) -> None:
        self._source = source
        self._ports = source.ports
        self._generations = Generations(source.region, source.table, source.rules, source.ports)
        self._session = session
        self._members = members
        self._budget = budget
        self._loads = loads
        self._limits = limits
        self._stop = stop
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Read the table's streams, an old one to its end before its successor, until the program stops."""
        self._members.listen(self._wake.set)
        try:
            await self._run()
        finally:
            self._members.unlisten(self._wake.set)

    async def _run(self) -> None:
        name = f"stream of {self._source.table} in {self._source.region}"
        failures = 0
        while not self._stop.is_set():
            try:
                ref = await self._generations.first()
            except ReplicatorError as error:
                self._ports.observer.cycle(None, 0, 0)
                self._ports.observer.service_failed(name, error)
                failures += 1
                await pause(self._stop, backoff(failures + 2, self._limits.backoff_seconds))
                continue
            self._ports.observer.service_recovered(name)
            failures = 0
            await self._follow(ref)

    async def _follow(self, ref: StreamRef) -> None:
        """Read one stream until it is drained and replaced, or the program stops."""
        discovery = Discovery(ref, self._ports, self._members, self._budget, limits=self._limits, wake=self._wake.set)
        shards = Holdings(
            ref,
            rules=self._source.rules,
            ports=self._ports,
            session=self._session,
            members=self._members,
            discovery=discovery,
            loads=self._loads,
            limits=self._limits,
            wake=self._wake.set,
        )
        name = f"shards of {ref.table} in {ref.region}"
        async with asyncio.TaskGroup() as group:
            group.create_task(discovery.run(), name=f"discovery of {ref.table} in {ref.region}")
            failures = 0
            drained = False
            while not drained and not self._stop.is_set():
                self._wake.clear()
                began_at = self._ports.clock.monotonic()
                wait = self._limits.heartbeat_seconds
                try:
                    more = await shards.cycle(group)
                    drained = await self._is_drained(ref, shards, discovery)
                    self._ports.observer.service_recovered(name)
                    failures = 0
                    wait = 0.0 if more or drained else min(wait, self._longest_wait(shards))
                except ReplicatorError as error:
                    failures += 1
                    self._ports.observer.service_failed(name, error)
                    wait = backoff(failures + 2, self._limits.backoff_seconds)
                shards.tell()
                await pause_for_any(wait, self._wake, self._stop)
                await pause(self._stop, began_at + _BREATH_SECONDS - self._ports.clock.monotonic())
            await self._end(ref, shards, discovery)

    def _longest_wait(self, shards: Holdings) -> float:
        if shards.moves:
            return _MOVES_SECONDS
        return _FREE_SECONDS if shards.expects else self._limits.heartbeat_seconds

    async def _end(self, ref: StreamRef, shards: Holdings, discovery: Discovery) -> None:
        """Stop every shard at once, tell the others to take over, and let somebody else discover."""
        shards.stop()
        try:
            await discovery.leave()
        except ReplicatorError as error:
            self._ports.observer.service_failed(f"shards of {ref.table} in {ref.region}", error)

    async def _is_drained(self, ref: StreamRef, shards: Holdings, discovery: Discovery) -> bool:
        """Whether a stream was read to its end and replaced; its targets then go on with its successor."""
        if not shards.read_out or discovery.waits:
            discovery.settle(settling=False)
            return False
        if not discovery.settling:
            discovery.settle(settling=True)
            shards.settled_at = discovery.completed
        if not discovery.seated:
            shards.settled_at = discovery.completed
            return await self._generations.is_drained(ref)
        listings = discovery.completed - shards.settled_at
        if listings >= _DRAINED_LISTINGS or (listings and discovery.gone):
            successor = await self._generations.successor(ref)
            if successor is not None:
                await self._generations.pass_on(ref, successor)
                return True
            if discovery.gone:
                raise WorldMismatch(
                    f"The stream {ref.arn} of {ref.table} in {ref.region} no longer exists.",
                    advice="If the table's stream was disabled more than a day ago, enable it again.",
                )
        return False
