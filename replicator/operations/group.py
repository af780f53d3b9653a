"""A group as operations see it: its stored rows, its live workers, and how a shard's positions change.

Invariant: nothing here needs a worker; a shard changes in one conditional write that ends its owner's epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_places
from replicator.adapters.dynamodb.coordination import (
    CoordinationTable,
    DynamoCoordination,
    DynamoJobs,
    DynamoMembership,
    DynamoRegistry,
    FunctionNotes,
    Operations,
    StoredStream,
    stored_streams,
)
from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import WorkerId
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import Pulse, StreamRef
from replicator.operations.errors import NotThere, RequestRefused, ShardBusy

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.adapters.aws.servers_clock import ServersClock
    from replicator.domain.shards.leases import LeaseRow, Rewind
    from replicator.domain.targets import TargetId
    from replicator.settings import RuleSettings, Settings

ALIVE, SILENT, UNKNOWN = "alive", "silent", "unknown"
"""What is known of a worker: its heartbeat moves, or does not or is gone, or was not looked at twice."""

SHOW_SECONDS = 3.0
"""What only shows waits for an answer so long: a region that hangs must not hide for long what the others say."""

_LOOK_SECONDS = 0.25
_SLACK_SECONDS = 0.5
_TRIES = 5
_NEAR_NAMES = 2


@dataclass(frozen=True, slots=True)
class Move:
    """Where targets of a shard go on (None: as if they had never read it), and what they skip from there on."""

    positions: Mapping[TargetId, Position | None] = field(default_factory=dict)
    rewinds: Mapping[TargetId, Rewind] = field(default_factory=dict)


def is_finished(row: LeaseRow, targets: Collection[TargetId]) -> bool:
    """Whether targets, if there are any, need nothing more of a shard."""
    return bool(targets) and all(row.checkpoints.get(target) == END for target in targets)


class Group:
    """The coordination rows of one group. `announce` is given a sentence before a wait of seconds."""

    def __init__(self, settings: Settings, places: Mapping[str, Place], announce: Callable[[str], None]) -> None:
        home = settings.coordination.region
        self.settings = settings
        self.places = places
        self.announce = announce
        self.table = CoordinationTable(
            places[home].dynamodb, table=settings.coordination.table, group=settings.group, region_id=home
        )
        self.coordination = DynamoCoordination(self.table)
        self.membership = DynamoMembership(self.table)
        self.registry = DynamoRegistry(self.table)
        self.operations = Operations(self.table)
        self.function_notes = FunctionNotes(self.table)
        self.jobs = DynamoJobs(self.table)

    async def time(self) -> ServersClock:
        """Servers' time: whatever operations write into rows has this, and not that of an operator's machine."""
        return await self.table.time()

    async def streams(self) -> list[StoredStream]:
        """Every stream that was ever read, oldest first."""
        return await stored_streams(self.table)

    # -- workers ---------------------------------------------------------------------------------------------------

    async def living(
        self, owners: Collection[WorkerId], pulses: Mapping[WorkerId, Pulse], seconds: float | None = None
    ) -> dict[WorkerId, str]:
        """Which of some workers are alive: whose beat moves within a time, or within a bit more than a heartbeat."""
        waiting = {worker for worker in owners if worker in pulses}
        seconds = seconds or self.settings.coordination.heartbeat.total_seconds() * 1.2 + _SLACK_SECONDS
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while waiting and loop.time() < deadline:
            await asyncio.sleep(min(_LOOK_SECONDS, seconds))
            now = await self.membership.members()
            waiting -= {worker for worker in waiting if worker in now and now[worker].beat != pulses[worker].beat}
        return {worker: SILENT if worker in waiting or worker not in pulses else ALIVE for worker in owners}

    async def refuse_living(self) -> None:
        """Refuse beside a living worker, which would write its positions over what changes."""
        pulses = await self.membership.members()
        states = await self.living(pulses, pulses, self.settings.coordination.lease.total_seconds())
        living = [worker for worker, state in states.items() if state == ALIVE]
        if living:
            raise WorldMismatch(
                f"Worker {', '.join(living)} of group {self.settings.group} is running.",
                advice="Stop every daemon of the group, then run this command again.",
            )

    # -- shards ----------------------------------------------------------------------------------------------------

    async def move(
        self, stream: StreamRef, row: LeaseRow, plan: Callable[[LeaseRow], Move | None]
    ) -> tuple[LeaseRow, Move] | None:
        """Change a shard as `plan` says of its row, which is read again when it changed meanwhile.

        Returns the row as it was and what was done; None when nothing is to be done, or there is no row any more.
        """
        seen: LeaseRow | None = row
        for _ in range(_TRIES):
            move = None if seen is None else plan(seen)
            if seen is None or move is None:
                return None
            if await self.operations.rewind(stream, seen, move.positions, move.rewinds):
                return seen, move
            seen = await self.operations.row(stream, row.shard_id)
        raise ShardBusy(f"Shard {row.shard_id} keeps changing hands.")


def _quiet(_: str) -> None:
    """For callers that wait in silence."""


@asynccontextmanager
async def open_group(
    settings: Settings,
    regions: Collection[str] = (),
    *,
    announce: Callable[[str], None] = _quiet,
    longest: float | None = None,
) -> AsyncIterator[Group]:
    """The group's rows, with clients of the coordination region and of some more; `longest` as in `open_places`."""
    async with open_places(settings, {settings.coordination.region, *regions}, longest=longest) as places:
        yield Group(settings, places, announce)


def rule_named(settings: Settings, name: str) -> RuleSettings:
    """A configured rule."""
    for rule in settings.rules:
        if rule.name == name:
            return rule
    raise _no_rule(settings, name)


def known_rule(settings: Settings, name: str | None, found: Sized) -> None:
    """Refuse a rule to choose by that is not configured, where nothing of it is found either."""
    if name is not None and not found and all(rule.name != name for rule in settings.rules):
        raise _no_rule(settings, name)


def _no_rule(settings: Settings, name: str) -> RequestRefused:
    names = [rule.name for rule in settings.rules]
    near = get_close_matches(name, names, n=_NEAR_NAMES)
    meant = f"Perhaps {' or '.join(near)} is meant. " if near else ""
    return NotThere(f"There is no rule {name}.", advice=f"{meant}Rules are: {', '.join(names)}.")
