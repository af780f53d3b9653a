"""What is stored about a group, as values, and who of it is alive: the ground of the commands for operators.

Invariant: nothing here needs a daemon, and nothing here changes a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.adapters.aws import wire
from replicator.adapters.clients import open_places
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoMembership,
    DynamoRegistry,
    Operations,
)
from replicator.domain.identifiers import RuleName, WorkerId
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import KnownStream, Pulse, StreamRef, StreamState
from replicator.domain.targets import TargetId
from replicator.operations.errors import RequestRefused

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.adapters.aws.clients import Place
    from replicator.domain.shards.leases import LeaseRow
    from replicator.settings import RuleSettings, Settings

ALIVE, SILENT, UNKNOWN = "alive", "silent", "unknown"
"""What is known of a worker: its heartbeat moves, or stands still or is gone, or nobody looked twice."""

_READS_AT_ONCE = 8
_LOOK_SECONDS = 0.25
_SLACK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ReadStream:
    """A stream that the group reads or read, and its rows."""

    stream: StreamRef
    drained: bool
    """Whether every rule that has progress here is through."""
    state: StreamState
    through: frozenset[RuleName] = frozenset()
    """Rules that are through."""

    @property
    def where(self) -> str:
        """The table, for people."""
        return f"{self.stream.region}:{self.stream.table}"

    @property
    def targets(self) -> set[TargetId]:
        """Ids of the targets that have a start or progress here."""
        return set(self.state.starts) | {name for row in self.state.rows.values() for name in row.checkpoints}

    def targets_of(self, rules: Collection[str]) -> set[TargetId]:
        """Those of some rules."""
        return {target for target in self.targets if target.rule in rules}


def is_finished(row: LeaseRow, targets: Collection[TargetId]) -> bool:
    """Whether targets, if there are any, need nothing more of a shard."""
    return bool(targets) and all(row.checkpoints.get(target) == END for target in targets)


class Group:
    """The coordination rows of one group."""

    def __init__(self, settings: Settings, places: Mapping[str, Place]) -> None:
        home = settings.coordination.region
        self.settings = settings
        self.places = places
        self.table = CoordinationTable(
            places[home].dynamodb, table=settings.coordination.table, group=settings.group, region_id=home
        )
        self.coordination = DynamoCoordination(self.table)
        self.membership = DynamoMembership(self.table)
        self.registry = DynamoRegistry(self.table)
        self.operations = Operations(self.table)

    async def streams(self) -> list[ReadStream]:
        """Every stream that was ever read, oldest first."""
        turn = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(known: KnownStream) -> ReadStream:
            async with turn:
                state = await self.coordination.state(known.ref)
            found = ReadStream(known.ref, known.closed, state, known.drained)
            rules = {target.rule for target in found.targets}
            return replace(found, drained=known.closed or (bool(rules) and rules <= known.drained))

        rows = await self.table.query(self.table.names.streams)
        found = await asyncio.gather(*(read(self.table.reader.known_stream(row)) for row in rows))
        return sorted(found, key=lambda read: (read.stream.generation, read.where))

    async def living(self, owners: Collection[WorkerId], pulses: Mapping[WorkerId, Pulse]) -> dict[WorkerId, str]:
        """Which of some workers are alive: whose beat moves within a bit more than a heartbeat."""
        waiting = {worker for worker in owners if worker in pulses}
        seconds = self.settings.coordination.heartbeat.total_seconds() * 1.2 + _SLACK_SECONDS
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while waiting and loop.time() < deadline:
            await asyncio.sleep(min(_LOOK_SECONDS, seconds))
            now = await self.membership.members()
            waiting -= {worker for worker in waiting if worker in now and now[worker].beat != pulses[worker].beat}
        return {worker: SILENT if worker in waiting or worker not in pulses else ALIVE for worker in owners}


@asynccontextmanager
async def open_group(settings: Settings, regions: Collection[str] = ()) -> AsyncIterator[Group]:
    """The group's rows, with clients of the coordination region and of some more."""
    async with open_places(settings, {settings.coordination.region, *regions}) as places:
        for region in set(regions):
            wire.prepare(places[region].streams)
        yield Group(settings, places)


def loaded(config: Path | None) -> Settings:
    """The settings of a command."""
    from replicator.settings.loading import configuration_path, load

    return load(configuration_path(config))


def rule_named(settings: Settings, name: str) -> RuleSettings:
    """A configured rule."""
    for rule in settings.rules:
        if rule.name == name:
            return rule
    names = ", ".join(rule.name for rule in settings.rules)
    raise RequestRefused(f"There is no rule {name}.", advice=f"Rules are: {names}.")


def shown_position(position: Position | None) -> str | None:
    """A position as it is stored; None of a target that never read the shard."""
    return None if position is None else position.text
