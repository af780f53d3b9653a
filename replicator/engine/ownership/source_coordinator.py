"""One source for one session: its streams, each followed for the rules that are to read it now.

Invariant: a rule reads one stream of the table at a time. A rule that stands on an old stream holds no other there.
"""

from __future__ import annotations

import asyncio

from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.domain.shards.loads import Loads
from replicator.engine.applying.draining import Drainer, DrainPorts
from replicator.engine.applying.owing import Owing
from replicator.engine.discovery.describe_rate import DescribeBudget
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.ownership.sources import Source
from replicator.engine.ownership.stream_coordinator import SessionPorts, StreamCoordinator
from replicator.engine.ownership.stream_succession import StreamSuccession
from replicator.engine.service import Service
from replicator.engine.waiting import Flag
from replicator.ports.services import ServiceKind, owed_service, source_service

_LONGEST_DRAIN = 86_400.0
_LONGEST_REST = 2.0
"""A drain that failed is tried again soon: what it waits for is a table at home, or a lease."""


class SourceCoordinator:
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
        self._succession = StreamSuccession(source.region, source.table, source.rules, source.ports, source.succession)
        self._shared = SessionPorts(session, members, budget, loads, limits, stop)
        self._limits = limits
        self._service = source_service(ServiceKind.SOURCE, source.region, source.table)
        self._coordinators: dict[StreamRef, tuple[StreamCoordinator, asyncio.Task[None]]] = {}
        self._changed = Flag()

    async def run(self) -> None:
        """Read the table's streams, an old one to its end before its successor, until the program stops."""
        limits = self._limits
        service = Service(
            self._service, self._ports.observer, (self._shared.stop,), limits.backoff_seconds, limits.stall_seconds
        )
        async with asyncio.TaskGroup() as group:
            parked = source_service(ServiceKind.PARKED, self._source.region, self._source.table)
            watch = Service(parked, service.observer, service.over, service.longest, service.hang_seconds)
            group.create_task(watch.run(self._refresh_parked), name=parked.shown)
            for rule in self._source.rules:
                for target in rule.targets:
                    for owing in self._ports.targets[target.target_id].owing.values():
                        group.create_task(
                            self._drain(rule, target, owing), name=f"drain for {owing.partner.name} by {rule.name}"
                        )
            await service.run(lambda: self._arrange(group), self._changed)

    async def _refresh_parked(self) -> float:
        """Look what of the open rows was settled or added elsewhere."""
        for ports in self._ports.targets.values():
            for parking in ports.parkings:
                await parking.refresh()
        return self._limits.owed_seconds

    async def _drain(self, rule: Rule, target: Target, owing: Owing) -> None:
        """Look after one region that may be owed keys of this source, until the program stops."""
        shared, changed, partner = self._shared, Flag(), owing.partner
        ports = DrainPorts(
            self._ports.servers,
            self._ports.observer,
            ShardFence(shared.session),
            self._limits,
            shared.stop,
            shared.session.worker,
        )
        drainer = Drainer(
            rule,
            owing,
            self._ports.targets[target.target_id],
            ports,
            seated=lambda: any(each.seated for each, _ in self._coordinators.values()),
            is_paused=lambda: (rule.name, partner.name) in shared.members.resting,
        )
        name = owed_service(self._source.region, self._source.table, rule.name, partner.name)
        # Draining may take hours, so a long attempt is no sign of an answer that is missing.
        service = Service(name, ports.observer, (shared.stop,), _LONGEST_REST, _LONGEST_DRAIN)
        partner.listen(changed)
        shared.members.listen(changed.set)
        try:
            await service.run(drainer.look, changed)
        finally:
            shared.members.unlisten(changed.set)
            partner.unlisten(changed)

    async def _arrange(self, group: asyncio.TaskGroup) -> float:
        """Follow each stream that some rule is to read, for those rules."""
        due = await self._succession.due()
        self._coordinators = {ref: each for ref, each in self._coordinators.items() if not each[1].done()}
        for ref, (coordinator, _) in self._coordinators.items():
            if ref not in due.streams:
                coordinator.read_for((), others_come=False)
        older = 0
        for ref, rules in due.streams.items():
            if ref not in self._coordinators:
                self._coordinators[ref] = self._follow(ref, group)
            coordinator, _ = self._coordinators[ref]
            if not coordinator.over.is_set():  # else it is on its way out, and we are called when it is
                coordinator.read_for(rules, others_come=older > 0)
            older += len(rules)
        if due.trouble is not None:
            raise due.trouble
        return float("inf")

    def _follow(self, ref: StreamRef, group: asyncio.TaskGroup) -> tuple[StreamCoordinator, asyncio.Task[None]]:
        coordinator = StreamCoordinator(ref, self._ports, self._shared, self._succession, changed=self._changed.set)
        task = group.create_task(coordinator.run(), name=f"stream {ref.arn} in {ref.region}")
        task.add_done_callback(lambda _: self._changed.set())
        return coordinator, task
